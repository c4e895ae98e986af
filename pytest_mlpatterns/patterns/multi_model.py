"""The pattern ``MultiModel``: many models in one process, a few of them loaded at a time."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import traceback
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.fields import set_whole
from pytest_mlpatterns.patterns.arguments import NO_MODELS, NO_VARIABLES, NamedModels, set_variables
from pytest_mlpatterns.patterns.layer import RequestError, matched, needs_loop
from pytest_mlpatterns.patterns.model_list import checked_model
from pytest_mlpatterns.patterns.model_thread import ModelThread
from pytest_mlpatterns.patterns.pattern import LayerNode, ModelNode, Node, Pattern
from pytest_mlpatterns.patterns.request_clock import QUEUE_WAIT, charge, set_clock
from pytest_mlpatterns.patterns.stream import StreamSource, refuse_stream
from pytest_mlpatterns.wording import count, listed, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from pytest_mlpatterns.patterns.layer import Handler, OnDemandModel, Resources
    from pytest_mlpatterns.patterns.tally import Tally

__all__ = ["MultiModel", "MultiModelLayer", "NamedIn"]

_MOST = 1_000
"""Most models; each is packed for every process that may load it."""
_MOST_LISTED = 8
"""Most models that the error of a request for another one lists."""
_WAIT_AFTER_FAILURE_NS = 1_000_000_000
"""Time after a failed load, in nanoseconds, in which the model is not loaded again: each try unloads another model."""
_WRITE = 'write models={"en": English, "de": German}'
"""What to write instead of an argument that is no mapping of models."""


@dataclass(frozen=True, slots=True)
class MultiModel(Pattern):
    """Many models in one process, loaded when a request asks for them; the least recently used is unloaded.

    Args:
        models: a model for each name. A model is a class, which is built anew for every load, also with arguments
            (``functools.partial(Tenant, 7)``), a callable, or an import string. ``"model"`` stands for ``perf_model``.
        max_loaded: most models that are loaded at a time, the one that is just loading included, 1..1,000.
        key: takes one input and returns the name of its model; None: the input is an object, and its member ``"model"``
            is the name.
        env: environment variables of the process in which it runs.

    If a model has a method ``close``, it is called when the model is unloaded, after its last call has ended.

    Raises:
        SettingError: no models or too many, something that is not a model, a name that is no text, a number out of
            range, no function as ``key``, or impossible variables.
    """

    needs_code: ClassVar[bool] = True

    models: Mapping[str, Any] = NO_MODELS
    max_loaded: int = 2
    key: Callable[[Any], str] | None = None
    env: Mapping[str, str] = NO_VARIABLES

    def __post_init__(self) -> None:
        set_variables(self)
        object.__setattr__(self, "models", _checked(self))
        set_whole(self, "max_loaded", least=1, most=_MOST)
        if self.key is not None and not callable(self.key):
            raise SettingError(
                f"MultiModel(key={shown(self.key)}), expected a function of an input, or None for its member "
                '"model"; write key=lambda given: given["language"]'
            )

    def build(self, position: int, rest: Sequence[Pattern]) -> Node:
        """Build the models, which the layer loads, and the function that names the model of an input.

        Raises:
            SettingError: there is a rest.
        """
        if rest:
            after = " | ".join(map(str, rest))
            raise SettingError(
                f"{self} | {after}: nothing can follow, since its models are loaded and unloaded while the service "
                f"runs; write {after} before it"
            )
        models = [ModelNode(model, name, on_demand=True) for name, model in self.models.items()]
        return LayerNode(self, position, (*models, ModelNode(NamedIn(self.key), "key")), env=self.env)

    @property
    def inside_names(self) -> tuple[str, ...]:
        """No name for the models, whose times are those of the service's model, and the name of ``key``."""
        return (*[""] * len(self.models), "key")

    @property
    def model_names(self) -> tuple[str, ...]:
        """The names of its models."""
        return tuple(self.models)

    @property
    def taken_at_once(self) -> int:
        """A request for each loaded model: while one waits for its load, others are answered."""
        return self.max_loaded

    def without_callables(self) -> Pattern:
        """The same with names in place of the models and of ``key``, which are nodes inside."""
        return replace(self, models={name: f":{number}" for number, name in enumerate(self.models)}, key=None)

    def layer(self, inside: Sequence[Handler], tally: Tally, resources: Resources) -> Handler:
        """Make the layer that loads and calls the models inside; the last handler inside names that of an input."""
        *models, key = inside
        on_demand = dict(zip(self.models, cast("list[OnDemandModel]", models), strict=True))
        return MultiModelLayer(self, on_demand, key, tally=tally)


def _checked(pattern: MultiModel) -> NamedModels:
    """The models of a pattern.

    Raises:
        SettingError: the errors of :class:`MultiModel`.
    """
    given = pattern.models
    if not isinstance(given, Mapping):
        raise SettingError(f"MultiModel(models={shown(given)}), expected a mapping of names to models; {_WRITE}")
    if not 1 <= len(given) <= _MOST:
        raise SettingError(
            f"MultiModel(models=...) has {count(len(given), 'model')}, expected 1 to {_MOST:,}; {_WRITE}"
        )
    for name, model in given.items():
        if not isinstance(name, str) or not name or not name.isprintable():
            raise SettingError(f"MultiModel(models=...) has the name {shown(name)}, expected text; {_WRITE}")
        checked_model(model, f"MultiModel(models=...) has as {name}")
    return NamedModels(tuple(given.items()))


class NamedIn:
    """The names of the models that inputs are for.

    Args:
        key: takes one input and returns the name; None: the input is an object with the member ``"model"``.
    """

    def __init__(self, key: Callable[[Any], str] | None) -> None:
        self._key = key

    def __call__(self, instances: Sequence[Any]) -> list[Any]:
        """One name for each input.

        Raises:
            RequestError: status 400: an input names no model.
            Exception: the exception of ``key``.
        """
        return [_member(one) if self._key is None else self._key(one) for one in instances]


def _member(given: Any) -> Any:
    """The member ``"model"`` of an input; a wire may have made an array of one text of it, or bytes."""
    if not isinstance(given, Mapping) or "model" not in given:
        raise RequestError(
            400,
            f'an input is {shown(given)}, which names no model; send an object with the member "model", or give '
            "MultiModel a key=",
        )
    name = given["model"]
    if getattr(name, "size", None) == 1:
        name = name.item()
    if isinstance(name, list) and len(name) == 1:
        name = name[0]
    return name.decode(errors="replace") if isinstance(name, bytes) else name


@dataclass(slots=True, eq=False)
class _Loaded:
    """A loaded model.

    Attributes:
        in_use: number of calls and streams that have not ended.
        is_leaving: it is to be unloaded, so no other request may use it.
        unused: done when the last call has ended; None while nothing waits for that.
    """

    name: str
    model: Handler
    in_use: int = 0
    is_leaving: bool = False
    unused: asyncio.Future[None] | None = field(default=None)


class _Failure(NamedTuple):
    """A failed load, and until when the model is not loaded again, on the clock of ``perf_counter_ns``."""

    error: BaseException
    trace: TracebackType | None
    until_ns: int


class MultiModelLayer:
    """Loads models when requests ask for them, one after the other, and unloads the least recently used.

    Models that are plain functions run in a thread, one call at a time, and loads in another. So a load keeps neither
    other models nor the event loop. If all loaded models are in use, the least recently used gets no more requests and
    is unloaded when its calls have ended. A request with inputs for several models calls one after the other.

    Args:
        pattern: the models' names, and how many may be loaded.
        models: the models, not loaded, by name.
        key: takes the inputs of a request and returns the name of the model for each.
        tally: counts what :mod:`pytest_mlpatterns.records.package_layers` names for several models.

    Attributes:
        parallelism: how many models are loaded at a time.

    Raises:
        RequestError: when called: an input names no model or an unknown one, or the request's own error.
        Exception: when called: the exception of the model, of ``key``, or of the load.
    """

    needs_loop = True

    def __init__(self, pattern: MultiModel, models: Mapping[str, OnDemandModel], key: Handler, *, tally: Tally) -> None:
        self.parallelism: int = pattern.max_loaded
        self._pattern = pattern
        self._models = models
        self._key = key
        self._tally = tally
        self._calls, self._loads = ModelThread("several models"), ModelThread("model loader")
        self._reader = StreamSource()
        self._loaded: OrderedDict[str, _Loaded] = OrderedDict()
        self._wanted: dict[str, list[asyncio.Future[_Loaded]]] = {}
        self._failures: dict[str, _Failure] = {}
        self._loading: asyncio.Task[None] | None = None
        tally.level("loaded", 0)

    async def __call__(self, instances: list[Any]) -> Any:
        """The outputs of each input's model, or the stream of one."""
        places = self._places(instances)
        if len(places) == 1:
            return await self._ask(next(iter(places)), instances)
        outputs: list[Any] = [None] * len(instances)
        for name, numbers in places.items():
            found = await self._ask(name, [instances[number] for number in numbers])
            refuse_stream(found, f"model {name} streams its answer, so a request for it may have no other input")
            for number, output in zip(numbers, found, strict=True):
                outputs[number] = output
        return outputs

    def _places(self, instances: list[Any]) -> dict[str, list[int]]:
        """The numbers of the inputs for each model."""
        names: Any = self._key(instances)
        places: dict[str, list[int]] = {}
        for number, name in enumerate(names):
            if not isinstance(name, str) or name not in self._models:
                raise self._unknown(name)
            places.setdefault(name, []).append(number)
        return places

    def _unknown(self, name: object) -> RequestError:
        known = [shown(one) for one in self._models]
        if len(known) > _MOST_LISTED:
            known = [*known[: _MOST_LISTED - 1], f"{len(known) - _MOST_LISTED + 1} others"]
        return RequestError(404, f"the model {shown(name)} does not exist, expected {listed(known, 'or')}")

    async def _ask(self, name: str, instances: list[Any]) -> Any:
        """The outputs of one model, which stays loaded until its answer has ended."""
        loaded = await self._enter(name)
        try:
            outputs = await self._outputs(loaded.model, instances)
            stream = self._reader.read(outputs, len(instances), f"model {name}", on_end=partial(self._leave, loaded))
            if stream is None:
                outputs = matched(outputs, len(instances), f"model {name}")
        except asyncio.CancelledError:  # its caller has gone, but a plain model works on
            self._calls.begin(partial(_call_soon, asyncio.get_running_loop(), partial(self._leave, loaded)))
            raise
        except BaseException:
            self._leave(loaded)
            raise
        if stream is not None:
            return stream
        self._leave(loaded)
        return outputs

    async def _outputs(self, model: Handler, instances: list[Any]) -> Any:
        outputs: Any = model(instances) if needs_loop(model) else await self._calls.call(model, instances)
        return await outputs if inspect.isawaitable(outputs) else outputs

    async def _enter(self, name: str) -> _Loaded:
        """Wait until a model is loaded, and keep it.

        Raises:
            Exception: the exception of the load.
        """
        found = self._loaded.get(name)
        if found is not None and not found.is_leaving:
            self._tally.count("warm")
            self._loaded.move_to_end(name)
            found.in_use += 1
            return found
        failure = self._failures.get(name)
        if failure is not None and perf_counter_ns() < failure.until_ns:
            raise failure.error.with_traceback(failure.trace)
        self._tally.count("cold")
        arrived_ns = perf_counter_ns()
        place: asyncio.Future[_Loaded] = asyncio.get_running_loop().create_future()
        self._wanted.setdefault(name, []).append(place)
        if self._loading is None:
            self._loading = asyncio.create_task(self._load_wanted())
        try:
            loaded = await place
        except asyncio.CancelledError:  # its caller has gone
            if place.done() and not place.cancelled() and place.exception() is None:
                self._leave(place.result())
            raise
        waited_ns = perf_counter_ns() - arrived_ns
        self._tally.time("wait_ns", waited_ns)
        charge(QUEUE_WAIT, waited_ns)
        return loaded

    def _leave(self, loaded: _Loaded) -> None:
        """A call or a stream of a model has ended."""
        loaded.in_use -= 1
        if not loaded.in_use and loaded.unused is not None and not loaded.unused.done():
            loaded.unused.set_result(None)

    async def _load_wanted(self) -> None:
        """Load the models that requests wait for, in the order in which they were asked for."""
        set_clock(None)  # this task began with a request
        try:
            while (name := self._next_wanted()) is not None:
                await self._make_room()
                await self._load(name)
        finally:
            self._loading = None

    def _next_wanted(self) -> str | None:
        """The next model to load; None if no request waits for one."""
        for name, places in list(self._wanted.items()):
            if not all(place.done() for place in places):
                return name
            del self._wanted[name]  # all its callers have gone
        return None

    async def _make_room(self) -> None:
        """Unload models until one more may be loaded."""
        while len(self._loaded) >= self._pattern.max_loaded:
            unused = (one for one in self._loaded.values() if not one.in_use)
            oldest = next(unused, None) or next(iter(self._loaded.values()))
            oldest.is_leaving = True
            if oldest.in_use:
                oldest.unused = asyncio.get_running_loop().create_future()
                await oldest.unused
            del self._loaded[oldest.name]
            self._tally.level("loaded", len(self._loaded))
            self._tally.count("unloaded")
            await self._close(oldest.model)

    async def _close(self, model: Handler) -> None:
        """Call the method ``close`` of a model, if it has one; an error of it is counted, and printed into the log."""
        close = getattr(model, "close", None)
        if not callable(close):
            return
        try:
            closing = close() if inspect.iscoroutinefunction(close) else await self._loads.call(close)
            if inspect.isawaitable(closing):
                await closing
        except BaseException as error:
            _raise_if_cancelled()
            self._tally.count("close_failed")
            traceback.print_exception(error)

    async def _load(self, name: str) -> None:
        """Load a model and let all requests in that wait for it, or give them its error."""
        began_ns = perf_counter_ns()
        try:
            model = await self._loads.call(self._models[name].load)
        except BaseException as error:
            _raise_if_cancelled()
            self._tally.count("load_failed")
            self._fail(name, _for_callers(error, name))
            return
        self._tally.time("load_ns", perf_counter_ns() - began_ns)
        loaded = self._loaded[name] = _Loaded(name, model)
        self._tally.level("loaded", len(self._loaded))
        for place in self._wanted.pop(name):
            if not place.done():
                loaded.in_use += 1
                place.set_result(loaded)

    def _fail(self, name: str, error: BaseException) -> None:
        self._failures[name] = _Failure(error, error.__traceback__, perf_counter_ns() + _WAIT_AFTER_FAILURE_NS)
        for place in self._wanted.pop(name):
            if not place.done():
                place.set_exception(error)


def _raise_if_cancelled() -> None:
    """Raise the exception that is handled if it ends this task: the event loop ends, and all callers with it."""
    if (task := asyncio.current_task()) is not None and task.cancelling():
        raise  # noqa: PLE0704 - called where an exception is handled


def _for_callers(error: BaseException, name: str) -> BaseException:
    """The error of a load as the requests get it that waited for it; it names the model."""
    found = error
    if isinstance(error, StopIteration) or not isinstance(error, (Exception, SystemExit)):
        # futures refuse the first, and others would end the event loop
        found = RuntimeError(f"it raised {type(error).__name__}: {error}")
        found.__cause__ = error
    found.add_note(f"while MultiModel loaded the model {shown(name)}")
    return found


def _call_soon(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended, and its callers with it
        loop.call_soon_threadsafe(function)
