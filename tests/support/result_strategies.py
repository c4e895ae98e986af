"""Hypothesis strategies for results of perf tests: any values of the types of their fields that a file can hold."""

import types
from collections.abc import Mapping
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import fields

from pytest_mlpatterns.records.latency import PARTS, SplitPart
from pytest_mlpatterns.records.launch import Noise
from pytest_mlpatterns.records.objective import QUANTITIES, Bound, Objective
from pytest_mlpatterns.records.outcomes import FirstFailure
from pytest_mlpatterns.records.price import Price
from pytest_mlpatterns.records.profile import Frame, FunctionTime, ProfileNode, ProfileRecord
from pytest_mlpatterns.records.result import TestResult
from pytest_mlpatterns.records.result_parts import Judged
from pytest_mlpatterns.records.setup import Setup
from pytest_mlpatterns.records.verdict import LeftOut
from support.synthetic import make_setup

FINITE = st.floats(-1e18, 1e18)
NAMES = st.text(min_size=1, max_size=12)  # without halves of surrogate pairs
PRICES = st.builds(Price, st.floats(1e-6, 1e9), st.floats(0, 1e9), st.sampled_from(["USD", "EUR"]))
BOUNDS = st.builds(
    Bound, st.sampled_from((50.0, 90.0, 99.9, 99.999)), st.integers(1, 10**12), st.sampled_from(QUANTITIES)
)
OBJECTIVES = st.builds(
    Objective, st.lists(BOUNDS, min_size=1, max_size=3, unique_by=lambda one: str(one).partition("<")[0]).map(tuple)
)
_TIMES = st.integers(0, 2**53).map(float)
"""Whole nanoseconds, as a number with a point holds them exactly."""
_LEFT_OUT = st.dictionaries(NAMES, NAMES, max_size=2).map(
    lambda read: {label: LeftOut.read(label, why) for label, why in read.items()}
)
_OWN: dict[Any, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    int: st.integers(0, 10**18),
    float: FINITE,
    str: NAMES,
    types.NoneType: st.none(),
    Price: PRICES,
    Objective: OBJECTIVES,
    Setup: st.builds(make_setup, NAMES, NAMES, NAMES, NAMES),
    Noise: st.builds(Noise.read, NAMES),
    FirstFailure: st.builds(FirstFailure.read, NAMES),
}
"""Values of types that have no parts, and of those that files write in a way of their own."""


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of a type."""
    of, arguments = get_origin(kind), get_args(kind)
    if kind in _OWN:
        found = _OWN[kind]
    elif of is None:
        found = st.sampled_from(kind) if issubclass(kind, Enum) else built(kind)
    elif of is Annotated:
        found = values_of(int) if arguments[0] is int else st.floats(0, arguments[1].le or 1e18)
    elif of is Literal:
        found = st.sampled_from(arguments)
    elif of in (Union, types.UnionType):
        found = st.one_of(*map(values_of, arguments))
    elif of is tuple:
        of_items = [values_of(one) for one in arguments if one is not ...]
        found = st.lists(*of_items, max_size=2).map(tuple) if ... in arguments else st.tuples(*of_items)
    else:
        assert issubclass(of, Mapping), kind
        found = st.dictionaries(*map(values_of, arguments), max_size=2)
    return found


def built(kind: type, **of_fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Records with any values of their fields, but for those that are given."""
    hints = {one.name: one.type for one in fields(kind)} if issubclass(kind, Struct) else get_type_hints(kind)
    return st.builds(kind, **{name: values_of(of) for name, of in hints.items() if name not in of_fields}, **of_fields)


_OWN |= {
    SplitPart: built(SplitPart, name=st.sampled_from(sorted(PARTS))),
    FunctionTime: built(FunctionTime, frame=st.just(1)),
    Judged: built(Judged, not_compared=_LEFT_OUT),
}
_OWN[ProfileRecord] = st.builds(ProfileRecord, note=NAMES) | built(
    ProfileRecord,
    note=st.just(""),
    frames=st.just((Frame("worker", owner="process"), Frame("predict", "model.py", 3))),
    nodes=st.builds(lambda own, now: (ProfileNode(-1, 0, own, now), ProfileNode(0, 1, 0, now)), _TIMES, _TIMES),
)
RESULTS = built(TestResult)
