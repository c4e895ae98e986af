"""A list that is sorted by cost, and a service that got slower: synthetic launches, so that the truth is known.

A closed loop of one caller begins every launch with the first input and measures as many as it has time for.
"""

import numpy as np
import pytest
from numpy.typing import NDArray
from support.experiments import entry_of
from support.synthetic import MS, START_NS, US, S, launch, samples, usage
from test_baseline_comparison import compare

from pytest_mlpatterns import InOrder, Outcome
from pytest_mlpatterns.records.launch import Launch
from pytest_mlpatterns.workload.payload import read_payload

INPUTS = 2_000
COST_NS = np.linspace(0.5 * MS, 6 * MS, INPUTS)
"""Service time of each input, in the order of the list."""
TRIALS = 6


def sent(inputs: object) -> NDArray[np.float64]:
    """Service times in the order in which the inputs are sent."""
    order = np.frombuffer(read_payload(inputs).order(), np.uint32)
    return COST_NS[order] if order.size else COST_NS


def launch_of(costs: NDArray[np.float64], seed: int, slower: float) -> Launch:
    """A warm-up of about a third of a second and a window of 0.7 s; launches differ by 1.7 %."""
    rng = np.random.default_rng(seed)
    latency = costs * slower * np.exp(rng.normal(0, 0.017) + rng.normal(0, 0.03, costs.size))
    done = np.cumsum(latency)
    first = int(np.searchsorted(done, rng.uniform(0.31, 0.36) * S))
    last = int(np.searchsorted(done, done[first - 1] + 0.7 * S))
    due = START_NS + done[first - 1 : last - 1] - done[first - 1]
    measured = samples(due.astype(np.int64), latency[first:last].astype(np.int64))
    return launch(measured, seconds=0.7, used=usage(0.9, 1.1, seconds=0.7), cpu_ns=round(60 * US * due.size))


class Runner:
    """Gives launches of the same kind, one after the other."""

    def __init__(self, costs: NDArray[np.float64], first_seed: int, slower: float) -> None:
        self._next = (costs, slower)
        self._seed = first_seed

    def measure(self) -> Launch:
        self._seed += 1
        costs, slower = self._next
        return launch_of(costs, self._seed, slower)

    def want_requests(self, _enough: int, *, decides_alone: bool = False) -> None:
        """A launch has what its window holds."""


def outcomes(inputs: object, slower: float) -> list[Outcome]:
    """The worst verdict of each trial."""
    costs, found = sent(inputs), []
    for trial in range(TRIALS):
        entry = entry_of([launch_of(costs, 9_000 + 50 * trial + number, 1.0) for number in range(6)])
        verdicts, _ = compare(Runner(costs, 100 * trial, slower), "rtm", "throughput", "p95", entry=entry)
        seen = {verdict.outcome for verdict in verdicts.values()}
        found.append(next(one for one in (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS) if one in seen))
    return found


@pytest.mark.simulation
@pytest.mark.parametrize(("slower", "expected"), [(1.0, Outcome.PASS), (1.2, Outcome.FAIL), (1.3, Outcome.FAIL)])
def test_a_slow_down_over_a_sorted_list_is_seen(slower: float, expected: Outcome) -> None:
    assert outcomes(range(INPUTS), slower) == [expected] * TRIALS


@pytest.mark.simulation
def test_in_the_order_of_a_sorted_list_it_is_mostly_hidden() -> None:
    assert outcomes(InOrder(range(INPUTS)), 1.3).count(Outcome.INCONCLUSIVE) >= TRIALS - 1
