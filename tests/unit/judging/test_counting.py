"""Counted instructions in a comparison: what a count decides, beside what it is made, and when."""

import dataclasses
import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace
from support.declared_run import DeclaredRun
from support.each_row import each_row
from support.experiments import declared_experiment
from support.splits import split
from support.synthetic import MS, SETUP, even_launch, usage

from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.errors import CountError, GeneratorLimitError, PerfFailure, SettingError
from pytest_mlpatterns.judging.basis import Basis
from pytest_mlpatterns.judging.budget import Budget, Spending
from pytest_mlpatterns.judging.compared_metrics import compared_by_default, compared_metrics
from pytest_mlpatterns.judging.counting import (
    CountedComparison,
    CountedPasses,
    holds_here,
    own_share,
    pass_ns,
    unhindered_figures,
)
from pytest_mlpatterns.judging.limit_assertions import decide_limit
from pytest_mlpatterns.judging.sequential import SequentialMeasurement
from pytest_mlpatterns.judging.sides import Factor, rule_work
from pytest_mlpatterns.measurement.variant import Variant
from pytest_mlpatterns.profiling.callgrind import Countable
from pytest_mlpatterns.records.baseline_entry import Entry
from pytest_mlpatterns.records.count import Count
from pytest_mlpatterns.records.launch import Estimate, LaunchValue
from pytest_mlpatterns.records.result_parts import Reference
from pytest_mlpatterns.records.verdict import OpenBy, Outcome, Verdict, WhyOpen

PASS, FAIL, OPEN = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
FACTS = {"Python": "3.11.7", "packages": "loaded", "package numpy": "2.1.0"}
BUSY = WhyOpen(OpenBy.MACHINE, "other processes used 1.9 of the 2 cores")


def count(instructions: float = 4e6, **changes: Any) -> Count:
    """A pass with rounds that scatter by a twentieth of a percent."""
    ends = {"low": instructions * 0.9995, "high": instructions * 1.0005}
    found = Count((instructions,) * 6, **ends, requests=8, seconds=9.0, architecture="x86_64")
    return replace(found, **changes)


def entry(work: Count | None = None, cpu_ns: float = 0.9 * MS) -> Entry:
    """An entry of a service whose latency is 1 ms."""
    times = {"rtm": 1.0 * MS, "latency_mean": 1.0 * MS, "cpu_per_request": cpu_ns}
    metrics = {name: (LaunchValue(value, 0.0),) for name, value in times.items()}
    if work is not None:
        metrics["instructions"] = (LaunchValue(work.per_request.value, 2.5e-4),)
    return Entry(SETUP, metrics, {}, "1a2b3c4", "2026-01-31", facts=FACTS, work=work)


def time(outcome: Outcome, change: float = 0.0, *, half: float = 0.2, metric: str = "rtm", **more: Any) -> Verdict:
    """What times say: by default in an interval that is wider than the tolerance of 10 %."""
    interval = Estimate(change, change - half, change + half)
    return Verdict(metric, "revision", outcome, "by times", interval, 0.10, 1.0 * MS, (1 + change) * MS, **more)


class Times:
    """The comparison by times."""

    def __init__(self, *found: Verdict | GeneratorLimitError) -> None:
        self.found = found
        self.asked: list[str] = []
        self.searched: list[object] = []

    def judge(self, choice: Any) -> Sequence[Verdict]:
        self.asked += [one.metric.name for one in choice(False)]
        for one in self.found:
            if isinstance(one, Exception):
                raise one
        return self.found  # type: ignore[return-value]


class Noted(CountedComparison):
    """A comparison and what it has noted."""

    @property
    def basis(self) -> Basis:
        return self._basis


class Passes:
    """Counts in the order in which they are made, by side."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *found: Count | CountError, can: Countable | None = None
    ) -> None:
        self.left = [*found]
        self.sides: list[str] = []
        monkeypatch.setattr(CountedPasses, "can", can or Countable())
        self.explained: list[str] = []
        monkeypatch.setattr(CountedPasses, "count_sides", lambda _self, sides, *_: tuple(map(self.next, sides)))
        monkeypatch.setattr(CountedPasses, "_with_calls", lambda _self, *given: self.explain(*given))

    def explain(self, counts: Sequence[Count], *others: Any) -> tuple[Count, ...]:
        self.explained += ["the working tree", *(one.name for one in others)]
        return tuple(replace(one, calls={"work (shop.py)": 1.0}) for one in counts)

    def next(self, side: Variant) -> Count:
        self.sides.append(side.name)
        one = self.left.pop(0)
        if isinstance(one, CountError):
            raise one
        return one


def measurement() -> SequentialMeasurement:
    """One launch of a service with one thread that works, on a quiet machine."""
    runner: Any = SimpleNamespace(close=lambda: None)
    found = SequentialMeasurement(runner, Spending(Budget(30 * 10**9)), 8)
    used = dataclasses.replace(usage(), busy_threads=(1,))
    found.take(DeclaredRun(second_launches=[replace(even_launch(), facts=FACTS, usage=used)]))  # type: ignore[arg-type]
    return found


CODE: Any = SimpleNamespace(
    name="main (1a2b3c4)",
    setup=lambda: SimpleNamespace(setup=SETUP, payload=None),
    start=None,
    close=lambda: None,
    accept=(),
    worktree=SimpleNamespace(directory=".", root=".", revision=SimpleNamespace(name="main")),
)
"""Other code, of which nothing is started."""


def compared_test(
    times: Times,
    marker: dict[str, Any] | None = None,
    *,
    stored: Entry | None = None,
    counted: Entry | None = None,
    other: bool = True,
    settle: Any = None,
    reference: Reference | None = None,
    missing: str = "",
    interrupted: bool = False,
) -> tuple[Sequence[Verdict], Noted]:
    """Compare a test: beside other code, beside an entry with a count, or beside both."""
    experiment = declared_experiment(stored, **(marker or {}))
    experiment = replace(
        experiment,
        baseline=replace(experiment.baseline, counted=counted),
        system=SimpleNamespace(start=None, options=SimpleNamespace(root=".", directory=".")),
        plan=SETUP,
        revision=CODE if other else None,
        settle=settle,
    )
    causes: Any = SimpleNamespace(interrupted=interrupted, search=lambda other, _verdicts: times.searched.append(other))
    measured = measurement()
    basis = Basis(experiment, measured)
    basis.causes = causes
    basis.keep("code", why_not=missing, reference=reference)
    comparison = Noted(times.judge, basis)
    settings = experiment.settings
    metrics = compared_by_default(settings, streams=False)
    chosen = compared_metrics(metrics, settings.tolerance, 0.025, requested=False)
    return comparison.judge(lambda _: chosen), comparison


def outcomes(verdicts: Sequence[Verdict]) -> dict[str, Outcome]:
    return {one.metric: one.outcome for one in verdicts}


WIDE, SUSPECTED, EDGE = time(OPEN), time(OPEN, 0.15), time(OPEN, 0.10, half=0.02)
QUIET: dict[str, Any] = {"stored": entry()}
"""An entry whose launches were quiet: nine tenths of the latency were CPU time."""


@pytest.mark.parametrize(
    ("verdict", "counts", "known", "outcome", "by_count"),
    [
        (WIDE, (4e6, 4e6), QUIET, PASS, PASS),
        (WIDE, (4.06e6, 4e6), QUIET, OPEN, PASS),  # 1.5 % more may be 2 % more
        (WIDE, (3.2e6, 4e6), QUIET, PASS, PASS),
        (WIDE, (4.6e6, 4e6), QUIET, OPEN, FAIL),  # which is clear
        (WIDE, (4.4e6, 4e6, 4.4e6), QUIET, OPEN, FAIL),
        (WIDE, (4.2e6, 4e6), QUIET, OPEN, PASS),  # as it would on a quiet machine
        (WIDE, (4e6, 4e6), {"stored": entry(cpu_ns=0.05 * MS)}, OPEN, PASS),  # it waits
        (WIDE, (4e6, 4e6), {}, OPEN, PASS),  # no quiet launch is known
        (SUSPECTED, (4e6, 4e6), QUIET, OPEN, PASS),  # it looks slower, and waits are not counted
        (time(OPEN, 0.15, why_open=BUSY), (4e6, 4e6), QUIET, PASS, PASS),  # which the machine explains
        (EDGE, (), QUIET, OPEN, None),
        (time(OPEN, why_open=WhyOpen(OpenBy.KINDS, "two kinds")), (), QUIET, OPEN, None),
        (time(OPEN, metric="peak_memory"), (), QUIET, OPEN, None),
        (time(PASS), (), QUIET, PASS, None),
        (time(FAIL, 0.5), (), QUIET, FAIL, None),
    ],
)  # fmt: skip
def test_what_a_count_decides_that_stands_for_times(
    monkeypatch: pytest.MonkeyPatch,
    verdict: Verdict,
    counts: Sequence[float],
    known: dict[str, Any],
    outcome: Outcome,
    by_count: Outcome | None,
) -> None:
    passes = Passes(monkeypatch, *map(count, counts))
    found, _ = compared_test(Times(verdict), **known)
    counted = {} if by_count is None else {"instructions": by_count}
    assert outcomes(found) == {verdict.metric: outcome, **counted}
    assert passes.left == []


@each_row(
    ("known", "waits_ns", "change", "outcome", "said"),
    [
        (QUIET, 0.0, 0.15, PASS, "work per request unchanged, ±"),
        (QUIET, 90.0 * MS, 0.15, OPEN, "% of the latency is its own CPU time"),  # another service is slower
        (QUIET, 90.0 * MS, 0.0, PASS, "work per request unchanged, ±"),
        (QUIET, None, 0.15, OPEN, "but it is not known how much of the latency is its own CPU time"),
        ({}, None, 0.0, OPEN, "but it is not known how much of the latency is its own CPU time"),
    ],
)
def test_what_the_recorded_code_shares_passes_by_what_its_time_is_made_of_today(
    known: dict[str, Any], waits_ns: float | None, change: float, outcome: Outcome, said: str
) -> None:
    """An entry shows what a request waited for then, and a machine that explains a part leaves the rest."""
    verdict = replace(time(OPEN, change, why_open=BUSY), against="baseline")
    with pytest.MonkeyPatch.context() as patch:
        Passes(patch, count(), count())
        settle: Any = lambda: SimpleNamespace(revision=CODE)  # noqa: E731
        figures = {"cpu_per_request": (6.0 * MS, 6.0 * MS, 7.0 * MS)}
        today = split({"model_cpu": 5.6 * MS, "run_queue": 6.0 * MS, "model_wait": waits_ns or 0.0})
        reference = None if waits_ns is None else Reference("revision", "main", figures, split={"rtm": today})
        found, comparison = compared_test(Times(verdict), **known, other=False, settle=settle, reference=reference)
    assert outcomes(found)["rtm"] is outcome
    assert said in comparison.basis.note


def test_an_unchanged_count_passes_no_test_that_is_probably_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    Passes(monkeypatch, count(), count())
    rate = time(OPEN, 0.30, half=0.2, metric="throughput")
    cpu, wide = time(OPEN, 0.30, half=0.2, metric="cpu_per_request"), time(OPEN, metric="p95")
    found, _ = compared_test(Times(rate, cpu, wide), **QUIET)
    assert set(outcomes(found).values()) == {OPEN, PASS}
    assert outcomes(found)["p95"] is OPEN


def test_the_calm_line_and_the_failure_name_what_was_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    Passes(monkeypatch, count(), count(), count(4.6e6), count(3.95e6), count(4.6e6))
    calm, comparison = compared_test(Times(time(OPEN, why_open=BUSY)), **QUIET)
    said = "the machine was too busy for times; work per request unchanged, ±"
    assert comparison.basis.note.startswith(said)
    assert said in calm[0].reason
    (_, failed), comparison = compared_test(Times(time(OPEN, why_open=BUSY)), **QUIET)
    assert failed.reason.startswith(
        "the machine was too busy for times; instructions per request 3.95 M → 4.60 M: 16.5 % worse, 99.0 % interval"
    )
    assert comparison.basis.note == ""
    reference = comparison.basis.reference
    assert reference.metrics["instructions"][0] == pytest.approx(3.95e6)
    width = math.log1p(failed.change.high) - math.log1p(failed.change.low)
    assert reference.log_ratios["instructions"][0] == pytest.approx((0.1523, width / 5.152), rel=1e-3)


def test_a_test_that_asks_has_one_more_guard_with_a_tolerance_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    marker = {"count": "instructions", "tolerance": 0.3}
    times = Times(time(PASS))
    passes = Passes(monkeypatch, count(4.2e6), count(), count(4.2e6))
    found, comparison = compared_test(times, marker)
    assert "instructions" not in times.asked
    assert outcomes(found) == {"rtm": PASS, "instructions": FAIL}
    assert passes.sides == ["the working tree", "main (1a2b3c4)", "the working tree"]  # a failure is confirmed
    assert passes.explained == ["the working tree", "main (1a2b3c4)"]
    assert [one.name for one in times.searched] == ["main (1a2b3c4)"]
    assert comparison.basis.work.then.calls == {"work (shop.py)": 1.0}


def test_a_count_of_an_entry_needs_no_other_code_where_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    marker = {"count": "instructions"}
    passes = Passes(monkeypatch, count())
    found, comparison = compared_test(Times(), marker, counted=entry(count()), other=False)
    assert outcomes(found) == {"instructions": PASS}
    assert (found[0].against, passes.sides) == ("baseline", ["the working tree"])
    Passes(monkeypatch, count(python="3.99"))
    found, comparison = compared_test(Times(), marker, stored=entry(count()), counted=entry(count()), other=False)
    assert list(found) == []
    assert "no entry with the same software has it" in str(comparison.basis.left_out["instructions per request"])


def test_a_package_that_computes_more_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the recorded code it does not show: both sides have the package of today."""
    passes = Passes(monkeypatch, count(5e6), count(5e6))
    before = replace(entry(count(4e6)), facts={**FACTS, "package numpy": "1.26.4"})
    both: dict[str, Any] = {"stored": before, "counted": before}
    found, _ = compared_test(
        Times(), {"count": "instructions"}, **both, other=False, settle=lambda: SimpleNamespace(revision=CODE)
    )
    assert outcomes(found) == {"instructions": FAIL}
    assert "and so is main (1a2b3c4) today: not the code, but numpy 1.26.4 → 2.1.0 changed" in found[0].reason
    assert passes.sides == ["the working tree", "main (1a2b3c4)"]


@each_row(
    ("facts", "holds"),
    [
        ({"kernel": "Linux 6.8.0", "allowed cores": "2", "BLAS": "openblas Zen"}, True),
        ({"package numpy": "2.1.1"}, False),
        ({"Python": "3.11.8"}, False),
        ({"libc": "glibc 2.39"}, False),
        ({"PYTHONOPTIMIZE": "1"}, False),
        ({"OPENBLAS_CORETYPE": "Prescott"}, False),
        ({"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2"}, False),
        ({"LD_PRELOAD": "libjemalloc.so.2"}, False),
        ({"OMP_NUM_THREADS": "2"}, True),
    ],
)
def test_an_entry_holds_for_every_machine_with_the_same_software(facts: dict[str, str], holds: bool) -> None:
    then = replace(entry(count()), facts={**FACTS, "libc": "glibc 2.36", "kernel": "Linux 6.1.0"})
    assert holds_here(then, count(), {**then.facts, **facts}) is holds
    for architecture in ("aarch64", "x86_64 without AVX2"):
        assert not holds_here(then, count(architecture=architecture), then.facts)
    assert not holds_here(then, count(requests=9), then.facts)
    assert not holds_here(replace(then, facts={}), count(), then.facts)


@each_row(
    ("cpu_ns", "in_flight", "threads", "share"),
    [(0.8, 1, 1, 0.8), (0.8, None, 4, 0.8), (0.1, 8, 1, 0.8), (0.1, 8, 2, 0.4), (0.2, 2, 8, 0.2), (0.0, 1, 0, 0.0)],
)
def test_the_wait_for_other_callers_is_cpu_time_as_far_as_threads_are_fewer(
    cpu_ns: float, in_flight: int | None, threads: int, share: float
) -> None:
    figures = {"cpu_per_request": cpu_ns, "rtm": 0.9, "latency_mean": 1.0}
    assert own_share(figures, in_flight, threads) == pytest.approx(share)
    assert own_share({"cpu_per_request": cpu_ns}, in_flight, threads) == 0.0


@each_row(
    ("marker", "over"),
    ({"count": "off"}, {}),
    ({}, {"missing": "not compared with main"}),
    ({}, {"interrupted": True}),
)
def test_nothing_is_counted_that_is_not_to_be_or_once_a_comparison_is_over(
    marker: dict[str, Any], over: dict[str, Any]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        passes, times = Passes(patch), Times(WIDE)
        found, _ = compared_test(times, marker, **QUIET, **over)
    assert (list(found), passes.sides, times.searched) == ([WIDE], [], [])


def test_without_the_tool_nothing_changes_but_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    why = "valgrind is not installed (apt-get install valgrind)"
    Passes(monkeypatch, can=Countable(why, lacks_tool=True))
    found, comparison = compared_test(Times(WIDE), **QUIET)
    assert list(found) == [WIDE]
    assert comparison.basis.work.not_counted == why
    assert comparison.basis.left_out == {}
    with pytest.raises(SettingError, match="apt-get install valgrind"):
        decide_limit(declared_experiment(), measurement(), METRICS["instructions"], limit=4.2e6)


def test_a_pass_that_fails_leaves_times_alone_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    Passes(monkeypatch, CountError("two rounds take longer than 60 s"), CountError("two rounds take longer than 60 s"))
    found, comparison = compared_test(Times(WIDE), **QUIET)
    assert list(found) == [WIDE]
    assert str(comparison.basis.left_out["instructions per request"]) == (
        "is not known: two rounds take longer than 60 s"
    )
    one = compared_metrics([METRICS["instructions"]], declared_experiment().settings.tolerance, 0.025, requested=True)
    with pytest.raises(PerfFailure, match="cannot judge instructions per request: it is not known: two rounds"):
        comparison.judge(lambda _: one)


@pytest.mark.parametrize(
    ("load", "cores", "quota", "seconds"),
    [(0.5, 2, 2, 60), (4.0, 2, 2, 120), (40.0, 2, 2, 180), (4.0, 16, 16, 60), (1.0, 16, 1.6, 75), (0.1, 16, 0.25, 180)],
)
def test_passes_have_more_time_where_other_programs_or_a_limit_take_the_cores(
    monkeypatch: pytest.MonkeyPatch, load: float, cores: int, quota: float, seconds: int
) -> None:
    monkeypatch.setattr("psutil.getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr("pytest_mlpatterns.judging.counting.machine_cores", lambda: cores)
    monkeypatch.setattr("pytest_mlpatterns.judging.counting.available_cores", lambda: quota)
    assert pass_ns() == seconds * 1_000_000_000


def test_a_machine_too_busy_for_the_load_generator_fails_what_needs_more_work(monkeypatch: pytest.MonkeyPatch) -> None:
    limited = GeneratorLimitError("the load generator was the limit")
    Passes(monkeypatch, count(5e6), count(), count(), count())
    found, _ = compared_test(Times(limited), **QUIET)
    assert outcomes(found) == {"instructions": FAIL}
    with pytest.raises(GeneratorLimitError):
        compared_test(Times(limited), **QUIET)


@each_row(("limit", "outcome", "passes"), [(4.2e6, PASS, 1), (3.9e6, FAIL, 2), (4.01e6, OPEN, 2)])
def test_a_limit_of_instructions(limit: float, outcome: Outcome, passes: int) -> None:
    system: Any = SimpleNamespace(start=None, options=SimpleNamespace(root=".", directory="."))
    experiment = replace(declared_experiment(), system=system)
    with pytest.MonkeyPatch.context() as patch:
        made = Passes(patch, count(), count())
        verdict = decide_limit(experiment, measurement(), METRICS["instructions"], limit=limit)
    assert (verdict.outcome, len(made.sides)) == (outcome, passes)


@pytest.mark.parametrize(
    ("asked", "theirs", "outcome", "said"),
    [
        (Factor("instructions", 2.0), 12e6, PASS, "3 times as few"),
        (Factor("instructions", 4.0), 12e6, FAIL, "which is not at least 4"),
        (Factor("instructions", 3.0), 12e6, OPEN, "which may or may not be at least 3"),
        (Factor("instructions", 1 / 1.02, 1.02), 4e6, PASS, "(at most 2.0 % slower)"),
    ],
)
def test_two_services_are_compared_by_their_instructions(
    asked: Factor, theirs: float, outcome: Outcome, said: str
) -> None:
    verdict = rule_work([count()], [count(theirs)], asked, names=("cached", "single"))
    assert verdict.outcome is outcome
    assert verdict.reason.startswith(f"instructions per request 4.00 M (cached) against {theirs / 1e6:.3g}")
    assert said in verdict.reason


def test_waits_for_a_processor_are_no_part_of_the_latency_that_is_compared_with_cpu_time() -> None:
    busy = split({"model_cpu": 5.6 * MS, "run_queue": 6.0 * MS, "socket": 4.0 * MS})
    reference = Reference("revision", "main", {"cpu_per_request": (6.0 * MS, 5.0 * MS, 7.0 * MS)}, split={"rtm": busy})
    assert own_share(unhindered_figures(reference), 1, 1) > 0.9
    waits = split({"model_cpu": 5.6 * MS, "run_queue": 6.0 * MS, "model_wait": 9.0 * MS})
    assert own_share(unhindered_figures(replace(reference, split={"rtm": waits})), 1, 1) < 0.5
    assert unhindered_figures(replace(reference, split={})) == {}
