"""Every exception and warning of the package.

A message says what was found, what was expected and what to do, in that order, with the user's own names in it.
This module must not know how a message is shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "BaselineFileError",
    "ChildError",
    "DeploymentError",
    "InconclusiveFailure",
    "InconclusiveWarning",
    "InvalidResultError",
    "LeftoverWarning",
    "LimitFailure",
    "MlpatternsError",
    "ModelLoadError",
    "OpenPortWarning",
    "PerfFailure",
    "PerfWarning",
    "RegressionFailure",
    "ResultFileError",
    "SettingError",
    "TooFewSamplesError",
    "UnitError",
    "UnusedMarkerWarning",
    "missing_extra",
]


class MlpatternsError(Exception):
    """Base of every error that is not a verdict about performance."""


class SettingError(MlpatternsError, ValueError):
    """A marker argument, option, pattern or schedule is not one that can be served."""


class UnitError(SettingError):
    """A time, size or ratio could not be read."""


class BaselineFileError(MlpatternsError):
    """The baseline file is damaged, foreign, newer than this version, or cannot be written."""


class ResultFileError(MlpatternsError):
    """A result file is damaged, foreign, or of another version."""


class ChildError(MlpatternsError):
    """A process of ours ended, or stopped answering, when it should not have."""


class DeploymentError(MlpatternsError):
    """A deployment did not start, is not ready, or died."""


class ModelLoadError(DeploymentError):
    """The user's model could not be built, or failed on its first inference; carries its own traceback."""


class InvalidResultError(MlpatternsError):
    """What was measured supports no verdict: nothing succeeded, too few samples, or the generator was the limit."""


class TooFewSamplesError(InvalidResultError):
    """A percentile of fewer samples than bound it at 99 % confidence; another launch brings more."""


class PerfFailure(AssertionError):
    """A verdict that fails the test. The first line carries the essential figures.

    Attributes:
        reasons: why the test failed, one sentence for each verdict, without the facts that the message adds.
    """

    def __init__(self, message: str = "", reasons: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.reasons = tuple(reasons) or tuple(message.splitlines()[:1])


class LimitFailure(PerfFailure):
    """A metric is beyond the limit that the test asserts."""


class RegressionFailure(PerfFailure):
    """A metric is worse than its baseline by more than the tolerance."""


class InconclusiveFailure(PerfFailure):
    """The interval still includes the limit when the budget is spent, and the user asked that this fails."""


class PerfWarning(UserWarning):
    """Base of the warnings of this package."""


class InconclusiveWarning(PerfWarning):
    """The interval still includes the limit when the budget is spent."""


class LeftoverWarning(PerfWarning):
    """A server left processes behind that lived on after SIGTERM and had to be killed."""


class OpenPortWarning(PerfWarning):
    """A server that was started for a test listens on all interfaces of the machine."""


class UnusedMarkerWarning(PerfWarning):
    """A test carries a perf marker of ours but does not ask for the fixture, so nothing is measured."""


def missing_extra(what: str, package: str, extra: str) -> str:
    """The message about an optional package that is not installed.

    Args:
        what: what needs it, in the user's words, such as ``"Cached(store='redis://localhost')"``.
        package: its name.
        extra: the extra of this package that installs it.
    """
    return (
        f"{what} needs the package {package}, which is not installed; "
        f"install it: pip install 'pytest-mlpatterns[{extra}]'"
    )


for _class in [found for found in globals().values() if isinstance(found, type)]:
    # Tracebacks show the name by which users import a class. A verdict appears as a class of builtins, which pytest
    # prints without the module, so that its figures are not cut off in summaries.
    _class.__module__ = "builtins" if issubclass(_class, PerfFailure) else "pytest_mlpatterns"
