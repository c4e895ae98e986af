"""Why a test failed: whether it is profiled by function or its memory traced by line, and what came of it.

Neither is part of a verdict, of the metrics or of the budget. The verdict comes first: the search has a time limit of
its own, which holds wherever it waits, and an interrupt ends the search only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.metrics.definitions import GROWTHS, metric_named, with_role
from pytest_mlpatterns.analysis.metrics.metric import Role
from pytest_mlpatterns.config.settings import ProfileMode
from pytest_mlpatterns.errors import MlpatternsError, is_of_interrupt
from pytest_mlpatterns.records.profile import ProfileRecord
from pytest_mlpatterns.records.samples import HeldRecord
from pytest_mlpatterns.records.verdict import Outcome, Verdict
from pytest_mlpatterns.reports.text.where import functions_explain
from pytest_mlpatterns.system.time_limit import TimeIsUp, time_limit
from pytest_mlpatterns.units import format_duration
from pytest_mlpatterns.wording import first_line

if TYPE_CHECKING:
    from pytest_mlpatterns.judging.experiment import Experiment
    from pytest_mlpatterns.judging.sequential import SequentialMeasurement
    from pytest_mlpatterns.revision.client import RevisionClient

_PARTS = 4  # A search may take one of this many parts of the budget
_LEAST_NS = 15_000_000_000  # Time that every search may take beside the start of the service, in nanoseconds


class Causes:
    """Explains the failures of one test.

    ``profile``: where the time went by function, or why that is not known; None if nothing asked for it. ``held``:
    which lines hold more memory, or why that is not known; None if nothing asked for it. ``interrupted``: whether an
    interrupt ended a search; it is to be raised again when the verdicts are known.
    """

    def __init__(self, experiment: Experiment, measurement: SequentialMeasurement) -> None:
        self._experiment = experiment
        self._measurement = measurement
        self.profile: ProfileRecord | None = None
        self.held: HeldRecord | None = None
        self.interrupted: bool = False

    def profile_alone(self) -> None:
        """Profile the present, if the test asks for it and is compared with no revision."""
        experiment = self._experiment
        asks = experiment.settings.profile is ProfileMode.ON and experiment.revision is None and not experiment.smoke
        if asks and self.profile is None:
            with self._measurement.spending.beside():
                self.profile = self._profiled(None)

    def search(self, revision: RevisionClient, verdicts: Sequence[Verdict], starts_ns: Sequence[int] = ()) -> None:
        """Look for what explains these verdicts, unless that was done before, and end the other revision.

        The verdicts wait meanwhile, so it has a limit, unless the test asks for a profile.

        ``starts_ns``: of models on both sides, in nanoseconds.
        """
        mode = self._experiment.settings.profile
        failed = [one.metric for one in verdicts if one.outcome is Outcome.FAIL]
        is_known = any(map(functions_explain, failed))
        profiles = self.profile is None and (mode is ProfileMode.ON or (mode is ProfileMode.AUTO and is_known))
        grown = [name for name in failed if name in with_role(Role.HELD)]
        traces = bool(grown) and self.held is None and mode is not ProfileMode.OFF
        found = self._measurement.so_far
        start_ns = 0 if found is None else max(one.cold_start_ns or 0 for one in found.launches)
        limit_ns = max(self._experiment.settings.budget_ns // _PARTS, _LEAST_NS) + start_ns
        longest_ns = None if mode is ProfileMode.ON else limit_ns
        why = f"the cause was not found in {format_duration(limit_ns)}; --perf-profile on looks for it without a limit"

        def show(left_s: int | None) -> None:
            found = f"{metric_named(failed[0]).label} is worse; searching for the cause, {left_s} s left"
            self._experiment.driver.on_search("" if left_s is None else found)

        try:
            if profiles or traces:
                with self._measurement.spending.beside(), time_limit(longest_ns, show):
                    if profiles:
                        self.profile = self._profiled(revision, is_known=is_known, longest_ns=longest_ns)
                    if traces:
                        of_growth = all(name in GROWTHS for name in grown)
                        self.held = self._held(revision, starts_ns, of_growth=of_growth, longest_ns=longest_ns)
            revision.close()
        except (TimeIsUp, KeyboardInterrupt) as ended:
            self.interrupted |= is_of_interrupt(ended)
            why = "the search for the cause was interrupted" if self.interrupted else why
        if profiles and self.profile is None:
            self.profile = ProfileRecord(note=why)
        elif traces and self.held is None:
            self.held = HeldRecord(why)

    def _said(self, error: MlpatternsError) -> str:
        """The first line of an error, which may come of an interrupt."""
        self.interrupted |= is_of_interrupt(error)
        return first_line(error)

    def _profiled(
        self, revision: RevisionClient | None, *, is_known: bool = False, longest_ns: int | None = None
    ) -> ProfileRecord:
        from pytest_mlpatterns.judging.cause_search import profile_of

        try:
            return profile_of(self._experiment, revision, is_known=is_known, longest_ns=longest_ns)
        except MlpatternsError as error:
            return ProfileRecord(note=f"no profile: {self._said(error)}")

    def _held(
        self, revision: RevisionClient, starts_ns: Sequence[int], *, of_growth: bool, longest_ns: int | None
    ) -> HeldRecord:
        """Which lines hold more memory, or leak it."""
        from pytest_mlpatterns.judging.cause_search import held_by

        try:
            return held_by(self._experiment, revision, starts_ns, of_growth=of_growth, longest_ns=longest_ns)
        except MlpatternsError as error:
            return HeldRecord(f"memory by line is not known: {self._said(error)}")
