"""Leaks of a test's own deployment, from declared tracks: what is judged, and what stays open."""

import inspect
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from pytest_mlpatterns import Cached, Pattern, Single
from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.analysis.metrics.metric import resource_of
from pytest_mlpatterns.errors import InvalidResultError
from pytest_mlpatterns.judging.leaks import decide_leak
from pytest_mlpatterns.judging.perf import Perf
from pytest_mlpatterns.measurement.further_load import FollowedGrowth
from pytest_mlpatterns.records.samples import ResourceTrack
from pytest_mlpatterns.records.telemetry import LayerStats, PatternStats
from pytest_mlpatterns.records.verdict import Outcome, Verdict
from pytest_mlpatterns.units import parse_size

SECOND_NS = 1_000_000_000
REQUESTS = np.arange(200, dtype=np.int64) * 25
FLAT = np.full(REQUESTS.size, 20)
NOTHING = PatternStats()
LEAKING = ResourceTrack(REQUESTS, 2**27 + 1024 * REQUESTS, FLAT, FLAT)


class Declared:
    """A measurement whose long load is declared."""

    def __init__(self, track: ResourceTrack | None, total: PatternStats, last: PatternStats, *, is_whole: bool) -> None:
        self.decided = False
        self._is_valid = False
        self._found = FollowedGrowth(track, last, total, is_whole=is_whole)

    def require_valid(self) -> None:
        self._is_valid = True

    def follow_growth(
        self, _longest_ns: int, is_decided: Callable[[ResourceTrack], bool], *, is_asked: bool
    ) -> FollowedGrowth:
        assert is_asked
        assert self._is_valid
        if self._found.track is not None:
            self.decided = is_decided(self._found.track)
        return self._found


def cache_stats(misses: int, evictions: int = 0) -> PatternStats:
    return PatternStats(layers=(LayerStats(0, "cached", {"misses": misses, "evictions": evictions}),))


Leaks = Callable[..., tuple[Verdict, ...]]


def assertions(
    track: ResourceTrack | None,
    pattern: Pattern | None = None,
    *,
    total: PatternStats = NOTHING,
    last: PatternStats = NOTHING,
    is_whole: bool = True,
) -> tuple[Leaks, Declared]:
    declared = Declared(track, total, last, is_whole=is_whole)
    found = pattern or Single()
    experiment = SimpleNamespace(settings=SimpleNamespace(pattern=found), setup=SimpleNamespace(pattern=found))
    return partial(decide_leak, cast("Any", experiment), cast("Any", declared)), declared


def outcomes(leaks: Leaks, limit: float = 100) -> dict[str, Outcome]:
    return {one.metric: one.outcome for one in leaks(limit, longest_ns=10 * SECOND_NS)}


def test_each_resource_has_a_verdict() -> None:
    leaks, declared = assertions(LEAKING)

    assert outcomes(leaks) == {
        "memory_growth": Outcome.FAIL,
        "descriptor_growth": Outcome.PASS,
        "thread_growth": Outcome.PASS,
    }
    assert not declared.decided


@pytest.mark.parametrize(
    ("limit", "decided"),
    [(1000, True), (100, False)],  # 100 bytes of each of 4,975 requests are 0.5 MB: less than is sure
)
def test_a_load_in_which_nothing_grows_goes_on_until_a_leak_at_the_limit_would_show(
    limit: float, decided: bool
) -> None:
    leaks, declared = assertions(ResourceTrack(REQUESTS, FLAT * 2**20, FLAT, FLAT))

    assert set(outcomes(leaks, limit=limit).values()) == {Outcome.PASS}
    assert declared.decided is decided


def test_the_limit_that_holds_without_one_is_shown_by_512_requests() -> None:
    """As docs/explanation/verdicts.md#leaks says; 52 requests per second are as many in the longest load."""
    limit = parse_size(inspect.signature(Perf.assert_no_leak).parameters["limit"].default, name="limit")
    assert resource_of(METRICS["memory_growth"]).least_gain == 512 * limit


def test_what_the_system_does_not_tell_has_no_verdict() -> None:
    leaks, _ = assertions(ResourceTrack(REQUESTS, FLAT * 2**20))

    assert outcomes(leaks) == {"memory_growth": Outcome.PASS}


def test_unknown_processes_are_asked_for() -> None:
    leaks, _ = assertions(None)

    with pytest.raises(InvalidResultError, match=r"memory growth is not known for single; name its process: Url"):
        leaks(100, longest_ns=SECOND_NS)


def test_with_too_few_requests_the_verdict_is_open() -> None:
    leaks, declared = assertions(ResourceTrack(REQUESTS[:3], FLAT[:3]))

    (verdict,) = leaks(100, longest_ns=10 * SECOND_NS)

    assert not declared.decided
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.reason == "50 requests in 10.0 s are too few to see a leak"


def test_a_load_that_ended_early_is_said_with_what_did_not_pass() -> None:
    leaks, _ = assertions(LEAKING, is_whole=False)

    memory, descriptors, _ = leaks(100, longest_ns=10 * SECOND_NS)

    assert memory.reason.endswith("; the load ended early, before it took the memory that the machine has left")
    assert "ended early" not in descriptors.reason


@pytest.mark.parametrize("new", [1, 3000])
def test_while_our_cache_fills_the_verdict_is_open_and_names_what_is_missing(new: int) -> None:
    leaks, _ = assertions(LEAKING, Cached(max_entries=10_000), total=cache_stats(4975), last=cache_stats(new))

    memory = leaks(100, longest_ns=10 * SECOND_NS)[0]

    assert memory.outcome is Outcome.INCONCLUSIVE
    assert memory.reason.endswith("but the cache still fills: 5,025 of 10,000 entries are missing")


@pytest.mark.parametrize(
    ("pattern", "total", "last"),
    [
        (Cached(max_entries=1000), cache_stats(4975, 3975), cache_stats(3000, 3000)),  # full
        (Cached(max_entries=1000), cache_stats(8), cache_stats(0)),  # the model leaks, not the cache
        (Cached(store="redis://127.0.0.1:6379/0"), cache_stats(4975), cache_stats(3000)),  # not in our processes
        (Single(), NOTHING, NOTHING),
    ],
)
def test_a_cache_that_does_not_grow_excuses_nothing(pattern: Pattern, total: PatternStats, last: PatternStats) -> None:
    leaks, _ = assertions(LEAKING, pattern, total=total, last=last)

    assert outcomes(leaks)["memory_growth"] is Outcome.FAIL
