"""What every pattern has: a name as it is written, and the tree of what happens to a request and in which processes.

A pattern builds a tree of three kinds of node: :class:`ModelNode`, a model or a stage of the user's;
:class:`LayerNode`, what a
pattern does in the process in which it stands, around what is inside; :class:`ProcessGroup`, processes of their own.
An engine
starts the tree; here nothing is started.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.patterns.store_url import without_password
from pytest_mlpatterns.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "MAX_PROCESSES",
    "MODEL",
    "Composed",
    "LayerNode",
    "ModelNode",
    "Node",
    "Pattern",
    "ProcessGroup",
    "QueueNode",
    "Spread",
    "UpstreamNode",
    "build",
    "name_of",
]

MAX_PROCESSES = 64
"""Most service processes that one pattern may ask for."""
MODEL = "model"
"""Stands for ``perf_model`` among the stages of a pipeline or the models of an ensemble."""
_BOTH_SIDES = "expected patterns on both sides; write Cached() | Batched()"


class Spread(StrEnum):
    """How requests reach the replicas of a service."""

    ROUND_ROBIN = "round-robin"
    LEAST_OUTSTANDING = "least-outstanding"
    SHARED_SOCKET = "shared-socket"


@dataclass(frozen=True, slots=True)
class ModelNode:
    """Calls something of the user's: ``MODEL``, or a callable, class or import string."""

    target: Any
    name: str


@dataclass(frozen=True, slots=True)
class LayerNode:
    """What a pattern does around one node, or several: its stages or models, by name."""

    pattern: Pattern
    position: int
    inside: tuple[Node, ...]
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """So many processes that each hold what is inside; ``role`` names them in messages and logs.

    ``takes_load`` says that as the outermost of a composition they need no process before them: the load itself is
    balanced over them. ``wire`` is how they are spoken to; None: as the deployment is.
    """

    inside: Node
    role: str
    position: int
    replicas: int = 1
    spread: Spread = Spread.ROUND_ROBIN
    takes_load: bool = False
    wire: Wire | None = None


@dataclass(frozen=True, slots=True)
class UpstreamNode:
    """What an engine puts in the place of :class:`ProcessGroup` once it runs: where its processes answer predict
    requests.

    ``in_flight`` is how many requests one of them should be given at a time by a queue; ``wire`` is how they are spoken
    to.
    """

    addresses: tuple[tuple[str, int], ...]
    path: str
    position: int
    least_outstanding: bool
    in_flight: int
    wire: Wire


@dataclass(frozen=True, slots=True)
class QueueNode:
    """What an engine puts in the place of :class:`ProcessGroup` once its processes take requests from a broker's
    stream."""

    url: str
    stream: str


Node = ModelNode | LayerNode | ProcessGroup | UpstreamNode | QueueNode


class Pattern(ABC):
    """A serving pattern: a frozen, comparable value that prints as it is written.

    ``a | b`` composes, in the order in which a request meets them. ``str()`` leaves out what is default, so that it can
    stand in test ids and baseline keys and stays stable.
    """

    __slots__ = ()

    @abstractmethod
    def build(self, position: int, rest: Sequence[Pattern]) -> Node:
        """What happens to a request here and in the rest of the composition.

        Args:
            position: this pattern's place in the composition, the outermost 0.
            rest: the patterns that a request meets after this one.
        """

    @property
    def parts(self) -> tuple[Pattern, ...]:
        """The patterns of a composition, the outermost first; this one alone where it is none."""
        return (self,)

    def plan(self) -> ProcessGroup:
        """The tree of processes; its root is the one that requests come to.

        Raises:
            SettingError: an impossible composition.
        """
        node = build(0, self.parts)
        root = (
            node if isinstance(node, ProcessGroup) and node.takes_load else ProcessGroup(node, "service", position=-1)
        )
        for wrap in _wraps(root.inside):
            if wrap.pattern.outermost_only and wrap is not root.inside:
                raise SettingError(f"{self}: {wrap.pattern} answers before there is a result, so it has to come first")
        return root

    @property
    def outermost_only(self) -> bool:
        """Whether no other layer may stand around this one."""
        return False

    def without_members(self, names: Sequence[str]) -> Pattern:
        """The same with names in the place of the user's callables, which cannot leave this process as they are.

        Args:
            names: import strings, one for each member.
        """
        return self

    def __or__(self, other: object) -> Composed:
        if isinstance(other, Pattern):
            return Composed((*self.parts, *other.parts))
        if found := _named_only(other):
            raise SettingError(f"{self} | {found}, {_BOTH_SIDES}")
        return NotImplemented

    def __ror__(self, other: object) -> Composed:
        if found := _named_only(other):
            raise SettingError(f"{found} | {self}, {_BOTH_SIDES}")
        return NotImplemented

    def __str__(self) -> str:
        changed = [
            f"{field.name}={written}"
            for field in fields(self)  # type: ignore[arg-type]  # every pattern is a dataclass
            if (written := _written(getattr(self, field.name))) != _written(field.default)
        ]
        name = type(self).__name__.lower()
        return f"{name}({','.join(changed)})" if changed else name


@dataclass(frozen=True, slots=True)
class Composed(Pattern):
    """Several patterns, in the order in which a request meets them; made by ``|``.

    Raises:
        SettingError: an impossible composition, or more than 64 processes.
    """

    members: tuple[Pattern, ...]

    def __post_init__(self) -> None:
        processes = _processes(self.plan())
        if processes > MAX_PROCESSES:
            raise SettingError(f"{self} asks for {processes} processes, expected at most {MAX_PROCESSES}")

    @property
    def parts(self) -> tuple[Pattern, ...]:
        """Its patterns, the outermost first."""
        return self.members

    def build(self, position: int, rest: Sequence[Pattern]) -> Node:
        """What happens in all of them."""
        return build(position, (*self.members, *rest))

    def __str__(self) -> str:
        return "|".join(map(str, self.members))

    def __repr__(self) -> str:
        return " | ".join(map(repr, self.members))


def build(position: int, parts: Sequence[Pattern]) -> Node:
    """What happens to a request in these patterns and, after the last, in the model."""
    return parts[0].build(position, parts[1:]) if parts else ModelNode(MODEL, MODEL)


def _named_only(other: object) -> str | None:
    """The text or class of a pattern that stands where a pattern should; None for anything else."""
    if isinstance(other, type) and issubclass(other, Pattern):
        return other.__name__
    return repr(other) if isinstance(other, str) else None


def _wraps(node: Node) -> Iterator[LayerNode]:
    if isinstance(node, ProcessGroup):
        yield from _wraps(node.inside)
    elif isinstance(node, LayerNode):
        yield node
        for inside in node.inside:
            yield from _wraps(inside)


def _processes(node: Node) -> int:
    if isinstance(node, ProcessGroup):
        return node.replicas * (1 + _processes(node.inside))
    return sum(map(_processes, node.inside)) if isinstance(node, LayerNode) else 0


def _written(value: object) -> str:
    """A field as it stands in a name: callables by their name, addresses without a password, times as they are read."""
    if isinstance(value, tuple):
        return f"[{','.join(map(_written, value))}]"
    if isinstance(value, timedelta):
        units = {"s": timedelta(seconds=1), "ms": timedelta(milliseconds=1), "us": timedelta(microseconds=1)}
        return next(f"{value // unit}{name}" for name, unit in units.items() if not value % unit)
    if isinstance(value, str) and "://" in value:
        return without_password(value)
    return str(value) if isinstance(value, str | int | float | Wire) or value is None else name_of(value)


def name_of(target: object) -> str:
    """How a callable, class, instance or import string of the user's is called in names and messages."""
    if isinstance(target, str):
        return target.rpartition(":")[2] or target
    found = getattr(target, "__qualname__", None) or type(target).__qualname__
    return str(found).rpartition(".")[2]
