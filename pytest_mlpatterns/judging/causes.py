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
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.metrics.definitions import GROWTHS, metric_named, with_role
from pytest_mlpatterns.analysis.metrics.metric import Role
from pytest_mlpatterns.config.settings import ProfileMode
from pytest_mlpatterns.errors import MlpatternsError
from pytest_mlpatterns.records.profile import ProfileRecord
from pytest_mlpatterns.records.samples import HeldRecord
from pytest_mlpatterns.records.verdict import Outcome, Verdict
from pytest_mlpatterns.units import Unit, format_duration
from pytest_mlpatterns.wording import first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pytest_mlpatterns.judging.experiment import Experiment
    from pytest_mlpatterns.judging.sequential import SequentialMeasurement
    from pytest_mlpatterns.revision.client import RevisionClient

_NOT_OF_REQUESTS = ("cold_start", "recovery", "unhurt")  # Times that no function of a request explains
_PARTS = 4  # Parts of the budget, one of which a search may take
_LEAST_NS = 15_000_000_000  # Time that every search may take, in nanoseconds
_CLEANING_S = 5.0  # Time that a search which has ended may take to clean up


class SearchEnded(BaseException):
    """The time of a search is over."""


@contextlib.contextmanager
def limited(limit_ns: int | None, show: Callable[[str], None]) -> Iterator[None]:
    """End a block of the main thread by :class:`SearchEnded` when its time is over, also while it waits.

    A signal does that, as Ctrl-C would; the one that is taken does nothing to a process that does not expect it.

    ``limit_ns``: None for no limit. ``show``: takes the time left in words, once a second; nothing at the end.
    """
    if limit_ns is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    over, main = threading.Event(), threading.get_ident()
    ends = time.monotonic() + limit_ns / 1e9
    cleans = False

    def tick(_number: int, _frame: object) -> None:
        nonlocal ends, cleans
        if over.is_set():
            return
        if (left_s := ends - time.monotonic()) <= 0:
            ends, cleans = time.monotonic() + _CLEANING_S, True
            raise SearchEnded
        if not cleans:
            show(f"searching for the cause, {math.ceil(left_s)} s left")

    def call() -> None:
        while not over.wait(min(max(ends - time.monotonic(), 0.01), 1.0)):
            signal.pthread_kill(main, signal.SIGURG)

    show(f"searching for the cause, {math.ceil(limit_ns / 1e9)} s left")
    before = signal.signal(signal.SIGURG, tick)
    calling = threading.Thread(target=call, name="limit of a search", daemon=True)
    calling.start()
    try:
        yield
    finally:
        over.set()
        calling.join()
        signal.signal(signal.SIGURG, before)
        show("")


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
                with self._measurement.beside_budget(), limited(longest_ns, self._experiment.driver.on_search):
                    if profiles:
                        self.profile = self._profiled(revision, is_known=is_known, longest_ns=longest_ns)
                    if traces:
                        of_growth = all(name in GROWTHS for name in grown)
                        self.held = self._held(revision, starts_ns, of_growth=of_growth, longest_ns=longest_ns)
            revision.close()
        except (SearchEnded, KeyboardInterrupt) as ended:
            self.interrupted = any(isinstance(one, KeyboardInterrupt) for one in (ended, ended.__context__))
            why = "the search for the cause was interrupted" if self.interrupted else why
        if profiles and self.profile is None:
            self.profile = ProfileRecord(note=why)
        elif traces and self.held is None:
            self.held = HeldRecord(why)

    def _profiled(
        self, revision: RevisionClient | None, *, is_known: bool = False, longest_ns: int | None = None
    ) -> ProfileRecord:
        from pytest_mlpatterns.judging.cause_search import profile_of

        try:
            return profile_of(self._experiment, revision, is_known=is_known, longest_ns=longest_ns)
        except MlpatternsError as error:
            return ProfileRecord(note=f"no profile: {first_line(error)}")

    def _held(
        self, revision: RevisionClient, starts_ns: Sequence[int], *, of_growth: bool, longest_ns: int | None
    ) -> HeldRecord:
        """Which lines hold more memory, or leak it."""
        from pytest_mlpatterns.judging.cause_search import held_by

        try:
            return held_by(self._experiment, revision, starts_ns, of_growth=of_growth, longest_ns=longest_ns)
        except MlpatternsError as error:
            return HeldRecord(f"memory by line is not known: {first_line(error)}")


def names_functions(verdicts: Sequence[Verdict]) -> bool:
    """Whether one of these failed, and the time of functions can explain it."""
    return any(
        verdict.outcome is Outcome.FAIL
        and verdict.metric not in _NOT_OF_REQUESTS
        and metric_named(verdict.metric).unit in (Unit.DURATION, Unit.RATE)
        for verdict in verdicts
    )
