"""Verdicts on the scaling efficiency: from declared passes, until they are decided."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from support.each_row import each_row
from support.synthetic import S, capacity, even_launch, usage

from pytest_mlpatterns import GeneratorLimitError, InvalidResultError, Pattern, Replicated, SettingError, Single
from pytest_mlpatterns.analysis.capacity.scale_out import ScaleOut
from pytest_mlpatterns.analysis.capacity.scaling import Scaling, ScalingStep
from pytest_mlpatterns.config.assertions import read_replicas
from pytest_mlpatterns.judging import overload_assertions as scaling_assertions
from pytest_mlpatterns.judging.overload_assertions import ScalingAssertions
from pytest_mlpatterns.records.verdict import Outcome
from pytest_mlpatterns.system import cpu_share
from pytest_mlpatterns.system.cpu_share import ReplicaCores
from pytest_mlpatterns.workload.schedule import ClosedLoop


def one_more(duration_ns: int | None) -> ScaleOut:
    """A scale-out that took this long."""
    return ScaleOut(1, 2, S, duration_ns, "" if duration_ns else "it gave no answer", 1e6, 2e6, 100, 0)


def declared_run(
    efficiencies: list[float], machine_cores: float = 1.0, scale_outs: Sequence[int | None] = (), why: str = ""
) -> type:
    """A run whose passes have these efficiencies and scale-out times."""

    class Run:
        def __init__(self, variants: Mapping[int, Any], _generator: Any, **_options: Any) -> None:
            self.numbers, self.passes, self.spent_s = tuple(variants), 0, 0.0
            self.variants = variants

        def measure_pass(self) -> None:
            self.passes += 1
            self.spent_s += 1

        @property
        def scaling(self) -> Scaling:
            found = efficiencies[: self.passes]
            window = even_launch(used=usage(0.5, machine_cores))
            searches = {n: tuple(capacity(100 * (n * share if n > 1 else 1)) for share in found) for n in self.numbers}
            steps = tuple(ScalingStep.of(n, all_, (window,)) for n, all_ in searches.items())
            return Scaling(steps, 2, tuple(map(one_more, scale_outs[: self.passes])), why)

    return Run


class Measurement:
    """Counts the passes beside the budget."""

    indices: object = None

    def __init__(self) -> None:
        self.runner = SimpleNamespace(close=lambda: None)
        self.passes = 0
        self.spending = SimpleNamespace(beside=self.beside)

    def beside(self) -> AbstractContextManager[None]:
        self.passes += 1
        return nullcontext()

    def measure_at_least(self, _launches: int) -> None: ...

    def require_valid(self) -> None: ...

    def adopt(self, *, indices: object) -> None:
        self.indices = indices


@pytest.fixture
def assertions(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ScalingAssertions]:
    def make(
        efficiencies: list[float],
        machine_cores: float = 1.0,
        *,
        smoke: bool = False,
        engine: str = "local",
        pattern: Pattern = Single(),  # noqa: B008 - a frozen value
        **declared: Any,
    ) -> ScalingAssertions:
        monkeypatch.setattr(scaling_assertions, "ScalingRun", declared_run(efficiencies, machine_cores, **declared))
        experiment: Any = SimpleNamespace(
            smoke=smoke,
            settings=SimpleNamespace(budget_ns=30 * S, pattern=pattern, price=None, engine=engine),
            variant_under=lambda pattern, cores: (str(pattern), cores),
            generator=None,
            driver=SimpleNamespace(on_progress=None),
            plan=SimpleNamespace(schedule=ClosedLoop(1)),
        )
        return ScalingAssertions(experiment, Measurement())  # type: ignore[arg-type]

    return make


@pytest.mark.parametrize(
    ("efficiencies", "outcome", "passes"),
    [
        ([1.0, 1.0, 1.0, 1.0], Outcome.PASS, 2),
        ([0.5, 0.5, 0.5, 0.5], Outcome.FAIL, 2),
        ([0.8, 0.8, 0.8, 0.8], Outcome.INCONCLUSIVE, 4),
    ],
)
def test_passes_are_added_until_the_efficiency_is_decided(
    assertions: Callable[..., ScalingAssertions], efficiencies: list[float], outcome: Outcome, passes: int
) -> None:
    judged = assertions(efficiencies)
    verdict = judged.decide_efficiency(0.8, 2)
    assert (verdict.metric, verdict.outcome) == ("scaling_efficiency", outcome)
    assert judged._measurement.passes == passes
    assert judged._measurement.indices == judged._run.scaling.indices
    assert judged.record is not None


def test_there_is_no_verdict_on_the_pattern_if_the_cores_are_used_up(
    assertions: Callable[..., ScalingAssertions],
) -> None:
    with pytest.raises(GeneratorLimitError, match=r"the cores, not the pattern, end the scaling; measure with fewer"):
        assertions([0.5] * 4, 2.0).decide_efficiency(0.8, 2)
    verdict = assertions([1.0] * 4, 2.0).decide_efficiency(0.8, 2)
    assert verdict.outcome is Outcome.PASS


def test_what_was_measured_is_not_measured_again(assertions: Callable[..., ScalingAssertions]) -> None:
    judged = assertions([1.0] * 4)
    judged.measure((4, 1, 2))
    judged.decide_efficiency(0.8, 2)
    assert judged._measurement.passes == 2


def test_each_replica_gets_cores_of_its_own_until_another_measurement(
    assertions: Callable[..., ScalingAssertions], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_share, "available_cores", lambda: 5)
    judged = assertions([1.0] * 4)
    judged.measure((1, 2), 1)
    first = judged._run
    assert judged.decide_efficiency(0.8, 2) is not None
    assert judged._run is first
    assert judged.decide_efficiency(0.8, 4) is not None
    assert judged._run is not first
    assert judged._run.variants == {  # type: ignore[union-attr]
        1: ("single", ReplicaCores(1, 4)),
        4: ("replicated(replicas=4)", ReplicaCores(1, 4)),
    }
    with pytest.raises(SettingError, match=r"^8 replicas of 1 core need 8 cores and one for the load generator; this "):
        judged.decide_efficiency(0.8, 8)
    judged.measure((1, 2))
    assert judged._run.variants[2] == ("replicated", None)  # type: ignore[union-attr]


@pytest.mark.parametrize(("each", "advice"), [(0, ""), (0.5, ""), ("1", "; write 1, without quotes"), (True, "")])
def test_cores_of_a_replica_are_whole(assertions: Callable[..., ScalingAssertions], each: object, advice: str) -> None:
    expected = "expected a whole number of cores for each replica"
    with pytest.raises(SettingError, match=rf"^measure_scaling\(cpus_per_replica=.*\), {expected}, such as 1{advice}$"):
        assertions([]).measure((1, 2), each)


def test_a_gateway_has_no_cores_of_its_own(assertions: Callable[..., ScalingAssertions]) -> None:
    with pytest.raises(
        SettingError, match=r"replicated\(balance=prefix\), whose gateway .* leave cpus_per_replica= out"
    ):
        assertions([], pattern=Replicated(2, "prefix")).measure((1, 2), 1)


class TestScaleOut:
    @pytest.mark.parametrize(
        ("scale_outs", "outcome", "passes"),
        [([S] * 4, Outcome.PASS, 2), ([4 * S] * 4, Outcome.FAIL, 2), ([2 * S] * 4, Outcome.INCONCLUSIVE, 4)],
    )
    def test_passes_are_added_until_it_is_decided(
        self, assertions: Callable[..., ScalingAssertions], scale_outs: list[int], outcome: Outcome, passes: int
    ) -> None:
        judged = assertions([1.0] * 4, scale_outs=scale_outs)
        verdict = judged.decide_scale_out(2 * S)
        assert (verdict.metric, verdict.outcome) == ("scale_out", outcome)
        assert judged._measurement.passes == passes
        assert judged._run.numbers == (1,)

    @pytest.mark.parametrize(
        ("declared", "message"),
        [
            ({"scale_outs": [S, None]}, "the scale-out time is not known: it gave no answer"),
            ({"why": "the kernel spreads them"}, "the scale-out time is not known: the kernel spreads them"),
        ],
    )
    def test_there_is_no_verdict_if_the_time_is_not_known(
        self, assertions: Callable[..., ScalingAssertions], declared: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(InvalidResultError, match=message):
            assertions([1.0] * 2, **declared).decide_scale_out(2 * S)


def test_a_smoke_run_measures_no_scaling_and_needs_no_cores(assertions: Callable[..., ScalingAssertions]) -> None:
    judged = assertions([], smoke=True)
    for cores in ((), (4096,)):
        assert judged.measure((1, 2), *cores).steps == ()
    assert judged.record is None


@each_row(
    ("replicas", "message"),
    (4, "replicas=4.*write replicas=.1, 2, 4"),
    ((2, 4), "1 among them"),
    ((1, 1), "at least two"),
    ((), "at least two"),
    ((1, 2.5), "whole numbers from 1"),
    ((0, 1), "whole numbers from 1"),
)
def test_other_numbers_of_replicas_are_refused(
    assertions: Callable[..., ScalingAssertions], replicas: object, message: str
) -> None:
    with pytest.raises(SettingError, match=message):
        assertions([1.0]).measure(replicas)
    with pytest.raises(SettingError, match=r"replicas=1\), expected a whole number of replicas from 2"):
        read_replicas(1)


def test_on_ray_the_scale_out_time_is_said_to_be_unknown_before_anything_is_measured(
    assertions: Callable[..., ScalingAssertions],
) -> None:
    judged = assertions([1.0, 1.0], engine="ray")
    with pytest.raises(InvalidResultError, match=r"adds no replica to a running service; choose engine=.local.$"):
        judged.decide_scale_out(S)
    assert judged.record is None


def test_on_ray_the_cores_of_this_machine_do_not_bound_the_replicas(
    assertions: Callable[..., ScalingAssertions], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_share, "available_cores", lambda: 2)
    judged = assertions([1.0, 1.0], engine="ray")
    judged.measure((1, 4), 8)
    assert {cores for _, cores in judged._run.variants.values()} == {ReplicaCores(8, 4)}


@pytest.mark.parametrize(("scale_outs", "is_known"), [((S, 2 * S), True), ((S, None), False)])
def test_the_index_of_time_needs_the_time_of_each_pass(scale_outs: Sequence[int | None], is_known: bool) -> None:
    run = declared_run([1.0] * 2, scale_outs=scale_outs)({1: None, 2: None}, None)
    run.measure_pass()
    run.measure_pass()
    assert (run.scaling.indices.hsxt is not None) is is_known
