"""A comparison that the file screens and the recorded code settles: who decides, and what is left if it cannot."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from support.declared_run import DeclaredRun
from support.each_row import each_row
from support.experiments import declared_experiment, entry_of
from support.synthetic import MS, START_NS, S, even_launch, launch, make_setup, samples, usage
from test_baseline_comparison import BEFORE, make_launch

from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.analysis.statistics.alpha_spending import BASELINE_ALPHA, SequentialPlan
from pytest_mlpatterns.analysis.verdicts.tolerances import Tolerances
from pytest_mlpatterns.baseline.lookup import BaselineMatch
from pytest_mlpatterns.config.run_settings import BaselineMode
from pytest_mlpatterns.config.settings import NoisePolicy
from pytest_mlpatterns.errors import DeploymentError, GeneratorLimitError, InvalidResultError, SettingError
from pytest_mlpatterns.judging.basis import Basis
from pytest_mlpatterns.judging.budget import Budget, Spending
from pytest_mlpatterns.judging.compared_metrics import Chosen, ComparedMetric, compared_by_default, compared_metrics
from pytest_mlpatterns.judging.experiment import Settlement
from pytest_mlpatterns.judging.look import Look
from pytest_mlpatterns.judging.metric_rules import judge_guarded
from pytest_mlpatterns.judging.sequential import SequentialMeasurement
from pytest_mlpatterns.judging.settled_comparison import Screened, SettledComparison
from pytest_mlpatterns.judging.settling_rules import Seen, settle
from pytest_mlpatterns.records.baseline_entry import Entry
from pytest_mlpatterns.records.launch import Estimate, Launch, LaunchValue
from pytest_mlpatterns.records.result_parts import BaselineGap
from pytest_mlpatterns.records.verdict import LeftOut, Outcome, Verdict
from pytest_mlpatterns.revision.commits import ShallowCloneError, UnknownRevisionError

PASS, FAIL, OPEN = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
NAME = "the baseline's commit (a1b2c3d)"
ENTRY = Entry(make_setup(), {"rtm": (LaunchValue(1e6, 0.01),) * 4}, {}, None, "2026-01-31")


def verdict(outcome: Outcome, metric: str = "rtm", *, of: str = "baseline") -> Verdict:
    change = {PASS: 0.0, OPEN: 0.08, FAIL: 0.5}[outcome]
    return Verdict(metric, of, outcome, of, Estimate(change, change - 0.05, change + 0.05), 0.1, 1e6, 1.5e6)  # type: ignore[arg-type]


class File:
    """The file: what it says."""

    def __init__(self, found: Sequence[Verdict] | Exception) -> None:
        self.found = found
        self.judged: list[str] = []

    def judge(self, choice: Any) -> Sequence[Verdict]:
        self.judged += [one.metric.name for one in choice(False)]
        if isinstance(self.found, Exception):
            raise self.found
        return self.found

    def chosen(self, choice: Any) -> Chosen:
        return Chosen(choice(False), {})

    def look(self, present: Metrics) -> Look:
        return Look(present, ENTRY, SequentialPlan(first=1, last=8))


class Screen(File):
    """The file: what it sees as a screen, and what it says ``alone``."""

    def __init__(self, seen: Sequence[Verdict] | Exception, alone: Sequence[Verdict] = ()) -> None:
        super().__init__(seen)
        self.alone = File(alone)


class Recorded:
    """The recorded code: the verdicts of an interleaved run, or why there is none."""

    def __init__(self, found: Sequence[Verdict] | Exception = (), missing: str = "") -> None:
        self.found, self.missing = found, missing
        self.run = None
        self.asked: list[str] = []

    def compare(self, choice: Any) -> Sequence[Verdict]:
        self.asked += [one.metric.name for one in choice(False)]
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


class Declared(SettledComparison):
    """A comparison whose sides are declared."""

    def __init__(self, experiment: Any, measurement: Any, causes: Any, sides: tuple[Any, Any]) -> None:
        self.basis = Basis(experiment, measurement)
        self.basis.causes = causes
        super().__init__(self.basis)
        self._screen, self._code = sides
        self._file = self._screen.alone
        self.basis.keep("code", why_not=sides[1].missing, run=sides[1].run)


def settled(
    screen: Screen,
    recorded: Recorded,
    *names: str,
    settlement: Settlement | Exception | None = None,
    entry: bool = True,
    closed: bool = True,
    gap: BaselineGap | None = None,
    sorting_ns: tuple[Sequence[float], Sequence[float]] = ((), ()),
    interrupted: bool = False,
) -> tuple[dict[str, Verdict], Declared]:
    """Compare some metrics, with these two sides; the fixed work took so long then, and takes so long now."""

    def settle() -> Settlement:
        if isinstance(settlement, Exception):
            raise settlement
        return settlement or Settlement(SimpleNamespace(), NAME)  # type: ignore[arg-type]

    then_ns, now_ns = sorting_ns
    stored = replace(ENTRY, sorting_ns=tuple(then_ns)) if entry else None
    experiment: Any = SimpleNamespace(
        smoke=False,
        settle=settle,
        setup=make_setup(),
        settings=SimpleNamespace(noise=NoisePolicy.TRUST, overload=False),
        plan=SimpleNamespace(schedule=SimpleNamespace(closed=closed)),
        revision=None,
        baseline=BaselineMatch(make_setup(), BaselineMode.CHECK, stored, gap, name="the entry"),
    )
    causes: Any = SimpleNamespace(interrupted=interrupted)
    launches = (replace(even_launch(), sorting_ns=tuple(now_ns)),)
    metrics: Any = SimpleNamespace(launches=launches, streams=False, launch_values=lambda _: [LaunchValue(1.0, 0.0)])
    measurement: Any = SimpleNamespace(metrics=metrics, so_far=metrics)
    comparison = Declared(experiment, measurement, causes, (screen, recorded))
    chosen = [METRICS[name] for name in names or ("rtm",)]
    compared = compared_metrics(chosen, Tolerances(), 0.01, requested=False)
    return {one.metric: one for one in comparison.judge(lambda _: compared)}, comparison


def test_what_the_file_decides_is_not_measured_again() -> None:
    recorded = Recorded()
    found, comparison = settled(Screen([verdict(PASS)]), recorded)
    assert found["rtm"].outcome is PASS
    assert recorded.asked == []
    assert comparison.basis.note == ""


def screened(*seen: Verdict, then_ns: Sequence[float] = (), now_ns: Sequence[float] = ()) -> Screened:
    """What the file sees, on a machine on which the fixed work took so long then, and takes so long now."""
    entry = replace(ENTRY, sorting_ns=tuple(then_ns))
    present = Metrics((replace(even_launch(), sorting_ns=tuple(now_ns)),))
    return Screened({one.metric: one for one in seen}, entry, present, frozenset({"peak_memory"}))


def chosen(*names: str) -> Sequence[ComparedMetric]:
    return compared_metrics([METRICS[name] for name in names], Tolerances(), 0.01, requested=False)


@each_row(
    ("then_ns", "now_ns", "is_faster"),
    [
        ([1e6], [0.90e6], True),
        ([1e6], [0.94e6], True),
        ([1e6], [0.96e6], False),
        ([1e6], [1.3e6], False),
        ([1e6, 1.6e6] * 8, [1e6, 1.6e6], True),  # a host whose cores change between two speeds: it may be faster now
        ([1e6, 1.1e6] * 8, [1e6, 1.1e6], False),
    ],
)
def test_on_a_machine_that_became_faster_or_may_have_the_file_decides_nothing(
    then_ns: list[float], now_ns: list[float], is_faster: bool
) -> None:
    assert screened(verdict(PASS), then_ns=then_ns, now_ns=now_ns).is_faster is is_faster
    recorded = Recorded([verdict(FAIL, of="revision")])
    found, _ = settled(Screen([verdict(PASS)]), recorded, sorting_ns=(then_ns, now_ns))
    assert found["rtm"].outcome is (FAIL if is_faster else PASS)


def test_the_cpu_time_is_settled_at_half_the_level_of_a_primary_metric() -> None:
    found = screened(verdict(OPEN)).to_settle(chosen("rtm", "throughput", "cpu_per_request"))
    assert {one.metric.name: one.alpha for one in found} == dict.fromkeys(
        ("rtm", "throughput", "cpu_per_request"), 0.0125
    )


@pytest.mark.parametrize(("now_ns", "worse"), [(1.0e6, ["rtm"]), (1.3e6, [])], ids=["as quick", "slower"])
def test_what_the_file_saw_on_a_machine_as_quick_as_then_needs_fewer_pairs(now_ns: float, worse: list[str]) -> None:
    """On a slower machine everything looks worse, so that the file knows nothing of this metric."""
    seen = screened(verdict(FAIL), verdict(PASS, "throughput"), then_ns=[1e6], now_ns=[now_ns])
    assert [one.metric.name for one in seen.to_settle(chosen("rtm", "throughput")) if one.seen_worse] == worse


def test_what_the_file_suspects_is_worth_the_pairs_to_judge_it() -> None:
    suspected = replace(verdict(OPEN, "p99"), change=Estimate(0.6, -0.1, 1.3))
    found = screened(verdict(PASS), suspected).to_settle(chosen("rtm", "p99"))
    assert [one.metric.name for one in found if one.is_suspected] == ["p99"]


def test_what_no_machine_changes_and_the_file_decides_is_not_settled() -> None:
    for outcome, settles in ((FAIL, ["rtm"]), (OPEN, ["rtm", "peak_memory"])):
        seen = screened(verdict(OPEN), verdict(outcome, "peak_memory"))
        assert [one.metric.name for one in seen.to_settle(chosen("rtm", "peak_memory"))] == settles


@pytest.mark.parametrize(
    ("settlement", "is_judged", "is_the_same"),
    [
        (Settlement(SimpleNamespace(), NAME), True, False),  # type: ignore[arg-type]
        (Settlement(SimpleNamespace(), NAME, "whose files differ"), False, False),  # type: ignore[arg-type]
        (Settlement(None, "the working tree itself"), False, True),
        (UnknownRevisionError("this clone is shallow"), False, False),
    ],
    ids=["other code", "other files were measured", "the same code", "unknown"],
)
def test_the_file_stops_at_one_launch_where_the_recorded_code_decides(
    settlement: Settlement | Exception, is_judged: bool, is_the_same: bool
) -> None:
    _, comparison = settled(Screen([verdict(PASS)]), Recorded(), settlement=settlement)
    assert comparison._is_judged_by_the_code() is is_judged
    assert comparison._is_the_recorded_code() is is_the_same


@pytest.mark.parametrize("seen", [OPEN, FAIL])
def test_anything_else_is_the_recorded_code_s_to_decide(seen: Outcome) -> None:
    found, comparison = settled(Screen([verdict(seen)]), Recorded([verdict(FAIL, of="revision")]))
    assert (found["rtm"].outcome, found["rtm"].against) == (FAIL, "revision")
    assert comparison.basis.note == f"compared with {NAME}"


def test_what_no_machine_changes_and_the_file_decides_stands() -> None:
    recorded = Recorded([verdict(PASS, of="revision")])
    screen = Screen([verdict(OPEN), verdict(FAIL, "peak_memory")])
    found, _ = settled(screen, recorded, "rtm", "peak_memory")
    assert {name: one.outcome for name, one in found.items()} == {"rtm": PASS, "peak_memory": FAIL}
    assert recorded.asked == ["rtm"]


@each_row(
    "why",
    [
        Recorded(DeploymentError(f"test_it at {NAME} did not answer within 60 s", side=NAME)),
        Recorded(SettingError("closed(4) takes 60 s")),
        Recorded(GeneratorLimitError("the working tree: in 5 turns in a row the generator was the limit")),
        Recorded(InvalidResultError("the working tree: NMRT is at least 5 req/s, but not known")),
        Recorded(missing="not comparable"),
        Recorded(InvalidResultError(f"{NAME}: 300 of 1,000 requests failed", side=NAME)),
    ],
)
def test_if_the_recorded_code_gives_no_measurement_the_file_decides_and_says_why(why: Recorded) -> None:
    screen = Screen([verdict(OPEN)], alone=[verdict(FAIL)])
    found, comparison = settled(screen, why, gap=BaselineGap.ABSENT)
    assert found["rtm"].outcome is FAIL
    assert "; not compared with the recorded commit: " in comparison.basis.note
    assert comparison.basis.missing == str(BaselineGap.ABSENT)
    assert comparison.basis.gap is BaselineGap.ABSENT
    comparison.judge(lambda _: compared_metrics([METRICS["throughput"]], Tolerances(), 0.01, requested=False))
    assert why.asked == ["rtm"]  # it is not tried again


def test_an_error_of_the_present_is_the_test_s() -> None:
    with pytest.raises(DeploymentError, match="the working tree: a process ended"):
        settled(Screen([verdict(OPEN)]), Recorded(DeploymentError("the working tree: a process ended")))


@pytest.mark.parametrize("seen", [OPEN, PASS], ids=["open", "only the machine may be faster"])
def test_requests_of_the_present_that_fail_beside_the_recorded_code_are_the_test_s_error(seen: Outcome) -> None:
    failed = InvalidResultError("the working tree: 300 of 1,000 requests failed", side="the working tree")
    with pytest.raises(InvalidResultError, match="300 of 1,000 requests failed"):
        settled(Screen([verdict(seen)]), Recorded(failed), sorting_ns=([1e6], [0.7e6]))


def test_on_a_faster_machine_the_file_alone_decides_what_could_not_be_settled() -> None:
    hidden = verdict(OPEN)
    found, comparison = settled(
        Screen([verdict(PASS)], alone=[hidden]),
        Recorded(),
        settlement=UnknownRevisionError("this clone is shallow"),
        sorting_ns=([1e6], [0.7e6]),
    )
    assert found["rtm"] == hidden
    assert comparison.basis.note == "not compared with the recorded commit: this clone is shallow"


@pytest.mark.parametrize("entry", [True, False])
def test_what_only_an_entry_of_this_machine_has_is_named(entry: bool) -> None:
    screen, recorded = Screen([verdict(OPEN)]), Recorded([verdict(PASS, of="revision")])
    _, comparison = settled(screen, recorded, "rtm", "asl_at_nmrt", entry=entry)
    why = LeftOut("needs an entry of this machine: --perf-baseline update")
    assert comparison.basis.left_out == ({} if entry else {METRICS["asl_at_nmrt"].label: why})


@pytest.mark.parametrize("kind", [UnknownRevisionError, ShallowCloneError])
def test_code_that_is_not_known_leaves_it_to_the_file(kind: type[UnknownRevisionError]) -> None:
    unknown = kind("this clone is shallow")
    found, comparison = settled(Screen([verdict(OPEN)], alone=[verdict(OPEN)]), Recorded(), settlement=unknown)
    assert found["rtm"].outcome is OPEN
    assert comparison.basis.note == "not compared with the recorded commit: this clone is shallow"
    assert comparison.basis.settled.remedy == ("this clone is shallow" if kind is ShallowCloneError else "")


def test_a_machine_too_busy_for_the_file_may_still_compare_both() -> None:
    busy = GeneratorLimitError("the load generator was the limit")
    found, _ = settled(Screen(busy), Recorded([verdict(PASS, of="revision")]))
    assert found["rtm"].outcome is PASS
    with pytest.raises(GeneratorLimitError):  # an open loop that was not sustained
        settled(Screen(busy), Recorded([verdict(PASS, of="revision")]), closed=False)


def test_a_limit_of_the_generator_is_never_silence() -> None:
    """The working tree is the recorded code, so that nothing else can be measured."""
    busy, here = GeneratorLimitError("the load generator was the limit"), Settlement(None, "the working tree itself")
    for entry in (True, False):
        with pytest.raises(GeneratorLimitError):
            settled(Screen(busy), Recorded(), settlement=here, entry=entry)


def test_what_a_limited_generator_hides_is_seen_beside_the_recorded_code() -> None:
    """The launches of the present there are worse than the entry, and so are those of the recorded code."""
    screen = Screen(GeneratorLimitError("the load generator was the limit"))
    recorded = Recorded([verdict(PASS, of="revision")])
    recorded.run = DeclaredRun(first_launches=[even_launch()] * 3, second_launches=[even_launch()] * 3)  # type: ignore[assignment]
    found, _ = settled(screen, recorded)
    assert found["rtm"].outcome is OPEN
    assert "and so is the baseline's commit (a1b2c3d) today: not the code" in found["rtm"].reason


def test_what_the_code_of_an_entry_with_other_files_shares_proves_nothing() -> None:
    later = Settlement(SimpleNamespace(), NAME, "whose files differ from those that the file was recorded from")  # type: ignore[arg-type]
    screen, recorded = Screen([verdict(FAIL)]), Recorded([verdict(PASS, of="revision")])
    found, _ = settled(screen, recorded, settlement=later)
    assert found["rtm"].outcome is FAIL
    assert found["rtm"].reason.endswith(
        "whose files differ from those that the file was recorded from: it may have the change too"
    )


def test_a_commit_with_other_files_is_not_the_measured_code() -> None:
    here = Settlement(None, "the working tree itself", "whose files differ from those that the file was recorded from")
    screen = Screen([verdict(FAIL)], alone=[verdict(FAIL)])
    found, comparison = settled(screen, Recorded(), settlement=here)
    assert found["rtm"].outcome is FAIL
    assert "the commit that brought the entry, whose files differ" in comparison.basis.note
    _, elsewhere = settled(Screen([]), Recorded(), settlement=here, entry=False)
    assert elsewhere.basis.note.startswith("compared with the working tree itself")  # nothing speaks against it


@pytest.mark.parametrize("interrupted", [False, True])
def test_what_an_interleaved_run_does_not_give_is_the_file_s(interrupted: bool) -> None:
    """Unless an interrupt waits for the verdicts that there are."""
    recorded, screen = Recorded([verdict(PASS, of="revision")]), Screen([verdict(OPEN)], alone=[verdict(PASS, "sc")])
    found, _ = settled(screen, recorded, "rtm", "sc", interrupted=interrupted)
    others = [] if interrupted else ["sc"]
    assert screen.alone.judged == others
    assert recorded.asked == ["rtm"]
    assert [*found] == ["rtm", *others]


(ERRORS,) = compared_metrics([METRICS["error_rate"]], Tolerances(), 0.01, requested=False)


def failing(seed: int, count: int) -> Launch:
    """A launch whose first requests failed."""
    made = make_launch(seed)
    outcome = made.samples.outcome.copy()
    outcome[:count] = 500
    return replace(made, samples=replace(made.samples, outcome=outcome))


@pytest.mark.parametrize(("still_failing", "expected"), [(0, Outcome.PASS), (5, Outcome.INCONCLUSIVE)])
def test_failures_that_the_recorded_code_does_not_have_today_have_passed(still_failing: int, expected: Outcome) -> None:
    present = [failing(seed, seed) for seed in range(3)]
    recorded, beside = ([failing(seed, still_failing) for seed in seeds] for seeds in (range(20, 32), range(40, 52)))
    file, now = BEFORE, Metrics(tuple(present))
    screened = judge_guarded(ERRORS, file, now, against="baseline", in_flight=1)
    sides = (Metrics(tuple(side)) for side in (recorded, beside))
    judged = judge_guarded(ERRORS, *sides, against="revision", in_flight=1)
    today = judge_guarded(ERRORS, file, Metrics(tuple(recorded)), against="baseline", in_flight=1)
    assert screened.suspected
    assert judged.outcome is Outcome.PASS
    seen = Seen(file=screened, recorded=judged, name="the baseline's commit", is_standing=True, today=today)
    assert settle(seen).verdict.outcome is expected


OFFERED_RPS, CAPACITY_RPS = 400, 250
"""Load, and what the service of the baseline's machine can answer of it."""


def overloaded(seed: int, slower: float = 1.0, share: float = 1.0) -> Launch:
    """A service that refuses at once what exceeds its capacity, on a machine that is slower, or with less capacity."""
    rng, count = np.random.default_rng(seed), int(2.5 * OFFERED_RPS)
    due = START_NS - S // 2 + np.arange(count) * (S // OFFERED_RPS)
    served = rng.random(count) < share * CAPACITY_RPS / slower / OFFERED_RPS
    latency_ns = np.where(served, 20 * MS * slower * np.exp(rng.normal(0, 0.05, count)), 0.5 * MS)
    rows = samples(due, latency_ns.astype(np.int64), outcome=np.where(served, 200, 503))
    made = launch(rows, seconds=2.0, used=usage(0.9, 1.1, seconds=2.0), open_loop=True)
    return replace(made, sorting_ns=(0.7 * MS * slower * float(np.exp(rng.normal(0, 0.02))),))


@pytest.mark.parametrize(
    ("slower", "share", "expected"),
    [(1.0, 1.0, Outcome.PASS), (1.3, 1.0, Outcome.INCONCLUSIVE), (1.0, 0.75, Outcome.FAIL), (1.3, 0.6, Outcome.FAIL)],
)
def test_a_slower_machine_that_refuses_more_of_an_overload_is_asked_about(
    monkeypatch: pytest.MonkeyPatch, slower: float, share: float, expected: Outcome
) -> None:
    made = iter([overloaded(seed, slower, share) for seed in range(8)])

    def settle() -> None:
        raise UnknownRevisionError("this clone is shallow")

    experiment = declared_experiment(
        entry_of([overloaded(seed) for seed in range(100, 108)]), rate_rps=OFFERED_RPS, overload=True
    )
    settings = experiment.settings
    plan = SimpleNamespace(schedule=settings.schedule)
    experiment = replace(experiment, setup=make_setup(load="constant(400/s)"), plan=plan, settle=settle)
    runner: Any = SimpleNamespace(measure=lambda: next(made), want_requests=lambda _enough, **_how: None)
    measurement = SequentialMeasurement(runner, Spending(Budget(60 * S)), 8, overload=True)
    comparison = SettledComparison(Basis(experiment, measurement))

    def choice(streams: bool) -> Sequence[ComparedMetric]:
        wanted = compared_by_default(settings, streams=streams)
        return compared_metrics(wanted, settings.tolerance, BASELINE_ALPHA, requested=False)

    asked: list[str] = []
    by_the_recorded_code = comparison._by_the_recorded_code

    def seen(rest: Any) -> Sequence[Verdict]:
        asked.extend(one.metric.name for one in rest(False))
        return by_the_recorded_code(rest)

    monkeypatch.setattr(comparison, "_by_the_recorded_code", seen)
    found = {verdict.metric: verdict for verdict in comparison.judge(choice)}
    assert found["error_rate"].outcome is expected, found["error_rate"].reason
    assert ("error_rate" in asked) is (expected is not Outcome.PASS)
