"""Percentiles that a test cannot judge at the pace of its answers: one sentence, before all launches are measured.

It must not know how launches are measured, nor what a percentile is compared with.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.intervals import min_samples
from pytest_mlpatterns.errors import TooFewSamplesError
from pytest_mlpatterns.units import format_count, format_duration
from pytest_mlpatterns.wording import listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.analysis.metric import Metric
    from pytest_mlpatterns.analysis.metrics import Metrics
    from pytest_mlpatterns.judging.experiment import Experiment
    from pytest_mlpatterns.judging.sequential import SequentialMeasurement
    from pytest_mlpatterns.records.launch import Launch

__all__ = ["announce_tails", "describe_too_few", "tails_left_out", "with_needed_budget"]

_SPARE = 1.1
"""Factor on the window that is recommended, since the number of requests varies."""

_NAMED = 4
"""Metrics that the sentence names as judged: as many as are read at a glance."""


def describe_too_few(error: TooFewSamplesError, duration_ns: int) -> str:
    """What a percentile needs, and the window that gives it: ``needs 459 requests, there were 300 (duration="5s")``."""
    if not error.found:
        return str(error)
    window = _longer(duration_ns, error.needed, error.found)
    return f"needs {error.needed:,} requests, there were {error.found:,} ({window})"


def with_needed_budget(error: TooFewSamplesError, launches: Sequence[Launch], spent_s: float) -> TooFewSamplesError:
    """The error with the time of a request and the budget that it takes, if a request is longer than the window.

    Args:
        error: of all launches.
        launches: so far.
        spent_s: seconds that all of them took.
    """
    if not launches or launches[-1].given_window_ns is None or not error.found:
        return error
    needed_s = math.ceil(_SPARE * spent_s * error.needed / error.found)
    took = format_duration(launches[-1].longest_answer_ns)
    text = f'{error}; a request takes up to {took}, so give budget="{needed_s}s"'
    return TooFewSamplesError(text, needed=error.needed, found=error.found)


def tails_left_out(compared: Sequence[Metric], present: Metrics) -> dict[str, str]:
    """Why percentiles are not judged, by their labels: one sentence for all that need more requests than there were.

    Args:
        compared: metrics that are compared.
        present: what was measured.
    """
    tails = _beyond(compared, present.requests)
    if not tails or not present.requests:
        return {}
    duration_ns = present.launches[-1].window.duration_ns
    window = _longer(duration_ns, min_samples(tails[-1].percentile or 50.0), present.requests)
    return {tail.label: f"{_sentence(tails, present)} ({window})" for tail in tails}


def announce_tails(experiment: Experiment, measurement: SequentialMeasurement, compared: Sequence[Metric]) -> None:
    """Report the percentiles that even all launches of the budget cannot judge, as the launches so far show.

    Args:
        experiment: whose driver takes the sentence.
        measurement: at least one launch.
        compared: metrics that are compared.
    """
    present = measurement.metrics
    launches = len(present.launches)
    in_time = launches + math.floor(measurement.left_s * launches / max(measurement.spent_s, 1e-9))
    most = max(min(in_time, experiment.settings.launches), launches)
    tails = _beyond(compared, math.floor(present.requests * most / launches))
    if not tails or not present.requests:
        return
    open_yet = _beyond(compared, present.requests)
    others = [metric.label for metric in compared if metric not in open_yet]
    named = ", ".join([*others[:_NAMED], *(["…"] if len(others) > _NAMED else [])])
    judged = f"; judged are {named}" if others else ""
    experiment.driver.on_note(f"{_sentence(tails, present)}{judged}")


def _beyond(compared: Sequence[Metric], requests: int) -> list[Metric]:
    """The percentiles that need more requests, the lowest first."""
    tails = [one for one in compared if one.percentile is not None and min_samples(one.percentile) > requests]
    return sorted(tails, key=lambda one: one.percentile or 0.0)


def _sentence(tails: Sequence[Metric], present: Metrics) -> str:
    """What they need: ``at 4.0 answers a second p95 latency needs 23 s and p99 latency needs 115 s``."""
    window_ns = sum(launch.window.duration_ns for launch in present.launches)
    needed = {tail.label: min_samples(tail.percentile or 50.0) for tail in tails}
    times_ns = {label: size * window_ns / present.requests for label, size in needed.items()}
    needs = [f"{label} needs {format_duration(math.ceil(time_ns / 1e9) * 1e9)}" for label, time_ns in times_ns.items()]
    return f"at {format_count(present.requests * 1e9 / window_ns)} answers a second {listed(needs)}"


def _longer(duration_ns: int, needed: int, found: int) -> str:
    """The window with enough requests, if all launches so far had too few."""
    return f'duration="{math.ceil(_SPARE * duration_ns / 1e9 * needed / found)}s"'
