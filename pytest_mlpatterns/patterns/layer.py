"""What the layers of a pattern share: how they are called, how they refuse, and how they count.

A layer takes a model and is a model: called with a list of inputs, it returns as many outputs, or an awaitable of them.
So layers nest in any order, and what serves them knows only the outermost. All of a layer runs on one event loop;
:meth:`Tally.snapshot` may be called from another thread.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

__all__ = ["Answer", "Handler", "LostError", "RequestError", "counted", "matched", "needs_loop"]

Answer = Sequence[Any] | Awaitable[Sequence[Any]]
Handler = Callable[[list[Any]], Answer]
"""A model, or a layer around one."""


class RequestError(Exception):
    """An answer other than 200: its status, the text of its error, and when to try again (seconds, None: not said)."""

    def __init__(self, status: int, text: str, retry_after_s: int | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.retry_after_s = retry_after_s


class LostError(RequestError):
    """The process that had the request is gone, or closed the connection under it: nobody knows whether it was done."""

    def __init__(self, text: str) -> None:
        super().__init__(502, text)


def needs_loop(inner: Handler) -> bool:
    """Whether a model or layer has to be called on the event loop; otherwise it may be called in a thread.

    Layers say so themselves, by an attribute of this name.
    """
    said = getattr(inner, "needs_loop", None)
    if isinstance(said, bool):
        return said
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(type(inner).__call__)


def matched(outputs: Any, count: int, who: str) -> Sequence[Any]:
    """The outputs, if there is one for each input.

    Args:
        outputs: what ``who`` returned.
        count: how many inputs it was given.
        who: for the message, such as "the model".

    Raises:
        RequestError: status 500: another number of outputs, something without a length, or a mapping, set, text or data
            frame, which would be gone through by its keys, letters or columns.
    """
    if not isinstance(outputs, list) and (mend := _mend_of(outputs)):
        text = f"{who} returned {type(outputs).__name__} for {count} inputs, expected a list with one output for each"
        raise RequestError(500, f"{text}; return {mend}")
    return counted(outputs, count, who)  # type: ignore[no-any-return]


def counted(outputs: Any, count: int, who: str) -> Any:
    """Whatever ``who`` returned, if it is as long as the inputs; with the arguments and error of :func:`matched`.

    Between the stages of one process a data frame is as good as a list.
    """
    try:
        found = len(outputs)
    except TypeError:
        kind = type(outputs).__name__
        text = f"{who} returned {kind}, which has no length; it must return a list of outputs"
        raise RequestError(500, text) from None
    if found != count:
        raise RequestError(500, f"{who} returned {found} outputs for {count} inputs; it must return one for each")
    return outputs


def _mend_of(outputs: Any) -> str | None:
    """What to return instead of what goes through as something else than outputs; None for anything else."""
    if hasattr(outputs, "columns"):
        return "frame.to_dict('records') or frame.to_numpy()"
    if isinstance(outputs, Mapping):
        return "[{...}, ...]"
    return "[...]" if isinstance(outputs, str | bytes | bytearray | set | frozenset) else None
