"""Load beyond the NMRT on a running deployment: one job of the generator for each load of a plan.

Each load begins with an idle service. The peak and the lower load after it are one job, so that the service takes its
backlog with it. This module must not know limits or baselines.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from pytest_mlpatterns.analysis.capacity.overload import BACK_RATIO, OfferedLoad
from pytest_mlpatterns.analysis.health.generator_health import why_limited
from pytest_mlpatterns.analysis.health.machine import disturbance_of, why_busy_in
from pytest_mlpatterns.loadgen.columns import samples_of
from pytest_mlpatterns.records.samples import Window
from pytest_mlpatterns.units import SECOND_NS
from pytest_mlpatterns.workload.schedule import Stages

if TYPE_CHECKING:
    from pytest_mlpatterns.analysis.capacity.overload import OverloadPlan
    from pytest_mlpatterns.measurement.load_source import FurtherLoad

__all__ = ["offer_overload"]

_POLL_S = 0.1
"""Interval of the samples of the monitor during an overload, in seconds."""
_WARMUP_NS = 50_000_000
"""Warm-up of one load, in nanoseconds: it opens the connections, and the service is warm."""


def offer_overload(load: FurtherLoad, plan: OverloadPlan, nmrt_rps: float) -> tuple[OfferedLoad, ...]:
    """Offer the loads of a plan in their order."""
    *steps, peak = plan.ratios
    return (
        *(_offer(load, ratio, nmrt_rps, step_s=plan.step_s) for ratio in steps),
        _offer(load, peak, nmrt_rps, step_s=plan.step_s, watched_s=plan.watched_s),
    )


def _offer(load: FurtherLoad, ratio: float, nmrt_rps: float, *, step_s: float, watched_s: float = 0.0) -> OfferedLoad:
    rate_rps, length = ratio * nmrt_rps, _written(step_s)
    after = (("0s", BACK_RATIO * nmrt_rps), (_written(watched_s), BACK_RATIO * nmrt_rps)) if watched_s else ()
    schedule = Stages(((length, rate_rps), *after), start=rate_rps)
    job = replace(load.template, schedule=schedule, duration_ns=schedule.length_ns, warmup_ns=_WARMUP_NS)
    monitor = load.deployment.monitor()
    monitor.sample()
    result = load.run(job, poll_s=_POLL_S, on_poll=partial(monitor.sample, poll=True))
    monitor.sample()
    samples, start_ns = samples_of(result), result.window.start_ns
    window = Window(start_ns, start_ns + round(step_s * SECOND_NS))
    inside = samples.due_in(window)
    report = replace(result.generator, ceiling_rps=load.generator.ceiling_of(job))
    latencies = samples.latency_ns[samples.successes_in(window)]
    limited = why_limited(
        report,
        send_lag_ns=samples.send_lag_ns[inside],
        latency_ns=float(np.median(latencies)) if latencies.size else 0.0,
    )
    usage = monitor.usage()
    # A CPU limit that stops an overloaded service is its capacity, not a disturbance.
    seen = [] if usage is None else [replace(disturbance_of(usage, result.window, report.cpu_ns), throttled_ratio=0.0)]
    return OfferedLoad(ratio, samples, window, round(watched_s * SECOND_NS), limited, why_busy_in(seen))


def _written(seconds: float) -> str:
    """A length as schedules write it."""
    return f"{round(seconds * 1000)}ms"
