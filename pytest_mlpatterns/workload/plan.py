"""The load of one launch as a value: what is sent, when, and for how long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.units import SECOND_NS
from pytest_mlpatterns.workload.schedule import ConstantRate, GammaRate, PoissonRate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_mlpatterns.records.samples import Samples, Window
    from pytest_mlpatterns.workload.cancellation import Cancellation
    from pytest_mlpatterns.workload.payload import Payload
    from pytest_mlpatterns.workload.schedule import Schedule

__all__ = ["LoadPlan"]


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """The load of one launch.

    If ``warmup_ns`` is None, the warm-up ends when the load is steady. If the window ``stretches``, a launch with few
    requests in it is measured again in a longer one. ``cancellation`` is None if every request is awaited.
    ``tokens`` counts the tokens of an answer's text where the server reports none; None if each chunk counts as one.
    """

    payload: Payload
    schedule: Schedule
    duration_ns: int
    warmup_ns: int | None
    timeout_ns: int
    check: Callable[[Sequence[Any], Sequence[Any]], object] | None
    generators: int = 1
    stretches: bool = False
    cancellation: Cancellation | None = None
    tokens: Callable[[str], int] | None = None

    def rate_of(self, samples: Samples, window: Window) -> float | None:
        """The rate of an open loop of one rate, in requests per second; None for another load.

        Conversations have as many requests as they had in the window.
        """
        if not isinstance(self.schedule, ConstantRate | PoissonRate | GammaRate):
            return None
        if self.payload.conversations is None:
            return self.schedule.rate_rps
        return float(window.covers(samples.due_ns).sum() * SECOND_NS / max(window.duration_ns, 1))
