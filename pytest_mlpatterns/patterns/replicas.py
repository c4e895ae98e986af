"""One process, or the whole service several times."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.patterns.base import MAX_PROCESSES, Pattern, Spread, Topology

__all__ = ["Replicated", "Single"]


@dataclass(frozen=True, slots=True)
class Single(Pattern):
    """One process, HTTP face and model together: the reference that other patterns are compared with."""

    __str__ = Pattern.__str__

    def topology(self) -> Topology:
        """One process."""
        return Topology(replicas=1, spread=Spread.ROUND_ROBIN)


@dataclass(frozen=True, slots=True)
class Replicated(Pattern):
    """The whole service several times, horizontally scaled.

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
        whole = isinstance(self.replicas, int) and not isinstance(self.replicas, bool)
        if not whole or not 2 <= self.replicas <= MAX_PROCESSES:
            raise SettingError(
                f"Replicated(replicas={self.replicas!r}), expected a whole number from 2 to {MAX_PROCESSES}; "
                "for one process write Single()"
            )
        if self.balance not in list(Spread):
            raise SettingError(
                f"Replicated(balance={self.balance!r}), expected one of {', '.join(repr(str(s)) for s in Spread)}"
            )

    def topology(self) -> Topology:
        """So many processes, and how requests are spread over them."""
        return Topology(replicas=self.replicas, spread=Spread(self.balance))
