"""Hypothesis strategies for lines of a history."""

from hypothesis import strategies as st

from pytest_mlpatterns.records.history import CommitPosition, HistoryLine, PairedRatio
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.verdict import Kind

COMMITS = st.builds(
    CommitPosition, st.just("") | st.text("0123456789abcdef", min_size=4, max_size=64), st.integers(0, 2**31)
)
_NAMES = st.text(min_size=1, max_size=20)
_SIZES = st.floats(1e-12, 1e29)
VALUES = st.lists(
    st.builds(LaunchValue, _SIZES | st.just(0.0) | _SIZES.map(float.__neg__), st.floats(0, 20)), min_size=1, max_size=4
).map(tuple)
"""A metric of any launches."""
_RATIOS = st.lists(st.builds(PairedRatio, st.floats(-20, 20), st.floats(0, 20)), min_size=1, max_size=4)
_WITHOUT_RATIOS = st.fixed_dictionaries({"ratios": st.just({}), "reference": st.none()})
_WITH_RATIOS = st.fixed_dictionaries(
    {"ratios": st.dictionaries(_NAMES, _RATIOS.map(tuple), max_size=3), "reference": COMMITS}
)
_OTHERS = st.fixed_dictionaries(
    {
        "test": _NAMES,
        "machine": _NAMES,
        "date": st.datetimes().map(lambda date: f"{date:%m-%dT%H:%M:%SZ}").map("2026-{}".format),
        "at": COMMITS,
        "clean": st.booleans(),
        "setup": st.text(max_size=20),
        "facts": st.text(max_size=20),
        "kind": st.sampled_from(Kind),
        "values": st.dictionaries(_NAMES, VALUES, max_size=3),
    }
)
LINES = st.tuples(_OTHERS, _WITHOUT_RATIOS | _WITH_RATIOS).map(lambda parts: HistoryLine(**parts[0], **parts[1]))
"""Any line that is complete."""
