"""Requests that wait for a batch, the batch that they form, and how its outputs and errors reach them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.patterns.copies import copy_of
from pytest_mlpatterns.patterns.layer import RequestError
from pytest_mlpatterns.patterns.request_clock import RequestClock, counts_calls

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["Batch", "Request", "copies_of", "distribute", "error_of_one_caller", "inputs_of", "share_times"]


@dataclass(slots=True, eq=False)
class Request:
    """A waiting request.

    ``arrived_ns`` is its arrival on the clock of ``perf_counter_ns``. ``inputs_again`` returns new inputs for a retry;
    None until they are needed, and if they cannot be copied. ``clock`` takes its times; None outside of a server.
    """

    inputs: list[Any]
    outputs: asyncio.Future[Sequence[Any]]
    arrived_ns: int
    inputs_again: Callable[[], Sequence[Any]] | None
    clock: RequestClock | None = None


@dataclass(slots=True, eq=False)
class Batch:
    """Requests of one call. After a failure they are called in ever smaller groups, the last group first.

    ``last_ns`` and ``next_ns`` are as :meth:`AdaptiveWait.called` takes them; ``failed`` counts inputs. ``is_retried``
    is True after the first failure. ``clock`` takes the times of the call.
    """

    groups: list[list[Request]]
    size: int
    is_full: bool
    sent_ns: int
    last_ns: int | None
    next_ns: int | None = None
    failed: int = 0
    is_retried: bool = False
    clock: RequestClock = field(default_factory=RequestClock)


def inputs_of(request: Request, *, again: bool) -> Sequence[Any]:
    """The inputs of a request; for a retry new ones, since the model may have changed the others."""
    return request.inputs_again() if again and request.inputs_again is not None else request.inputs


def copies_of(inputs: list[Any]) -> Callable[[], Sequence[Any]] | None:
    """Returns new copies of inputs at every call; None if they cannot be copied."""
    try:
        kept = copy_of(inputs)
    except Exception:  # an object of the user's may raise anything when it is copied
        return None
    return partial(copy_of, kept)


def share_times(clock: RequestClock, group: Iterable[RequestClock | None]) -> None:
    """Charge the times of a call to each request of a group, since each waited for all of it."""
    parts = clock.parts
    for number, one in enumerate(group):
        if one is not None:
            one.take(parts)
        if not number:  # the next ones have waited for the same calls
            parts = {key: value for key, value in parts.items() if not counts_calls(key)}


def distribute(group: list[Request], outputs: Any) -> None:
    """Give each request its own outputs."""
    if len(group) == 1:
        parts = [outputs]
    else:
        outputs = outputs if hasattr(outputs, "__getitem__") else list(outputs)
        ends = list(accumulate(len(request.inputs) for request in group))
        parts = [outputs[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    for request, part in zip(group, parts, strict=True):
        if not request.outputs.done():
            request.outputs.set_result(part)


def error_of_one_caller(failure: BaseException) -> BaseException:
    """The error for one caller: one instance raised in several tasks would mix their tracebacks."""
    if isinstance(failure, StopIteration):  # futures refuse it
        own: BaseException = RuntimeError(f"it raised StopIteration: {failure}")
    elif isinstance(failure, RequestError):
        own = type(failure).__new__(type(failure), *failure.args)
        own.__dict__.update(failure.__dict__)
    else:
        return failure
    own.__cause__ = failure
    return own
