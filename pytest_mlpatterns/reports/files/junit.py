"""The metrics of a result as properties of a JUnit report: names with their unit, and plain numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.metric_definitions import metric_named
from pytest_mlpatterns.wording import visible

if TYPE_CHECKING:
    from pytest_mlpatterns.records.kind import Kind
    from pytest_mlpatterns.records.result import TestResult

__all__ = ["kind_properties", "properties_of"]

_WHOLE = ("ns", "bytes")


def kind_properties(kind: Kind) -> list[tuple[str, str]]:
    """The kind of a test, also of one that has no result."""
    return [("perf_kind", kind.value)]


def properties_of(result: TestResult) -> list[tuple[str, str]]:
    """Outcome, kind, set-up, and each metric with its interval: ``perf_rtm_ns``, ``perf_rtm_ns_low`` and ``_high``.

    Args:
        result: a result whose metrics this version knows.
    """
    setup = result.setup
    found = [
        ("perf_outcome", result.outcome.value),
        *kind_properties(result.kind),
        ("perf_pattern", str(setup.pattern)),
        ("perf_load", str(setup.load)),
        ("perf_wire", setup.wire),
        ("perf_requests", str(result.requests)),
    ]
    if setup.engine:
        found.append(("perf_engine", setup.engine))
    if result.price is not None:
        found.append(("perf_price", str(result.price)))
    if result.cancelled_requests:
        found.append(("perf_cancelled_requests", str(result.cancelled_requests)))
    if result.stream is not None:
        means = {"input": result.stream.input_tokens, "output": result.stream.output_tokens}
        found += [(f"perf_{name}_tokens_per_request", f"{mean[0]:.6g}") for name, mean in means.items() if mean]
    for metric, (value, low, high) in result.metrics.items():
        unit = metric_named(metric).unit.value
        name = f"perf_{metric}" if not unit or metric.endswith(unit) else f"perf_{metric}_{unit}"
        found += [
            (name, _number(value, unit)),
            (f"{name}_low", _number(low, unit)),
            (f"{name}_high", _number(high, unit)),
        ]
    found += [("perf_accepted", one.accepted) for one in result.verdicts if one.accepted]
    found += [(f"perf_{one.metric}_against_{one.against}", one.reason) for one in result.verdicts]
    return [(visible(name), visible(value)) for name, value in found]


def _number(value: float, unit: str) -> str:
    return str(round(value)) if unit in _WHOLE else f"{value:.6g}"
