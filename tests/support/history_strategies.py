"""Hypothesis strategies for lines of a history."""

from hypothesis import strategies as st
from msgspec.structs import replace

from pytest_mlpatterns.records.history import CommitPosition, HistoryLine, PairedRatio
from pytest_mlpatterns.records.launch import LaunchValue
from support.result_strategies import built

COMMITS = st.builds(
    CommitPosition, st.just("") | st.text("0123456789abcdef", min_size=4, max_size=64), st.integers(0, 2**31)
)
_NAMES = st.text(min_size=1, max_size=20)
_SIZES = st.floats(1e-12, 1e29)
VALUES = st.lists(
    st.builds(LaunchValue, _SIZES | st.just(0.0) | _SIZES.map(float.__neg__), st.floats(0, 20)), min_size=1, max_size=4
).map(tuple)
"""A metric of any launches."""
_RATIOS = st.lists(st.builds(PairedRatio, st.floats(-20, 20), st.floats(0, 20)), min_size=1, max_size=4).map(tuple)
_DATES = st.datetimes().map(lambda date: f"2026-{date:%m-%dT%H:%M:%SZ}")
_PLAIN = built(
    HistoryLine,
    at=COMMITS,
    date=_DATES,
    values=st.dictionaries(_NAMES, VALUES, max_size=3),
    ratios=st.just({}),
    reference=st.none(),
)
LINES = _PLAIN | st.builds(replace, _PLAIN, ratios=st.dictionaries(_NAMES, _RATIOS, max_size=3), reference=COMMITS)
"""Any line that is complete."""
