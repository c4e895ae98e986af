"""Lines of a history for tests: usual ones, any of them, and what damages them."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from pytest_mlpatterns.records.history import CommitPosition, HistoryLine, PairedRatio
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.verdict import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["COMMITS", "LINES", "history_line"]

METRICS = ("rtm", "latency_mean", "p95", "p99", "cpu_ns_per_request", "peak_rss_bytes", "nmrt")


def history_line(
    number: int = 0, *, commit: str = "", launches: int = 3, metrics: Sequence[str] = METRICS[:6], **changes: object
) -> HistoryLine:
    """A usual line, which differs from those of other numbers.

    Args:
        commit: its hash; one by the number if it is empty.
    """
    chance = random.Random(number)
    line = HistoryLine(
        test=f"tests/perf/test_embedding.py::test_embed[{number % 50}]",
        machine="Intel Xeon Gold 6148, 16 cores, x86_64; Python 3.12",
        date=f"2026-{number // 1000 % 12 + 1:02}-01T12:{number // 60 % 60:02}:{number % 60:02}Z",
        at=CommitPosition(commit or f"{0xA1B2C3D4E5F6 + number // 50:012x}", number // 50 + 1),
        clean=True,
        setup="0a1b2c3d4e",
        facts="f0e1d2c3b4",
        kind=Kind.PASSED,
        values={
            name: tuple(
                LaunchValue(chance.lognormvariate(16, 0.02), chance.uniform(0.002, 0.02)) for _ in range(launches)
            )
            for name in metrics
        },
    )
    return replace(line, **changes)  # type: ignore[arg-type]


COMMITS = st.builds(CommitPosition, st.just("") | st.text("0123456789abcdef", min_size=4, max_size=64), st.integers(0))
_NAMES = st.text(min_size=1, max_size=20)
_LAUNCHES = st.lists(st.builds(LaunchValue, st.floats(-1e29, 1e29), st.floats(0, 20)), min_size=1, max_size=4)
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
        "values": st.dictionaries(_NAMES, _LAUNCHES.map(tuple), max_size=3),
        "runs": st.integers(1, 10**6),
    }
)
LINES = st.tuples(_OTHERS, _WITHOUT_RATIOS | _WITH_RATIOS).map(lambda parts: HistoryLine(**parts[0], **parts[1]))
"""Any line that is complete."""
