"""The same model under another pattern, interleaved: what ``perf.assert_faster_than`` measures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.config.settings import NoisePolicy
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.judging.interleaved_verdicts import COMPARABLE_METRICS, judge_faster
from pytest_mlpatterns.wording import shown

if TYPE_CHECKING:
    from pytest_mlpatterns.judging.experiment import Experiment
    from pytest_mlpatterns.judging.sequential import SequentialMeasurement
    from pytest_mlpatterns.measurement.launch import LaunchRunner
    from pytest_mlpatterns.patterns import Pattern
    from pytest_mlpatterns.records.verdict import Verdict

__all__ = ["PatternComparison"]


class PatternComparison:
    """Measures one test's model beside the same model under another pattern.

    Args:
        experiment: what is measured.
        measurement: what was measured so far.
        runner: starts the test's own deployments; it is closed before an interleaved run.
    """

    def __init__(self, experiment: Experiment, measurement: SequentialMeasurement, runner: LaunchRunner) -> None:
        self._experiment = experiment
        self._measurement = measurement
        self._runner = runner

    def decide(self, rival: Pattern, on: str, times: float) -> Verdict | None:
        """Measure both patterns interleaved until it is decided whether this one is faster; None in a smoke run.

        Args:
            rival: the other pattern.
            on: name of the metric that is compared.
            times: smallest acceptable factor.

        Raises:
            SettingError: the metric is not comparable, the pattern is the test's own, or the service is not ours.
        """
        pattern = self._experiment.setup.pattern
        if not isinstance(on, str) or on not in COMPARABLE_METRICS:
            raise SettingError(
                f"assert_faster_than(on={shown(on)}), expected one of {', '.join(map(repr, COMPARABLE_METRICS))}"
            )
        if self._experiment.system.model is None:
            raise SettingError(f"assert_faster_than({rival}) for {pattern}, expected a model that this package serves")
        if str(rival) == str(pattern):
            raise SettingError(f"assert_faster_than({rival}) under that very pattern, expected another")
        theirs = self._experiment.variant_under(rival)
        self._measurement.measure_at_least(1)
        if self._experiment.smoke:
            return None
        self._runner.close()  # both variants need the machine to themselves
        run = self._experiment.interleave(self._experiment.variant(str(pattern)), theirs)
        settings = self._experiment.settings
        neighbours = settings.noise is not NoisePolicy.TRUST
        return judge_faster(run, on, times, budget_ns=settings.budget_ns, neighbours=neighbours)
