"""What to do about an error that a model raised: the end of the message, for mistakes that most first models make."""

from __future__ import annotations

import pickle
import re
from typing import TYPE_CHECKING

from pytest_mlpatterns.wording import count

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["advice_on"]

_OF_LISTS = re.compile(r"\b(list|sequence)\b")
"""What the messages of Python say of an operation that a list does not have."""


def advice_on(error: BaseException, frames: TracebackType | None) -> str:
    """What to do about an error of a model, after a semicolon; empty if that is not known.

    Args:
        error: that the model raised.
        frames: of the user's code, the model first.
    """
    if isinstance(error, pickle.PicklingError) or "Can't pickle" in str(error):
        return "; put the model in a module: code of a test file is sent by value, so other processes cannot import it"
    return _advice_on_inputs(error, [] if frames is None else _batch_of(frames))


def _batch_of(frames: TracebackType) -> list[object]:
    """The list of inputs that a model was called with; empty if it has another one in its place meanwhile."""
    frame = frames.tb_frame
    arguments = frame.f_code.co_varnames[: frame.f_code.co_argcount]
    return next((found for name in arguments if isinstance(found := frame.f_locals.get(name), list)), [])


def _advice_on_inputs(error: BaseException, batch: list[object]) -> str:
    """For a model that takes the list of inputs for one input, or an input for an array."""
    if not batch:
        return ""
    as_list = f"; the model gets a list of inputs, here {count(len(batch), 'input')}"
    as_array = "over JSON an array arrives as a list: numpy.asarray(batch)"
    holds_lists = any(isinstance(one, list) for one in batch)
    if isinstance(error, AttributeError) and isinstance(error.obj, list):
        return f"; {as_array}" if holds_lists else as_list
    if isinstance(error, TypeError) and _OF_LISTS.search(str(error)):
        return f"{as_list}, and {as_array}" if holds_lists else as_list
    return ""
