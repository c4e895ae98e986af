"""Exceptions and warnings of the package.

A message states what was found, what was expected and what to do, in this order, with the user's own names.
"""

import sys
from collections.abc import Sequence

__all__ = [
    "BaselineFileError",
    "ChildError",
    "CountError",
    "DeploymentError",
    "GeneratorLimitError",
    "HistoryError",
    "InconclusiveFailure",
    "InconclusiveWarning",
    "InvalidResultError",
    "LeftoverWarning",
    "LimitFailure",
    "MissingExtraError",
    "MlpatternsError",
    "ModelLoadError",
    "OpenPortWarning",
    "PerfFailure",
    "PerfWarning",
    "ProfilerError",
    "RegressionFailure",
    "ResultFileError",
    "SettingError",
    "TooFewSamplesError",
    "UnequalAnswersWarning",
    "UnitError",
    "UnusedMarkerWarning",
    "missing_extra",
]


class MlpatternsError(Exception):
    """Base class of every error that is not a verdict."""


class SettingError(MlpatternsError, ValueError):
    """A marker argument, option, pattern or schedule is invalid."""


class MissingExtraError(SettingError):
    """What a test asks for needs an optional package that is not installed."""


class UnitError(SettingError):
    """A time, size or ratio is invalid."""


class BaselineFileError(MlpatternsError):
    """The baseline file is damaged, of another program or of a newer version, or it cannot be written."""


class ResultFileError(MlpatternsError):
    """A result file is damaged, of another program, or of another version."""


class HistoryError(MlpatternsError):
    """A history cannot be read, or a line cannot be added to it."""


class ChildError(MlpatternsError):
    """A child process ended or stopped responding unexpectedly."""


class DeploymentError(MlpatternsError):
    """A deployment did not start, is not ready, or ended unexpectedly.

    Attributes:
        said: the message, which names a model without ``perf_model`` before it.
        subject: the model or service with which that begins; empty if it begins otherwise.
        side: the side of a comparison that the message names; empty if it names none.
        retry: whether a start is tried once more; None: if one of the same service has succeeded.
        ends_starts: whether a start failed again, after one that succeeded, so that there are no further ones.
    """

    def __init__(
        self,
        said: str = "",
        *,
        subject: object = "",
        of_model: bool = False,
        side: str = "",
        retry: bool | None = None,
    ) -> None:
        super().__init__(f"perf_model {said}" if of_model else said)
        self.said: str = said
        self.subject: str = str(subject)
        self.side: str = side
        self.retry: bool | None = retry
        self.ends_starts: bool = False

    def names(self, side: str) -> bool:
        """Whether the message names this side of a comparison already."""
        return side in (self.subject, self.side)

    def end_starts(self) -> None:
        """Note that there are no further starts."""
        self.ends_starts = True

    def add(self, line: str) -> None:
        """Add a line to the message."""
        super().__init__(f"{self}\n{line}")
        self.said = f"{self.said}\n{line}"


class ModelLoadError(DeploymentError):
    """The model could not be built, or failed on its first inference; the message contains its traceback."""


class ProfilerError(MlpatternsError):
    """The profiler cannot read a process, or gave nothing that can be read; the test has no profile then."""


class CountError(MlpatternsError):
    """The instructions of a service cannot be counted, or not to the end; it has no count then."""


class InvalidResultError(MlpatternsError):
    """A measurement supports no verdict: no request succeeded, too few samples, or the generator was the limit.

    Attributes:
        side: the side of a comparison that failed; empty if no side did.
    """

    def __init__(self, message: str = "", *, side: str = "") -> None:
        super().__init__(message)
        self.side: str = side


class GeneratorLimitError(InvalidResultError):
    """The load generator, or the machine that it shares, was the limit: the service was not measured.

    Attributes:
        by_client: whether that was a client of the user's own, which will be so again.
    """

    def __init__(self, said: str = "", *, by_client: bool = False) -> None:
        super().__init__(said)
        self.by_client: bool = by_client


class TooFewSamplesError(InvalidResultError):
    """Too few samples for an interval of a percentile at 99 % confidence; another launch adds samples.

    Attributes:
        needed: samples that the percentile needs; 0 if unknown.
        found: samples that there were.
    """

    def __init__(self, message: str = "", *, needed: int = 0, found: int = 0) -> None:
        super().__init__(message)
        self.needed: int = needed
        self.found: int = found


class PerfFailure(AssertionError):
    """A verdict that fails the test. The first line of its message has the essential figures.

    Attributes:
        reasons: why the test failed, one sentence for each verdict, without the facts that the message adds.
    """

    def __init__(self, message: str = "", reasons: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.reasons: tuple[str, ...] = tuple(reasons) or tuple(message.splitlines()[:1])

    def __reduce__(self) -> tuple[object, ...]:
        """For pickle, which cannot find the class by the module that tracebacks show."""
        return _failure, (type(self).__name__, self.args, self.reasons)


class LimitFailure(PerfFailure):
    """A metric is beyond the limit that the test asserts."""


class RegressionFailure(PerfFailure):
    """A metric is worse than its baseline by more than the tolerance."""


class InconclusiveFailure(PerfFailure):
    """The interval includes the limit when the budget is spent, and the test is set to fail in this case."""


class PerfWarning(UserWarning):
    """Base class of the warnings of this package."""


class InconclusiveWarning(PerfWarning):
    """The interval includes the limit when the budget is spent.

    Attributes:
        short: as pytest lists it, since the reason stands in the summary of the run.
    """

    def __init__(self, message: str = "", short: str = "") -> None:
        super().__init__(message)
        self.short: str = short or message


class LeftoverWarning(PerfWarning):
    """Processes of a server, or that a model started, did not end after SIGTERM and were killed."""


class OpenPortWarning(PerfWarning):
    """A server that was started for a test listens on all network interfaces."""


class UnequalAnswersWarning(PerfWarning):
    """Two services that are compared give different answers to the same input."""


class UnusedMarkerWarning(PerfWarning):
    """A test has the marker ``perf`` but does not use the fixture ``perf``, so nothing is measured."""


def check_system() -> None:
    """Check that this system has what deployments and load generators are made of, such as process groups."""
    if sys.platform == "win32":
        raise SettingError(
            "perf tests need Linux or macOS, and this is Windows; run them in WSL or a container, or leave them out: "
            "pytest -m 'not perf'"
        )


def _failure(name: str, arguments: tuple[str, ...], reasons: tuple[str, ...]) -> PerfFailure:
    failure: PerfFailure = globals()[name](*arguments, reasons=reasons)
    return failure


def is_of_interrupt(error: BaseException | None) -> bool:
    """Whether this is an interrupt, or was raised while one was handled."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def missing_extra(what: str, package: str, extra: str) -> str:
    """The message about an optional package that is not installed; ``what``, in the user's words, needs it."""
    return (
        f"{what} needs the package {package}, which is not installed; "
        f"install it: pip install 'pytest-mlpatterns[{extra}]'"
    )


for _class in [found for found in globals().values() if isinstance(found, type) and found.__module__ == __name__]:
    # Tracebacks show the name by which users import a class. A verdict appears as a class of builtins, which pytest
    # prints without the module, so that its figures are not cut off in summaries.
    _class.__module__ = "builtins" if issubclass(_class, PerfFailure) else "pytest_mlpatterns"
