"""Notes on the scalability indices of a result: HSX with its parts and SC, and what is missing of them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.metric_definitions import METRICS
from pytest_mlpatterns.wording import listed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_mlpatterns.records.result import TestResult

__all__ = ["describe_indices", "describe_missing_indices"]

_WHOLE = ("hsx", "sc")
_PARTS = ("hsxt", "hsxe", "hsxc")


def describe_indices(result: TestResult) -> list[str]:
    """``HSX 90.2 % (88.1 % to 92.3 %), SC 1.80 (1.70 to 1.91); HSXt 95.0 %, …``, and what is missing."""
    metrics = result.metrics
    whole = [_with_interval(name, metrics[name]) for name in _WHOLE if name in metrics]
    parts = [f"{METRICS[name].label} {METRICS[name].show(metrics[name][0])}" for name in _PARTS if name in metrics]
    known = "; ".join(", ".join(some) for some in (whole, parts) if some)
    return [*filter(None, [known]), *describe_missing_indices(result.missing_indices)]


def describe_missing_indices(missing: Mapping[str, str]) -> list[str]:
    """A sentence for each reason: ``HSX and SC are not known: the test has no price; set …``."""
    names: dict[str, list[str]] = {}
    for name in _WHOLE:
        if name in missing:
            names.setdefault(missing[name], []).append(METRICS[name].label)
    return [f"{listed(some)} {'are' if some[1:] else 'is'} not known: {why}" for why, some in names.items()]


def _with_interval(name: str, found: Sequence[float]) -> str:
    value, low, high = map(METRICS[name].show, found)
    return f"{METRICS[name].label} {value} ({low} to {high})"
