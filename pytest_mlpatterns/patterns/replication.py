"""One process, the whole service several times, or a gateway before a service of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.fields import set_whole
from pytest_mlpatterns.patterns.pattern import MAX_PROCESSES, Node, Pattern, ProcessGroup, Spread, build
from pytest_mlpatterns.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Microservice", "Replicated", "Single"]


@dataclass(frozen=True, slots=True)
class Single(Pattern):
    """One process, HTTP face and model together: the reference that other patterns are compared with."""

    __str__ = Pattern.__str__

    def build(self, position: int, rest: Sequence[Pattern]) -> Node:
        """The model itself.

        Raises:
            SettingError: it stands in a composition.
        """
        if position or rest:
            raise SettingError("Single() in a composition, expected alone; leave it out: Cached() | Batched()")
        return build(position, rest)


@dataclass(frozen=True, slots=True)
class Replicated(Pattern):
    """The whole service several times, horizontally scaled.

    First in a composition, the load itself is balanced over the replicas, each with everything that follows; further
    in, the process before them balances.

    Args:
        replicas: processes, 2..64.
        balance: ``"round-robin"`` or ``"least-outstanding"``: every replica has a port of its own and the load is
            balanced over them; ``"shared-socket"``: all accept from one socket and the kernel chooses, as with
            ``uvicorn --workers``, which can leave a replica without work.

    Raises:
        SettingError: another number or balance.
    """

    replicas: int = 2
    balance: str = "round-robin"

    __str__ = Pattern.__str__

    def __post_init__(self) -> None:
        if self.replicas == 1:
            raise SettingError("Replicated(replicas=1), expected from 2; for one process write Single()")
        set_whole(self, "replicas", least=2, most=MAX_PROCESSES)
        if self.balance not in list(Spread):
            raise SettingError(
                f"Replicated(balance={self.balance!r}), expected one of {', '.join(repr(str(s)) for s in Spread)}"
            )

    def build(self, position: int, rest: Sequence[Pattern]) -> Node:
        """So many processes with the rest in each."""
        inside = build(position + 1, rest)
        return ProcessGroup(inside, "replica", position, self.replicas, Spread(self.balance), takes_load=True)


@dataclass(frozen=True, slots=True)
class Microservice(Pattern):
    """A gateway process, and the model as a service of its own behind it, asked over a socket.

    Args:
        replicas: processes of the service behind the gateway, which take turns; 1..63.
        wire: how the gateway speaks to it, a :class:`Wire` or its short form, over REST; None: as clients speak to the
            gateway, or ``rest+binary`` where they speak gRPC.

    Raises:
        SettingError: another number or wire.
    """

    replicas: int = 1
    wire: Wire | str | None = None

    __str__ = Pattern.__str__

    def __post_init__(self) -> None:
        set_whole(self, "replicas", least=1, most=MAX_PROCESSES - 1)
        if self.wire is None:
            return
        if isinstance(self.wire, str):
            object.__setattr__(self, "wire", Wire.parse(self.wire, "Microservice(wire=...)"))
        if not isinstance(self.wire, Wire) or self.wire.protocol != "rest":
            raise SettingError(
                f"Microservice(wire={str(self.wire)!r}), expected a wire over REST; write 'rest+json' or 'rest+binary'"
            )
        self.wire.check_installed("Microservice(wire=...)")

    def build(self, position: int, rest: Sequence[Pattern]) -> Node:
        """The rest in processes of its own."""
        assert not isinstance(self.wire, str)  # made a value above
        return ProcessGroup(build(position + 1, rest), "service", position, self.replicas, wire=self.wire)
