"""Which outputs of two models are equal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.synthetic import FEW

from pytest_mlpatterns.patterns.shadowed import are_equal

NAN = float("nan")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@FEW
@given(VALUES)
def test_a_value_equals_itself_and_not_what_holds_it(value: Any) -> None:
    assert are_equal(value, value)
    assert not are_equal(value, [value, value])


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ([1, [2.5, "a"]], (1, (2.5, "a"))),
        ({"a": 1, "b": [NAN]}, {"b": [NAN], "a": 1}),
        (np.array([[1.0, NAN]]), [[1.0, NAN]]),
        (np.array([0.1], "f4"), [0.1]),
        (np.array([0.1], "f4"), np.array([0.1])),
        ([np.array([1, 2]), "x"], [[1, 2], "x"]),
        (np.float32(0.1), 0.1),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array([1, 2]), np.array([1.0, 2.0])),
        (np.array([None, "a", 3], dtype=object), [None, "a", 3]),
        (np.array([1 + 2j, NAN]), [1 + 2j, NAN]),
        (True, 1),
        ([], ()),
        (b"a", b"a"),
    ],
)
def test_equal_values(left: Any, right: Any) -> None:
    assert are_equal(left, right)
    assert are_equal(right, left)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ([1, 2], [1, 2, 3]),
        ([1, 2], [2, 1]),
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"a": 1}, {"a": 2}),
        (np.array([1.0, 2.0]), np.array([1.0, 2.5])),
        (np.array([1.0, 2.0]), np.array([[1.0, 2.0]])),
        (np.array([1.0, NAN]), [1.0, 2.0]),
        (np.array([1.0]), [[1.0], [1.0, 2.0]]),
        (np.array([None, "a"], dtype=object), [None, "b"]),
        (np.array(["a"]), [1]),
        ("1", 1),
        ([1], 1),
        (0.1, 0.1000001),
        (None, []),
    ],
)
def test_different_values(left: Any, right: Any) -> None:
    assert not are_equal(left, right)
    assert not are_equal(right, left)
