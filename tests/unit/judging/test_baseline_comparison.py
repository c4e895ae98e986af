"""Comparisons with a baseline entry, over declared launches: guards, busy neighbours, and metrics that are missing."""

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from support.each_row import each_row
from support.experiments import beside_the_file, declared_experiment, entry_of
from support.synthetic import MS, SETUP, START_NS, S, launch, samples, usage

from pytest_mlpatterns import PerfFailure
from pytest_mlpatterns.analysis.capacity.scaling import NOT_MEASURED
from pytest_mlpatterns.analysis.changes.series import USUAL_SCATTER, LaunchScatter
from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.analysis.metrics.pattern_metrics import NO_INDICES, ScalingIndices
from pytest_mlpatterns.analysis.statistics.alpha_spending import BASELINE_ALPHA
from pytest_mlpatterns.analysis.verdicts.tolerances import Tolerances
from pytest_mlpatterns.config.settings import read_settings
from pytest_mlpatterns.errors import InvalidResultError
from pytest_mlpatterns.judging import metric_rules
from pytest_mlpatterns.judging.basis import Basis
from pytest_mlpatterns.judging.budget import Budget, Spending
from pytest_mlpatterns.judging.compared_metrics import compared_by_default, compared_metrics, marked_accepted
from pytest_mlpatterns.judging.experiment import LoadDriver
from pytest_mlpatterns.judging.look import AbsentMetricError, UnknownMetricError
from pytest_mlpatterns.judging.perf import Perf
from pytest_mlpatterns.judging.sequential import SequentialMeasurement
from pytest_mlpatterns.records.baseline_entry import Entry
from pytest_mlpatterns.records.launch import Capacity, Estimate, Launch, LaunchValue, Taken
from pytest_mlpatterns.records.verdict import LeftOut, Outcome, Verdict

SORTING_NS = 0.7 * MS


def make_launch(
    seed: int,
    *,
    rtm_ns: float = 3 * MS,
    slow: float = 0.0,
    failed: float = 0.0,
    rss_mib: float = 64.0,
    start_s: float = 0.5,
    cpu_cores: float = 0.9,
    size: int = 150,
    others_cores: float = 0.0,
    steal_cores: float = 0.0,
    throttled: float = 0.0,
    machine: float = 1.0,
    moment: float = 1.0,
) -> Launch:
    """A launch of 0.7 s with one caller: launches differ by 2 %, requests by 5 %.

    A slower ``machine`` multiplies the time of all work, a disturbed ``moment`` that of the fixed work at the end.
    """
    rng = np.random.default_rng(seed)
    level = rtm_ns * machine * np.exp(rng.normal(0, 0.02))
    count = int(0.7 * S / level)
    latency = level * np.exp(rng.normal(0, 0.05, count)) * np.where(rng.random(count) < slow, 4.0, 1.0)
    due = START_NS + np.cumsum(latency) - latency
    outcome = np.where(rng.random(count) < failed, 500, 200)
    busy = usage(
        cpu_cores,
        cpu_cores + 0.2 + others_cores,
        seconds=0.7,
        rss_bytes=(round(rss_mib * 2**20 * np.exp(rng.normal(0, 0.01))),),
        others_cores=others_cores,
        steal_cores=steal_cores,
        throttled=throttled,
    )
    measured = launch(
        samples(due.astype(np.int64), latency.astype(np.int64), outcome=outcome, received_bytes=size),
        seconds=0.7,
        used=busy,
        cold_start_ns=round(start_s * machine * S * np.exp(rng.normal(0, 0.05))),
    )
    return replace(measured, sorting_ns=(SORTING_NS * machine * moment * np.exp(rng.normal(0, 0.02)),))


BEFORE = entry_of([make_launch(seed) for seed in range(100, 106)])


class Runner:
    """Gives launches of the same kind, one after the other, and finds the same NMRT in every search.

    ``each``: what a launch has of its own, by its number.
    """

    def __init__(
        self, nmrt_rps: float = 300.0, *, seed: int = 0, each: Callable[[int], Any] = lambda _: {}, **change: Any
    ) -> None:
        self._seed = seed
        self._each = each
        self._change = change
        self._nmrt_rps = nmrt_rps
        self.launches: list[Launch] = []
        self.searches = 0

    def measure(self) -> Launch:
        number = len(self.launches)
        self.launches.append(make_launch(self._seed + number, **self._change, **self._each(number)))
        return self.launches[-1]

    def search(self, _decided: Any, objective: Any, _left_ns: int) -> Capacity:
        self.searches += 1
        return Capacity(LaunchValue(self._nmrt_rps, 0.01), 4, (), "declared", at_least=False, objective=objective)

    def want_requests(self, _enough: int, *, decides_alone: bool = False) -> None:
        """A launch has what its window holds."""

    def close(self) -> None:
        """Nothing runs."""


class Recovering(Runner):
    """Its first launches are slow, each in another way; the others are as recorded."""

    def measure(self) -> Launch:
        slow = dict(enumerate((4.2 * MS, 3 * MS, 3.5 * MS)))
        self._change = {"rtm_ns": slow.get(len(self.launches), 3 * MS)}
        return super().measure()


def screened_launches(
    *, is_settled: bool = True, is_alone: bool = False, start_s: int = 0, runner: Runner | None = None, **change: Any
) -> int:
    """Launches that a screen by the file takes in 60 s.

    ``is_settled``: whether the recorded code can be measured. ``is_alone``: whether the working tree is that code.
    ``start_s``: time of the first start.
    """
    runner, experiment = runner or Runner(**change), declared_experiment(BEFORE)
    settings = experiment.settings
    experiment = replace(experiment, plan=SimpleNamespace(schedule=settings.schedule))
    measurement = SequentialMeasurement(runner, Spending(Budget(60 * S, start_s * S)), 8)  # type: ignore[arg-type]
    metrics = compared_by_default(settings, streams=False)
    compared = compared_metrics(metrics, settings.tolerance, BASELINE_ALPHA, requested=False)
    beside_the_file(
        experiment, measurement, lambda _streams: compared, is_settled=lambda: is_settled, is_alone=is_alone
    )
    return len(runner.launches)


def compare(
    runner: Any,
    *names: str,
    entry: Entry = BEFORE,
    requested: bool = False,
    indices: ScalingIndices = NO_INDICES,
    on_note: Callable[[str], None] = lambda _note: None,
    scatter: LaunchScatter = USUAL_SCATTER,
    **marker: object,
) -> tuple[dict[str, Verdict], Basis]:
    """Compare the launches of a runner with an entry, in the default metrics or in those that are named."""
    experiment = declared_experiment(entry, **{"launches": 8, **marker})
    experiment = replace(experiment, driver=LoadDriver({}, print, on_note=on_note), scatter=scatter)
    settings, measurement = experiment.settings, SequentialMeasurement(runner, Spending(Budget(60 * S)), 8)
    if indices is not NO_INDICES:
        measurement.measure_at_least(1)
        measurement.adopt(indices=indices)
    metrics = [METRICS[name] for name in names] or compared_by_default(settings, streams=False)
    compared = compared_metrics(metrics, settings.tolerance, BASELINE_ALPHA, requested=requested)
    return beside_the_file(experiment, measurement, lambda _streams: compared)


def failing(verdicts: dict[str, Verdict]) -> set[str]:
    return {name for name, verdict in verdicts.items() if verdict.outcome is Outcome.FAIL}


def test_equal_launches_pass_in_every_default_metric_after_a_few_launches() -> None:
    runner = Runner()
    verdicts, basis = compare(runner)
    assert {verdict.outcome for verdict in verdicts.values()} == {Outcome.PASS}
    assert {"rtm", "throughput", "p95", "error_rate", "cpu_per_request", "peak_memory", "cold_start"} <= set(verdicts)
    assert len(runner.launches) <= 4
    assert basis.note == ""


def test_a_screen_that_sees_a_slower_service_leaves_the_rest_to_the_recorded_code() -> None:
    """Two more launches would only repeat what the recorded code decides, of p99 too."""
    assert screened_launches(rtm_ns=3.6 * MS) == 1
    assert screened_launches(rtm_ns=3.6 * MS, is_settled=False) >= 2
    assert screened_launches(rtm_ns=3.6 * MS, others_cores=0.9) >= 2  # the next launch may be a quiet one
    assert screened_launches(rtm_ns=3.6 * MS, others_cores=0.9, start_s=15) == 1, "and three pairs take 45 s"
    assert screened_launches(rss_mib=80.0) >= 2  # which no machine changes: the file fails it, by two launches
    assert screened_launches() >= 2
    assert screened_launches(start_s=15) == 1, "further launches would leave the recorded code no time for three pairs"


def test_what_is_worse_by_its_estimate_alone_is_measured_further_if_the_working_tree_is_the_recorded_code() -> None:
    """There is no other code to measure, and three launches are no reason to look for a data file that changed."""
    assert screened_launches(is_settled=False, runner=Recovering()) == 3
    assert screened_launches(is_settled=False, is_alone=True, runner=Recovering()) > 3
    assert screened_launches(is_settled=False, is_alone=True) == screened_launches(is_settled=False) <= 3


def test_a_test_whose_history_knows_its_scatter_is_judged_by_that() -> None:
    noisy = dict.fromkeys(("rtm", "throughput"), 0.3)
    runner, usual = Runner(), Runner()
    verdicts, _ = compare(runner, "rtm", "throughput", scatter=LaunchScatter(noisy))
    compare(usual, "rtm", "throughput")
    assert len(runner.launches) > len(usual.launches)
    assert verdicts["rtm"].outcome is Outcome.INCONCLUSIVE


@each_row(
    ("change", "metric"),
    [
        ({"slow": 0.02}, "p99"),
        ({"failed": 0.02}, "error_rate"),
        ({"rss_mib": 80.0}, "peak_memory"),
        ({"start_s": 1.0}, "cold_start"),
        ({"cpu_cores": 1.05}, "cpu_per_request"),
        ({"size": 1150}, "response_bytes"),
        ({"rtm_ns": 3.75 * MS}, "rtm"),
    ],
)
def test_a_regression_that_another_metric_hides_fails(change: dict[str, Any], metric: str) -> None:
    verdicts, _ = compare(Runner(**change))
    assert metric in failing(verdicts)
    found = verdicts[metric]
    assert found.reference_value is not None
    assert found.tolerance == (0.5 if metric == "p99" else Tolerances().of(metric))  # the tail of a machine moves


def test_a_failure_beside_busy_neighbours_stays_open_unless_the_test_trusts_it() -> None:
    runner = Runner(rtm_ns=3.9 * MS, cpu_cores=0.9, others_cores=0.9)
    verdicts, _ = compare(runner)
    assert failing(verdicts) == set()
    assert verdicts["rtm"].suspected
    assert "other processes used 0.9 of the 2 cores, which explains" in verdicts["rtm"].reason
    assert len(runner.launches) == 8
    assert "rtm" in failing(compare(Runner(rtm_ns=3.9 * MS, others_cores=0.9), noise="trust")[0])


def test_memory_and_failures_are_believed_beside_busy_neighbours() -> None:
    verdicts, _ = compare(Runner(rss_mib=80.0, others_cores=0.9))
    assert failing(verdicts) == {"peak_memory"}


@each_row(
    "each",
    lambda number: {"rtm_ns": 4 * MS, "others_cores": 0.9 if number % 3 == 0 else 0.0},
    lambda number: {"rtm_ns": 4.5 * MS, "moment": 1.5 if number < 2 else 1.0},
)
def test_two_launches_in_quiet_moments_are_enough_for_a_failure(each: Callable[[int], Any]) -> None:
    """Beside neighbours, and beside the fixed work that took longer for a moment, which is no slower machine."""
    runner = Runner(each=each)
    verdicts, _ = compare(runner)
    assert "rtm" in failing(verdicts)
    assert len(runner.launches) == 3


def test_a_machine_that_is_slower_than_it_was_fails_unchanged_code_only_if_the_test_trusts_it() -> None:
    runner = Runner(machine=1.4)
    verdicts, _ = compare(runner)
    assert failing(verdicts) == set()
    assert verdicts["rtm"].suspected
    why = r"this machine takes up to 1\.4\d times as long for the same work as when the baseline was"
    assert re.search(why, verdicts["rtm"].reason)
    assert f"(0 of {Metrics(tuple(runner.launches)).requests:,})" in verdicts["error_rate"].reason, "of every launch"
    assert {"rtm", "throughput"} <= failing(compare(Runner(machine=1.4), noise="trust")[0])


def test_what_a_slower_machine_does_not_explain_fails() -> None:
    verdicts, _ = compare(Runner(rtm_ns=4.2 * MS, rss_mib=80.0, machine=1.3))
    assert {"rtm", "throughput", "cpu_per_request", "peak_memory"} <= failing(verdicts)


@pytest.mark.parametrize(
    "taken",
    [{"others_cores": 0.35}, {"steal_cores": 0.042}, {"throttled": 0.015}],
    ids=["neighbours", "steal", "throttling"],
)
def test_what_others_take_explains_at_most_what_it_can_do(taken: dict[str, float]) -> None:
    verdicts, _ = compare(Runner(rtm_ns=30 * MS, **taken))
    assert {"rtm", "throughput", "cpu_per_request"} <= failing(verdicts)


def test_a_failure_that_others_explain_says_up_to_how_much_unless_it_was_the_same_at_the_recording() -> None:
    runner = Runner(rtm_ns=3.9 * MS, throttled=0.3)
    verdicts, _ = compare(runner, "rtm")
    assert verdicts["rtm"].outcome is Outcome.INCONCLUSIVE
    assert "a CPU limit of the container stopped it for 30.0 % of the time, which" in verdicts["rtm"].reason
    assert "which explains 1.43 times" in verdicts["rtm"].reason
    verdicts, _ = compare(runner, "rtm", entry=replace(BEFORE, taken=Taken(throttled_ratio=0.3)))
    assert verdicts["rtm"].outcome is Outcome.FAIL


def test_what_only_the_quiet_launches_lack_is_judged_all_the_same() -> None:
    """Two quiet launches have too few requests for a p99."""
    runner = Runner(rtm_ns=3.9 * MS, each=lambda number: {"others_cores": 0.0 if number < 2 else 0.9})
    verdicts, basis = compare(runner, "cpu_per_request", "p99", requested=True)
    assert failing(verdicts) == {"cpu_per_request"}
    assert "p99" in verdicts
    assert basis.left_out == {}


@pytest.mark.simulation
class TestTheFileAloneOnAMachineOfAnotherSpeed:
    """Each case is measured with several seeds: the truth is known, and no verdict may contradict it."""

    @each_row(
        ("machine", "outcomes"),
        [
            *((machine, {Outcome.PASS}) for machine in (0.8, 1.0)),
            *((machine, {Outcome.PASS, Outcome.INCONCLUSIVE}) for machine in (1.04, 1.08, 1.15)),
            *((machine, {Outcome.INCONCLUSIVE}) for machine in (1.3, 1.6, 2.0, 3.0)),
        ],
    )
    def test_unchanged_code_never_fails(self, machine: float, outcomes: set[Outcome]) -> None:
        for seed in range(0, 80, 16):
            verdicts, _ = compare(Runner(seed=seed, machine=machine))
            assert failing(verdicts) == set(), seed
            assert verdicts["rtm"].outcome in outcomes, seed

    @each_row(("machine", "slower"), [(0.8, 1.5), (1.0, 1.2), (1.0, 1.5), (1.15, 1.5), (1.5, 1.5), (2.0, 1.5)])
    def test_slower_code_fails(self, machine: float, slower: float) -> None:
        for seed in range(0, 80, 16):
            verdicts, _ = compare(Runner(seed=seed, machine=machine, rtm_ns=slower * 3 * MS))
            assert "rtm" in failing(verdicts), seed

    @pytest.mark.parametrize("slower", [1.3, 1.5])
    def test_slower_code_that_a_faster_machine_hides_is_left_open(self, slower: float) -> None:
        for seed in range(0, 80, 16):
            verdicts, _ = compare(Runner(seed=seed, machine=0.6, rtm_ns=slower * 3 * MS))
            assert verdicts["rtm"].outcome is Outcome.INCONCLUSIVE, seed
            assert verdicts["rtm"].by_machine
            assert "times as long, which hides a slower service" in verdicts["rtm"].reason

    def test_an_entry_without_the_time_of_the_fixed_work_is_judged_as_it_is(self) -> None:
        verdicts, _ = compare(Runner(machine=1.5), entry=replace(BEFORE, sorting_ns=()))
        assert "rtm" in failing(verdicts)


def test_what_is_not_recorded_fails_if_it_is_requested_and_is_left_out_and_named_if_not() -> None:
    entry = replace(BEFORE, counts=())
    for name in ("cache_hit_ratio", "p99"):
        why = rf"cannot judge {METRICS[name].label} against the baseline: it is not rec"
        with pytest.raises(PerfFailure, match=why):
            compare(Runner(), name, entry=entry, requested=True)
    verdicts, basis = compare(Runner(), entry=entry)
    assert "p99" not in verdicts
    assert basis.left_out["p99 latency"] == LeftOut("is not recorded yet")
    assert basis.missing == ""


@pytest.mark.parametrize(
    ("why", "named"),
    [
        (InvalidResultError("the slowest known request failed"), True),
        (UnknownMetricError("is known in one launch only"), True),
        (AbsentMetricError("has no counter here"), False),
    ],
    ids=lambda why: type(why).__name__,
)
def test_only_a_guard_that_the_system_never_has_is_left_out_without_a_word(
    monkeypatch: pytest.MonkeyPatch, why: Exception, *, named: bool
) -> None:
    def refuse(*_args: object, **_options: object) -> Verdict:
        raise why

    monkeypatch.setattr(metric_rules, "judge_guarded", refuse)
    _, basis = compare(Runner(), entry=BEFORE)
    left_out = LeftOut(str(why), is_sentence=isinstance(why, InvalidResultError))
    assert basis.left_out.get("p99 latency") == (left_out if named else None)


def test_a_percentile_that_no_launch_of_the_budget_reaches_is_announced_after_the_first_answers() -> None:
    runner, notes, launches = Runner(rtm_ns=30 * MS), list[str](), list[int]()

    def take(note: str) -> None:
        notes.append(note)
        launches.append(len(runner.launches))

    compare(runner, entry=entry_of([make_launch(1, rtm_ns=30 * MS)] * 4), on_note=take)
    (note,) = notes
    judged = "median latency, throughput, error rate, CPU per request, …"
    assert re.fullmatch(rf"at 3\d\.\d answers a second p99 latency needs 1\d\.0 s; judged are {judged}", note)
    assert launches == [1]


def test_percentiles_that_a_slow_service_cannot_give_share_one_reason() -> None:
    slow = entry_of([make_launch(seed, rtm_ns=300 * MS) for seed in range(4)])
    _, basis = compare(Runner(rtm_ns=300 * MS), entry=slow)
    why = basis.left_out["p95 latency"]
    assert basis.left_out["p99 latency"] == why
    assert re.fullmatch(
        r"at \d\.\d+ answers a second p95 latency needs \d\d\.0 s and p99 latency needs 1\d\d s \(duration=\"\d+s\"\)",
        why.words,
    )


@pytest.mark.parametrize(("marker", "tolerance"), [(None, 0.5), ({"p95": 0.3}, 0.3)])
def test_the_tail_has_room_beside_a_stored_baseline_unless_a_user_sets_it(
    marker: dict[str, float] | None, tolerance: float
) -> None:
    (compared,) = compared_metrics([METRICS["p95"]], Tolerances(marker), 0.01, requested=False)
    assert compared.stored_tolerance == tolerance


class TestScalabilityIndices:
    """They are compared as the passes left them, since a comparison measures no further pass."""

    RECORDED = replace(BEFORE, metrics={**BEFORE.metrics, "sc": (LaunchValue(2.0, 0.01), LaunchValue(2.02, 0.01))})

    @pytest.mark.parametrize(
        ("now", "outcome"), [((2.01, 2.0), Outcome.PASS), ((1.0, 1.01), Outcome.FAIL)], ids=["unchanged", "halved"]
    )
    def test_an_index_is_compared_with_the_passes_of_the_baseline(
        self, now: tuple[float, ...], outcome: Outcome
    ) -> None:
        runner = Runner()
        indices = ScalingIndices({"sc": tuple(LaunchValue(value, 0.01) for value in now)}, {})
        verdicts, _ = compare(runner, "sc", entry=self.RECORDED, requested=True, indices=indices, tolerance=0.3)
        assert verdicts["sc"].outcome is outcome
        assert len(runner.launches) == 1

    @pytest.mark.parametrize(
        ("indices", "why"),
        [(NO_INDICES, NOT_MEASURED), (ScalingIndices({}, {"sc": "the test has no price"}), "the test has no price")],
    )
    def test_one_that_is_not_known_says_what_to_measure(self, indices: ScalingIndices, why: str) -> None:
        with pytest.raises(PerfFailure, match=re.escape(f"it is not known for {SETUP.pattern}: {why}")):
            compare(Runner(), "sc", entry=self.RECORDED, requested=True, indices=indices)
        _, basis = compare(Runner(), "rtm", "sc", entry=self.RECORDED, indices=indices)
        assert basis.left_out["SC"].words.endswith(why)

    def test_one_that_is_not_recorded_says_how_to_record_it(self) -> None:
        known = ScalingIndices({"sc": (LaunchValue(2.0, 0.01),)}, {})
        with pytest.raises(PerfFailure, match="is not recorded yet; record it: --perf-baseline update"):
            compare(Runner(), "sc", requested=True, indices=known)


WITH_NMRT = replace(BEFORE, metrics={**BEFORE.metrics, "nmrt": (LaunchValue(300.0, 0.01),) * 6})


@pytest.mark.parametrize(("nmrt_rps", "outcome"), [(300.0, Outcome.PASS), (100.0, Outcome.FAIL)])
def test_nmrt_that_compare_names_is_searched_for_and_judged(nmrt_rps: float, outcome: Outcome) -> None:
    runner = Runner(nmrt_rps)
    verdicts, basis = compare(runner, entry=WITH_NMRT, compare=("rtm", "nmrt"))
    assert {name: verdict.outcome for name, verdict in verdicts.items()} == {"rtm": Outcome.PASS, "nmrt": outcome}
    assert runner.searches >= 1
    assert basis.missing == ""


def test_nmrt_that_compare_names_and_the_entry_does_not_have_is_named_as_missing() -> None:
    runner = Runner()
    verdicts, basis = compare(runner, compare=("nmrt",))
    assert verdicts == {}
    assert runner.searches == 1  # so that ``update`` records it
    assert basis.missing.startswith("not compared with the baseline: capacity (NMRT) (is not recorded yet")


def test_nmrt_that_no_argument_names_is_not_searched_for() -> None:
    runner = Runner()
    compare(runner, entry=WITH_NMRT)
    assert runner.searches == 0
    assert not Metrics((make_launch(1),)).only_at_least(METRICS["nmrt"])  # without a search


def test_a_search_follows_one_that_ended_with_a_decided_limit() -> None:
    runner, experiment = Runner(100.0), declared_experiment(WITH_NMRT, launches=8, compare=("nmrt",))
    measurement = SequentialMeasurement(runner, Spending(Budget(60 * S)), 8)  # type: ignore[arg-type]
    measurement.measure_at_least(1)
    decided = Capacity(LaunchValue(50.0, 0.01), 1, (), "decided", at_least=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "search", lambda *_: decided)
        measurement.search(None)
    compared = compared_metrics([METRICS["nmrt"]], experiment.settings.tolerance, 0.01, requested=False)
    verdicts, _ = beside_the_file(experiment, measurement, lambda _streams: compared)
    assert verdicts["nmrt"].outcome is Outcome.FAIL


@pytest.mark.parametrize("name", ["cache_hit_ratio", "hsx", "ttft", "memory_growth"])
def test_each_metric_that_compare_names_is_judged_or_named(name: str) -> None:
    verdicts, basis = compare(Runner(), compare=(name,))
    assert verdicts == {}
    assert METRICS[name].label in basis.left_out
    assert METRICS[name].label in basis.missing


@pytest.mark.parametrize(("ceiling", "beside_revision", "stored"), [(15, 0.2, 0.5), (45, 0.45, 0.5), (80, 0.8, 0.8)])
def test_an_acceptance_of_the_tail_holds_beside_a_revision_below_what_a_file_allows(
    ceiling: int, beside_revision: float, stored: float
) -> None:
    settings = read_settings({"accept": f"p99 +{ceiling} %: a larger model"}, {}, {})
    (compared,) = compared_metrics(
        [METRICS["p99"]], settings.tolerance, 0.01, requested=False, accepted=settings.accept
    )
    assert (compared.tolerance, compared.stored_tolerance) == (beside_revision, stored)
    for against, change, is_shown in (("revision", 0.3, ceiling > 30), ("baseline", 0.3, False)):
        passed = Verdict("p99", against, Outcome.PASS, "", Estimate(change, 0.2, 0.4))  # type: ignore[arg-type]
        assert bool(marked_accepted(passed, compared).accepted) is is_shown


def test_a_test_that_passes_by_an_acceptance_names_it_in_its_verdict() -> None:
    accept = "rtm +60 %: a larger model"
    perf = Perf(declared_experiment(BEFORE, accept=accept), Runner(rtm_ns=3.75 * MS))  # type: ignore[arg-type]
    perf.assert_no_regression(("rtm",))
    perf.assert_rtm_below("5ms")
    found = perf.result(passed=True)
    assert [(one.outcome, one.accepted) for one in found.verdicts] == [(Outcome.PASS, accept), (Outcome.PASS, "")]
