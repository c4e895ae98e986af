"""Limits as text, such as ``p95<50ms``, and tables of them by test: a mapping, or a TOML or CSV file.

This module must not know what is measured or judged.
"""

import csv
import functools
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.config.assertions import Limit, directed, read_limit, read_metric
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.records.objective import parts_of
from pytest_mlpatterns.records.price import Price
from pytest_mlpatterns.units import Unit, parse_ratio
from pytest_mlpatterns.wording import did_you_mean, named, shown

CALL = "assert_that"  # Where the text of a call stands, for messages
_TABLE = "assert_that(limits=)"  # Where its table stands
_BETTER: Mapping[str, Literal["lower", "higher"]] = {"<": "lower", ">=": "higher"}  # By the sign of a limit
_EXAMPLE = 'write "p95<50ms, throughput>=100"'  # What to do
_COLUMN = re.compile(r"(.*?)(?:\s*[\[(]\s*([^\])]+?)\s*[\])]|_(ns|us|ms|s))?", re.DOTALL)
"""The name of a figure, and its unit if that stands there: ``p95 [ms]``, ``p95_ms``."""


class Row(Struct, frozen=True):
    """The limits of one test, not read yet."""

    where: str  # they stand
    limits: object  # text, or figures by metric


def read_limits(rows: Sequence[Row], tolerance: object, *, price: Price | None) -> list[Limit]:
    """The limits of rows, widened by a tolerance in the direction in which the metric is worse."""
    share = parse_ratio(tolerance, name="assert_that(tolerance=...)")
    found: dict[str, Limit] = {}
    for row in rows:
        source = [f"limit of {row.where}"] if row.where != CALL else []
        source += [f"widened by {tolerance}"] if share else []
        for one in _limits_of(row, price):
            if one.metric.name in found:
                raise SettingError(f"{row.where} limits {one.metric.name}, expected one limit of it; leave one out")
            factor = 1 + share if one.metric.better == "lower" else max(1 - share, 0)
            found[one.metric.name] = replace(one, value=one.value * factor, source=", ".join(source))
    return list(found.values())


def _limits_of(row: Row, price: Price | None) -> list[Limit]:
    if isinstance(row.limits, Mapping):
        figures = [_figure(_written(name), value, row.where, price=price) for name, value in row.limits.items()]
    else:
        figures = []
        for part in parts_of(row.limits):
            where = f"{row.where}: {part.text}"
            if not part.sign:
                raise SettingError(f"{where}, expected a metric, < or >=, and a limit; {_EXAMPLE}")
            one = _figure(part.name, part.limit, where, price=price)
            sign = "<" if one.metric.better == "lower" else ">="
            advice = f"; write {part.name}{sign}{part.limit}"
            metric = directed(one.metric, _BETTER.get(part.sign), f"{where}, ", write=sign, advice=advice)
            figures.append(replace(one, metric=metric))
    if not figures:
        raise SettingError(f"{row.where} has {shown(row.limits)}, expected limits; {_EXAMPLE}")
    return figures


def _figure(name: str, value: object, where: str, *, price: Price | None) -> Limit:
    """A limit by the name of its metric; a plain number has the unit that stands beside the name."""
    match = _COLUMN.fullmatch(name.strip())
    assert match is not None  # it matches any name
    metric, given = read_metric(match[1], where), _written(value).strip()
    if metric.unit in (Unit.RATE, Unit.TOKEN_RATE):
        value = given.removesuffix(metric.unit.parts(0)[1])  # ``300 req/s``
    elif (unit := match[2] or match[3]) and given[-1:].isdigit():
        value = f"{given} {unit}"
    return read_limit(metric, value, f"{where}: {metric.name}", price=price)


def _written(value: object) -> str:
    return value if isinstance(value, str) else shown(value)


def read_row(table: object, test: str, folder: Path) -> Row:
    """The row of a test, named by the id of its parameters, by its function, or by both as pytest does.

    ``table``: the rows by name, or the path of a file from a folder.
    """
    if isinstance(table, Mapping):
        rows = {_written(name): Row(f"limits[{shown(name)}]", limits) for name, limits in table.items()}
    elif isinstance(table, str | PurePath) and str(table).endswith((".toml", ".csv")):
        path = folder / table
        try:
            rows = _rows_of(path, path.stat().st_mtime_ns)
        except (OSError, ValueError, csv.Error) as error:
            raise SettingError(f"{_TABLE}: {named(path)} cannot be read: {error}") from None
    else:
        raise SettingError(f"{_TABLE} is {shown(table)}, expected limits by parameter, or a .toml or .csv file of them")
    function, _, parameters = test.partition("[")
    function, parameters = function.rpartition("::")[2], parameters.removesuffix("]")
    for name in (test, f"{function}[{parameters}]", parameters, function):
        if name in rows:
            return rows[name]
    wanted, known = parameters or function, ", ".join(rows) or "none"
    hint = did_you_mean(wanted, rows)
    raise SettingError(f"{_TABLE} has no {shown(wanted)}, {hint}expected a row of this test; its rows are {known}")


@functools.lru_cache(maxsize=8)
def _rows_of(path: Path, _changed_ns: int) -> dict[str, Row]:
    """The rows of a file, read again only if it has changed."""
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix == ".toml":
        return {name: Row(f"{path.name}, {name}", limits) for name, limits in tomllib.loads(text).items()}
    reader = csv.reader(text.splitlines(), strict=True)
    header, rows = next(reader, []), {}
    for cells in filter(None, reader):
        where = f"{path.name}, line {reader.line_num}"
        if len(cells) != len(header) or len(cells) < 2 or cells[0].strip() in rows:
            expected = f"an id that is new, and {len(header) - 1} figures"
            raise ValueError(f"line {reader.line_num} is {shown(cells)}, expected {expected}")
        figures = {name: cell for name, cell in zip(header[1:], cells[1:], strict=True) if cell.strip()}
        rows[cells[0].strip()] = Row(where, figures)
    return rows
