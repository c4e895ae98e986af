"""A test's own side beside another one, interleaved: what ``assert_faster_than`` and its opposite measure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_mlpatterns.config.settings import NoisePolicy
from pytest_mlpatterns.judging.interleaved_verdicts import judge_factor
from pytest_mlpatterns.measurement.answer_comparison import AnswerComparison, Side
from pytest_mlpatterns.measurement.started_deployments import StartedDeployments

if TYPE_CHECKING:
    from pytest_mlpatterns.judging.experiment import Experiment
    from pytest_mlpatterns.judging.interleaved_verdicts import Factor
    from pytest_mlpatterns.judging.other_side import OtherSide
    from pytest_mlpatterns.judging.sequential import SequentialMeasurement
    from pytest_mlpatterns.measurement.launch import LaunchRunner
    from pytest_mlpatterns.records.verdict import Verdict

__all__ = ["SideComparison"]


class SideComparison:
    """Measures one test's service beside another one.

    Args:
        experiment: what is measured.
        measurement: what was measured so far.
        runner: starts the test's own deployments; it is closed before an interleaved run.

    Attributes:
        difference: the first answers of both sides that differed in the last comparison; empty if they did not.
    """

    def __init__(self, experiment: Experiment, measurement: SequentialMeasurement, runner: LaunchRunner) -> None:
        self._experiment = experiment
        self._measurement = measurement
        self._runner = runner
        self.difference: str = ""

    def decide(self, other: OtherSide, factor: Factor) -> Verdict | None:
        """Measure both sides until the factor is decided; None in a smoke run, which asks both once.

        Args:
            other: what the test is compared with.
            factor: what is asked of both.

        Raises:
            DeploymentError, InvalidResultError: one side did not start, died, or gave no answers; named.
            Exception: any that the check raises, for answers of either side.
        """
        plan = self._experiment.plan
        answers = AnswerComparison(Side(other.own, plan), Side(other.variant.name, other.variant.plan))
        look = answers.look if other.answers_alike else None
        self._measurement.measure_at_least(1)
        if self._experiment.smoke:
            with StartedDeployments([other.variant]) as (theirs,):
                if look is not None:
                    look(self._runner.deployment, theirs)
            self.difference = answers.difference
            return None
        self._runner.close()  # both sides need the machine to themselves
        run = self._experiment.interleave(self._experiment.variant(other.own), other.variant, look)
        settings = self._experiment.settings
        neighbours = settings.noise is not NoisePolicy.TRUST
        verdict = judge_factor(run, factor, budget_ns=settings.budget_ns, neighbours=neighbours)
        self.difference = answers.difference
        verdict = replace(verdict, against=other.kind)
        return replace(verdict, reason=f"{verdict.reason}; {self.difference}") if self.difference else verdict
