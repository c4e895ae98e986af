"""The pattern ``Shadowed``: a copy of the traffic goes to another model, whose answers are compared and dropped.

Outputs are compared as a person sees them: numbers, text, nested lists and arrays.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import random
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, ClassVar

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.fields import MAX_SEED, check_truth, plain_number, set_whole
from pytest_mlpatterns.patterns.arguments import NO_VARIABLES, set_variables
from pytest_mlpatterns.patterns.layer import DecodedInputs, copy_of, matched, needs_loop, parallelism, retries
from pytest_mlpatterns.patterns.model_list import checked_model, distinct_names
from pytest_mlpatterns.patterns.model_thread import ModelThread
from pytest_mlpatterns.patterns.pattern import MODEL, LayerNode, ModelNode, Node, Pattern, ProcessGroup, build
from pytest_mlpatterns.patterns.request_clock import set_clock
from pytest_mlpatterns.patterns.stream import Stream, StreamSource, streams
from pytest_mlpatterns.wording import shown

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from pytest_mlpatterns.patterns.layer import Answer, Handler, Resources
    from pytest_mlpatterns.patterns.tally import Tally


__all__ = ["Comparison", "ShadowLayer", "Shadowed", "are_equal"]


_MOST = 100_000
"""Most copies that wait or are answered; each holds its inputs and the outputs of the live path."""


@dataclass(frozen=True, slots=True)
class Shadowed(Pattern):
    """A copy of the traffic goes to another model. Its answers are compared with those of the live path, and dropped.

    The live path is the rest of the composition. It never waits for the other model: a request is copied after it was
    answered, and a copy for which there is no place is dropped and counted.

    Args:
        other: the model that gets the copies: a callable that takes a list of inputs and returns as many outputs, a
            class of such callables, or an import string.
        share: share of the requests that are copied, above 0 and at most 1.
        same: takes the live output and the other model's output for one input, and returns whether they are the same;
            None: they are equal.
        max_waiting: most copies that wait for the other model or that it works on, 1..100,000.
        seed: of the choice of the requests that are copied, 0..2**64 - 1.
        processes: the other model gets a process of its own, which is replaced if it dies; else it runs in a thread of
            the process in which the layer runs.
        env: environment variables of that process.

    Raises:
        SettingError: something that is not a model or ``perf_model`` itself, a number out of range, no function as
            ``same``, or impossible variables.
    """

    needs_code: ClassVar[bool] = True
    passes_on: ClassVar[bool] = True

    other: Any = None
    share: float = 1.0
    same: Callable[[Any, Any], object] | None = None
    max_waiting: int = 64
    seed: int = 0
    processes: bool = False
    env: Mapping[str, str] = NO_VARIABLES

    def __post_init__(self) -> None:
        set_variables(self)
        checked_model(self.other, "Shadowed(other=...) is")
        if isinstance(self.other, str) and self.other == MODEL:
            raise SettingError(
                f'Shadowed(other="{MODEL}") is perf_model, which the live path serves already; name another model'
            )
        share = plain_number(self.share)
        if share is None or not 0 < share <= 1:
            raise SettingError(
                f"Shadowed(share={shown(self.share)}), expected a number above 0 and at most 1; write 0.1"
            )
        object.__setattr__(self, "share", float(share))
        if self.same is not None and not callable(self.same):
            raise SettingError(
                f"Shadowed(same={shown(self.same)}), expected a function of two outputs, or None for equality; "
                "write same=lambda live, other: abs(live - other) < 0.01"
            )
        set_whole(self, "max_waiting", least=1, most=_MOST)
        set_whole(self, "seed", least=0, most=MAX_SEED)
        check_truth(self, "processes")

    def build(self, position: int, rest: Sequence[Pattern]) -> Node:
        """Build the live path, the other model, in a process of its own with ``processes=True``, and the comparison."""
        other: Node = ModelNode(self.other, self._name)
        if self.processes:
            other = ProcessGroup(other, f"shadow {self._name}", position, restart=True, env=self.env)
        inside = (build(position + 1, rest), other, ModelNode(Comparison(self.same), "same"))
        return LayerNode(self, position, inside, env=NO_VARIABLES if self.processes else self.env)

    @property
    def _name(self) -> str:
        """The name of the other model; none is ``"model"``, which is that of the live path."""
        return distinct_names((MODEL, self.other))[1]

    @property
    def inside_names(self) -> tuple[str, ...]:
        """No name for the live path, whose times are those of the service, and the others'."""
        return ("", self._name, "same")

    def without_callables(self) -> Pattern:
        """The same with a name in place of the other model and without ``same``, which are nodes inside."""
        return replace(self, other=f":{self._name}", same=None)

    def layer(self, inside: Sequence[Handler], tally: Tally, resources: Resources) -> Handler:
        """Make the layer around the live path; the other handlers inside are the other model and the comparison."""
        return ShadowLayer(self, inside, tally)


class Comparison:
    """The user's comparison for several outputs: takes ``(live, other)`` pairs, returns a truth value for each.

    Args:
        same: compares two outputs; None: by :func:`~pytest_mlpatterns.patterns.shadowed.are_equal`.
    """

    def __init__(self, same: Callable[[Any, Any], object] | None) -> None:
        self._same = same or are_equal

    def __call__(self, pairs: Sequence[tuple[Any, Any]]) -> list[bool]:
        """Whether the outputs of each pair are the same."""
        return [bool(self._same(live, other)) for live, other in pairs]


class _Copy:
    """A copied request.

    Args:
        size: number of inputs.
        inputs: returns the inputs, which the live path may have changed meanwhile.
    """

    __slots__ = ("inputs", "outputs", "size")

    def __init__(self, size: int, inputs: Callable[[], Sequence[Any]]) -> None:
        self.size = size
        self.inputs = inputs
        self.outputs: list[Any] = []


class ShadowLayer:
    """Answers from the live path, and gives copies of the requests to the other model afterwards.

    The layer returns its outputs directly if the live path does. The other model and the comparison run in a thread of
    their own; a model that must be called on the event loop is called there. Answers that come in chunks are compared
    whole: text joined, other chunks as a list.

    Args:
        pattern: the share and the bound.
        inside: the handlers of the live path, of the other model, and of the comparison.
        tally: counts what :mod:`pytest_mlpatterns.records.package_layers` names for shadows.

    Attributes:
        needs_loop: whether the live path must be called on the event loop.
        parallelism: how many calls the live path works on at the same time.
        retries: True, so that the inputs can be decoded again for the other model.

    Raises:
        Exception: when called: the exception of the live path; none of the other model.
    """

    retries = True

    def __init__(self, pattern: Shadowed, inside: Sequence[Handler], tally: Tally) -> None:
        self._live, self._other, self._same = inside
        self.needs_loop: bool = needs_loop(self._live)
        self.parallelism: int = parallelism(self._live)
        self._pattern = pattern
        self._tally = tally
        self._random = random.Random(pattern.seed)  # noqa: S311 - a repeatable choice
        self._live_retries = retries(self._live)
        self._is_asked_on_loop = needs_loop(self._other)
        self._thread = ModelThread("shadow model")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reader = StreamSource()
        self._tasks: set[asyncio.Task[None]] = set()
        self._changing = threading.Lock()
        self._waiting = 0
        self._has_failed = False
        tally.level("waiting", 0)

    async def start(self) -> None:
        """Learn the event loop on which the other model may have to be called."""
        self._loop = asyncio.get_running_loop()

    def __call__(self, instances: list[Any]) -> Answer:
        """The outputs of the live path, or an awaitable of them."""
        copy, spent_ns = self._copied(instances)
        outputs: Any = self._live(instances if self._live_retries else list(instances))
        if inspect.isawaitable(outputs):
            return self._await(copy, outputs, len(instances), spent_ns=spent_ns)
        answer: Answer = self._answered(copy, outputs, len(instances), spent_ns=spent_ns)
        return answer

    async def _await(self, copy: _Copy | None, pending: Awaitable[Any], size: int, *, spent_ns: int) -> Any:
        return self._answered(copy, await pending, size, spent_ns=spent_ns)

    # --- on the live path ---------------------------------------------------------------------------------------------

    def _copied(self, instances: list[Any]) -> tuple[_Copy | None, int]:
        """A copy of a request that was chosen, if there is a place for it, and what that took in nanoseconds."""
        if self._random.random() >= self._pattern.share:
            return None, 0
        began_ns, size = perf_counter_ns(), len(instances)
        if self._waiting >= self._pattern.max_waiting:
            self._tally.count("dropped", size)
            return None, 0
        if isinstance(instances, DecodedInputs):
            return _Copy(size, instances.decode), perf_counter_ns() - began_ns
        try:
            inputs = [copy_of(one) for one in instances]
        except Exception as error:  # of an object of the user's
            self._fail(size, error)
            return None, 0
        return _Copy(size, lambda: inputs), perf_counter_ns() - began_ns

    def _answered(self, copy: _Copy | None, outputs: Any, size: int, *, spent_ns: int) -> Any:
        """Take what the live path answered, and hand the copy over."""
        if (stream := self._reader.read(outputs, size, "the model")) is not None:
            if copy is None:
                return stream
            hand_over, fail = partial(self._hand_over, copy, spent_ns), partial(self._fail, copy.size)
            return Stream(_Recorded(stream, hand_over, fail))
        if copy is None:
            return outputs
        began_ns = perf_counter_ns()
        try:
            own = [copy_of(one) for one in outputs]
        except Exception as error:  # of an object of the user's
            self._fail(copy.size, error)
            return outputs
        if len(own) == copy.size:  # otherwise the request fails
            self._hand_over(copy, spent_ns + perf_counter_ns() - began_ns, own)
        return outputs

    def _hand_over(self, copy: _Copy, spent_ns: int, outputs: list[Any]) -> None:
        """Give a copy to the other model, or drop it if too many wait."""
        began_ns = perf_counter_ns()
        with self._changing:
            has_place = self._waiting < self._pattern.max_waiting
            self._waiting += has_place
            waiting = self._waiting
        if not has_place:
            self._tally.count("dropped", copy.size)
            return
        copy.outputs = outputs
        self._tally.level("waiting", waiting)
        self._tally.count("copied", copy.size)
        if self._is_asked_on_loop:
            self._on_loop(partial(self._ask, copy))
        else:
            self._thread.begin(partial(self._ask_in_thread, copy))
        self._tally.time("cost_ns", spent_ns + perf_counter_ns() - began_ns)

    def _fail(self, size: int, error: BaseException) -> None:
        """Inputs or outputs cannot be copied, so they are not compared."""
        self._thread.begin(partial(self._count_failed, size, error))

    # --- beside it ----------------------------------------------------------------------------------------------------

    def _on_loop(self, make: Callable[[], Any]) -> None:
        """Run a coroutine on the event loop, from any thread."""
        assert self._loop is not None, "layers are started before the first request"
        with contextlib.suppress(RuntimeError):  # the loop has ended, and the service with it
            self._loop.call_soon_threadsafe(self._begin, make)

    def _begin(self, make: Callable[[], Any]) -> None:
        task = asyncio.get_running_loop().create_task(make())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _ask_in_thread(self, copy: _Copy) -> None:
        set_clock(None)
        began_ns = perf_counter_ns()
        try:
            outputs: Any = self._other(list(copy.inputs()))
        except BaseException as error:  # any exception: the live path does not depend on it
            self._end(copy, error)
            return
        if inspect.isawaitable(outputs) or _is_asynchronous(outputs):
            self._on_loop(partial(self._finish, copy, outputs, began_ns))
        else:
            self._compare(copy, outputs, began_ns)

    async def _ask(self, copy: _Copy) -> None:
        set_clock(None)
        began_ns = perf_counter_ns()
        try:
            outputs: Any = self._other(list(copy.inputs()))
        except BaseException as error:  # any exception: the live path does not depend on it
            self._thread.begin(partial(self._end, copy, error))
            return
        await self._finish(copy, outputs, began_ns)

    async def _finish(self, copy: _Copy, outputs: Any, began_ns: int) -> None:
        """Await an answer of the other model, and compare it in the thread."""
        set_clock(None)
        try:
            if inspect.isawaitable(outputs):
                outputs = await outputs
            if _is_asynchronous(outputs):
                outputs = [await _read(outputs[0] if isinstance(outputs, list | tuple) else outputs)]
        except BaseException as error:  # any exception: the live path does not depend on it
            self._thread.begin(partial(self._end, copy, error))
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise  # the event loop ends
            return
        self._thread.begin(partial(self._compare, copy, outputs, began_ns))

    def _compare(self, copy: _Copy, outputs: Any, began_ns: int) -> None:
        """Compare an answer of the other model; in the thread."""
        try:
            if streams(outputs):
                outputs = [_joined(list(outputs[0] if isinstance(outputs, list | tuple) else outputs))]
            took_ns = perf_counter_ns() - began_ns
            found = matched(outputs, copy.size, "the other model")
            same: Any = self._same(list(zip(copy.outputs, found, strict=True)))
        except BaseException as error:  # any exception: the live path does not depend on it
            self._end(copy, error)
            return
        self._tally.time("shadow_ns", took_ns)
        self._tally.count("same", sum(same))
        self._tally.count("different", copy.size - sum(same))
        self._end(copy)

    def _end(self, copy: _Copy, error: BaseException | None = None) -> None:
        """A copy needs its place no longer; in the thread."""
        if error is not None:
            self._count_failed(copy.size, error)
        with self._changing:
            self._waiting -= 1
            waiting = self._waiting
        self._tally.level("waiting", waiting)

    def _count_failed(self, size: int, error: BaseException) -> None:
        """Count inputs that could not be compared; the first error is printed into the log. In the thread."""
        self._tally.count("failed", size)
        if not self._has_failed:
            self._has_failed = True
            traceback.print_exception(error)


class _Recorded:
    """The chunks of a stream as they pass.

    Args:
        stream: what is read.
        done: called with all chunks as one output when the stream has ended well.
        fail: called with the error if a chunk cannot be copied.
    """

    def __init__(
        self, stream: Stream, done: Callable[[list[Any]], None], fail: Callable[[BaseException], None]
    ) -> None:
        self._stream = stream
        self._fail = fail
        self._done: Callable[[list[Any]], None] | None = done
        self._chunks: list[Any] = []

    def __aiter__(self) -> _Recorded:
        return self

    async def __anext__(self) -> Any:
        try:
            chunk = await anext(self._stream)
        except StopAsyncIteration:
            done, self._done = self._done, None
            if done is not None:
                done([_joined(self._chunks)])
            raise
        if self._done is not None:
            self._keep(chunk)
        return chunk

    def _keep(self, chunk: Any) -> None:
        try:
            self._chunks.append(copy_of(chunk))
        except Exception as error:  # of an object of the user's
            self._done = None
            self._fail(error)

    async def aclose(self) -> None:
        await self._stream.aclose()


def _is_asynchronous(outputs: Any) -> bool:
    """Whether an answer comes in chunks that are awaited."""
    first = outputs[0] if isinstance(outputs, list | tuple) and outputs else outputs
    return hasattr(type(first), "__anext__")


async def _read(chunks: Any) -> Any:
    """The whole answer of a stream that is read here, which is closed also if it fails."""
    try:
        return _joined([chunk async for chunk in chunks])
    finally:
        if (close := getattr(chunks, "aclose", None)) is not None:
            await close()


def _joined(chunks: list[Any]) -> Any:
    """The whole answer of a stream: its text, since models cut the same text in different places, else its chunks."""
    return "".join(chunks) if chunks and all(isinstance(chunk, str) for chunk in chunks) else chunks


def are_equal(left: Any, right: Any) -> bool:
    """Whether two outputs are equal.

    Lists and tuples are equal to arrays with the same values, because the wire between two processes may have turned
    one into the other. Floating point numbers that are no numbers are equal to each other. Arrays of different
    precision are compared in the smaller one.

    Args:
        left: an output.
        right: the other one.

    Raises:
        Exception: the exception of a comparison of the user's.
    """
    if _is_array(left) or _is_array(right):
        return _are_equal_arrays(left, right)
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(are_equal(value, right[key]) for key, value in left.items())
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(are_equal, left, right))
    if isinstance(left, float) and isinstance(right, float):
        return left == right or (left != left and right != right)  # noqa: PLR0124 - only NaN differs from itself
    return bool(left == right)


def _is_array(value: Any) -> bool:
    """Whether a value is an array, or a number of numpy's types."""
    return hasattr(type(value), "__array__")


def _are_equal_arrays(left: Any, right: Any) -> bool:
    import numpy as np

    try:
        first, second = np.asarray(left), np.asarray(right)
    except ValueError:  # lists of different lengths
        return False
    if first.shape != second.shape:
        return False
    if first.dtype.kind == second.dtype.kind == "f":
        smaller = min(first.dtype, second.dtype, key=lambda dtype: dtype.itemsize)
        first, second = first.astype(smaller), second.astype(smaller)
    if "O" in (first.dtype.kind, second.dtype.kind):
        return all(map(are_equal, first.ravel().tolist(), second.ravel().tolist()))
    has_nan = first.dtype.kind in "fc" and second.dtype.kind in "fc"
    return bool(np.array_equal(first, second, equal_nan=has_nan))
