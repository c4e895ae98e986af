"""The load of one launch as a value: what is sent, when, and for how long."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from pytest_mlpatterns.records.samples import Samples, Window
from pytest_mlpatterns.units import SECOND_NS
from pytest_mlpatterns.workload.schedule import ClosedLoop, ConstantRate, GammaRate, PoissonRate, Schedule
from pytest_mlpatterns.workload.window_plan import RequestWindow, WindowPlan

if TYPE_CHECKING:
    from pytest_mlpatterns.workload.figures import FigurePlan
    from pytest_mlpatterns.workload.payload import Payload


class LoadPlan(Struct, frozen=True):
    """The load of one launch.

    If ``requests`` is not 0, it is the number of a window's requests, or conversations. If ``warmup_ns``
    is None, the warm-up ends when the load is steady, or after ``warmup_requests``. ``budget_ns`` is the time for all
    ``launches``, for which the window of a slow service is planned; 0 for a window of ``duration_ns`` in any case. If
    the window ``stretches``, it may be longer than ``duration_ns``.
    ``tokens`` counts the tokens of an answer's text where the server reports none; None if each chunk counts as one.
    ``during`` runs beside the load in the window of each launch; None if nothing does.
    ``figures`` are read from every answer; None for none.
    ``overloads`` is whether the service is not expected to sustain the load, so that it may refuse requests.
    """

    payload: Payload
    schedule: Schedule
    duration_ns: int
    warmup_ns: int | None
    timeout_ns: int
    check: Callable[[Sequence[Any], Sequence[Any]], object] | None
    generators: int = 1
    stretches: bool = False
    tokens: Callable[[str], int] | None = None
    budget_ns: int = 0
    launches: int = 1
    overloads: bool = False
    during: Callable[[Any], object] | None = None
    figures: FigurePlan | None = None
    requests: int = 0
    warmup_requests: int = 0

    def window_plan(
        self, start_ns: int, requests: int, *, enough: int = 0, decides_alone: bool = False
    ) -> RequestWindow | WindowPlan | None:
        """The window, or how it is planned once the service answers; None for a window of ``duration_ns``.

        Several generators share no count of requests, and conversations and schedules with a length no rounds. A
        function beside the load knows its length from the beginning.

        ``requests``: of a round of the inputs. ``enough`` and ``decides_alone``: as of :class:`WindowPlan`.
        """
        if self.requests:
            return RequestWindow(self.requests, is_given=True)
        alone = self.generators == 1 and self.payload.conversations is None and self.schedule.length_ns is None
        alone = alone and self.during is None
        if not self.budget_ns or not alone:
            return None
        return WindowPlan(
            budget_ns=self.budget_ns,
            launches=self.launches,
            start_ns=start_ns,
            round=requests,
            callers=self.schedule.concurrency if isinstance(self.schedule, ClosedLoop) else 1,
            window_ns=self.duration_ns,
            is_given=not self.stretches,
            enough=enough,
            decides_alone=decides_alone,
        )

    def rate_of(self, samples: Samples, window: Window) -> float | None:
        """The rate of an open loop of one rate, in requests per second; None for another load.

        Conversations have as many requests as they had in the window.
        """
        if not isinstance(self.schedule, ConstantRate | PoissonRate | GammaRate):
            return None
        if self.payload.conversations is None:
            return self.schedule.rate_rps
        return float(window.covers(samples.due_ns).sum() * SECOND_NS / max(window.duration_ns, 1))
