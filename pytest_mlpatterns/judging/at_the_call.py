"""The line of a test that asks for a figure or an assertion: errors end there, not in this package."""

from __future__ import annotations

import functools
import linecache
import re
import sys
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from pytest_mlpatterns.analysis.metrics import missing_figure
from pytest_mlpatterns.errors import MlpatternsError, PerfFailure, SettingError
from pytest_mlpatterns.measurement.answer_check import cut_to_check

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

__all__ = ["at_the_call", "frame_of_the_test", "refuse_missing_figures"]

_P = ParamSpec("_P")
_R = TypeVar("_R")
_FIGURE = re.compile(r"\b(\w+)\.metrics\.(\w+)")


def at_the_call(method: Callable[_P, _R]) -> Callable[_P, _R]:
    """Cut this package's frames from the tracebacks of its errors, and of those of the user's check."""

    @functools.wraps(method)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        __tracebackhide__ = True
        try:
            return method(*args, **kwargs)
        except (MlpatternsError, PerfFailure) as error:
            raise error.with_traceback(None) from None
        except Exception as error:
            cut_to_check(error)
            raise error.with_traceback(error.__traceback__)  # noqa: B904 - without the entry of this frame

    return call


def frame_of_the_test() -> tuple[FrameType, int]:
    """The nearest frame outside this package, and its level as the caller's warning counts it."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("pytest_mlpatterns."):
        frame, level = frame.f_back, level + 1
    return frame, level


def refuse_missing_figures(perf: object) -> None:
    """Refuse a figure that does not exist before the load is sent, if the line that asks for it reads ``perf.metrics``.

    Args:
        perf: the measurement of the test, as a variable of the test holds it.

    Raises:
        SettingError: the message has the figure that was meant.
    """
    frame, _ = frame_of_the_test()
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).partition("#")[0]
    for variable, name in _FIGURE.findall(line):
        is_read = frame.f_locals.get(variable) is perf and name in frame.f_code.co_names
        if is_read and (message := missing_figure(name)):
            raise SettingError(message)
