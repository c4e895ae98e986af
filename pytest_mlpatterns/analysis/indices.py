"""The scalability indices of Emanuilov & Dimov (2025) from a measurement of scaling: HSX with its parts, and SC.

With N the smallest measured number of replicas of which the double was measured too,

    HSXt = 1 / (1 + scale-out time / 10 s)
    HSXe = NMRT(2N) / (2 NMRT(N)), at most 1
    HSXc = cost per request at N / cost per request at 2N, at most 1, both at their NMRT
    HSX  = (HSXt HSXe HSXc)^(1/3)
    SC   = requests in flight at NMRT(N) * HSX * ASL at NMRT(N)

The paper names the three parts time, ease and cost, and scores them by hand; these formulas are our operational ones.
Each is computed within a pass, from figures of the same minutes, and has the relative error that resampling the blocks
of its windows gives; the interval is that of the passes (:mod:`pytest_mlpatterns.analysis.intervals`).

Pure. It must not know limits or baselines.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.intervals import estimate
from pytest_mlpatterns.analysis.metric_definitions import METRICS, SCALING_INDICES
from pytest_mlpatterns.records.launch import Estimate, LaunchValue
from pytest_mlpatterns.wording import count, listed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_mlpatterns.analysis.scaling import ScalingStep

__all__ = ["NOT_MEASURED", "NO_INDICES", "ScalingIndices", "hsxt", "scaling_indices", "why_unknown"]

NOT_MEASURED = "the test does not measure how its pattern scales; call perf.measure_scaling(replicas=(1, 2)) in it"
"""Why an index of scalability is not known of a test without a measurement of scaling."""
_HALF_NS = 10e9
"""Scale-out time at which HSXt is one half."""
_Part = tuple[LaunchValue, ...] | str
"""The value of an index in each pass, or why it is not known."""


@dataclass(frozen=True, slots=True)
class ScalingIndices:
    """HSX, its three parts and SC, each an :class:`Estimate` with its interval over the passes, or None.

    Attributes:
        values: value in each pass of each index that is known, by the name of the metric.
        missing: why each of the others is not known, and what to measure.
    """

    values: Mapping[str, tuple[LaunchValue, ...]]
    missing: Mapping[str, str]

    @property
    def hsxt(self) -> Estimate | None:
        """Time of scaling out, ``1 / (1 + scale-out time / 10 s)``: 1 if a further replica is there at once."""
        return self._estimate("hsxt")

    @property
    def hsxe(self) -> Estimate | None:
        """Ease of scaling out: the efficiency of doubling the replicas, at most 1."""
        return self._estimate("hsxe")

    @property
    def hsxc(self) -> Estimate | None:
        """Cost of scaling out: cost per request of N replicas over that of 2N, at most 1, both at their NMRT."""
        return self._estimate("hsxc")

    @property
    def hsx(self) -> Estimate | None:
        """Horizontal scaling index: the geometric mean of time, ease and cost."""
        return self._estimate("hsx")

    @property
    def sc(self) -> Estimate | None:
        """Scalability coefficient: requests in flight at NMRT × HSX × ASL at NMRT."""
        return self._estimate("sc")

    def _estimate(self, name: str) -> Estimate | None:
        if (values := self.values.get(name)) is None:
            return None
        metric = METRICS[name]
        return metric.bounded(estimate(values, metric.launch_sd))


NO_INDICES = ScalingIndices({}, {})
"""Those of a test that does not measure how its pattern scales."""


def scaling_indices(
    steps: Sequence[ScalingStep], scale_outs_ns: Sequence[float], why_no_scale_out: str = ""
) -> ScalingIndices:
    """The indices of a measurement of scaling.

    Args:
        steps: by number of replicas, ascending.
        scale_outs_ns: scale-out time of each pass in nanoseconds; empty if it is not known.
        why_no_scale_out: why it is not known.
    """
    time = hsxt(scale_outs_ns) if scale_outs_ns else f"the scale-out time is not known: {why_no_scale_out}"
    parts: dict[str, _Part] = {"hsxt": time, **_of_doubling(steps)}
    parts["hsx"] = _hsx(parts)
    parts["sc"] = _sc(steps, parts["hsx"])
    return ScalingIndices(
        {name: found for name in SCALING_INDICES if not isinstance(found := parts[name], str)},
        {name: found for name in SCALING_INDICES if isinstance(found := parts[name], str)},
    )


def why_unknown(name: str, missing: Mapping[str, str]) -> str:
    """Why a metric of a test is not known, if it is an index of scalability; empty for other metrics.

    Args:
        name: of the metric, which is not known.
        missing: :attr:`ScalingIndices.missing`; empty without a measurement of scaling.
    """
    return missing.get(name, NOT_MEASURED if name in SCALING_INDICES else "")


def hsxt(scale_outs_ns: Sequence[float]) -> tuple[LaunchValue, ...]:
    """HSXt of each scale-out time in nanoseconds.

    One replica was started, so the error is how much starts differ, times ``t / (10 s + t)``, which is how much the
    index changes with the logarithm of the time.
    """
    start_sd = METRICS["cold_start"].launch_sd
    return tuple(LaunchValue(_HALF_NS / (_HALF_NS + ns), start_sd * ns / (_HALF_NS + ns)) for ns in scale_outs_ns)


def _doubled(steps: Sequence[ScalingStep]) -> tuple[ScalingStep, ScalingStep] | None:
    """The smallest measured number of replicas of which the double was measured too, and that double."""
    measured = {step.replicas: step for step in steps}
    return next(((step, measured[2 * n]) for n, step in measured.items() if 2 * n in measured), None)


def _of_doubling(steps: Sequence[ScalingStep]) -> dict[str, _Part]:
    """HSXe and HSXc."""
    if (pair := _doubled(steps)) is None:
        found = listed([str(step.replicas) for step in steps], "and") or "none"
        why = f"no number of replicas was measured with its double ({found}); write measure_scaling(replicas=(1, 2))"
        return {"hsxe": why, "hsxc": why}
    for step in pair:
        if step.bound:
            why = f"NMRT of {count(step.replicas, 'replica')} is not known: {step.bound}"
            return {"hsxe": why, "hsxc": why}
    one, two = pair
    ease = [_quotient(after, before, 0.5) for before, after in zip(one.rates, two.rates, strict=True)]
    return {"hsxe": _at_most_one(ease), "hsxc": _cost(one, two)}


def _cost(one: ScalingStep, two: ScalingStep) -> _Part:
    if not all(step.metrics is not None and step.metrics.price is not None for step in (one, two)):
        return 'the test has no price; set perf_price = "0.0425 USD per core-hour, 0.0057 USD per GiB-hour" or your own'
    costs = [_at_nmrt(step, "cost") for step in (one, two)]
    if not all(costs) or len(costs[0]) != len(costs[1]):
        return "the cost of a request at NMRT is not known in every pass; measure longer"
    return _at_most_one([_quotient(before, after) for before, after in zip(*costs, strict=True)])


def _at_nmrt(step: ScalingStep, name: str) -> tuple[LaunchValue, ...]:
    """A metric of the window at NMRT in each pass; empty if some pass has no positive value."""
    values = () if step.metrics is None else step.metrics.launch_values(METRICS[name])
    return values if len(values) == len(step.rates) and all(one.value > 0 for one in values) else ()


def _hsx(parts: Mapping[str, _Part]) -> _Part:
    if missing := dict.fromkeys(found for found in parts.values() if isinstance(found, str)):
        return "; ".join(missing)
    known = [found for found in parts.values() if not isinstance(found, str)]
    if len({len(found) for found in known}) > 1:
        known = [_pooled(found, passes=len(known[-1])) for found in known]
    return tuple(
        LaunchValue(
            math.prod(one.value for one in of_pass) ** (1 / 3),
            math.hypot(*(one.relative_error for one in of_pass)) / 3,
        )
        for of_pass in zip(*known, strict=True)
    )


def _sc(steps: Sequence[ScalingStep], hsx: _Part) -> _Part:
    if isinstance(hsx, str):
        return hsx
    pair = _doubled(steps)
    assert pair is not None  # or HSX would not be known
    one, _ = pair
    loads = _at_nmrt(one, "asl")
    if not loads:
        return "ASL at NMRT is not known in every pass; measure longer"
    return tuple(
        # the cost in HSX and ASL are of the same window, so their errors may add up
        LaunchValue(capacity.concurrency * index.value * load.value, index.relative_error + load.relative_error)
        for capacity, index, load in zip(one.capacities, hsx, loads, strict=True)
    )


def _quotient(over: LaunchValue, under: LaunchValue, factor: float = 1.0) -> LaunchValue:
    return LaunchValue(factor * over.value / under.value, math.hypot(over.relative_error, under.relative_error))


def _at_most_one(values: Sequence[LaunchValue]) -> tuple[LaunchValue, ...]:
    """The values, reduced by one factor so that their geometric mean is at most 1; their scatter stays."""
    excess = max(1.0, math.exp(_log_mean(values)))
    return tuple(LaunchValue(one.value / excess, one.relative_error) for one in values)


def _pooled(values: Sequence[LaunchValue], *, passes: int) -> tuple[LaunchValue, ...]:
    """The geometric mean for each of these passes; its error does not shrink with their number."""
    if len(values) == passes:
        return tuple(values)
    error = math.sqrt(sum(one.relative_error**2 for one in values)) / len(values)
    return (LaunchValue(math.exp(_log_mean(values)), error * math.sqrt(passes)),) * passes


def _log_mean(values: Sequence[LaunchValue]) -> float:
    return sum(math.log(one.value) for one in values) / len(values)
