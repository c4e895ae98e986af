"""What shows why a test failed: the time of both sides by function, and the lines that hold their memory.

Loaded when a test asks for it, since a test that passes does not.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from pytest_mlpatterns.analysis.causes.attribution import profile_record
from pytest_mlpatterns.analysis.causes.growth import held_record
from pytest_mlpatterns.engines.engine import engine_named
from pytest_mlpatterns.measurement.held_memory import held_under_load
from pytest_mlpatterns.measurement.profiled_pair import ProfiledPair, ProfiledSide
from pytest_mlpatterns.measurement.variant import Variant, started_deployments
from pytest_mlpatterns.profiling.frame_names import SourceNames
from pytest_mlpatterns.profiling.py_spy import RawFrame, find_py_spy
from pytest_mlpatterns.records.profile import Frame, ProfileRecord
from pytest_mlpatterns.records.samples import HeldRecord, Traced
from pytest_mlpatterns.serving.model import StartOptions

if TYPE_CHECKING:
    from pytest_mlpatterns.judging.experiment import Experiment
    from pytest_mlpatterns.revision.client import RevisionClient
    from pytest_mlpatterns.revision.worktree import Worktree

_LONGEST_WARMUP_NS = 1_000_000_000
"""Longest warm-up of a profiled pair, in nanoseconds; both services are warm from the comparison."""
_WHAT = "naming the functions that got slower"
_TIMES_THE_START = 40
"""Multiple of a start after which a traced one is given up: models that make Python objects took 11 to 28 times as long
under tracemalloc, and a machine that is busy now was perhaps quieter before."""
_LONGEST_NS = 300_000_000_000
"""Limit of a traced start that no start of the model raises further: a line of a report is worth no longer wait."""
_LATE_NS = 1_000_000_000  # Time by which a start may outlast the search, whose limit is the reason that is reported


def profile_of(
    experiment: Experiment, revision: RevisionClient | None, *, is_known: bool, longest_ns: int | None = None
) -> ProfileRecord:
    """Where both sides spend their time by function, or the present alone if there is no other revision.

    ``longest_ns``: time that the search may take in all, so that no start goes on for longer; None for any.
    """
    if why := why_not_readable(experiment):
        return ProfileRecord(note=f"no profile: {why}")
    options = experiment.system.options
    profiler = find_py_spy("--perf-profile on" if revision is None else _WHAT, options.directory)
    plan = replace(experiment.plan, warmup_ns=min(experiment.plan.warmup_ns or 0, _LONGEST_WARMUP_NS))
    limit_ns = _within(experiment.settings.startup_timeout_ns, longest_ns)
    start = functools.partial(experiment.system.start, profiled=True, timeout_ns=limit_ns)
    present = Variant("the working tree", start, plan)
    if revision is None:
        now, before = ProfiledSide(present, SourceNames(options.root)), None
    else:
        tree = revision.worktree
        theirs = replace(plan, payload=revision.setup().payload)
        start = functools.partial(revision.start, profiled=True, timeout_ns=limit_ns)
        reference = Variant(revision.name, start, theirs)
        now = ProfiledSide(present, SourceNames(options.root, _present_top(options, tree)))
        before = ProfiledSide(reference, SourceNames(tree.directory, tree.root))
    pair = ProfiledPair(
        now, before, generator=experiment.generator, profiler=profiler, on_progress=experiment.driver.on_progress
    )
    line_before = None if before is None else before.names.line
    return profile_record(pair.run(), now.names.line, line_before, is_known=is_known)


def _present_top(options: StartOptions, reference: Worktree) -> Path:
    """Top of the tree that the present is imported from: the user's, or an old commit's which is measured."""
    return reference.present_root if options.trees is None else options.trees[1]


def why_not_readable(experiment: Experiment) -> str:
    """Why this run cannot look into the processes of a test; empty if it can."""
    if experiment.system.is_attached:
        return f"the processes of {experiment.setup.pattern} are not those of this run"
    if not engine_named(experiment.settings.engine).is_readable:
        return f'processes of engine="{experiment.settings.engine}" may run on other machines'
    return ""


def trace_limit_ns(startup_timeout_ns: int, starts_ns: Sequence[int]) -> int:
    """Time limit for a start that is traced, and for each of its answers; at least the test's."""
    return max(startup_timeout_ns, min(_TIMES_THE_START * max(starts_ns, default=0), _LONGEST_NS))


def _within(limit_ns: int, longest_ns: int | None) -> int:
    """The time limit of a start in a search, which itself is over before the start is."""
    return limit_ns if longest_ns is None else min(limit_ns, longest_ns + _LATE_NS)


def held_by(
    experiment: Experiment,
    revision: RevisionClient,
    starts_ns: Sequence[int],
    *,
    of_growth: bool,
    longest_ns: int | None,
) -> HeldRecord:
    """Which lines hold more memory than at the other revision; ``longest_ns`` as for :func:`profile_of`."""
    if why := why_not_readable(experiment):
        return HeldRecord(f"memory by line is not known: {why}")
    tree, root = revision.worktree, experiment.system.options.root
    names = (SourceNames(tree.directory, tree.root), SourceNames(root, _present_top(experiment.system.options, tree)))
    theirs = replace(experiment.plan, payload=revision.setup().payload)
    limit_ns = _within(trace_limit_ns(experiment.settings.startup_timeout_ns, starts_ns), longest_ns)
    since: Traced = "load" if of_growth else "start"
    starts = [
        functools.partial(one, traced=since, timeout_ns=limit_ns) for one in (revision.start, experiment.system.start)
    ]
    sides = (Variant(revision.name, starts[0], theirs), Variant("the working tree", starts[1], experiment.plan))
    with started_deployments(sides) as running:
        held = [
            held_under_load(side, deployment, experiment.generator, of_growth=of_growth)
            for side, deployment in zip(sides, running, strict=True)
        ]
    before, now = held
    if before is None or now is None:
        return HeldRecord("memory by line is known of models only; a service of your own can run under memray")
    found = tuple(functools.partial(_function, one) for one in names)
    return held_record(before, now, names=(found[0], found[1]), source_now=names[1].line)


def _function(names: SourceNames, file: str, line: int) -> Frame:
    return names.frame(RawFrame("<module>", file, line))
