"""REST JSON V1: what goes out comes back, and what is no such message is refused with a reason."""

import collections
import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.each_row import each_row
from support.synthetic import PROPERTY

from pytest_mlpatterns.wire import WireError
from pytest_mlpatterns.wire.body import JSON_HEADERS
from pytest_mlpatterns.wire.kserve_v1 import (
    decode_instances,
    decode_predictions,
    encode_error,
    encode_instances,
    encode_predictions,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)  # fmt: skip


@PROPERTY
@given(st.lists(JSON, min_size=1, max_size=4))
def test_instances_come_back_as_they_went(instances: list[Any]) -> None:
    assert decode_instances(encode_instances(instances)) == instances


@PROPERTY
@given(st.lists(JSON, max_size=4))
def test_predictions_come_back_as_they_went(outputs: list[Any]) -> None:
    assert decode_predictions(encode_predictions(outputs)) == outputs


def test_messages_are_those_that_other_clients_and_servers_speak() -> None:
    assert json.loads(encode_instances([[1.5, 2], "a"])) == {"instances": [[1.5, 2], "a"]}
    assert json.loads(encode_predictions([1, 2])) == {"predictions": [1, 2]}
    assert json.loads(encode_error("no such model: ü")) == {"error": "no such model: ü"}
    assert dict(JSON_HEADERS) == {"content-type": "application/json"}


@each_row(
    ("value", "plain"),
    (np.array([1.5, 2.5]), [1.5, 2.5]),
    (np.array([[1, 2], [3, 4]], dtype=np.uint8), [[1, 2], [3, 4]]),
    (np.arange(6).reshape(2, 3).T, [[0, 3], [1, 4], [2, 5]]),  # not contiguous
    (np.arange(6)[::2], [0, 2, 4]),
    (np.array(3), 3),
    (np.float32(1.5), 1.5),
    (np.int64(7), 7),
    (np.bool_(True), True),
    (np.array(["a", "b"]), ["a", "b"]),
    (np.array([1.5, 2.5], dtype=np.float16), [1.5, 2.5]),
    (np.array([], dtype=np.float64), []),
    ((1, 2), [1, 2]),
    ({3}, [3]),
    (frozenset({3}), [3]),
    (range(3), [0, 1, 2]),
    ({"a": np.array([1])}, {"a": [1]}),
)
def test_arrays_sets_and_ranges_travel_as_plain_numbers_and_lists(value: Any, plain: Any) -> None:
    assert decode_instances(encode_instances([value])) == [plain]
    assert decode_predictions(encode_predictions([value])) == [plain]


@each_row(
    "outputs",
    np.array([1, 2]),
    (1, 2),
    range(1, 3),
    collections.deque([1, 2]),
    {"a": 1, "b": 2}.values(),
    {1: "a", 2: "b"}.keys(),
)
def test_outputs_may_be_anything_that_a_list_is_made_of(outputs: Any) -> None:
    assert decode_predictions(encode_predictions(outputs)) == [1, 2]


@each_row("value", [object(), b"bytes", {1: "a"}, 2**70, 1j, np.array([1j]), "\ud800"])
def test_what_json_cannot_hold_is_refused(value: Any) -> None:
    with pytest.raises(WireError):
        encode_instances([value])
    with pytest.raises(WireError):
        encode_predictions([value])


def test_the_reason_names_the_type_that_json_cannot_hold() -> None:
    with pytest.raises(WireError, match="bytes"):
        encode_instances([{"image": b"..."}])


@dataclass
class Scored:
    label: str
    score: float


@each_row(
    ("value", "reason"),
    (math.nan, "has NaN"),
    ([[1.0, None, 2.0, math.nan]], "has NaN at [0][3]"),
    ({"scores": (0.5, -math.inf)}, "has -infinity at ['scores'][1]"),
    (np.array([[0.5, np.inf]], dtype=np.float32), "has infinity at [0][1]"),
    ([np.float64("nan")], "has NaN at [0]"),
    (Scored("a", math.nan), "has NaN at ['score']"),
    (np.array([None, math.nan], dtype=object), "has NaN at [1]"),
)
def test_a_number_that_is_not_finite_is_refused_at_its_place(value: Any, reason: str) -> None:
    advice = 'which JSON cannot carry; use wire="rest+binary"'
    with pytest.raises(WireError) as caught:
        encode_instances([[1.0], value])
    assert str(caught.value) == f"input 1 {reason}, {advice}"
    with pytest.raises(WireError) as caught:
        encode_predictions([[1.0], value])
    assert str(caught.value) == f"output 1 {reason}, {advice}"


@each_row("body", [b"", b"{", b"\xff", b"nan", b'{"instances": [1]'])
def test_what_is_not_json_is_refused_as_such(body: bytes) -> None:
    for decode in (decode_instances, decode_predictions):
        with pytest.raises(WireError, match="the body is not JSON: "):
            decode(body)


@each_row(
    "body",
    *(b"null", b"[1]", b"5", b"{}", b'{"instances": 1}', b'{"instances": {"a": 1}}', b'{"inputs": [1]}'),
    b'{"instances": []}',
)
def test_json_without_a_list_of_instances_is_refused(body: bytes) -> None:
    with pytest.raises(WireError) as caught:
        decode_instances(body)
    assert str(caught.value) == 'the body is not {"instances": [...]} with at least one instance'


@each_row("body", [b"null", b"[1]", b"{}", b'{"predictions": "abc"}', b'{"error": "it broke"}'])
def test_json_without_a_list_of_predictions_is_refused(body: bytes) -> None:
    with pytest.raises(WireError) as caught:
        decode_predictions(body)
    assert str(caught.value) == 'the body is not {"predictions": [...]}'
