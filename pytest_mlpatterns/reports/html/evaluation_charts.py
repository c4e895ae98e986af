"""Charts of the measurements that load a pattern to its limit: the scaling curve and the overload curve. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.reports.html.chart import Chart, Column
from pytest_mlpatterns.reports.text.overload_text import BEHAVIOURS, describe_recovery
from pytest_mlpatterns.units import format_percent
from pytest_mlpatterns.wording import count

if TYPE_CHECKING:
    from pytest_mlpatterns.records.overload import Overload
    from pytest_mlpatterns.records.scaling import ScalingRecord

__all__ = ["overload_chart", "scaling_chart"]


def scaling_chart(name: str, scaling: ScalingRecord) -> Chart | None:
    """NMRT by number of replicas, beside as many times that of the fewest; None if fewer than two are known.

    Args:
        name: of the pattern.
        scaling: its measurement.
    """
    known = [(step, step.figures["nmrt"]) for step in scaling.steps if "nmrt" in step.figures and step.replicas]
    if len(known) < 2:
        return None
    (first, (each, _, _)), (last, _) = known[0], known[-1]
    efficiency = last.figures.get("scaling_efficiency")
    summary = f"up to {count(last.replicas, 'replica')}"
    if efficiency is not None:
        summary = f"efficiency of {count(last.replicas, 'replica')}: {format_percent(efficiency[0])}"
    return Chart(
        "scaling",
        f"NMRT in req/s by replicas: {name}",
        "; ".join(filter(None, [summary, scaling.ended_by])),
        (
            Column("replicas", "count"),
            *(Column(heading, "rate") for heading in ("NMRT", "from", "to", "linear scaling")),
        ),
        tuple((float(step.replicas), *nmrt, each * step.replicas / first.replicas) for step, nmrt in known),
    )


def overload_chart(name: str, overload: Overload) -> Chart | None:
    """Goodput by offered load, both as shares of the NMRT; None if fewer than two loads were offered.

    Args:
        name: of the pattern.
        overload: its measurement.
    """
    if len(overload.steps) < 2 or overload.nmrt_rps <= 0:
        return None
    return Chart(
        "overload",
        f"Goodput by offered load: {name}",
        f"{BEHAVIOURS[overload.behaviour]}; {describe_recovery(overload)}",
        (
            *(Column(heading, "ratio") for heading in ("offered, of NMRT", "goodput, of NMRT")),
            *(Column(heading, "ratio") for heading in ("rejected, of offered", "late", "timed out", "failed")),
            Column("p99 latency", "duration"),
        ),
        tuple(
            (
                step.load_ratio,
                step.goodput_rps / overload.nmrt_rps,
                step.rejected_ratio,
                step.late_ratio,
                step.timed_out_ratio,
                step.failed_ratio,
                step.p99_ns,
            )
            for step in overload.steps
        ),
    )
