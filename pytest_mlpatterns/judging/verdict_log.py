"""The verdicts of one test: a failing one fails the test or is kept, an open one follows the test's policy.

Warnings and errors point to the line of the test, not to this package. It must not know how verdicts come about.
"""

from __future__ import annotations

import functools
import linecache
import re
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, ParamSpec, TypeVar

from msgspec.structs import replace

from pytest_mlpatterns.analysis.metrics.metrics import missing_figure
from pytest_mlpatterns.config.settings import InconclusivePolicy
from pytest_mlpatterns.errors import (
    GeneratorLimitError,
    InconclusiveFailure,
    InconclusiveWarning,
    MlpatternsError,
    PerfFailure,
    SettingError,
)
from pytest_mlpatterns.fields import plain_number
from pytest_mlpatterns.measurement.answer_check import cut_to_function
from pytest_mlpatterns.records.result import TestResult
from pytest_mlpatterns.records.result_parts import Location
from pytest_mlpatterns.records.verdict import Gate, OpenBy, Outcome, Verdict, WhyOpen
from pytest_mlpatterns.removed import why_removed
from pytest_mlpatterns.reports.text.comparison import fails_requests
from pytest_mlpatterns.reports.text.failure import failure_text
from pytest_mlpatterns.reports.text.undecided import open_in_short
from pytest_mlpatterns.reports.text.where import where_sentence
from pytest_mlpatterns.wording import first_line, shown

if TYPE_CHECKING:
    from pytest_mlpatterns.judging.experiment import Experiment


class VerdictLog:
    """Collects verdicts, and raises failures.

    ``advised``: those that were not raised, because the gate only warns. ``raised``: the errors of assertions, in a
    line each; a test that passes nevertheless has caught them.
    """

    def __init__(self, experiment: Experiment, result: Callable[[], TestResult | None]) -> None:
        self.all: list[Verdict] = []
        self.advised: list[PerfFailure] = []
        self.raised: list[str] = []
        self.asked: dict[str, float] = {}
        self.warn: Callable[[Warning], None] = _warn_at_the_test
        self._experiment = experiment
        self._result = result

    def add(self, verdicts: Sequence[Verdict], failure: type[PerfFailure]) -> None:
        """Add verdicts to the result."""
        verdicts = [self._placed(verdict) for verdict in verdicts]
        self.all.extend(verdicts)
        if failed := [verdict for verdict in verdicts if verdict.outcome is Outcome.FAIL]:
            self.fail(self._failure(failure, sorted(failed, key=fails_requests, reverse=True)))
            return
        undecided = [verdict for verdict in verdicts if verdict.outcome is Outcome.INCONCLUSIVE]
        policy = self._experiment.settings.inconclusive
        if undecided and policy is InconclusivePolicy.FAIL:
            self.fail(self._failure(InconclusiveFailure, undecided))
        if undecided and policy is InconclusivePolicy.WARN:
            self._warn_of(undecided)

    def _placed(self, verdict: Verdict) -> Verdict:
        """The verdict with the line that asserted it, if it is a limit that fails."""
        if verdict.against != "limit" or verdict.outcome is not Outcome.FAIL:
            return verdict
        return replace(verdict, asserted_at=str(_asserted_at(self._experiment.test)))

    def ask(self, tolerances: Mapping[str, float]) -> None:
        """Note the metrics that an assertion compares, with their tolerances; of two the smaller one counts."""
        self.asked |= {name: min(share, self.asked.get(name, share)) for name, share in tolerances.items()}

    def _warn_of(self, undecided: Sequence[Verdict]) -> None:
        reasons = "; ".join(verdict.reason for verdict in undecided)
        result = self._result()
        short = open_in_short(undecided, is_likely=result is not None and bool(result.judged.probably_slower))
        try:
            self.warn(InconclusiveWarning(f"{self._experiment.test}: undecided: {reasons}", short))
        except InconclusiveWarning:  # the project's filter makes errors of warnings
            if self._experiment.settings.gate is Gate.FAIL:
                raise
            self.fail(self._failure(InconclusiveFailure, undecided))

    def fail(self, failure: PerfFailure) -> None:
        """Raise a failure, or keep it if the gate only warns."""
        if self._experiment.settings.gate is Gate.FAIL:
            raise failure
        self.advised.append(failure)

    def warn_through(self, warn: Callable[[Warning], None]) -> None:
        """Give the warnings of open verdicts to this function from now on."""
        self.warn = warn

    def _failure(self, failure: type[PerfFailure], verdicts: Sequence[Verdict]) -> PerfFailure:
        result = self._result()
        assert result is not None
        reasons = [*(verdict.reason for verdict in verdicts), where_sentence(result, verdicts)]
        return failure(failure_text(verdicts, result, self._experiment.results_file), [*filter(None, reasons)])


def no_verdict(metric: str, against: Literal["limit", "baseline", "revision"], error: GeneratorLimitError) -> Verdict:
    """The verdict on a metric when the load generator or the machine was the limit, not the service."""
    why = str(error)
    left = WhyOpen(OpenBy.CLIENT if error.by_client else OpenBy.MACHINE, why)
    return Verdict(metric, against, Outcome.INCONCLUSIVE, f"no verdict: {why}", why_open=left)


def _warn_at_the_test(warning: Warning) -> None:
    """Issue a warning at the line of the test: the nearest one outside this package."""
    _, level = frame_of_the_test()
    warnings.warn(warning, stacklevel=level)


def _asserted_at(test: str) -> Location:
    """The line that asserted what is judged now, in the file of the test or in one of its helpers."""
    frame, _ = frame_of_the_test()
    path, own = Path(frame.f_code.co_filename), test.partition("::")[0]
    file = own if path.as_posix().endswith(f"/{own}") else path.name
    return Location(file, frame.f_lineno)


_P = ParamSpec("_P")
_R = TypeVar("_R")
_Class = TypeVar("_Class")
_FIGURE = re.compile(r"\b(\w+)\.metrics\.(\w+)")


def at_the_call(method: Callable[_P, _R]) -> Callable[_P, _R]:
    """Cut this package's frames from the tracebacks of its errors, and of errors of the user's functions.

    An argument that earlier versions had is refused by its name.
    """

    @functools.wraps(method)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        __tracebackhide__ = True
        try:
            for name in kwargs:
                if why := why_removed(f"{name}="):
                    raise SettingError(f"{method.__name__}({name}=...): {why}")
            return method(*args, **kwargs)
        except (MlpatternsError, PerfFailure) as error:
            of_user = cut_to_function(error)
            raise error.with_traceback(error.__traceback__ if of_user else None) from None
        except Exception as error:
            cut_to_function(error)
            raise error.with_traceback(error.__traceback__)  # noqa: B904 - without the entry of this frame

    return call


def assertions_at_the_call(fixture: type[_Class]) -> type[_Class]:
    """The same of each assertion and measurement of a class; the log has the errors of assertions."""
    for name, method in [*vars(fixture).items()]:
        if name.startswith(("assert_", "measure_")):
            setattr(fixture, name, at_the_call(_logged(method) if name.startswith("assert_") else method))
    return fixture


def _logged(assertion: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(assertion)
    def call(fixture: Any, *args: object, **kwargs: object) -> None:
        try:
            assertion(fixture, *args, **kwargs)
        except (MlpatternsError, PerfFailure) as error:
            fixture._verdicts.raised.append(first_line(str(error)))
            raise

    return call


def frame_of_the_test() -> tuple[FrameType, int]:
    """The nearest frame outside this package, and its level as the caller's warning counts it."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("pytest_mlpatterns."):
        frame, level = frame.f_back, level + 1
    return frame, level


def refuse_missing_figures(perf: object) -> None:
    """Refuse a figure that does not exist before the load, if the line that asks for it reads ``perf.metrics``."""
    frame, _ = frame_of_the_test()
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).partition("#")[0]
    for variable, name in _FIGURE.findall(line):
        is_read = frame.f_locals.get(variable) is perf and name in frame.f_code.co_names
        if is_read and (message := missing_figure(name)):
            raise SettingError(message)


def refuse_settings(args: Sequence[object], given: Mapping[str, object]) -> NoReturn:
    """Refuse arguments of the marker in the test's body, which is too late for them."""
    load = [("concurrency", one) for one in args[:1] if plain_number(one) is not None]
    named = ", ".join(f"{name}={shown(value)}" for name, value in [*load, *given.items()])
    marker = f"pytest.mark.perf({named or '...'})"
    raise SettingError(
        f"perf(...) in the body of a test, expected its settings in the marker above it; write @{marker}, or of "
        f"one case of several pytest.param(..., marks={marker})"
    )
