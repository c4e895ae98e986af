"""Load beyond the NMRT on a running deployment: one job of the generator for each load of a plan.

Each load begins with an idle service. The peak and the lower load after it are one job, so that the service takes its
backlog with it. This module must not know limits or baselines.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from pytest_mlpatterns.analysis.capacity.overload import BACK_RATIO, OfferedLoad
from pytest_mlpatterns.analysis.health.generator_health import why_limited
from pytest_mlpatterns.analysis.health.machine import disturbance_of, why_busy_in
from pytest_mlpatterns.loadgen.columns import samples_of
from pytest_mlpatterns.measurement.load_source import LoadEvents
from pytest_mlpatterns.records.samples import Window
from pytest_mlpatterns.units import SECOND_NS
from pytest_mlpatterns.workload.schedule import Stages

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_mlpatterns.analysis.capacity.overload import OverloadPlan
    from pytest_mlpatterns.loadgen.generator import Generator
    from pytest_mlpatterns.loadgen.messages import LoadJob
    from pytest_mlpatterns.records.addressing import Progress
    from pytest_mlpatterns.system.monitor import Monitor

__all__ = ["OverloadRun"]

_POLL_S = 0.1
_WARMUP_NS = 50_000_000


@dataclass(frozen=True, slots=True)
class OverloadRun:
    """Offers the loads of a plan to one deployment.

    Args:
        template: a job for this deployment; each load replaces its schedule and times.
        generator: the load generator.
        on_progress: takes the progress of the load several times a second.
        monitor: makes a monitor of the deployment.
        generators: number of generator processes that share the load.
    """

    template: LoadJob
    generator: Generator
    on_progress: Callable[[Progress], None]
    monitor: Callable[[], Monitor]
    generators: int = 1

    def run(self, plan: OverloadPlan, nmrt_rps: float) -> tuple[OfferedLoad, ...]:
        """Offer the loads in their order.

        Args:
            plan: the loads, as multiples of the NMRT.
            nmrt_rps: the NMRT.
        """
        *steps, peak = plan.ratios
        return (
            *(self._offer(ratio, nmrt_rps, plan.step_s) for ratio in steps),
            self._offer(peak, nmrt_rps, plan.step_s, watched_s=plan.watched_s),
        )

    def _offer(self, ratio: float, nmrt_rps: float, step_s: float, *, watched_s: float = 0.0) -> OfferedLoad:
        rate_rps, length = ratio * nmrt_rps, _written(step_s)
        after = (("0s", BACK_RATIO * nmrt_rps), (_written(watched_s), BACK_RATIO * nmrt_rps)) if watched_s else ()
        schedule = Stages(((length, rate_rps), *after), start=rate_rps)
        job = replace(self.template, schedule=schedule, duration_ns=schedule.length_ns, warmup_ns=_WARMUP_NS)
        monitor = self.monitor()
        monitor.sample()
        events = LoadEvents(self.on_progress, on_poll=partial(monitor.sample, poll=True))
        result = self.generator.run(job, poll_s=_POLL_S, on_poll=events.handle, processes=self.generators)
        monitor.sample()
        samples, start_ns = samples_of(result), result.window.start_ns
        window = Window(start_ns, start_ns + round(step_s * SECOND_NS))
        inside = samples.due_in(window)
        report = replace(result.generator, ceiling_rps=self.generator.ceiling_of(job))
        latencies = samples.latency_ns[samples.successes_in(window)]
        limited = why_limited(
            report,
            send_lag_ns=samples.send_lag_ns[inside],
            latency_ns=float(np.median(latencies)) if latencies.size else 0.0,
        )
        usage = monitor.usage()
        seen = (
            [] if usage is None else [replace(disturbance_of(usage, result.window, report.cpu_ns), throttled_ratio=0.0)]
        )
        # A CPU limit that stops an overloaded service is its capacity, not a disturbance.
        return OfferedLoad(ratio, samples, window, round(watched_s * SECOND_NS), limited, why_busy_in(seen))


def _written(seconds: float) -> str:
    """A length as schedules write it."""
    return f"{round(seconds * 1000)}ms"
