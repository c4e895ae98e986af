"""A comparison with a revision: loads that it refuses, and the metrics that it searches for or names as missing."""

import math
import re
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace
from support.declared_run import DeclaredRun
from support.each_row import each_row
from support.synthetic import S, even_launch, make_setup
from test_interleaved_verdicts import declared_launch, paired

from pytest_mlpatterns import ClosedLoop, Stages
from pytest_mlpatterns.analysis.changes.series import USUAL_SCATTER
from pytest_mlpatterns.analysis.metrics.definitions import METRICS, metric_named
from pytest_mlpatterns.analysis.statistics.alpha_spending import REVISION_ALPHA
from pytest_mlpatterns.analysis.statistics.log_ratio import LogRatio, PairedCapacity, PairedLaunch
from pytest_mlpatterns.baseline.lookup import BaselineMatch
from pytest_mlpatterns.config.run_settings import BaselineMode
from pytest_mlpatterns.config.settings import read_settings
from pytest_mlpatterns.errors import PerfFailure, SettingError
from pytest_mlpatterns.judging.basis import Basis
from pytest_mlpatterns.judging.budget import Budget, Spending
from pytest_mlpatterns.judging.compared_metrics import compared_metrics
from pytest_mlpatterns.judging.revision_comparison import RevisionComparison, check_length, least_ns
from pytest_mlpatterns.judging.sequential import SequentialMeasurement
from pytest_mlpatterns.records.launch import Capacity, Launch, LaunchValue
from pytest_mlpatterns.records.setup import Setup
from pytest_mlpatterns.records.verdict import LeftOut, Outcome
from pytest_mlpatterns.revision.client import NothingToCompareError
from pytest_mlpatterns.revision.messages import Reason


def test_a_load_whose_repetitions_exceed_the_budget_is_refused_with_the_time_that_they_take() -> None:
    load = Stages([("5s", 10)])
    with pytest.raises(SettingError) as caught:
        check_length(load, 30_000_000_000, "main (a6d79f5)")
    for said in (
        "takes 5.00 s, and a comparison with main (a6d79f5) sends it 12 times (3 launches of A B B A)",
        "60.0 s in all; expected at most the budget of 30.0 s: shorten the load, or give",
        'give budget="60s"',
    ):
        assert said in str(caught.value)
    check_length(load, 60_000_000_000, "main")
    check_length(ClosedLoop(1), 1, "main")
    assert least_ns(ClosedLoop(1)) == 0, "a load without a length fits every budget"


@dataclass
class Searching(DeclaredRun):
    """Equal launches, and both sides with a declared NMRT."""

    nmrt: tuple[float, float]
    given_s: set[int] = field(default_factory=set)

    def next_launch(self) -> tuple[PairedLaunch, Launch, Launch]:
        return paired(2e6, 2e6), declared_launch(), declared_launch()

    def measure(self, budget_ns: int) -> None:
        self.given_s.add(round(budget_ns / S))
        super().measure(budget_ns)

    def search(self, budget_ns: int) -> None:
        self.given_s.add(round(budget_ns / S))
        first, second = (Capacity(LaunchValue(one, 0.01), 4, (), "declared", at_least=False) for one in self.nmrt)
        ratio = LogRatio(math.log(self.nmrt[1] / self.nmrt[0]), 0.01)
        self.capacities.append(PairedCapacity(ratio, first, second))

    def watch(self, _on_launch: object) -> None: ...

    def want_requests(self, _enough: int, *, decides_alone: bool = False) -> None: ...


def settle(
    *names: str,
    nmrt: tuple[float, float] = (300.0, 300.0),
    required: bool = False,
    theirs: Setup | NothingToCompareError | None = None,
    searched: bool = False,
    check: object = None,
    attached: bool = False,
    **marker: object,
) -> tuple[dict[str, Outcome], Basis, Searching]:
    """Compare with a revision in the metrics that ``compare=`` names; both sides have a declared NMRT.

    ``theirs`` is the set-up there, if it is another one, or why there is none. If the test ``searched`` for NMRT
    itself, nothing is named.
    """
    named = {} if searched else {"compare": names}
    settings = read_settings({**named, "profile": "off", **marker}, {}, {})
    run: Any = Searching(nmrt, names=("main", "the working tree"))
    setup = make_setup()
    experiment: Any = SimpleNamespace(
        settings=settings,
        baseline=BaselineMatch(setup, BaselineMode.OFF),
        plan=SimpleNamespace(schedule=ClosedLoop(1), check=check, payload=None),
        smoke=False,
        setup=setup,
        system=SimpleNamespace(is_attached=attached, is_in_process=attached),
        comparison_required=required,
        scatter=USUAL_SCATTER,
        variant=lambda name: name,
        interleave=lambda *_sides: run,
    )

    def served() -> Any:
        if isinstance(theirs, NothingToCompareError):
            raise theirs
        return SimpleNamespace(setup=theirs or setup, payload=None)

    experiment.revision = revision = SimpleNamespace(
        name="main (a6d79f5)",
        commit="a6d79f5" + 33 * "0",
        close=lambda: None,
        setup=served,
        facts=dict,
        start=None,
    )
    capacity = Capacity(LaunchValue(nmrt[1], 0.01), 4, (), "declared", at_least=False)
    runner: Any = SimpleNamespace(close=lambda: None, measure=declared_launch, search=lambda *_: capacity)
    measurement = SequentialMeasurement(runner, Spending(Budget(60 * S, 40 * S)), 8)
    if searched:
        measurement.measure_at_least(1)
        measurement.search(None)
    basis = Basis(experiment, measurement)
    basis.keep("code", run=run if theirs is None else None)
    comparison = RevisionComparison(basis, revision)
    wanted = compared_metrics(list(map(metric_named, names)), settings.tolerance, REVISION_ALPHA, requested=False)
    return {one.metric: one.outcome for one in comparison.judge(lambda _streams: wanted)}, basis, run


def test_both_sides_have_what_the_budget_has_left() -> None:
    *_, run = settle("rtm", "nmrt")
    assert run.given_s == {21}, "40 of 60 s are spent, and 1 s by the run itself, which counts its own"


@pytest.mark.parametrize(("now_rps", "outcome"), [(300.0, Outcome.PASS), (100.0, Outcome.FAIL)])
def test_nmrt_that_compare_names_is_searched_for_on_both_sides(now_rps: float, outcome: Outcome) -> None:
    found, basis, _ = settle("nmrt", nmrt=(300.0, now_rps))
    assert found == {"nmrt": outcome}
    assert basis.missing == ""


@each_row("name", ["asl_at_nmrt", "hsx", "ttft", "cache_hit_ratio", "memory_growth"])
def test_a_metric_that_compare_names_and_no_comparison_judges_is_named(name: str) -> None:
    found, basis, _ = settle("rtm", name)
    assert found == {"rtm": Outcome.PASS}
    assert basis.reference.revision_commit == "a6d79f5" + 33 * "0"
    assert METRICS[name].label in basis.left_out


def test_a_guard_that_neither_side_knows_is_named_and_a_growth_that_a_short_window_lacks_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    launch = replace(declared_launch(), usage=None)
    monkeypatch.setitem(globals(), "declared_launch", lambda: launch)
    found, basis, _ = settle("rtm", "peak_memory", "memory_growth", searched=True)
    assert found == {"rtm": Outcome.PASS}
    assert basis.left_out == {"peak memory": LeftOut("is not known of both sides")}


def test_nmrt_that_the_test_searched_for_itself_is_named_as_not_compared() -> None:
    found, basis, _ = settle("rtm", "nmrt", "sc", nmrt=(300.0, 100.0), searched=True)
    assert found == {"rtm": Outcome.PASS}
    why = LeftOut("is searched for on both sides only if compare= names it")
    assert basis.left_out == {"capacity (NMRT)": why}


def test_a_test_with_a_function_beside_its_load_is_not_compared_and_passes() -> None:
    found, basis, _ = settle("rtm", during=len, rate_rps=10)
    assert found == {}
    assert basis.missing.startswith("not compared with main (a6d79f5): it has during=, and its steps need a whole")
    with pytest.raises(PerfFailure, match="--perf-baseline require asks for a comparison"):
        settle("rtm", during=len, rate_rps=10, required=True)


@pytest.mark.parametrize("gate", ["fail", "warn"])
def test_a_client_that_is_measured_by_itself_fails_before_it_is_measured(gate: str) -> None:
    why = r"^not compared with main \(a6d79f5\): perf_client is measured by itself, .* a baseline file compares it"
    with pytest.raises(PerfFailure, match=why) as caught:
        settle("rtm", attached=True, gate=gate)
    raised_in = {entry.name for entry in caught.traceback}
    assert ("judge" in raised_in) is (gate == "warn"), "which shows the limits that hold"


def test_a_tail_of_pairs_names_no_argument_since_none_makes_their_blocks_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(globals(), "declared_launch", lambda: even_launch(10.0))
    _, basis, _ = settle("rtm", "p99", requests=1)
    why = basis.left_out["p99 latency"].of("p99 latency")
    assert re.fullmatch(r"at \S+ answers a second p99 latency needs \S+ s", why), why


@pytest.mark.parametrize("required", [False, True])
def test_a_test_of_which_no_metric_is_judged_fails(required: bool) -> None:
    with pytest.raises(PerfFailure) as caught:
        settle("ttft", required=required)
    nothing = "not compared with main (a6d79f5): median TTFT (is not known of both sides)"
    assert str(caught.value) == nothing + required * ", and --perf-baseline require asks for a comparison"


@each_row(
    ("theirs", "missing"),
    (
        make_setup(model="1"),
        "new: another model than at main (a6d79f5) (model: 1 → none), so there is nothing to compare with",
    ),
    (
        NothingToCompareError(Reason.ABSENT, "it does not exist there"),
        "new: nothing to compare with at main (a6d79f5)",
    ),
)
def test_a_test_that_the_revision_does_not_have_or_whose_model_has_another_version_is_new(
    theirs: Setup | NothingToCompareError, missing: str
) -> None:
    found, basis, _ = settle("rtm", theirs=theirs)
    assert (found, basis.missing) == ({}, missing)


@pytest.mark.parametrize(
    ("theirs", "required", "message"),
    [
        (NothingToCompareError(Reason.FAILED, "it fails there", "its error"), False, "it fails there\n\nits error"),
        (
            make_setup(load="closed(4)", model="1"),
            False,
            "not comparable with main (a6d79f5) (load: closed(4) → closed(8); model: 1 → none); give the test another "
            "name: a new test has nothing to compare with",
        ),
        (
            make_setup(model="1"),
            True,
            "new: another model than at main (a6d79f5) (model: 1 → none), so there is nothing to compare with, and "
            "--perf-baseline require asks for a comparison",
        ),
    ],
)
def test_another_set_up_a_failure_there_and_a_required_comparison_fail_the_test(
    theirs: Setup | NothingToCompareError, required: bool, message: str
) -> None:
    with pytest.raises(PerfFailure) as caught:
        settle("rtm", theirs=theirs, required=required)
    assert str(caught.value) == message


@pytest.mark.parametrize("check", [None, len])
def test_answers_that_are_to_be_checked_are_those_of_a_launch_before_the_comparison(check: object) -> None:
    """Else its own side of the comparison is what was measured."""
    _, basis, run = settle("rtm", check=check)
    assert len(basis.measurement.metrics.launches) == (1 if check else len(run.second_launches))
    assert len(run.second_launches) > 1
