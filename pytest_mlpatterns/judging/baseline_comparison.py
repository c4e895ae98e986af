"""One test compared with its stored baseline.

It must not know pytest, nor which verdicts fail a test.
"""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from pytest_mlpatterns.analysis.alpha_spending import SequentialPlan
from pytest_mlpatterns.analysis.metric_definitions import METRICS
from pytest_mlpatterns.analysis.verdicts import judge_change
from pytest_mlpatterns.baseline.calibration import scaled
from pytest_mlpatterns.config.run_settings import BaselineMode
from pytest_mlpatterns.errors import SettingError, TooFewSamplesError
from pytest_mlpatterns.judging.result_builder import reference_from_baseline
from pytest_mlpatterns.records.verdict import Outcome
from pytest_mlpatterns.wording import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pytest_mlpatterns.analysis.metric_definitions import Metric
    from pytest_mlpatterns.judging.experiment import Experiment
    from pytest_mlpatterns.judging.sequential import SequentialMeasurement
    from pytest_mlpatterns.records.baseline_entry import Entry
    from pytest_mlpatterns.records.launch import LaunchValue
    from pytest_mlpatterns.records.result import BaselineGap, Reference
    from pytest_mlpatterns.records.verdict import Verdict

__all__ = ["BaselineComparison", "Comparison", "describe_left_out", "describe_too_few", "read_metrics"]

_ALPHA = 0.01
"""Probability that a comparison fails a change exactly at the tolerance, over all interim looks and metrics."""
_SPARE = 1.1
"""Factor on the window that is recommended, since the number of requests varies."""
_CALIBRATION_NOISE = 1.15
"""Ratio of calibration times that occurs without any change of the machine; 1.08 was observed."""


def read_metrics(names: Sequence[str], argument: str) -> list[Metric]:
    """The metrics of a comparison, by name.

    Args:
        names: a tuple of names.
        argument: where they come from, for messages; ``...`` in it is replaced.

    Raises:
        SettingError: it is no tuple, or a name in it is unknown.
    """
    allowed = [name for name in METRICS if name != "error_rate"]
    for name in [names] if isinstance(names, str) else names:
        if isinstance(names, str) or name not in allowed:
            found = argument.replace("...", repr(names))
            raise SettingError(f"{found}, {did_you_mean(str(name), allowed)}expected a tuple of {', '.join(allowed)}")
    return [METRICS[name] for name in names]


def describe_left_out(left_out: Mapping[str, str]) -> str:
    """Metrics that were not compared: ``p99 latency (not recorded yet), peak memory (not recorded yet)``."""
    return ", ".join(f"{name} ({why})" for name, why in left_out.items())


def describe_too_few(error: TooFewSamplesError, duration_ns: int) -> str:
    """What a percentile needs, and the window that gives it: ``needs 459 requests, there were 300 (duration="5s")``."""
    if not error.found:
        return str(error)
    seconds = math.ceil(_SPARE * duration_ns / 1e9 * error.needed / error.found)
    return f'needs {error.needed:,} requests, there were {error.found:,} (duration="{seconds}s")'


class Comparison(Protocol):
    """What compares one test with what it was."""

    @property
    def reference(self) -> Reference | None:
        """What was compared with, for reports; None if nothing was."""

    @property
    def missing(self) -> str:
        """What could not be compared, and why; empty if everything was."""

    @property
    def left_out(self) -> Mapping[str, str]:
        """Why each metric was not compared, by its label."""

    @property
    def gap(self) -> BaselineGap | None:
        """Why there is no comparable baseline; None if there is one, or if none is compared with."""

    @property
    def note(self) -> str:
        """What a reader of the comparison has to know; empty if there is nothing."""

    def judge(self, metrics: Sequence[Metric], tolerance: float, *, requested: bool = True) -> Sequence[Verdict]:
        """Compare these metrics, and measure as much as that takes.

        Args:
            metrics: those that are known on one side only are left out, and :attr:`missing` names them.
            tolerance: largest acceptable worsening, 0.05 for 5 %.
            requested: the test requested the metrics itself: then too few samples are an error, and NMRT is searched
                for.

        Returns:
            One verdict for each metric that could be compared.

        Raises:
            DeploymentError: a deployment did not start, or died.
            InvalidResultError: the measurement supports no verdict.
        """


class BaselineComparison:
    """Compares one test with its stored baseline entry.

    Args:
        experiment: what is measured, and its baseline.
        measurement: what was measured so far; grows as verdicts need it.
    """

    def __init__(self, experiment: Experiment, measurement: SequentialMeasurement) -> None:
        self._experiment = experiment
        self._measurement = measurement
        self._baseline = experiment.baseline
        self._left_out: dict[str, str] = {}
        self._reference: Reference | None = None
        if self._baseline.entry is not None:
            self._reference = reference_from_baseline(self._baseline.entry, self._baseline.name)

    @property
    def reference(self) -> Reference | None:
        """The baseline entry, for reports; None without a comparable one."""
        return self._reference

    @property
    def missing(self) -> str:
        """What could not be compared, and why; empty if everything was."""
        if self._baseline.missing or not self._left_out:
            return self._baseline.missing
        return f"not compared with the baseline: {describe_left_out(self._left_out)}"

    @property
    def left_out(self) -> Mapping[str, str]:
        """Why each metric was not compared, by its label."""
        return self._left_out

    @property
    def gap(self) -> BaselineGap | None:
        """Why there is no comparable baseline; None if there is one, or if none is compared with."""
        return self._baseline.gap

    @property
    def note(self) -> str:
        """What a reader of the comparison has to know; empty if there is nothing."""
        return "" if self._experiment.smoke else "; ".join(filter(None, (self._baseline.note, self._baseline.missing)))

    def judge(self, metrics: Sequence[Metric], tolerance: float, *, requested: bool = True) -> Sequence[Verdict]:
        """Compare these metrics with the baseline; see :meth:`Comparison.judge`."""
        self._measurement.measure_at_least(1)
        if self._experiment.smoke:
            return ()
        self._measurement.require_valid()
        if requested and self._baseline.mode is not BaselineMode.OFF:
            for metric in metrics:
                self._search_once(metric)
        if (entry := self._baseline.entry) is None:
            return ()
        alpha = _ALPHA / max(len(metrics), 1)
        verdicts = [self._compare(metric, entry, tolerance, alpha=alpha, requested=requested) for metric in metrics]
        return [verdict for verdict in verdicts if verdict is not None]

    def _compare(
        self, metric: Metric, entry: Entry, tolerance: float, *, alpha: float, requested: bool
    ) -> Verdict | None:
        """The verdict on one metric; None if it cannot be compared, and :attr:`missing` then names it."""
        if not requested and self._measurement.metrics.only_at_least(metric):
            return None  # the search ended as soon as the test's own limit was decided
        if not entry.metrics.get(metric.name):
            self._left_out[metric.label] = "not recorded yet"
            return None
        try:
            return self._decide(metric, entry, tolerance * self._baseline.widening, alpha=alpha)
        except _UnknownMetricError:
            self._left_out[metric.label] = f"not known for {self._experiment.setup.pattern}"
        except TooFewSamplesError as error:
            if requested:
                raise
            self._left_out[metric.label] = describe_too_few(error, self._experiment.settings.duration_ns)
        return None

    def _decide(self, metric: Metric, entry: Entry, tolerance: float, *, alpha: float) -> Verdict:
        """Measure until the change of one metric is decided."""
        before = entry.metrics[metric.name]
        plan = SequentialPlan(
            first=1, last=self._experiment.settings.launches, alpha=alpha, pass_alpha=_ALPHA, fixed_launches=len(before)
        )
        verdict = self._measurement.decide(
            lambda: self._judge_change(metric, before, tolerance, plan=plan), self._next_search(metric)
        )
        if verdict.outcome is not Outcome.FAIL or self._slowdown is None or self._slowdown < _CALIBRATION_NOISE:
            return verdict
        slower = scaled(entry, self._slowdown).metrics[metric.name]
        if self._judge_change(metric, slower, tolerance, plan=plan).outcome is Outcome.FAIL:
            return verdict
        why = (
            f"but this machine takes {self._slowdown:.2f} times as long for the same work as when the baseline was "
            "recorded, which explains it: run it again, or compare interleaved (--perf-against)"
        )
        return replace(verdict, outcome=Outcome.INCONCLUSIVE, reason=f"{verdict.reason}; {why}")

    @functools.cached_property
    def _slowdown(self) -> float | None:
        """How many times slower the machine is than when the baseline was recorded; measured at the first access."""
        return self._baseline.slowdown()

    def _judge_change(
        self, metric: Metric, before: Sequence[LaunchValue], tolerance: float, *, plan: SequentialPlan
    ) -> Verdict:
        self._measurement.require_valid()
        now = self._measurement.metrics
        if metric.percentile is not None:
            now.latency_ns(metric.percentile)  # raises TooFewSamplesError
        values = () if now.only_at_least(metric) else now.launch_values(metric)
        if not values:
            raise _UnknownMetricError
        verdict = judge_change(
            metric,
            values,
            before,
            tolerance=tolerance,
            plan=plan,
            size=self._measurement.sample_size(metric),
            in_flight=self._experiment.setup.load.in_flight,
        )
        note = self._baseline.note
        return replace(verdict, reason=f"{verdict.reason}; {note}") if note else verdict

    def _search_once(self, metric: Metric) -> None:
        """Search for NMRT if no search has found it yet."""
        search = self._next_search(metric)
        if search is not None and not self._measurement.metrics.launch_values(metric):
            search()

    def _next_search(self, metric: Metric) -> Callable[[], None] | None:
        """What gathers more values of this metric: a search for NMRT; None for another launch."""
        if metric.of is not None:
            return None
        return functools.partial(self._measurement.search, metric.objective)


class _UnknownMetricError(Exception):
    """The measurement has no value of a metric."""
