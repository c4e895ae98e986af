"""Invocations of MLflow and SageMaker: which form a request has, and what is read of the answers of their servers."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.each_row import each_row
from support.synthetic import PROPERTY

from pytest_mlpatterns.wire import NotFiniteError, Wire, WireError, codec_of, decode_answer, encode_request
from pytest_mlpatterns.wire.invocations import INVOCATIONS_JSON

JSON, CSV = Wire.parse("invocations"), Wire.parse("invocations+csv")
ROW = {"age": 41, "city": "Ghent", "income": None}


def sent(value: Any, wire: Wire = JSON) -> Any:
    body = encode_request(wire, [value])
    return json.loads(body.joined()) if wire == JSON else body.joined()


def answer(body: bytes, kind: str = "application/json", wire: Wire = JSON) -> Any:
    (output,) = decode_answer(wire, body, {"content-type": kind})
    return output


def received(body: bytes, kind: str = "application/json") -> list[Any]:
    return INVOCATIONS_JSON.decode_inputs(body, {"content-type": kind})


class TestRequests:
    @each_row("value", [[5.1, 3.5], "a text", 3, {"text": ["several", "words"]}, {}, {"nested": {"a": 1}}])
    def test_a_value_is_an_instance(self, value: Any) -> None:
        assert sent(value) == {"instances": [value]}

    def test_an_array_is_an_instance(self) -> None:
        assert sent(np.ones((2, 2), np.float32)) == {"instances": [[[1.0, 1.0], [1.0, 1.0]]]}

    def test_a_dictionary_of_plain_values_is_a_row_of_a_table(self) -> None:
        assert sent(ROW) == {"dataframe_split": {"columns": ["age", "city", "income"], "data": [[41, "Ghent", None]]}}
        assert sent({"x": np.float32(0.5)}) == {"dataframe_split": {"columns": ["x"], "data": [[0.5]]}}

    def test_rows_with_the_same_columns_are_one_table_and_others_are_records(self) -> None:
        same = json.loads(encode_request(JSON, [{"a": 1, "b": 2}, {"b": 4, "a": 3}]).joined())
        assert same == {"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2], [3, 4]]}}
        other = json.loads(encode_request(JSON, [{"a": 1}, {"b": 2}]).joined())
        assert other == {"dataframe_records": [{"a": 1}, {"b": 2}]}

    @pytest.mark.parametrize("form", ["instances", "inputs", "dataframe_split", "dataframe_records"])
    def test_a_dictionary_with_a_form_is_the_request_itself(self, form: str) -> None:
        request = {form: [[1, 2]], "params": {"temperature": 0.1}}
        assert sent(request) == request
        with pytest.raises(WireError, match="2 inputs, expected one that is the request itself"):
            encode_request(JSON, [request, request])

    def test_what_json_lacks_is_refused(self) -> None:
        with pytest.raises(NotFiniteError, match="NaN at"):
            encode_request(JSON, [{"x": math.nan}])

    def test_a_row_of_csv_has_no_header(self) -> None:
        assert encode_request(CSV, [[1.5, 2, 'a "b", c']]).headers == (("content-type", "text/csv"),)
        assert sent([1.5, 2, 'a "b", c'], CSV) == b'1.5,2,"a ""b"", c"\n'
        assert sent(np.array([0.25, 4.0]), CSV) == b"0.25,4.0\n"
        assert sent((np.float64(0.1), None), CSV) == b"0.1,\n"
        assert sent(7, CSV) == b"7\n"

    @each_row("value", [[[1, 2]], {"a": 1}, [], np.ones((2, 2)), object()])
    def test_what_is_no_row_is_refused_as_csv(self, value: Any) -> None:
        with pytest.raises(WireError, match="is no row, expected a flat list of numbers and text; JSON carries"):
            encode_request(CSV, [value])

    def test_text_that_utf_8_lacks_is_refused(self) -> None:
        for wire in (JSON, CSV):
            with pytest.raises(WireError):
                encode_request(wire, [["\ud800"]])

    def test_a_number_longer_than_python_writes_is_refused(self) -> None:
        with pytest.raises(WireError, match="Exceeds the limit"):
            encode_request(CSV, [[10**5000]])

    def test_every_request_goes_to_one_path(self) -> None:
        assert {codec_of(wire).path("any") for wire in (JSON, CSV)} == {"/invocations"}


class TestAnswers:
    @each_row(
        ("body", "output"),
        (b'{"predictions": [0.7]}', 0.7),
        (b'{"predictions": [[0.1, 0.9]]}', [0.1, 0.9]),
        (b'{"predictions": [0.1, 0.9]}', [0.1, 0.9]),
        (b'{"predictions": []}', []),
        (b'{"predictions": {"label": "cat"}}', {"label": "cat"}),
        (b'{"predictions": [{"0": 1.5}]}', {"0": 1.5}),
        (b"[3]", 3),
        (b"[[1, 2]]", [1, 2]),
        (b'"yes"', "yes"),
        (b'{"score": 1}', {"score": 1}),
    )
    def test_an_answer_in_json_has_one_output(self, body: bytes, output: Any) -> None:
        assert answer(body) == output

    @each_row(
        ("body", "output"), [(b"0.73\n", 0.73), (b"0.1,0.9", [0.1, 0.9]), (b"cat\r\ndog\n", ["cat", "dog"]), (b"", [])]
    )
    def test_an_answer_in_csv_too(self, body: bytes, output: Any) -> None:
        assert answer(body, "text/csv; charset=utf-8", CSV) == output

    def test_and_one_in_lines_of_json(self) -> None:
        assert answer(b'{"score": 1}\n', "application/jsonlines") == {"score": 1}
        assert answer(b"1\n2\n", "application/x-ndjson") == [1, 2]

    @each_row(
        ("body", "kind", "reason"),
        (b"<html>", "text/html", "the body is not JSON"),
        (b'"open', "text/csv", "the body is not CSV"),
        (b"\xff\xfe", "text/csv", "the body is not CSV"),
    )
    def test_another_answer_is_refused(self, body: bytes, kind: str, reason: str) -> None:
        with pytest.raises(WireError, match=reason):
            answer(body, kind)


class TestReceived:
    @each_row(
        ("message", "rows"),
        ({"instances": [[1], [2]]}, [[1], [2]]),
        ({"inputs": ["a", "b"]}, ["a", "b"]),
        ({"inputs": {"a": [1, 2], "b": [3, 4]}}, [{"a": 1, "b": 3}, {"a": 2, "b": 4}]),
        ({"dataframe_records": [{"a": 1}], "params": {}}, [{"a": 1}]),
        ({"dataframe_split": {"columns": ["a", 5], "data": [[1, 2]], "index": [0]}}, [{"a": 1, "5": 2}]),
    )
    def test_every_form_is_rows(self, message: Any, rows: list[Any]) -> None:
        assert received(json.dumps(message).encode()) == rows

    def test_csv_is_rows(self) -> None:
        assert received(b'1,2.5,"a b"\n\n3,-1e3,\n', "text/csv") == [[1, 2.5, "a b"], [3, -1000.0, ""]]
        (row,) = received("1_0, 2 ,٣,.5,inf,1e,+7".encode(), "text/csv")
        assert row == ["1_0", 2, "٣", 0.5, math.inf, "1e", 7]
        assert received(b"9" * 5000, "text/csv") == [[math.inf]]

    @each_row(
        "message",
        {},
        [1],
        {"instances": 3},
        {"instances": []},
        {"inputs": {"a": [1], "b": [1, 2]}},
        {"inputs": {"a": 1}},
        {"inputs": {}},
        {"dataframe_split": {"columns": ["a"]}},
        {"dataframe_split": [[1]]},
        {"dataframe_split": {"columns": ["a"], "data": [1]}},
    )
    def test_what_has_no_form_is_refused_with_the_forms(self, message: Any) -> None:
        with pytest.raises(WireError, match="expected one of instances, inputs, dataframe_split, dataframe_records"):
            received(json.dumps(message).encode())

    def test_a_table_needs_a_value_for_each_column(self) -> None:
        with pytest.raises(WireError, match="dataframe_split has 2 columns, expected as many values in every row"):
            received(b'{"dataframe_split": {"columns": ["a", "b"], "data": [[1]]}}')

    def test_an_empty_csv_is_refused(self) -> None:
        with pytest.raises(WireError, match="the body has no rows"):
            received(b"\n", "text/csv")


CELL = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
VALUE = st.text() | CELL | st.lists(CELL, max_size=3) | st.dictionaries(st.text(), CELL, min_size=1, max_size=3)
FORMS = {"instances", "inputs", "dataframe_split", "dataframe_records"}


@PROPERTY
@given(VALUE.filter(lambda value: not isinstance(value, dict) or not FORMS & value.keys()))
def test_our_server_receives_what_our_client_sends(value: Any) -> None:
    assert received(encode_request(JSON, [value]).joined()) == [value]


@PROPERTY
@given(st.lists(st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_numbers_keep_their_value_in_csv(row: list[float]) -> None:
    assert received(encode_request(CSV, [row]).joined(), "text/csv") == [row]
