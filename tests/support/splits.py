"""Declared splits of latencies, and the layer that they are made of, for tests."""

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from pytest_mlpatterns.patterns.tally import SplitTally
from pytest_mlpatterns.records.latency import LatencySplit, LatencySplits, SplitMetric, SplitPart
from pytest_mlpatterns.records.result import TestResult
from pytest_mlpatterns.records.telemetry import LayerStats
from support.synthetic import MS, US, counterpart, result


def split_layer(requests: Iterable[tuple[Mapping[str, int], int]]) -> LayerStats:
    """What a server counts: the parts of each request, and its residence."""
    tally = SplitTally(0)
    for parts, total_ns in requests:
        tally.add(parts, total_ns)
    return tally.snapshot()


def split(
    parts: Mapping[str, float],
    *,
    metric: SplitMetric = "rtm",
    calls: Mapping[str, float] | None = None,
    error: float = 0.02,
) -> LatencySplit:
    """A split whose mean and median are alike: times by ``PART`` or ``OF/PART``, each with a relative standard error.

    ``calls`` are of each model per request; by default one of the model alone.
    """
    named = ((*key.rpartition("/")[::2], ns) for key, ns in parts.items())
    whole = sum(parts.values())
    return LatencySplit(
        metric,
        whole,
        whole,
        1000,
        tuple(SplitPart(name, of, ns, ns, error * ns) for of, name, ns in named),
        {"": 1.0} if calls is None else calls,
    )


BEFORE = split({"wire": 200 * US, "model_cpu": 9 * MS, "queue_wait": 1 * MS, "server": 0.5 * MS, "socket": 1.5 * MS})
AFTER = split({"wire": 210 * US, "model_cpu": 20.7 * MS, "queue_wait": 2 * MS, "server": 0.5 * MS, "socket": 1.5 * MS})
"""The same with a model that takes 11.7 ms longer."""


def with_splits(before: LatencySplits, now: LatencySplits, kind: str = "baseline", **changes: object) -> TestResult:
    """A result with a reference, both with their splits."""
    reference = replace(counterpart(kind=kind), split=before)
    if kind == "revision":
        reference = replace(reference, present=replace(reference.present, split=now))
    return result(**{"reference": reference, "split": now, **changes})  # type: ignore[arg-type]
