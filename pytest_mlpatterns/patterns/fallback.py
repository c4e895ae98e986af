"""The pattern ``Fallback``: another, cheaper answer when the model fails, is late or refuses."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, ClassVar

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.fields import set_whole
from pytest_mlpatterns.patterns.arguments import NO_VARIABLES, set_variables
from pytest_mlpatterns.patterns.batched import copies_of
from pytest_mlpatterns.patterns.circuit_breaker import BreakerRule, BreakerState, CircuitBreaker
from pytest_mlpatterns.patterns.layer import DecodedInputs, RequestError, matched, parallelism
from pytest_mlpatterns.patterns.model_list import checked_models, distinct_names, model_nodes
from pytest_mlpatterns.patterns.model_thread import OffLoop
from pytest_mlpatterns.patterns.pattern import MODEL, LayerNode, Node, Pattern, ProcessGroup
from pytest_mlpatterns.patterns.request_clock import MODEL_WAIT, RequestClock, current_clock, key_of_part, set_clock
from pytest_mlpatterns.patterns.stream import NOT_STREAMED, Stream, StreamSource, replayed
from pytest_mlpatterns.records.addressing import Balance
from pytest_mlpatterns.records.outcomes import REFUSALS
from pytest_mlpatterns.units import parse_duration, parse_share
from pytest_mlpatterns.wording import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pytest_mlpatterns.patterns.circuit_breaker import Permit
    from pytest_mlpatterns.patterns.layer import Handler, Resources
    from pytest_mlpatterns.patterns.tally import Tally

__all__ = ["Fallback", "FallbackLayer"]

_ERROR, _TIMEOUT, _REJECTED = _KINDS = ("error", "timeout", "rejected")
"""What may be wrong with the model, as ``on=`` names it."""
_COUNTERS = {_ERROR: "on_error", _TIMEOUT: "on_timeout", _REJECTED: "on_rejected"}
"""Counter of the answers of the other after each."""
_TIMEOUTS = (408, 504)
"""Statuses of a service that gave up waiting."""
_MOST_CALLS = 1_000_000
"""Most calls that a breaker waits for; no window has more."""


@dataclass(frozen=True, slots=True)
class Fallback(Pattern):
    """The model, and another answer when the model fails, is late or refuses; a circuit breaker spares a broken model.

    A process behind it that dies is replaced, and the other answers meanwhile.

    Args:
        other: gives the other answer, in the process of this layer: a callable that takes a list of inputs and returns
            as many outputs, a class of such callables, or an import string.
        on: after what the other answers. ``"error"``: the model raised an exception, returned no output for each
            input, or its process was lost. ``"timeout"``: it was late. ``"rejected"``: it refused with status 429 or
            503. A mistake of the client, such as status 400, stays one.
        timeout: time after which the model is late; of a stream, the time until its first chunk. None: only what
            stands behind decides that.
        open_after: share of the requests that failed within the window, as ``on`` names it, after which the breaker
            opens: no request reaches the model any more. None: there is no breaker.
        window: length of the sliding window.
        retry_after: time for which the breaker is open; then one request probes the model. If it succeeds the breaker
            closes, else it is open for another such time.
        least_calls: requests within the window before which the breaker stays closed.
        env: environment variables of the process in which it runs, and of those behind it.

    Raises:
        SettingError: something that is not a model, an unknown reason, a number out of range, or impossible variables.
        UnitError: a time without a unit, or no share.
    """

    needs_code: ClassVar[bool] = True

    other: Any = None
    on: Sequence[str] = _KINDS
    timeout: str | None = None
    open_after: float | str | None = 0.5
    window: str = "1s"
    retry_after: str = "2s"
    least_calls: int = 10
    env: Mapping[str, str] = NO_VARIABLES

    def __post_init__(self) -> None:
        set_variables(self)
        checked_models(self, "models")
        object.__setattr__(self, "on", _reasons(self.on))
        set_whole(self, "least_calls", least=1, most=_MOST_CALLS)
        for name in ("timeout", "window", "retry_after"):
            value = getattr(self, name)
            if value is not None or name != "timeout":
                _positive_ns(value, f"Fallback({name}=...)")
        if self.timeout is not None and _TIMEOUT not in self.on:
            raise SettingError(
                f'Fallback(timeout={shown(self.timeout)}) but on={shown(self.on)} leaves "{_TIMEOUT}" out; '
                "add it, or leave timeout= out"
            )
        if self.open_after is not None and not parse_share(self.open_after, name="Fallback(open_after=...)"):
            raise SettingError(
                "Fallback(open_after=0) opens the breaker without a failure, expected a share above 0; "
                "write open_after=0.5, or None for no breaker"
            )

    @property
    def models(self) -> tuple[Any, Any]:
        """The model, with the rest of the composition around it, and the other."""
        return MODEL, self.other

    @property
    def rule(self) -> BreakerRule | None:
        """When the breaker opens and tries again; None without one."""
        if self.open_after is None:
            return None
        return BreakerRule(
            parse_share(self.open_after),
            self.least_calls,
            parse_duration(self.window),
            parse_duration(self.retry_after),
        )

    @property
    def timeout_s(self) -> float | None:
        """Time after which the model is late, in seconds; None: it never is."""
        return None if self.timeout is None else parse_duration(self.timeout) / 1e9

    def build(self, position: int, rest: Sequence[Pattern]) -> Node:
        """Build the rest of the composition, whose processes are replaced when they die, and the other."""
        model, other = model_nodes(self, self.models, position, rest=rest, group_role=None)
        return LayerNode(self, position, (_replaced(model, gives_up=self.timeout is not None), other), env=self.env)

    @property
    def inside_names(self) -> tuple[str, ...]:
        """The names of the model and of the other."""
        return tuple(distinct_names(self.models))

    def without_callables(self) -> Pattern:
        """The same with a name in place of the other, which is a node inside."""
        return replace(self, other=f":{distinct_names(self.models)[1]}")

    def layer(self, inside: Sequence[Handler], tally: Tally, resources: Resources) -> Handler:
        """Make the layer that asks the handlers inside: the model's, and the other's."""
        return FallbackLayer(self, inside, tally)


def _reasons(given: Any) -> tuple[str, ...]:
    """The reasons for a fallback, in the order of the documentation.

    Raises:
        SettingError: none, or an unknown one.
    """
    found = [given] if isinstance(given, str) else list(given) if isinstance(given, list | tuple | set) else []
    if not found or not all(isinstance(one, str) and one in _KINDS for one in found):
        known = ", ".join(f'"{kind}"' for kind in _KINDS)
        raise SettingError(f"Fallback(on={shown(given)}), expected one or several of {known}")
    return tuple(kind for kind in _KINDS if kind in found)


def _positive_ns(value: object, name: str) -> int:
    """A time above 0, in nanoseconds.

    Raises:
        SettingError: it is 0.
        UnitError: it has no unit.
    """
    found = parse_duration(value, name=name)
    if not found:
        raise SettingError(f"{name} is {shown(value)}, expected a time above 0; write 50ms")
    return found


def _replaced(node: Node, *, gives_up: bool) -> Node:
    """The same tree, whose processes are replaced when they die; those that share a socket cannot be.

    Args:
        node: what stands behind the fallback.
        gives_up: they stop requests that the fallback no longer waits for.
    """
    if isinstance(node, ProcessGroup):
        return replace(
            node,
            inside=_replaced(node.inside, gives_up=gives_up),
            restart=node.balance is not Balance.SHARED_SOCKET,
            gives_up=node.gives_up or gives_up,
        )
    if isinstance(node, LayerNode):
        return replace(node, inside=tuple(_replaced(one, gives_up=gives_up) for one in node.inside))
    return node


class FallbackLayer:
    """Asks the model, and the other if the model fails.

    A model that is a plain function runs in a thread of its own, so that it can be late; what it is asked for then
    still runs, and its answer is dropped. A model that streams is replaced until its first chunk; after that its errors
    are those of the request, since the client has read a part of the answer.

    Args:
        pattern: the reasons and limits.
        inside: the handlers of the model and of the other.
        tally: counts what :mod:`pytest_mlpatterns.records.package_layers` names for fallbacks.
        clock: the time of the breaker, in nanoseconds.

    Attributes:
        parallelism: how many calls the model works on at the same time.

    Raises:
        RequestError: when called: the error of the other; or of the model, if it is no reason for a fallback.
    """

    needs_loop = True
    retries = True

    def __init__(
        self,
        pattern: Fallback,
        inside: Sequence[Handler],
        tally: Tally,
        *,
        clock: Callable[[], int] = perf_counter_ns,
    ) -> None:
        self.parallelism: int = parallelism(inside[0])
        self._on = frozenset(pattern.on)
        self._timeout_s = pattern.timeout_s
        self._names = [f"{name} of {pattern}" for name in distinct_names(pattern.models)]
        self._late = key_of_part(MODEL_WAIT, distinct_names(pattern.models)[0])
        self._model, self._other = (OffLoop(one, name) for one, name in zip(inside, ("model", "fallback"), strict=True))
        self._readers = StreamSource(), StreamSource()
        self._streams: bool | None = None
        self._tally = tally
        self._breaker: CircuitBreaker | None = None
        if pattern.rule is not None:
            self._breaker = CircuitBreaker(pattern.rule, clock, self._note)
            self._note(self._breaker.state)

    async def __call__(self, instances: list[Any]) -> Any:
        """The outputs of the model or of the other, or a stream of one of them."""
        again = instances.decode if isinstance(instances, DecodedInputs) else copies_of(instances)
        permit: Permit | None = None
        if self._breaker is not None and (permit := self._breaker.admit()) is None:
            return await self._fall_back(instances, "while_open")
        try:
            outputs = await self._ask_model(instances, permit)
        except (Exception, SystemExit) as error:  # a model that wants to exit does not end the service
            kind = _kind_of(error)
            self._end(permit, failed=kind in self._on)
            if kind is None or kind not in self._on:
                self._tally.count("failed")
                raise
            return await self._fall_back(instances if again is None else list(again()), _COUNTERS[kind])
        except BaseException:  # its caller has gone
            self._end(permit, failed=None)
            raise
        self._tally.count("model")
        self._streams = isinstance(outputs, Stream)
        return outputs

    async def _ask_model(self, instances: list[Any], permit: Permit | None) -> Any:
        """The outputs of the model, or its stream when the first chunk is there."""
        request, own = current_clock(), RequestClock()
        set_clock(own)  # a call that is late goes on charging it
        began_ns = perf_counter_ns()
        try:
            async with asyncio.timeout(self._timeout_s) as limit:
                outputs = await self._model(instances)
                stream = self._readers[0].read(outputs, len(instances), self._names[0])
                if stream is None:
                    matched(outputs, len(instances), self._names[0])
                else:
                    outputs = await _begun(stream, partial(self._end, permit), clocks=(own, request))
        finally:
            set_clock(request)
            if request is not None:
                request.take({self._late: perf_counter_ns() - began_ns} if limit.expired() else own.report())
        if stream is None:
            self._end(permit, failed=False)
        return outputs

    async def _fall_back(self, instances: list[Any], counter: str) -> Any:
        """The outputs of the other, or its stream."""
        try:
            outputs = await self._other(instances)
            stream = self._readers[1].read(outputs, len(instances), self._names[1])
            if stream is None:
                matched(outputs, len(instances), self._names[1])
            if self._streams is not None and self._streams != (stream is not None):
                raise self._other_kind(stream)
        except (Exception, SystemExit):
            self._tally.count("failed")
            raise
        self._tally.count(counter)
        return outputs if stream is None else stream

    def _other_kind(self, stream: Stream | None) -> RequestError:
        """The error of a whole answer where the model streams, or the other way round."""
        if stream is not None:
            stream.discard()
            kinds = "streams its answer, and the model returns whole ones"
        else:
            kinds = "returned a whole answer, and the model streams"
        return RequestError(NOT_STREAMED, f"{self._names[1]} {kinds}; both must do the same, or clients get either")

    def _end(self, permit: Permit | None, *, failed: bool | None) -> None:
        """Tell the breaker how a call of the model ended; None: its caller has gone."""
        if self._breaker is None or permit is None:
            return
        if failed is None:
            self._breaker.forget(permit)
        else:
            self._breaker.end(permit, failed=failed)

    def _note(self, state: BreakerState) -> None:
        """Count a state of the breaker over time."""
        if state is BreakerState.OPEN:
            self._tally.count("opened")
        self._tally.level("breaker", state.value)
        self._tally.level("open", int(state is not BreakerState.CLOSED))


def _kind_of(error: BaseException) -> str | None:
    """What is wrong with a model that raised this; None: the client made a mistake, or asked for what is not served."""
    if not isinstance(error, RequestError):
        return _TIMEOUT if isinstance(error, TimeoutError) else _ERROR
    if error.status in REFUSALS:
        return _REJECTED
    if error.status in _TIMEOUTS:
        return _TIMEOUT
    return None if error.status < 500 or error.status == NOT_STREAMED else _ERROR


async def _begun(
    stream: Stream, on_end: Callable[..., None], *, clocks: tuple[RequestClock, RequestClock | None]
) -> Stream:
    """The same stream as soon as its first chunk is there; if there is none, its error."""
    try:
        first = await anext(stream)
    except StopAsyncIteration:
        on_end(failed=False)
        return replayed(())
    except BaseException:
        stream.discard()
        raise
    return Stream(_Rest(first, stream, on_end, clocks=clocks))


class _Rest:
    """The chunks of a stream whose first one is there; reports how it ended, and charges its times.

    Args:
        first: the first chunk.
        stream: the rest.
        on_end: called once: ``failed`` is None if its reader has gone before its end.
        clocks: the one that the model charges, and that of the request.
    """

    def __init__(
        self,
        first: Any,
        stream: Stream,
        on_end: Callable[..., None],
        *,
        clocks: tuple[RequestClock, RequestClock | None],
    ) -> None:
        self._ready = [first]
        self._stream = stream
        self._on_end: Callable[..., None] | None = on_end
        self._own, self._request = clocks

    def __aiter__(self) -> _Rest:
        return self

    async def __anext__(self) -> Any:
        if self._ready:
            return self._ready.pop()
        try:
            return await anext(self._stream)
        except StopAsyncIteration:
            self._report(failed=False)
            raise
        except (Exception, SystemExit):
            self._report(failed=True)
            raise
        finally:
            if self._request is not None:
                self._request.take(self._own.report())

    async def aclose(self) -> None:
        self._report(failed=None)
        await self._stream.aclose()

    def _report(self, *, failed: bool | None) -> None:
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(failed=failed)
