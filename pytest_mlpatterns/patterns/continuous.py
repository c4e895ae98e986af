"""The pattern ``Continuous``: continuous batching, in which requests join and leave the batch between its steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.fields import set_whole
from pytest_mlpatterns.patterns.pattern import Node, Pattern
from pytest_mlpatterns.patterns.variables import NO_VARIABLES, set_variables

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_mlpatterns.patterns.layer import Handler, Resources
    from pytest_mlpatterns.patterns.tally import Tally

__all__ = ["Continuous"]


@dataclass(frozen=True, slots=True)
class Continuous(Pattern):
    """Sequences of several requests are computed together, one chunk of each at every step, and streamed.

    The model is a class with two methods, plain or ``async``, instead of ``__call__``. ``start(input)`` returns the
    state of a sequence. ``step(active)`` takes the list of the states of all active sequences, and returns one chunk
    for each, ``None`` for a sequence that has ended. Between two steps new requests join, and sequences that have
    ended, or whose clients have gone, leave. The pattern comes last in a composition, next to the model.

    Args:
        max_batch_size: maximum number of active sequences, 1..100,000; further requests wait.
        env: environment variables of the process in which it runs, such as ``{"OMP_NUM_THREADS": "1"}``.

    Raises:
        SettingError: a number out of range, another pattern between it and the model, or impossible variables.
    """

    max_batch_size: int = 8
    env: Mapping[str, str] = NO_VARIABLES

    def __post_init__(self) -> None:
        set_variables(self)
        set_whole(self, "max_batch_size", least=1, most=100_000)

    @property
    def steps_model(self) -> bool:
        """True: the model has ``start`` and ``step`` instead of ``__call__``."""
        return True

    @property
    def max_in_flight(self) -> int:
        """A queue before the layer should offer it a whole batch."""
        return self.max_batch_size

    def build(self, position: int, rest: Sequence[Pattern]) -> Node:
        """Build the layer around the model.

        Raises:
            SettingError: another pattern follows.
        """
        if rest:
            raise SettingError(
                f"{self} | {rest[0]}, expected {self} last, since it steps the model itself; write {rest[0]} | {self}"
            )
        return Pattern.build(self, position, rest)

    def layer(self, inside: Sequence[Handler], tally: Tally, resources: Resources) -> Handler:
        """Make the layer that steps the model inside."""
        from pytest_mlpatterns.patterns.continuous_layer import ContinuousLayer

        return ContinuousLayer(self, inside[0], tally)
