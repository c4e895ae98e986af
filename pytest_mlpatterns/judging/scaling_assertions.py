"""How the test's pattern scales: passes over numbers of replicas, and verdicts on efficiency and scale-out time.

It must not know how a pass is measured, nor pytest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.capacity.scale_out import SCALE_OUT, scale_out_ns
from pytest_mlpatterns.analysis.capacity.scaling import EFFICIENCY, Scaling
from pytest_mlpatterns.analysis.statistics.alpha_spending import SequentialPlan
from pytest_mlpatterns.analysis.verdicts.verdicts import judge_limit
from pytest_mlpatterns.engines.engine import Engine, engine_named
from pytest_mlpatterns.errors import GeneratorLimitError, InvalidResultError, SettingError
from pytest_mlpatterns.fields import whole_number
from pytest_mlpatterns.measurement.scaling import BY_NO_ENGINE, ScalingRun
from pytest_mlpatterns.patterns.replication import balance_of, with_replicas
from pytest_mlpatterns.records.verdict import Outcome, Verdict
from pytest_mlpatterns.system.cpu_share import ReplicaCores
from pytest_mlpatterns.wording import count, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_mlpatterns.judging.experiment import Experiment
    from pytest_mlpatterns.judging.sequential import SequentialMeasurement
    from pytest_mlpatterns.records.capacity import ScalingRecord

_PASSES = 2  # Passes before the first verdict: an interval needs two
_MOST_PASSES = 4  # Most passes of an open verdict
_ALPHA = 0.02  # Probability, over all interim looks, of failing a figure exactly at the limit


class ScalingAssertions:
    """Measures the scaling of one test's pattern, and judges it.

    Args:
        experiment: what is measured.
        measurement: the test's own launches, which come first.
        close: closes the test's own deployment, since each number of replicas needs the machine to itself.
    """

    def __init__(self, experiment: Experiment, measurement: SequentialMeasurement, close: Callable[[], None]) -> None:
        self._experiment = experiment
        self._measurement = measurement
        self._close = close
        self._run: ScalingRun | None = None
        self._cores_each: int | None = None

    @property
    def record(self) -> ScalingRecord | None:
        """What was measured, for reports; None if nothing was."""
        return self._run.scaling.record if self._run is not None and self._run.passes else None

    def measure(self, replicas: object, cpus_per_replica: object = None) -> Scaling:
        """Measure NMRT at each number of replicas, in two passes; a smoke run measures nothing.

        Raises:
            SettingError: other numbers than from 1 on, too few cores, or a service that this package does not start.
        """
        numbers, each = _numbers(replicas), _cores_each(cpus_per_replica)
        if each is not None:
            pattern = self._experiment.settings.pattern
            if balance_of(pattern) is None:
                raise SettingError(
                    f"measure_scaling(cpus_per_replica=...) of {pattern}, whose gateway process chooses among the "
                    "replicas and needs cores too; leave cpus_per_replica= out, or choose "
                    'balance="round-robin"'
                )
        if each != self._cores_each:
            self._run, self._cores_each = None, each
        return self._measured(numbers)

    def decide_efficiency(self, limit: float, replicas: object) -> Verdict | None:
        """Measure until it is decided whether the scaling efficiency reaches a limit.

        Args:
            limit: a share.
            replicas: number of replicas.

        Returns:
            The verdict; None in a smoke run.

        Raises:
            GeneratorLimitError: the cores of the machine were used up, so that there is no verdict on the pattern.
            InvalidResultError: NMRT is only known as a lower bound.
        """
        number = read_replicas(replicas)
        scaling = self._measured((1, number))
        if self._experiment.smoke:
            return None

        def judged(found: Scaling, confidence: float) -> Verdict:
            verdict = judge_limit(EFFICIENCY, found.efficiency(number, confidence), limit)
            if verdict.outcome is not Outcome.PASS and found.ended_by:
                raise GeneratorLimitError(f"{found.ended_by}; measure with fewer replicas or on more cores")
            return verdict

        return self._decide(scaling, judged)

    def decide_scale_out(self, limit_ns: int) -> Verdict | None:
        """Measure until it is decided whether one more replica carries its share in time.

        Args:
            limit_ns: the longest acceptable time from asking for it, in nanoseconds.

        Returns:
            The verdict; None in a smoke run.

        Raises:
            InvalidResultError: the time is not known, because the pattern cannot get one more replica while it runs, or
                because a replica never carried its share.
        """
        if not self._engine.adds_replicas and not self._experiment.smoke:  # which a pass of a minute would find out too
            raise InvalidResultError(f"the scale-out time is not known: {BY_NO_ENGINE}")
        scaling = self._measured((1,))
        if self._experiment.smoke:
            return None

        def judged(found: Scaling, confidence: float) -> Verdict:
            took = scale_out_ns(found.scale_outs, confidence)
            if took is None:
                raise InvalidResultError(
                    f"the scale-out time is not known: {found.scale_out_unknown or found.steps[0].bound}"
                )
            return judge_limit(SCALE_OUT, took, limit_ns)

        return self._decide(scaling, judged)

    @property
    def _engine(self) -> Engine:
        """The engine that serves the test."""
        return engine_named(self._experiment.settings.engine)

    def _decide(self, scaling: Scaling, judged: Callable[[Scaling, float], Verdict]) -> Verdict:
        """Add passes until a verdict is no longer open, or the budget is spent."""
        assert self._run is not None
        plan = SequentialPlan(first=_PASSES, last=_MOST_PASSES, alpha=_ALPHA)
        while True:
            verdict = judged(scaling, plan.confidence(self._run.passes))
            if verdict.outcome is not Outcome.INCONCLUSIVE or not self._may_go_on():
                return verdict
            self._pass()
            scaling = self._run.scaling

    def _measured(self, numbers: tuple[int, ...]) -> Scaling:
        cores = None if self._cores_each is None else ReplicaCores(self._cores_each, max(numbers))
        if cores is not None and not self._experiment.smoke and not self._engine.gives_cores:
            cores.check()
        self._measurement.measure_at_least(1)
        if self._experiment.smoke:
            return Scaling((), 1)
        self._measurement.require_valid()
        if self._run is None or not set(numbers) <= set(self._run.numbers):
            pattern = self._experiment.settings.pattern
            under = self._experiment.variant_under
            variants = {number: under(with_replicas(pattern, number), cores) for number in numbers}
            price = self._experiment.settings.price
            self._run = ScalingRun(
                variants,
                self._experiment.generator,
                on_progress=self._experiment.driver.on_progress,
                price=price,
                cpus_per_replica=self._cores_each,
                balance=balance_of(pattern),
            )
        self._close()
        while self._run.passes < _PASSES:
            self._pass()
        return self._run.scaling

    def _pass(self) -> None:
        assert self._run is not None
        with self._measurement.beside_budget():
            self._run.measure_pass()
        self._measurement.take_indices(self._run.scaling.indices)

    def _may_go_on(self) -> bool:
        assert self._run is not None
        each_s = self._run.spent_s / self._run.passes
        budget_s = self._experiment.settings.budget_ns / 1e9
        return self._run.passes < _MOST_PASSES and self._run.spent_s + each_s <= budget_s


def read_replicas(replicas: object) -> int:
    """The number of replicas whose efficiency is asked for."""
    name = f"assert_scaling_efficiency_at_least(replicas={shown(replicas)})"
    return whole_number(replicas, name, least=2, expected="a whole number of replicas from 2, such as 2")


def _cores_each(cpus_per_replica: object) -> int | None:
    """The number of cores of each replica."""
    if cpus_per_replica is None:
        return None
    name = f"measure_scaling(cpus_per_replica={shown(cpus_per_replica)})"
    return whole_number(cpus_per_replica, name, least=1, expected="a whole number of cores for each replica, such as 1")


def _numbers(replicas: object) -> tuple[int, ...]:
    """The numbers of replicas, ascending."""
    name = f"measure_scaling(replicas={shown(replicas)})"
    if not isinstance(replicas, tuple | list | range | set | frozenset):
        raise SettingError(f"{name}, expected numbers of replicas; write replicas=(1, 2, 4)")
    numbers = sorted({whole_number(number, name, least=1, expected="whole numbers from 1") for number in replicas})
    if len(numbers) < 2 or numbers[0] != 1:
        raise SettingError(
            f"{name} has {count(len(numbers), 'number')}, expected at least two, and 1 among them, which the others "
            "are compared with; write replicas=(1, 2, 4)"
        )
    return tuple(numbers)
