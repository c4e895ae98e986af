"""Why a test failed: whether it is profiled by function or its memory traced by line, and what came of it.

Neither is part of a verdict, of the metrics or of the budget. The verdict comes first: the search has a time limit of
its own, which holds wherever it waits, and an interrupt ends the search only.
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.analysis.metrics.definitions import GROWTHS, metric_named, with_role
from pytest_mlpatterns.analysis.metrics.metric import Role
from pytest_mlpatterns.config.settings import ProfileMode
from pytest_mlpatterns.errors import MlpatternsError, is_of_interrupt
from pytest_mlpatterns.records.profile import ProfileRecord
from pytest_mlpatterns.records.samples import HeldRecord
from pytest_mlpatterns.records.verdict import Outcome, Verdict
from pytest_mlpatterns.reports.text.where import functions_explain
from pytest_mlpatterns.units import format_duration
from pytest_mlpatterns.wording import first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    from pytest_mlpatterns.judging.experiment import Experiment
    from pytest_mlpatterns.judging.sequential import SequentialMeasurement
    from pytest_mlpatterns.revision.client import RevisionClient

_PARTS = 4  # A search may take one of this many parts of the budget
_LEAST_NS = 15_000_000_000  # Time that every search may take, in nanoseconds
_CLEANING_S = 5.0  # Time that a search which has ended may take to clean up


class SearchEnded(BaseException):
    """The time of a search is over."""


class SearchLimit:
    """Ends a block of the main thread by :class:`SearchEnded` when its time is over, also while it waits.

    A signal does that, as Ctrl-C would; the one that is taken does nothing to a process that does not expect it.

    ``show``: takes what was ``found`` and the time left in words, once a second; nothing at the end.
    """

    def __init__(self, limit_ns: int, show: Callable[[str], None], found: str) -> None:
        self._ends = time.monotonic() + limit_ns / 1e9
        self._show = show
        self._found = found
        self._cleans = False
        self._over, self._main = threading.Event(), threading.get_ident()
        self._calling = threading.Thread(target=self._call, name="limit of a search", daemon=True)
        self._handler: Any = None

    def __enter__(self) -> None:
        self._handler = signal.signal(signal.SIGURG, self._tick)
        self._calling.start()

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._over.set()
        self._calling.join()
        signal.signal(signal.SIGURG, self._handler)
        self._show("")
        if self._cleans and isinstance(error, Exception):  # what was cut made another error of it
            raise SearchEnded from error

    def _call(self) -> None:
        wait_s = 0.0
        while not self._over.wait(wait_s):
            signal.pthread_kill(self._main, signal.SIGURG)
            wait_s = min(max(self._ends - time.monotonic(), 0.01), 1.0)

    def _tick(self, _number: int, frame: FrameType | None) -> None:
        while frame is not None and frame.f_code.co_name != "__del__":  # where Python drops what is raised
            frame = frame.f_back
        left_s = self._ends - time.monotonic()
        if self._over.is_set() or frame is not None:
            return
        if left_s <= 0:
            self._ends, self._cleans = time.monotonic() + _CLEANING_S, True
            raise SearchEnded
        if not self._cleans:
            self._show(f"{self._found}; searching for the cause, {math.ceil(left_s)} s left")


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
            with self._measurement.beside_budget():
                self.profile = self._profiled(None)

    def search(self, revision: RevisionClient, verdicts: Sequence[Verdict], starts_ns: Sequence[int] = ()) -> None:
        """Look for what explains these verdicts, unless that was done before, and end the other revision.

        The verdicts wait meanwhile, so it has a limit, unless the test asks for a profile.

        ``starts_ns``: of models on both sides, in nanoseconds.
        """
        mode, is_known = self._experiment.settings.profile, names_functions(verdicts)
        profiles = self.profile is None and (mode is ProfileMode.ON or (mode is ProfileMode.AUTO and is_known))
        failed = [one.metric for one in verdicts if one.outcome is Outcome.FAIL]
        grown = [name for name in failed if name in with_role(Role.HELD)]
        traces = bool(grown) and self.held is None and mode is not ProfileMode.OFF
        limit_ns = max(self._experiment.settings.budget_ns // _PARTS, _LEAST_NS)
        longest_ns = None if mode is ProfileMode.ON else limit_ns
        why = f"the cause was not found in {format_duration(limit_ns)}; --perf-profile on looks for it without a limit"
        try:
            if profiles or traces:
                with self._measurement.beside_budget(), self._limited(longest_ns, failed):
                    if profiles:
                        self.profile = self._profiled(revision, is_known=is_known, longest_ns=longest_ns)
                    if traces:
                        of_growth = all(name in GROWTHS for name in grown)
                        self.held = self._held(revision, starts_ns, of_growth=of_growth, longest_ns=longest_ns)
            revision.close()
        except (SearchEnded, KeyboardInterrupt) as ended:
            self.interrupted |= is_of_interrupt(ended)
            why = "the search for the cause was interrupted" if self.interrupted else why
        if profiles and self.profile is None:
            self.profile = ProfileRecord(note=why)
        elif traces and self.held is None:
            self.held = HeldRecord(why)

    def _limited(self, longest_ns: int | None, failed: Sequence[str]) -> contextlib.AbstractContextManager[None]:
        """The limit of a search; there is none without a time, nor outside of the thread that signals reach."""
        if longest_ns is None or threading.current_thread() is not threading.main_thread():
            return contextlib.nullcontext()
        found = f"{metric_named(failed[0]).label} is worse"
        return SearchLimit(longest_ns, self._experiment.driver.on_search, found)

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


def names_functions(verdicts: Sequence[Verdict]) -> bool:
    """Whether one of these failed, and the time of functions can explain it."""
    return any(verdict.outcome is Outcome.FAIL and functions_explain(verdict.metric) for verdict in verdicts)
