"""How a pattern scales: NMRT, efficiency and predictions from measurements at several numbers of replicas.

With N the smallest number of replicas that was measured together with its double,

    HSXt = 1 / (1 + scale-out time / 10 s)
    HSXe = NMRT(2N) / (2 NMRT(N)), at most 1
    HSXc = cost per request at N / cost per request at 2N, at most 1, both at their NMRT
    HSX  = (HSXt HSXe HSXc)^(1/3)
    SC   = requests in flight at NMRT(N) * HSX * ASL at NMRT(N)

The paper names the three parts time, ease and cost, and scores them by hand; these formulas are our operational ones.
Each is computed within a pass, from figures of the same minutes, and has the relative error that resampling the blocks
of its windows gives; the interval comes from the passes (:mod:`pytest_mlpatterns.analysis.statistics.intervals`).
Pure; it must not know deployments, limits or baselines.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from statistics import fmean

from pytest_mlpatterns.analysis.capacity.scalability_law import FittedLaw, fit_law
from pytest_mlpatterns.analysis.capacity.scale_out import ScaleOut, scale_out_ns, scale_out_record
from pytest_mlpatterns.analysis.metrics.definitions import METRICS, SCALING_INDICES, with_role
from pytest_mlpatterns.analysis.metrics.metric import Metric, Role
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.analysis.metrics.pattern_metrics import ScalingIndices
from pytest_mlpatterns.analysis.statistics.intervals import CONFIDENCE, LAUNCH_SD, estimate
from pytest_mlpatterns.errors import GeneratorLimitError, InvalidResultError
from pytest_mlpatterns.records.capacity import ScalingRecord, ScalingStepRecord
from pytest_mlpatterns.records.launch import Capacity, Estimate, Launch, LaunchValue, SearchEnd
from pytest_mlpatterns.records.price import Price
from pytest_mlpatterns.units import Unit, format_percent
from pytest_mlpatterns.wording import count, listed

_BUSY_RATIO = 0.9  # Share of the machine's cores from which on they, not the pattern, may end the scaling
_NMRT = METRICS["nmrt"]
_FULL_EFFICIENCY = 0.95  # Efficiency from which on nothing has ended the scaling
EFFICIENCY = Metric(
    "scaling_efficiency", "scaling efficiency", None, Unit.RATIO, better="higher", launch_sd=math.sqrt(2) * LAUNCH_SD
)
"""NMRT of n replicas over n times the NMRT of one; two searches, so that its prior deviation is larger."""


@dataclass(frozen=True, slots=True)
class ScalingStep:
    """One number of replicas: a capacity search in each pass, and one window under load at its NMRT."""

    replicas: int  #: how many
    capacities: tuple[Capacity, ...]  #: one for each pass
    metrics: Metrics | None  #: of the windows at NMRT; None if no search found a rate

    @classmethod
    def of(
        cls,
        replicas: int,
        capacities: tuple[Capacity, ...],
        launches: tuple[Launch, ...],
        *,
        price: Price | None = None,
    ) -> ScalingStep:
        """A step from its searches and its windows, at a price of cores and memory."""
        return cls(replicas, capacities, Metrics(launches, capacities, price) if launches else None)

    @property
    def nmrt_rps(self) -> Estimate:
        """NMRT.

        Raises:
            InvalidResultError: the searches found only a lower bound.
        """
        self.require_nmrt()
        return estimate(self.rates, LAUNCH_SD)

    @property
    def nmrt_concurrency(self) -> float:
        """Requests in flight with which NMRT is reached: the knee, mean over the passes."""
        return fmean(capacity.concurrency for capacity in self.capacities)

    @property
    def asl_ratio(self) -> Estimate | None:
        """Share of the machine's cores that the deployment uses at NMRT."""
        return None if self.metrics is None else self.metrics.asl_ratio

    @property
    def cpu_ns_per_request(self) -> Estimate | None:
        """CPU time of the deployment per successful answer at NMRT."""
        return None if self.metrics is None else self.metrics.cpu_ns_per_request

    @property
    def peak_rss_bytes(self) -> Estimate | None:
        """Highest resident memory of all its processes at NMRT."""
        return None if self.metrics is None else self.metrics.peak_rss_bytes

    @property
    def cost_per_million_requests(self) -> Estimate | None:
        """Cost of a million successful answers at NMRT, in the currency of the test's price; None without a price."""
        return None if self.metrics is None else self.metrics.cost_per_million_requests

    @property
    def machine_ratio(self) -> float | None:
        """Share of the machine's cores that all processes use at NMRT, the load generator included."""
        blocks = [] if self.metrics is None else [one.load_over_time() for one in self.metrics.by_launch]
        shares = [machine for launch in blocks for _, _, machine in launch]
        return fmean(shares) if shares else None

    @property
    def given_cores(self) -> float:
        """Number of cores that the deployment may use; 0 if not known."""
        usages = [] if self.metrics is None else [launch.usage for launch in self.metrics.launches]
        return next((usage.cores for usage in usages if usage is not None), 0)

    @property
    def bound(self) -> str:
        """Why NMRT is only a lower bound; empty if it is known."""
        return next((one.stopped for one in self._unknown), "")

    @property
    def _unknown(self) -> list[Capacity]:
        """The searches that found no NMRT, or only a lower bound."""
        return [one for one in self.capacities if one.at_least or one.nmrt.value <= 0]

    @property
    def rates(self) -> tuple[LaunchValue, ...]:
        """NMRT of each pass."""
        return tuple(capacity.nmrt for capacity in self.capacities)

    def require_nmrt(self) -> None:
        """Refuse a step whose NMRT is only a lower bound.

        Raises:
            GeneratorLimitError: it is, by the load generator; names the reason.
            InvalidResultError: it is for another reason.
        """
        if self._unknown:
            by_generator = self._unknown[0].end is SearchEnd.GENERATOR
            why = f"{_NMRT.label} of {count(self.replicas, 'replica')} is not known: {self.bound}"
            raise (GeneratorLimitError if by_generator else InvalidResultError)(why)


@dataclass(frozen=True)
class Scaling:
    """What ``perf.measure_scaling()`` returns: how the test's pattern scales with the number of replicas.

    Attributes:
        steps: by number of replicas, ascending; empty in a smoke run.
        cores: number of cores of the machine.
        scale_outs: one more replica asked for under load, once in each pass.
        no_scale_out: why no replica can be added to the running service; empty if one can.
        cpus_per_replica: number of cores on which each replica runs alone; None if they share the cores.
    """

    steps: tuple[ScalingStep, ...]
    cores: float
    scale_outs: tuple[ScaleOut, ...] = ()
    no_scale_out: str = ""
    cpus_per_replica: int | None = None

    @cached_property
    def _by_replicas(self) -> Mapping[int, ScalingStep]:
        return {step.replicas: step for step in self.steps}

    @cached_property
    def law(self) -> FittedLaw:
        """The universal scalability law, fitted to the steps whose NMRT is known.

        Raises:
            TooFewSamplesError: NMRT is known of fewer than two numbers of replicas.
        """
        known = [step for step in self.steps if not step.bound]
        return fit_law({step.replicas: [rate.value for rate in step.rates] for step in known})

    @property
    def contention(self) -> Estimate:
        """Sigma of the law: the share of the work that only one replica can do at a time."""
        return self.law.contention

    @property
    def coherency(self) -> Estimate:
        """Kappa of the law: the cost of keeping each pair of replicas consistent."""
        return self.law.coherency

    @property
    def peak_replicas(self) -> float:
        """Number of replicas with the largest capacity by the law; infinite if each further one adds some, or
        if only two numbers were measured, which show no peak.
        """
        return self.law.best.peak_replicas

    def efficiency(self, replicas: int, confidence: float = CONFIDENCE) -> Estimate:
        """NMRT of this many replicas over as many times the NMRT of one, from the passes, not from the law.

        Args:
            replicas: one of the measured numbers.
            confidence: of the interval.

        Raises:
            InvalidResultError: that number was not measured, or its NMRT or one replica's is not known.
        """
        one, many = self._step(1), self._step(replicas)
        one.require_nmrt()
        many.require_nmrt()
        ratios = [
            LaunchValue(
                after.value / (replicas * before.value), math.hypot(after.relative_error, before.relative_error)
            )
            for before, after in zip(one.rates, many.rates, strict=True)
        ]
        return estimate(ratios, EFFICIENCY.launch_sd if replicas > 1 else 0.0, confidence)

    def predicted_rps(self, replicas: int) -> Estimate:
        """NMRT of this many replicas by the law, on a machine with cores enough for them.

        Raises:
            TooFewSamplesError: more than four times as many replicas as were measured, or more than were measured if
                these are two numbers.
        """
        return self.law.capacity_rps(replicas)

    def replicas_for(self, rps: float) -> Estimate:
        """The fewest replicas that sustain a rate by the law, in whole numbers.

        Raises:
            TooFewSamplesError: the rate is out of reach of the law, or of what was measured.
        """
        return self.law.replicas_for(rps)

    @cached_property
    def indices(self) -> ScalingIndices:
        """HSX with its parts and SC, and why those that are None are not known; all unknown in a smoke run."""
        known = [one.duration_ns for one in self.scale_outs if one.duration_ns is not None]
        times_ns = known if len(known) == len(self.scale_outs) else ()
        return scaling_indices(self.steps, times_ns, self.scale_out_unknown or "it was not measured")

    @property
    def scale_out_ns(self) -> Estimate | None:
        """Time from asking for one more replica, under load at the knee, until it carries its share; None if unknown.

        It is not known in a smoke run, if the pattern cannot get one more replica while it runs (``no_scale_out``), and
        if a replica never carried its share (``scale_outs[i].never``).
        """
        return scale_out_ns(self.scale_outs)

    @property
    def scale_out_unknown(self) -> str:
        """Why the scale-out time is not known; empty if it is, or in a smoke run."""
        return next((one.never for one in self.scale_outs if one.never), self.no_scale_out)

    @property
    def ended_by(self) -> str:
        """What ended the scaling, if it was the machine or the load generator and not the pattern; empty otherwise."""
        return next(filter(None, map(self._why_ended, self.steps)), "")

    def _why_ended(self, step: ScalingStep) -> str:
        """Why a step shows little of the pattern: it falls short while the cores that replicas share are used up."""
        busy, own = step.machine_ratio, step.asl_ratio
        if self.cpus_per_replica is not None or busy is None or own is None or not self._falls_short(step):
            return ""
        given = step.given_cores
        if busy < _BUSY_RATIO:
            if own.value < _BUSY_RATIO or given >= self.cores:
                return ""
            return (
                f"at {count(step.replicas, 'replica')} {format_percent(min(own.value, 1.0))} of the {given:g} cores "
                "that the deployment has were busy: the cores, not the pattern, end the scaling"
            )
        others = max(busy - own.value * given / self.cores, 0.0)
        return (
            f"at {count(step.replicas, 'replica')} {format_percent(min(busy, 1.0))} of the machine's "
            f"{self.cores:g} cores were busy, {format_percent(others)} with the load generator and other "
            "processes: the cores, not the pattern, end the scaling"
        )

    def _falls_short(self, step: ScalingStep) -> bool:
        """Whether replicas add less than they should, as far as that is known."""
        if step.replicas == 1:
            return False
        return bool(step.bound or self._step(1).bound) or self.efficiency(step.replicas).value < _FULL_EFFICIENCY

    @property
    def record(self) -> ScalingRecord | None:
        """Plain values for reports; None if nothing was measured."""
        if not self.steps:
            return None
        is_known = sum(not step.bound for step in self.steps) > 1
        law = {"contention": astuple(self.contention)} if is_known else {}
        if is_known and math.isfinite(self.coherency.high):
            law["coherency"] = astuple(self.coherency)
        peak = self.peak_replicas if is_known else math.inf
        return ScalingRecord(
            tuple(map(self._record_of, self.steps)),
            law,
            peak if math.isfinite(peak) else None,
            self.ended_by,
            scale_out_record(self.scale_outs, self.scale_out_unknown),
            self.cpus_per_replica,
        )

    def _record_of(self, step: ScalingStep) -> ScalingStepRecord:
        figures = {} if step.bound else {"nmrt": astuple(step.nmrt_rps)}
        if not step.bound and 1 in self._by_replicas and not self._by_replicas[1].bound:
            figures[EFFICIENCY.name] = astuple(self.efficiency(step.replicas))
        for name, metric in with_role(Role.AT_NMRT).items():
            if step.metrics is not None and (found := step.metrics.estimate(metric)) is not None:
                figures[name] = astuple(found)
        return ScalingStepRecord(step.replicas, step.nmrt_concurrency, figures, step.machine_ratio, step.bound)

    def _step(self, replicas: int) -> ScalingStep:
        if not self.steps:
            raise InvalidResultError(
                "a smoke run (--perf-smoke) measures no scaling; read it under 'if not perf.smoke'"
            )
        if replicas not in self._by_replicas:
            measured = listed([str(step.replicas) for step in self.steps], "and")
            raise InvalidResultError(
                f"{count(replicas, 'replica')} were not measured, only {measured}; write "
                f"measure_scaling(replicas=(1, {replicas}))"
            )
        return self._by_replicas[replicas]


NOT_MEASURED = "the test does not measure how its pattern scales; call perf.measure_scaling(replicas=(1, 2)) in it"
"""Why an index of scalability is not known of a test without a measurement of scaling."""
_HALF_NS = 10e9  # Scale-out time at which HSXt is one half
_Part = tuple[LaunchValue, ...] | str  # The value of an index in each pass, or why it is not known


def scaling_indices(
    steps: Sequence[ScalingStep], scale_outs_ns: Sequence[float], why_no_scale_out: str = ""
) -> ScalingIndices:
    """The indices of a measurement of scaling.

    ``steps``: by number of replicas, ascending. ``scale_outs_ns``: scale-out time of each pass in nanoseconds; empty if
    it is not known.
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

    ``missing``: :attr:`ScalingIndices.missing`; empty without a measurement of scaling.
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
    """The smallest number of replicas that was measured together with its double, and that double."""
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
            why = f"{_NMRT.label} of {count(step.replicas, 'replica')} is not known: {step.bound}"
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
            math.prod(one.value for one in of_pass) ** (1 / 3), math.hypot(*(one.relative_error for one in of_pass)) / 3
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
