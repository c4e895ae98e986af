"""Whether a test is profiled, and what came of it. A profile never is part of a verdict, of metrics or of a budget."""

from __future__ import annotations

import functools
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.attribution import profile_record
from pytest_mlpatterns.analysis.metric_definitions import metric_named
from pytest_mlpatterns.config.settings import ProfileMode
from pytest_mlpatterns.errors import MlpatternsError
from pytest_mlpatterns.measurement.profiled_pair import ProfiledPair, ProfiledSide
from pytest_mlpatterns.measurement.variant import Variant
from pytest_mlpatterns.profiling.py_spy import find_py_spy
from pytest_mlpatterns.profiling.source_names import SourceNames
from pytest_mlpatterns.records.profile import ProfileRecord
from pytest_mlpatterns.records.verdict import Outcome
from pytest_mlpatterns.units import Unit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.judging.experiment import Experiment
    from pytest_mlpatterns.judging.sequential import SequentialMeasurement
    from pytest_mlpatterns.records.verdict import Verdict
    from pytest_mlpatterns.revision.client import RevisionClient

__all__ = ["names_functions", "profile_alone", "profile_comparison", "why_not_readable"]

_LONGEST_WARMUP_NS = 1_000_000_000
_WHAT = "naming the functions that got slower"
_NOT_OF_REQUESTS = ("cold_start", "recovery")
"""Times that no function of a request explains."""


def names_functions(verdicts: Sequence[Verdict]) -> bool:
    """Whether one of these failed, and the time of functions can explain it."""
    return any(
        verdict.outcome is Outcome.FAIL
        and verdict.metric not in _NOT_OF_REQUESTS
        and metric_named(verdict.metric).unit in (Unit.DURATION, Unit.RATE)
        for verdict in verdicts
    )


def profile_comparison(
    experiment: Experiment,
    revision: RevisionClient,
    measurement: SequentialMeasurement,
    *,
    verdicts: Sequence[Verdict],
) -> None:
    """Profile both revisions, if the verdicts ask for it and that was not done before.

    Args:
        experiment: what is measured.
        revision: the other revision, whose process still runs; no deployment of the test does.
        measurement: takes the profile, or why there is none, and the time that it took.
        verdicts: of the comparison.
    """
    mode = experiment.settings.profile
    if mode is ProfileMode.ON or (mode is ProfileMode.AUTO and names_functions(verdicts)):
        _profile_once(experiment, revision, measurement, is_known=names_functions(verdicts))


def profile_alone(experiment: Experiment, measurement: SequentialMeasurement) -> None:
    """Profile the present, if the test asks for it and is compared with no revision; arguments as above."""
    if experiment.settings.profile is ProfileMode.ON and experiment.revision is None and not experiment.smoke:
        _profile_once(experiment, None, measurement)


def _profile_once(
    experiment: Experiment,
    revision: RevisionClient | None,
    measurement: SequentialMeasurement,
    *,
    is_known: bool = False,
) -> None:
    if measurement.profile is not None:
        return
    started = time.perf_counter()
    try:
        measurement.profile = _profile(experiment, revision, is_known=is_known)
    except MlpatternsError as error:
        measurement.profile = ProfileRecord(note=f"no profile: {str(error).partition(chr(10))[0]}")
    finally:
        measurement.interleaved_s += time.perf_counter() - started


def _profile(experiment: Experiment, revision: RevisionClient | None, *, is_known: bool) -> ProfileRecord:
    if why := why_not_readable(experiment):
        return ProfileRecord(note=f"no profile: {why}")
    options = experiment.system.options
    profiler = find_py_spy("--perf-profile on" if revision is None else _WHAT, options.directory)
    plan = replace(experiment.plan, warmup_ns=min(experiment.plan.warmup_ns or 0, _LONGEST_WARMUP_NS))
    present = Variant("the present", functools.partial(experiment.system.start, profiled=True), plan)
    if revision is None:
        now, before = ProfiledSide(present, SourceNames(options.root)), None
    else:
        tree = revision.worktree
        theirs = replace(plan, payload=revision.setup().payload)
        reference = Variant(revision.name, functools.partial(revision.start, profiled=True), theirs)
        now = ProfiledSide(present, SourceNames(options.root, tree.present_root))
        before = ProfiledSide(reference, SourceNames(tree.directory, tree.root))
    pair = ProfiledPair(
        now, before, generator=experiment.generator, profiler=profiler, on_progress=experiment.driver.on_progress
    )
    line_before = None if before is None else before.names.line
    return profile_record(pair.run(), now.names.line, line_before, is_known=is_known)


def why_not_readable(experiment: Experiment) -> str:
    """Why this run cannot look into the processes of a test; empty if it can."""
    if experiment.system.is_attached:
        return f"the processes of {experiment.setup.pattern} are not those of this run"
    if experiment.settings.engine != "local":
        return f'processes of engine="{experiment.settings.engine}" may run on other machines'
    return ""
