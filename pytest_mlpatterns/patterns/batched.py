"""The pattern ``Batched``: requests gathered into one model call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_mlpatterns.fields import set_whole
from pytest_mlpatterns.patterns.pattern import LayerNode, Node, Pattern, build
from pytest_mlpatterns.units import parse_duration

if TYPE_CHECKING:
    from collections.abc import Sequence


__all__ = ["ADAPTIVE", "Batched"]

ADAPTIVE = "adaptive"


@dataclass(frozen=True, slots=True)
class Batched(Pattern):
    """Requests that come close together are gathered into one call of the model.

    Args:
        max_batch_size: most inputs in one call, 2..100,000.
        max_wait: how long the first request of a batch waits at most for others, ``"5ms"``; or ``"adaptive"``: found
            while it runs (see :class:`AdaptiveWait`).

    Raises:
        SettingError: another number.
        UnitError: a time without a unit.
    """

    max_batch_size: int = 32
    max_wait: str = "5ms"

    __str__ = Pattern.__str__

    def __post_init__(self) -> None:
        set_whole(self, "max_batch_size", least=2, most=100_000)
        if self.max_wait != ADAPTIVE:
            parse_duration(self.max_wait, name="Batched(max_wait=...)")

    def build(self, position: int, rest: Sequence[Pattern]) -> Node:
        """A gathering place before the rest."""
        return LayerNode(self, position, (build(position + 1, rest),))
