"""Why a test failed: whether it is profiled by function or its memory traced by line, and what came of it.

Neither is part of a verdict, of the metrics or of the budget.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.causes.attribution import profile_record
from pytest_mlpatterns.analysis.causes.growth import held_record
from pytest_mlpatterns.analysis.metrics.definitions import GROWTHS, metric_named, with_role
from pytest_mlpatterns.analysis.metrics.metric import Role
from pytest_mlpatterns.config.settings import ProfileMode
from pytest_mlpatterns.engines.engine import engine_named
from pytest_mlpatterns.errors import MlpatternsError
from pytest_mlpatterns.measurement.held_memory import held_under_load
from pytest_mlpatterns.measurement.profiled_pair import ProfiledPair, ProfiledSide
from pytest_mlpatterns.measurement.variant import Variant
from pytest_mlpatterns.profiling.frame_names import SourceNames
from pytest_mlpatterns.profiling.py_spy import find_py_spy
from pytest_mlpatterns.profiling.recording import RawFrame
from pytest_mlpatterns.records.profile import ProfileRecord
from pytest_mlpatterns.records.resource_track import HeldRecord
from pytest_mlpatterns.records.verdict import Outcome
from pytest_mlpatterns.units import Unit
from pytest_mlpatterns.wording import first_line

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pytest_mlpatterns.judging.experiment import Experiment
    from pytest_mlpatterns.judging.sequential import SequentialMeasurement
    from pytest_mlpatterns.records.profile import Frame
    from pytest_mlpatterns.records.verdict import Verdict
    from pytest_mlpatterns.revision.client import RevisionClient
    from pytest_mlpatterns.revision.worktree import Worktree
    from pytest_mlpatterns.serving.start_options import StartOptions

__all__ = ["Causes", "names_functions", "trace_limit_ns", "why_not_readable"]


_LONGEST_WARMUP_NS = 1_000_000_000
"""Longest warm-up of a profiled pair, in nanoseconds; both services are warm from the comparison."""
_WHAT = "naming the functions that got slower"
_NOT_OF_REQUESTS = ("cold_start", "recovery", "unhurt")
"""Times that no function of a request explains."""
_TIMES_THE_START = 40
"""Multiple of a start after which a traced one is given up: models that make Python objects took 11 to 28 times as long
under tracemalloc, and a machine that is busy now was perhaps quieter before."""
_LONGEST_NS = 300_000_000_000
"""Limit of a traced start that no start of the model raises further: a line of a report is worth no longer wait."""


class Causes:
    """Explains the failures of one test.

    Args:
        experiment: what is measured.
        measurement: counts the time that this takes.

    Attributes:
        profile: where the time went by function, or why that is not known; None if nothing asked for it.
        held: which lines hold more memory, or why that is not known; None if nothing asked for it.
    """

    def __init__(self, experiment: Experiment, measurement: SequentialMeasurement) -> None:
        self._experiment = experiment
        self._measurement = measurement
        self.profile: ProfileRecord | None = None
        self.held: HeldRecord | None = None

    def profile_alone(self) -> None:
        """Profile the present, if the test asks for it and is compared with no revision."""
        experiment = self._experiment
        if experiment.settings.profile is ProfileMode.ON and experiment.revision is None and not experiment.smoke:
            self._profile_once(None)

    def profile_comparison(self, revision: RevisionClient, verdicts: Sequence[Verdict]) -> None:
        """Profile both revisions, if the verdicts ask for it and that was not done before.

        Args:
            revision: the other revision, whose process still runs; no deployment of the test does.
            verdicts: of the comparison.
        """
        mode, is_known = self._experiment.settings.profile, names_functions(verdicts)
        if mode is ProfileMode.ON or (mode is ProfileMode.AUTO and is_known):
            self._profile_once(revision, is_known=is_known)

    def trace_comparison(
        self, revision: RevisionClient, verdicts: Sequence[Verdict], starts_ns: Sequence[int] = ()
    ) -> None:
        """Find the lines that hold more memory, or leak it, if that failed the test and was not done before.

        Args:
            revision: as for :meth:`profile_comparison`.
            verdicts: of the comparison.
            starts_ns: as for :func:`trace_limit_ns`.
        """
        held = with_role(Role.HELD)
        failed = [held[one.metric] for one in verdicts if one.outcome is Outcome.FAIL and one.metric in held]
        is_off = self._experiment.settings.profile is ProfileMode.OFF
        if is_off or self.held is not None or not failed:
            return
        with self._measurement.beside_budget():
            try:
                self.held = _held(
                    self._experiment, revision, starts_ns, of_growth=all(one.name in GROWTHS for one in failed)
                )
            except MlpatternsError as error:
                self.held = HeldRecord(f"memory by line is not known: {first_line(error)}")

    def _profile_once(self, revision: RevisionClient | None, *, is_known: bool = False) -> None:
        if self.profile is not None:
            return
        with self._measurement.beside_budget():
            try:
                self.profile = _profile(self._experiment, revision, is_known=is_known)
            except MlpatternsError as error:
                self.profile = ProfileRecord(note=f"no profile: {first_line(error)}")


def names_functions(verdicts: Sequence[Verdict]) -> bool:
    """Whether one of these failed, and the time of functions can explain it."""
    return any(
        verdict.outcome is Outcome.FAIL
        and verdict.metric not in _NOT_OF_REQUESTS
        and metric_named(verdict.metric).unit in (Unit.DURATION, Unit.RATE)
        for verdict in verdicts
    )


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
        now = ProfiledSide(present, SourceNames(options.root, _present_top(options, tree)))
        before = ProfiledSide(reference, SourceNames(tree.directory, tree.root))
    pair = ProfiledPair(
        now, before, generator=experiment.generator, profiler=profiler, on_progress=experiment.driver.on_progress
    )
    line_before = None if before is None else before.names.line
    return profile_record(pair.run(), now.names.line, line_before, is_known=is_known)


def _present_top(options: StartOptions, reference: Worktree) -> Path:
    """Top of the tree that the present is imported from: the user's, or that of an old commit which is measured."""
    return reference.present_root if options.trees is None else options.trees[1]


def why_not_readable(experiment: Experiment) -> str:
    """Why this run cannot look into the processes of a test; empty if it can."""
    if experiment.system.is_attached:
        return f"the processes of {experiment.setup.pattern} are not those of this run"
    if not engine_named(experiment.settings.engine).is_readable:
        return f'processes of engine="{experiment.settings.engine}" may run on other machines'
    return ""


def trace_limit_ns(startup_timeout_ns: int, starts_ns: Sequence[int]) -> int:
    """Time limit for a start that is traced, and for each of its answers.

    Args:
        startup_timeout_ns: of the test, which is kept at least.
        starts_ns: how long its model took to start without tracing, on both sides and in these minutes.
    """
    return max(startup_timeout_ns, min(_TIMES_THE_START * max(starts_ns, default=0), _LONGEST_NS))


def _held(experiment: Experiment, revision: RevisionClient, starts_ns: Sequence[int], *, of_growth: bool) -> HeldRecord:
    if why := why_not_readable(experiment):
        return HeldRecord(f"memory by line is not known: {why}")
    tree, root = revision.worktree, experiment.system.options.root
    names = (SourceNames(tree.directory, tree.root), SourceNames(root, _present_top(experiment.system.options, tree)))
    theirs = replace(experiment.plan, payload=revision.setup().payload)
    limit_ns = trace_limit_ns(experiment.settings.startup_timeout_ns, starts_ns)
    sides = (
        Variant(revision.name, functools.partial(revision.start, traced=True, timeout_ns=limit_ns), theirs),
        Variant(
            "the present",
            functools.partial(experiment.system.start, traced=True, timeout_ns=limit_ns),
            experiment.plan,
        ),
    )
    held = [held_under_load(side, experiment.generator, of_growth=of_growth) for side in sides]
    before, now = held
    if before is None or now is None:
        return HeldRecord("memory by line is known of models only; a service of your own can run under memray")
    found = tuple(functools.partial(_function, one) for one in names)
    return held_record(before, now, names=(found[0], found[1]), source_now=names[1].line)


def _function(names: SourceNames, file: str, line: int) -> Frame:
    return names.frame(RawFrame("<module>", file, line))
