"""The pattern ``Batched``: requests gathered into one model call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_mlpatterns.fields import set_whole
from pytest_mlpatterns.patterns.layer import parallelism
from pytest_mlpatterns.patterns.pattern import Pattern
from pytest_mlpatterns.patterns.variables import NO_VARIABLES, set_variables
from pytest_mlpatterns.units import parse_duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_mlpatterns.patterns.layer import Handler, Resources
    from pytest_mlpatterns.patterns.tally import Tally

__all__ = ["ADAPTIVE", "Batched"]

ADAPTIVE = "adaptive"
"""Value of ``max_wait`` that adjusts the wait to the arrivals."""


@dataclass(frozen=True, slots=True)
class Batched(Pattern):
    """Requests that arrive close together are gathered into one call of the model.

    A call that fails is repeated in halves, so that only the requests that fail on their own get an error. The inputs
    are decoded again for each repeated call, since the model may have changed them in place.

    Args:
        max_batch_size: maximum number of inputs in one call, 2..100,000.
        max_wait: how long the first request of a batch waits at most for more, such as ``"5ms"``; or ``"adaptive"``:
            adjusted to the arrivals (see :class:`~pytest_mlpatterns.patterns.adaptive_wait.AdaptiveWait`).
        env: environment variables of the process in which it runs, and of those behind it, such as
            ``{"OMP_NUM_THREADS": "1"}``.

    Raises:
        SettingError: a number out of range, or impossible variables.
        UnitError: a time without a unit.
    """

    max_batch_size: int = 32
    max_wait: str = "5ms"
    env: Mapping[str, str] = NO_VARIABLES

    def __post_init__(self) -> None:
        set_variables(self)
        set_whole(self, "max_batch_size", least=2, most=100_000)
        if not isinstance(self.max_wait, str) or self.max_wait != ADAPTIVE:
            parse_duration(self.max_wait, name="Batched(max_wait=...)")

    @property
    def max_in_flight(self) -> int:
        """A queue before the layer should offer it a whole batch."""
        return self.max_batch_size

    def layer(self, inside: Sequence[Handler], tally: Tally, resources: Resources) -> Handler:
        """Make the layer that gathers batches for the handler inside."""
        from pytest_mlpatterns.patterns.batch_layer import BatchLayer

        return BatchLayer(self, inside[0], tally, at_once=parallelism(inside[0]))
