"""The order of the patterns of one test (``rank``, ``--perf-rank``), as reports and the result file have it."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from pytest_mlpatterns.records.codec import Count, Record


class RankedPattern(Struct, frozen=True):
    """One pattern of a ranking."""

    test: str  # the test's id
    pattern: str  # its name, with the wire if the results differ in that
    rank: Count | None  # place by score, from 1; None if it is excluded
    # value, low and high; 1 is the best in every metric. None if it is excluded
    score: tuple[float, float, float] | None
    parts: Mapping[str, tuple[float, float]]  # by metric, the share of the best (1: the best) and the weight
    excluded: str | None = None  # why it cannot be chosen; None if it can
    # requirements whose interval contains the limit, and values of which only a lower bound is known
    doubts: tuple[str, ...] = ()


class Ranking(Record, frozen=True):
    """The patterns of one test in order, the best first, the excluded last.

    ``sentence`` is the order in words. ``notes`` name what was left out of the weights.
    """

    group: str
    weights: Mapping[str, float]
    requirements: tuple[str, ...]
    sentence: str
    rows: tuple[RankedPattern, ...]
    notes: tuple[str, ...] = ()
