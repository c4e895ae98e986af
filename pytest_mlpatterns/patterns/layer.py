"""What layers share: how they are called, how they refuse a request, and what an engine offers them.

A layer takes a handler and is a handler: called with a list of inputs, it returns as many outputs, or an awaitable of
them. So layers nest in any order, and a server knows only the outermost. All layers of a process run on one event loop;
only :meth:`Tally.snapshot` may be called from another thread.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from pytest_mlpatterns import wording

if TYPE_CHECKING:
    from pytest_mlpatterns.patterns.cache_layer import Store
    from pytest_mlpatterns.patterns.queued import Queued
    from pytest_mlpatterns.patterns.tally import Tally
    from pytest_mlpatterns.wire import Wire

Answer = Sequence[Any] | Awaitable[Sequence[Any]]
Handler = Callable[[list[Any]], Answer]
"""A model, or a layer around one: takes a list of inputs, returns one output for each, or an awaitable of them."""


class DecodedInputs(list[Any]):
    """Inputs of a request that can be decoded again, for a layer that retries: the model may have changed them.

    Args:
        inputs: the inputs.
        decode: decodes them again; each call returns new objects.
    """

    __slots__ = ("decode",)

    def __init__(self, inputs: Iterable[Any], decode: Callable[[], Sequence[Any]]) -> None:
        super().__init__(inputs)
        self.decode: Callable[[], Sequence[Any]] = decode

    def __reduce__(self) -> tuple[Any, ...]:
        """Other processes get a plain list."""
        return list, (list(self),)


class RequestError(Exception):
    """A layer refuses a request, or a request failed: the client gets this status instead of outputs.

    Args:
        status: HTTP status of the response; gRPC clients get the status that corresponds to it.
        text: the error in the response's body.
        retry_after_s: value of the header ``Retry-After``, in seconds; None: no such header.
    """

    def __init__(self, status: int, text: str, retry_after_s: int | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.retry_after_s = retry_after_s


class LostError(RequestError):
    """The worker ended or closed the connection during the request; it may or may not have done the work."""

    def __init__(self, text: str) -> None:
        super().__init__(502, text)


class Resources(Protocol):
    """What an engine offers to a layer, in the process in which the layer runs."""

    @property
    def wire(self) -> Wire:
        """How inputs and outputs are written between the processes of the deployment, and in stores and brokers."""
        ...

    def store(self, url: str, ttl_ns: int | None = None) -> Store:
        """A store of this layer's own keys in a server.

        Args:
            url: one of the pattern's ``servers``.
            ttl_ns: how long values are kept, in nanoseconds; None: one hour.

        Raises:
            DeploymentError: the package of the client is not installed, or the address is malformed.
        """
        ...

    def queue(self, pattern: Queued, tally: Tally) -> Handler:
        """The queue in the broker from which the process group inside takes its requests.

        Raises:
            DeploymentError: the package of the client is not installed, or the address is malformed.
        """
        ...


class ProcessHandler(Protocol):
    """The handler of a process group: balances requests over its processes."""

    @property
    def replicas(self) -> Sequence[Handler]:
        """One handler for each process."""
        ...

    @property
    def in_flight(self) -> int:
        """Number of requests that a queue should have in flight at each process."""
        ...

    def __call__(self, instances: list[Any], /) -> Answer:
        """Send the inputs to one of the processes."""
        ...


def needs_loop(handler: Handler) -> bool:
    """Whether a handler must be called on the event loop; otherwise it may be called in a thread.

    True for coroutine functions. A layer that is not one may have an attribute ``needs_loop``.
    """
    declared = getattr(handler, "needs_loop", None)
    if isinstance(declared, bool):
        return declared
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(type(handler).__call__)


def ends_task(error: BaseException) -> bool:
    """Whether an exception ends the task that runs, so that it is no error of the model that the task awaits.

    Such exceptions are a cancellation of the task, the end of its event loop, and Ctrl+C.
    """
    if isinstance(error, GeneratorExit | KeyboardInterrupt):
        return True
    if not isinstance(error, asyncio.CancelledError):  # a model may end its own task in time, and raise what it likes
        return False
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def error_of_one_caller(failure: BaseException) -> BaseException:
    """The error for one caller: one instance raised in several tasks would mix their tracebacks.

    What is no ``Exception``, such as a panic of a library written in Rust, becomes one; otherwise it would end the task
    of the caller instead of its request.
    """
    # futures refuse the first, and every layer treats an exit as an error of the model
    if isinstance(failure, StopIteration) or not isinstance(failure, Exception | SystemExit):
        own: BaseException = RuntimeError(f"it raised {type(failure).__name__}: {failure}")
    elif isinstance(failure, RequestError):
        own = type(failure).__new__(type(failure), *failure.args)
        own.__dict__.update(failure.__dict__)
    else:
        return failure
    own.__cause__ = failure
    return own


def parallelism(handler: Handler) -> int:
    """How many calls a handler works on at the same time: its attribute ``parallelism``, 1 without one."""
    declared = getattr(handler, "parallelism", 1)
    return declared if isinstance(declared, int) else 1


def retries(handler: Handler) -> bool:
    """Whether a handler may give a model the same inputs twice: its attribute ``retries``, False without one.

    The server gives such a handler :class:`DecodedInputs`.
    """
    return getattr(handler, "retries", False) is True


def matched(outputs: Any, count: int, name: str) -> Sequence[Any]:
    """Check that there is one output for each input.

    Args:
        outputs: what ``name`` returned.
        count: number of inputs.
        name: for the message, such as "the model".

    Returns:
        The outputs, unchanged.

    Raises:
        RequestError: status 500: a different number of outputs, something without a length, or a mapping, set, text or
            data frame, whose elements are keys, letters or columns instead of outputs.
    """
    if not isinstance(outputs, list) and (fix := _fix_of(outputs)):
        kind, inputs = type(outputs).__name__, wording.count(count, "input")
        text = f"{name} returned {kind} for {inputs}, expected a list with one output for each"
        raise RequestError(500, f"{text}; return {fix}")
    return counted(outputs, count, name)  # type: ignore[no-any-return]


def counted(outputs: Any, count: int, name: str) -> Any:
    """Check that what ``name`` returned is as long as the inputs; arguments and errors as of :func:`matched`.

    Between the stages of one process any sized value may travel, such as a data frame.
    """
    try:
        found = len(outputs)
    except TypeError:
        if outputs is None:
            inputs = wording.count(count, "input")
            text = (
                f"{name} returned None for {inputs}, expected a list with one output for each; is its return missing?"
            )
        else:
            kind = type(outputs).__name__
            text = f"{name} returned {kind}, which has no length; it must return a list of outputs"
        raise RequestError(500, text) from None
    if found != count:
        found_and_given = f"{wording.count(found, 'output')} for {wording.count(count, 'input')}"
        raise RequestError(500, f"{name} returned {found_and_given}; it must return one for each")
    return outputs


def _fix_of(outputs: Any) -> str | None:
    """What to return instead of a value whose elements are not outputs; None if they may be."""
    if hasattr(outputs, "columns"):
        return "frame.to_dict('records') or frame.to_numpy()"
    if isinstance(outputs, Mapping):
        return "[{...}, ...]"
    return "[...]" if isinstance(outputs, str | bytes | bytearray | set | frozenset) else None


_IMMUTABLE = frozenset({bool, bytes, float, int, str, type(None)})


def copy_of(value: Any) -> Any:
    """A deep copy; a fraction of the time of :func:`copy.deepcopy` for values of JSON.

    Raises:
        Exception: the value contains an object that cannot be copied.
    """
    kind = type(value)
    if kind in _IMMUTABLE:
        return value
    if kind is list:
        return [item if type(item) in _IMMUTABLE else copy_of(item) for item in value]
    if kind is dict:
        return {key: item if type(item) in _IMMUTABLE else copy_of(item) for key, item in value.items()}
    return copy.deepcopy(value)
