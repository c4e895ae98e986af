"""Suspected growths: a longer load confirms them, or they pass."""

from collections.abc import Callable

import numpy as np
import pytest

from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.analysis.verdicts.tolerances import Tolerances
from pytest_mlpatterns.judging.compared_metrics import compared_metrics
from pytest_mlpatterns.judging.leaks import confirm_growths
from pytest_mlpatterns.measurement.further_load import FollowedGrowth
from pytest_mlpatterns.records.samples import ResourceTrack
from pytest_mlpatterns.records.telemetry import PatternStats
from pytest_mlpatterns.records.verdict import Outcome, Verdict

REQUESTS = np.arange(200, dtype=np.int64) * 25
COMPARED = compared_metrics([METRICS["memory_growth"], METRICS["thread_growth"]], Tolerances(), 0.01, requested=False)


class LongLoad:
    """A long load whose track is declared."""

    def __init__(self, per_request: float | None) -> None:
        self.calls = 0
        self.was_harmless = False
        self._per_request = per_request

    def __call__(self, _longest_ns: int, is_decided: Callable[[ResourceTrack], bool]) -> FollowedGrowth:
        self.calls += 1
        track = None
        if self._per_request is not None:
            memory = (2**27 + self._per_request * REQUESTS).astype(np.int64)
            track = ResourceTrack(REQUESTS, memory, threads=np.full(REQUESTS.size, 4))
            self.was_harmless = is_decided(track)
        return FollowedGrowth(track, PatternStats(), PatternStats(), is_whole=True)


def suspicion(outcome: Outcome, before: float = 0.0, now: float = 2000.0) -> Verdict:
    return Verdict("memory_growth", "revision", outcome, "short", None, 0.5, before, now)


def calm() -> Verdict:
    return Verdict("thread_growth", "revision", Outcome.PASS, "calm", None, 0.5, 0.0, 0.0)


def test_a_leak_is_confirmed_with_the_figures_of_the_long_load() -> None:
    load = LongLoad(1024)

    memory, threads = confirm_growths([suspicion(Outcome.FAIL), calm()], COMPARED, load)

    assert memory.outcome is Outcome.FAIL
    assert memory.reason.startswith(
        "memory growth per request 0 B → 1.00 KiB: resident memory grows by 1.00 KiB (±0 B)"
    )
    assert memory.reason.endswith("not levelling off in the second half; up to 256 B does not count")
    assert memory.present_value == 1024
    assert memory.change.value == 3  # over the 256 bytes that do not count
    assert threads == calm()
    assert not load.was_harmless


def test_a_suspicion_that_the_long_load_does_not_confirm_passes_and_so_does_as_much_as_the_reference() -> None:
    load = LongLoad(0)
    (memory,) = confirm_growths([suspicion(Outcome.FAIL)], COMPARED, load)
    assert (memory.outcome, memory.change.value, load.was_harmless) == (Outcome.PASS, 0, True)
    (memory,) = confirm_growths([suspicion(Outcome.FAIL, before=1000.0)], COMPARED, LongLoad(1400))
    assert memory.outcome is Outcome.PASS
    assert memory.reason.endswith("up to 1.46 KiB does not count")


def test_without_a_suspicion_nothing_more_is_loaded_and_nothing_stays_open() -> None:
    load = LongLoad(1024)
    found = confirm_growths([suspicion(Outcome.INCONCLUSIVE), calm()], COMPARED, load)
    assert [one.outcome for one in found] == [Outcome.PASS, Outcome.PASS]
    assert load.calls == 0


def test_a_suspicion_stays_open_if_the_long_load_has_no_readings() -> None:
    (memory,) = confirm_growths([suspicion(Outcome.FAIL)], COMPARED, LongLoad(None))

    assert memory.outcome is Outcome.INCONCLUSIVE
    assert memory.reason == (
        "short; a longer load could not show whether it is a leak, since its processes are not known"
    )


@pytest.mark.parametrize(("readings", "requests"), [(5, 100), (0, 0)])
def test_a_suspicion_stays_open_if_the_long_load_has_too_few_readings(readings: int, requests: int) -> None:
    def follow(_longest_ns: int, _is_decided: Callable[[ResourceTrack], bool]) -> FollowedGrowth:
        few = REQUESTS[:readings]
        return FollowedGrowth(ResourceTrack(few, few), PatternStats(), PatternStats(), is_whole=False)

    memory, threads = confirm_growths([suspicion(Outcome.FAIL), calm()], COMPARED, follow)

    assert memory.outcome is Outcome.INCONCLUSIVE
    assert f"since {readings} readings over {requests} requests are too few" in memory.reason
    assert threads.outcome is Outcome.PASS
