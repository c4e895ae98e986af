"""Notes on a scaling measurement: a line for each number of replicas, for the law, its end, and for scaling out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.units import format_duration, format_percent, format_rate, format_size
from pytest_mlpatterns.wording import count

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_mlpatterns.records.scaling import Interval, ScaleOutRecord, ScalingRecord, ScalingStepRecord

__all__ = ["describe_scaling", "scale_out_spread"]

_FEWEST_PASSES = 3
"""Passes from which their interval is shown; that of two spans a hundred times its lower end for figures 5 % apart."""
_SHOWN: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("asl", "ASL", format_percent),
    ("cpu_per_request", "CPU per request", format_duration),
    ("peak_memory", "peak memory", format_size),
)


def describe_scaling(scaling: ScalingRecord | None) -> list[str]:
    """A scaling measurement in a few lines; none without one."""
    if scaling is None:
        return []
    lines = [*map(_step_line, scaling.steps)]
    if scaling.cpus_per_replica is not None:
        lines.append(f"each replica ran alone on {count(scaling.cpus_per_replica, 'core')}")
    if scaling.law:
        coefficients = [f"{name} {_range(found, _coefficient)}" for name, found in scaling.law.items()]
        peak = scaling.peak_replicas
        most = "each further replica adds capacity" if peak is None else f"the most at {peak:,.0f} replicas"
        lines.append(f"scalability law: {', '.join(coefficients)}; by it {most}")
    return [*lines, *filter(None, [scaling.ended_by, _scale_out_line(scaling.scale_out)])]


def _step_line(step: ScalingStepRecord) -> str:
    """``2 replicas: NMRT 198 req/s (195 req/s to 201 req/s) at concurrency 4, efficiency 99 % (96 % to 102 %), …``."""
    if nmrt := step.figures.get("nmrt"):
        found = [f"NMRT {_range(nmrt, format_rate)} at concurrency {step.concurrency:g}"]
    else:
        found = [f"NMRT is not known ({step.bound})"]
    if (efficiency := step.figures.get("scaling_efficiency")) and step.replicas > 1:
        found.append(f"efficiency {_range(efficiency, format_percent)}")
    found += [f"{label} {show(step.figures[name][0])}" for name, label, show in _SHOWN if name in step.figures]
    return f"{count(step.replicas, 'replica')}: {', '.join(found)}"


def _scale_out_line(found: ScaleOutRecord | None) -> str:
    """``one more replica carries its share 840 ms (2 passes: 820 ms, 860 ms) after it was asked for, …``."""
    if found is None:
        return ""
    if found.duration is None:
        parts = [f"the scale-out time is not known: {found.unknown}"]
    else:
        took = f"{format_duration(found.duration[0])} ({scale_out_spread(found)})"
        parts = [f"one more replica under load carries its share {took} after it was asked for"]
    if found.p99_ns is not None and found.p99_before_ns is not None:
        before, after = format_duration(found.p99_before_ns), format_duration(found.p99_ns)
        parts.append(f"meanwhile p99 was up to {after} (before: {before})")
    if found.requests:
        parts.append(f"{found.failed:,} of {count(found.requests, 'request')} failed")
    return ", ".join(parts)


def scale_out_spread(found: ScaleOutRecord) -> str:
    """How sure the scale-out time is: its interval, or each pass if there are too few for one; empty if not known."""
    if found.duration is None:
        return ""
    passes = [format_duration(one) for one in found.passes_ns if one is not None]
    if len(passes) < _FEWEST_PASSES:
        return f"{count(len(passes), 'pass', 'passes')}: {', '.join(passes)}"
    return "{} to {}".format(*map(format_duration, found.duration[1:]))


def _range(found: Interval, show: Callable[[float], str]) -> str:
    value, low, high = map(show, found)
    return f"{value} ({low} to {high})"


def _coefficient(value: float) -> str:
    return f"{value:.3f}"
