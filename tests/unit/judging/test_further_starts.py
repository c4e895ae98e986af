"""A start that is the only open metric is decided by further starts without load; the truth of all of them is known."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from support.declared_run import DeclaredRun
from support.each_row import each_row
from support.experiments import entry_of
from support.synthetic import MS, S
from test_baseline_comparison import Runner, compare, make_launch
from test_interleaved_verdicts import DEFAULT, declared_launch, paired, verdicts

from pytest_mlpatterns.analysis.statistics.log_ratio import PairedLaunch
from pytest_mlpatterns.judging.baseline_comparison import rule_alone
from pytest_mlpatterns.judging.loop import MOST_STARTS, Ruling, Want
from pytest_mlpatterns.judging.metric_rules import is_left_to_starts
from pytest_mlpatterns.judging.screen import rule_screen
from pytest_mlpatterns.records.launch import Estimate, Launch
from pytest_mlpatterns.records.verdict import Outcome, Verdict

START_S = 1.35
RUNS = 20


@dataclass
class Starting(DeclaredRun):
    """An interleaved run of equal launches, whose starts scatter, and are slowed down together by neighbours."""

    slower: float
    seed: int
    own: float = 0.1
    shared: float = 0.2

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)

    def starts_s(self) -> tuple[float, float]:
        moment = START_S * self.random.lognormal(0, self.shared)
        first, second = self.random.lognormal(0, self.own, 2)
        return moment * first, moment * second * (1 + self.slower)

    def next_launch(self) -> tuple[PairedLaunch, Launch, Launch]:
        first, second = self.starts_s()
        return paired(2 * MS, 2 * MS), declared_launch(start_s=first), declared_launch(start_s=second)

    def start_again(self) -> None:
        first, second = self.starts_s()
        self.first_starts_ns.append(round(first * S))
        self.second_starts_ns.append(round(second * S))


def judged(slower: float) -> list[tuple[Outcome, Starting, str]]:
    """The verdict on the start in many runs, each with its run and its reason."""
    found = []
    for seed in range(RUNS):
        run = Starting(slower, seed)
        outcome, reason = verdicts(run, *DEFAULT, tolerance=None, requested=False)["cold_start"]
        found.append((outcome, run, reason))
    return found


@pytest.mark.simulation
def test_a_start_that_takes_three_quarters_longer_fails_after_a_few_further_starts() -> None:
    found = judged(0.74)
    assert sum(outcome is Outcome.FAIL for outcome, _, _ in found) >= 0.85 * RUNS
    assert {len(run.launches) for _, run, _ in found} == {3}, "no launch under load is spent on it"
    further = [len(run.first_starts_ns) for _, run, _ in found]
    assert 1 <= np.mean(further) <= 10
    assert max(further) <= MOST_STARTS
    more = next(reason for _, run, reason in found if len(run.first_starts_ns) > 1)
    assert "start to first answer " in more
    assert " further starts without load" in more


@pytest.mark.simulation
@pytest.mark.parametrize("slower", [-0.2, 0.0, 0.2])
def test_starts_within_their_tolerance_pass_and_cost_nearly_nothing(slower: float) -> None:
    found = judged(slower)
    assert {outcome for outcome, _, _ in found} == {Outcome.PASS}
    assert sum(len(run.first_starts_ns) for _, run, _ in found) <= RUNS


@pytest.mark.simulation
def test_a_start_at_its_tolerance_seldom_fails() -> None:
    assert sum(outcome is Outcome.FAIL for outcome, _, _ in judged(0.5)) <= 0.1 * RUNS


class StartingRunner(Runner):
    """Launches whose start takes longer, and further starts of the same service."""

    def __init__(self, start_s: float) -> None:
        super().__init__(start_s=start_s)
        self.starts = 0
        self._start_s = start_s

    def start_again(self) -> int:
        self.starts += 1
        return round(self._start_s * S * np.exp(np.random.default_rng(900 + self.starts).normal(0, 0.05)))


ENTRY = entry_of([make_launch(seed) for seed in range(100, 108)])


def test_beside_a_file_it_is_decided_by_further_starts_too_unless_it_is_unchanged() -> None:
    runner, unchanged = StartingRunner(0.5 * 1.74), StartingRunner(0.5)
    found, _ = compare(runner, entry=ENTRY)
    assert found["cold_start"].outcome is Outcome.FAIL
    assert len(runner.launches) + runner.starts <= 8, "launches= bounds both"
    assert runner.starts > 0
    assert "further start" in found["cold_start"].reason
    found, _ = compare(unchanged, entry=ENTRY)
    assert (found["cold_start"].outcome, unchanged.starts) == (Outcome.PASS, 0)


def verdict(metric: str, outcome: Outcome, low: float = 0.3) -> Verdict:
    return Verdict(metric, "revision", outcome, "", Estimate(0.7, low, 1.0), 0.5)


@each_row(
    ("others", "start", "expected"),
    [
        ((Outcome.PASS,), (Outcome.INCONCLUSIVE, 0.3), True),
        ((Outcome.PASS,), (Outcome.INCONCLUSIVE, 0.6), False),  # sure, but a busy machine may explain it
        ((Outcome.PASS,), (Outcome.FAIL, 0.6), False),
        ((Outcome.PASS,), (Outcome.PASS, 0.0), False),
        ((Outcome.INCONCLUSIVE,), (Outcome.INCONCLUSIVE, 0.3), False),
        ((Outcome.FAIL,), (Outcome.INCONCLUSIVE, 0.3), False),
    ],
)
def test_only_an_open_start_alone_is_left_to_starts(others: Any, start: Any, expected: bool) -> None:
    found = [verdict(name, outcome) for name, outcome in zip(("rtm",), others, strict=True)]
    assert is_left_to_starts([*found, verdict("cold_start", *start)]) is expected
    assert not is_left_to_starts(found)


def ruled(*verdicts: Verdict, wants: Want | None = None, launches: int = 1, **at: Any) -> Want | None:
    """What the file wants after some launches, if it decides alone."""
    return rule_alone(Ruling(wants, verdicts, 2), launches, **{"starts": 0, "is_doubted": False, **at}).wants


PASSED, OPEN_START = verdict("rtm", Outcome.PASS), verdict("cold_start", Outcome.INCONCLUSIVE)
FAILED, FAILED_START = verdict("rtm", Outcome.FAIL), verdict("cold_start", Outcome.FAIL, 0.6)


@each_row(
    ("wanted", "expected"),
    [
        (ruled(PASSED), None),
        (ruled(verdict("rtm", Outcome.INCONCLUSIVE), OPEN_START, wants="launch"), "launch"),
        (ruled(PASSED, OPEN_START, wants="launch"), "start"),
        (ruled(PASSED, OPEN_START, wants="launch", starts=3), "start"),
        (ruled(PASSED, FAILED_START, wants="launch"), "launch"),  # of one launch, which a second one confirms
        (ruled(PASSED, FAILED_START, wants="launch", starts=3), None),
        (ruled(FAILED, wants="launch", starts=3), "launch"),
        (ruled(FAILED, launches=2), None),
        (ruled(FAILED, launches=2, is_doubted=True), "launch"),  # three show whether the machine is slower
        (ruled(FAILED, launches=3, is_doubted=True), None),
    ],
)
def test_what_the_file_wants_if_it_decides_alone(wanted: Want | None, expected: Want | None) -> None:
    assert wanted == expected


@pytest.mark.parametrize(
    ("launches", "is_enough", "expected"), [(1, False, "launch"), (1, True, None), (3, False, None)]
)
def test_a_screen_ends_where_the_recorded_code_decides(launches: int, is_enough: bool, expected: Want | None) -> None:
    assert rule_screen(Ruling("launch", [FAILED], 2), launches, is_enough=is_enough).wants == expected
