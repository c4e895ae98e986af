"""Why a test failed: whether it is profiled by function or its memory traced by line, and what came of it.

Neither is part of a verdict, of the metrics or of the budget.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.metrics.definitions import GROWTHS, metric_named, with_role
from pytest_mlpatterns.analysis.metrics.metric import Role
from pytest_mlpatterns.config.settings import ProfileMode
from pytest_mlpatterns.errors import MlpatternsError
from pytest_mlpatterns.records.profile import ProfileRecord
from pytest_mlpatterns.records.samples import HeldRecord
from pytest_mlpatterns.records.verdict import Outcome, Verdict
from pytest_mlpatterns.units import Unit
from pytest_mlpatterns.wording import first_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.judging.experiment import Experiment
    from pytest_mlpatterns.judging.sequential import SequentialMeasurement
    from pytest_mlpatterns.revision.client import RevisionClient

_NOT_OF_REQUESTS = ("cold_start", "recovery", "unhurt")  # Times that no function of a request explains


class Causes:
    """Explains the failures of one test.

    ``profile``: where the time went by function, or why that is not known; None if nothing asked for it. ``held``:
    which lines hold more memory, or why that is not known; None if nothing asked for it.
    """

    def __init__(self, experiment: Experiment, measurement: SequentialMeasurement) -> None:
        self._experiment = experiment
        self._measurement = measurement
        self.profile: ProfileRecord | None = None
        self.held: HeldRecord | None = None

    def profile_alone(self) -> None:
        """Profile the present, if the test asks for it and is compared with no revision."""
        experiment = self._experiment
        if experiment.settings.profile is ProfileMode.ON and experiment.revision is None and not experiment.smoke:
            self._profile_once(None)

    def profile_comparison(self, revision: RevisionClient, verdicts: Sequence[Verdict]) -> None:
        """Profile both revisions, if the verdicts ask for it and that was not done before."""
        mode, is_known = self._experiment.settings.profile, names_functions(verdicts)
        if mode is ProfileMode.ON or (mode is ProfileMode.AUTO and is_known):
            self._profile_once(revision, is_known=is_known)

    def trace_comparison(
        self, revision: RevisionClient, verdicts: Sequence[Verdict], starts_ns: Sequence[int] = ()
    ) -> None:
        """Find the lines that hold more memory, or leak it, if that failed the test and was not done before.

        ``starts_ns``: of models on both sides, in nanoseconds.
        """
        held = with_role(Role.HELD)
        failed = [held[one.metric] for one in verdicts if one.outcome is Outcome.FAIL and one.metric in held]
        is_off = self._experiment.settings.profile is ProfileMode.OFF
        if is_off or self.held is not None or not failed:
            return
        from pytest_mlpatterns.judging.cause_search import held_by

        with self._measurement.beside_budget():
            try:
                self.held = held_by(
                    self._experiment, revision, starts_ns, of_growth=all(one.name in GROWTHS for one in failed)
                )
            except MlpatternsError as error:
                self.held = HeldRecord(f"memory by line is not known: {first_line(error)}")

    def _profile_once(self, revision: RevisionClient | None, *, is_known: bool = False) -> None:
        if self.profile is not None:
            return
        from pytest_mlpatterns.judging.cause_search import profile_of

        with self._measurement.beside_budget():
            try:
                self.profile = profile_of(self._experiment, revision, is_known=is_known)
            except MlpatternsError as error:
                self.profile = ProfileRecord(note=f"no profile: {first_line(error)}")


def names_functions(verdicts: Sequence[Verdict]) -> bool:
    """Whether one of these failed, and the time of functions can explain it."""
    return any(
        verdict.outcome is Outcome.FAIL
        and verdict.metric not in _NOT_OF_REQUESTS
        and metric_named(verdict.metric).unit in (Unit.DURATION, Unit.RATE)
        for verdict in verdicts
    )
