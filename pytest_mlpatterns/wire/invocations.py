"""Invocations: ``POST /invocations``, as MLflow's scoring server and SageMaker's containers define it; ``GET /ping``.

A request in JSON is a row of a table, ``{"dataframe_split": {"columns": [...], "data": [[...]]}}``, or any other value,
``{"instances": [...]}``; a dictionary that has one of the four forms already is the request itself. A request in CSV is
a row without a header. A response is ``{"predictions": ...}``, or JSON or CSV without that name.
"""

import csv
import io
import re
from collections.abc import Sequence
from typing import Any

from pytest_mlpatterns.wire.body import JSON_HEADERS, Body, Headers, WireError, json_in
from pytest_mlpatterns.wire.kserve_v1 import encode, encode_predictions
from pytest_mlpatterns.wording import shown

INVOCATIONS = "/invocations"  # Path of the requests
PING = "/ping"  # Path that answers 200 when the service is ready
CSV = "text/csv"  # Content type of rows
_SPLIT, _RECORDS = "dataframe_split", "dataframe_records"
_FORMS = ("instances", "inputs", _SPLIT, _RECORDS)
_EXPECTED = f"expected one of {', '.join(_FORMS)} with at least one row"
_WHOLE = re.compile(r" *[+-]?\d{1,4000} *", re.ASCII)  # Python reads no longer ones
_NUMBER = re.compile(r" *[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|nan|inf(inity)?) *", re.ASCII | re.IGNORECASE)
_LINES = ("application/jsonlines", "application/x-ndjson")


class _Codec:
    """The codec; see :class:`pytest_mlpatterns.wire.codec.Codec`."""

    def __init__(self, *, is_csv: bool = False) -> None:
        self._is_csv = is_csv

    def path(self, model: str) -> str:
        return INVOCATIONS

    def encode_inputs(self, inputs: Sequence[Any]) -> Body:
        if self._is_csv:
            return Body((_rows(inputs),), (("content-type", CSV),))
        return Body((encode(_message(list(inputs)), "input", inputs),), JSON_HEADERS)

    def decode_inputs(self, body: bytes | memoryview, headers: Headers) -> list[Any]:
        """Decode the rows of a request; a table's are dictionaries by column."""
        rows = _rows_in(body) if _is_csv(headers) else _instances(json_in(body))
        if not rows:
            raise WireError(f"the body has no rows, {_EXPECTED}")
        return rows

    def encode_outputs(self, outputs: Any) -> Body:
        return Body((encode_predictions(outputs),), JSON_HEADERS)

    def decode_outputs(self, body: bytes | memoryview, headers: Headers) -> list[Any]:
        """Decode the one output of a response: its only prediction, or all of them if it has none or several."""
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if _is_csv(headers):
            found: Any = [row[0] if len(row) == 1 else row for row in _rows_in(body)]
        elif kind in _LINES:
            found = [json_in(line) for line in bytes(body).splitlines() if line.strip()]
        else:
            message = json_in(body)
            found = message.get("predictions", message) if isinstance(message, dict) else message
        return found if isinstance(found, list) and len(found) == 1 else [found]


INVOCATIONS_JSON = _Codec()
INVOCATIONS_CSV = _Codec(is_csv=True)


def _message(inputs: list[Any]) -> dict[str, Any]:
    """The request for these inputs."""
    first = inputs[0]
    if isinstance(first, dict) and any(form in first for form in _FORMS):
        if len(inputs) > 1:
            raise WireError(f"{len(inputs)} inputs, expected one that is the request itself")
        return dict(first)
    if not all(map(_is_row, inputs)):
        return {"instances": inputs}
    columns = list(first)
    if any(row.keys() != first.keys() for row in inputs):
        return {_RECORDS: inputs}
    return {_SPLIT: {"columns": columns, "data": [[row[name] for name in columns] for row in inputs]}}


def _is_row(value: object) -> bool:
    """Whether a value is a row of a table: a cell for each column."""
    return isinstance(value, dict) and bool(value) and all(map(_is_cell, value.values()))


def _is_cell(value: object) -> bool:
    return value is None or isinstance(value, str | int | float) or getattr(value, "shape", None) == ()


def _instances(message: Any) -> list[Any]:
    """The rows of a request."""
    found = message if isinstance(message, dict) else {}
    form = next((form for form in _FORMS if form in found), None)
    value = found.get(form)
    if form == _SPLIT and isinstance(value, dict):
        columns, data = value.get("columns"), value.get("data")
        if isinstance(columns, list) and isinstance(data, list) and all(isinstance(row, list) for row in data):
            if any(len(row) != len(columns) for row in data):
                raise WireError(
                    f"{_SPLIT} has {len(columns)} columns, expected as many values in every row of its data"
                )
            return [dict(zip(map(str, columns), row, strict=True)) for row in data]
    elif form == "inputs" and isinstance(value, dict):
        lengths = {len(column) if isinstance(column, list) else -1 for column in value.values()}
        if len(lengths) == 1 and -1 not in lengths:
            return [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)]
    elif form is not None and form != _SPLIT and isinstance(value, list):
        return value
    raise WireError(f"the body is {shown(message)}, {_EXPECTED}")


def _is_csv(headers: Headers) -> bool:
    return headers.get("content-type", "").partition(";")[0].strip().lower() == CSV


def _rows(inputs: Sequence[Any]) -> bytes:
    """Inputs as rows of CSV."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    for value in inputs:
        plain = value.tolist() if hasattr(value, "tolist") else value
        row = list(plain) if isinstance(plain, list | tuple) else [plain]
        if not row or not all(map(_is_cell, row)):
            raise WireError(
                f"{shown(value)} is no row, expected a flat list of numbers and text; JSON carries the rest"
            )
        try:
            writer.writerow([cell.item() if hasattr(cell, "item") else cell for cell in row])
        except ValueError as error:  # a number of thousands of digits
            raise WireError(str(error)) from error
    try:
        return written.getvalue().encode()
    except UnicodeEncodeError as error:
        raise WireError(f"text that UTF-8 lacks: {error}") from error


def _rows_in(body: bytes | memoryview) -> list[list[Any]]:
    """The rows of CSV; a cell that is a number becomes one."""
    try:
        rows = csv.reader(io.StringIO(bytes(body).decode(), newline=""), strict=True)
        return [[_cell(text) for text in row] for row in rows if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise WireError(f"the body is not CSV: {error}") from None


def _cell(text: str) -> float | int | str:
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text) if _NUMBER.fullmatch(text) else text
