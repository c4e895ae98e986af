"""Errors of a figure or an assertion end at the line of the test that asked for it, not in this package."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from pytest_mlpatterns.errors import MlpatternsError, PerfFailure
from pytest_mlpatterns.measurement.answer_check import cut_to_check

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["at_the_call"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


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
