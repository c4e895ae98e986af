"""What one perf test is about: the system under test, its workload, and what it is compared with.

The plugin builds it. This module must not know pytest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from msgspec import Struct, field
from msgspec.structs import replace

from pytest_mlpatterns.analysis.changes.series import USUAL_SCATTER, LaunchScatter
from pytest_mlpatterns.analysis.statistics.alpha_spending import FEWEST_PAIRS
from pytest_mlpatterns.engines.engine import Cluster
from pytest_mlpatterns.loadgen.generator import Generator
from pytest_mlpatterns.measurement.interleaved import InterleavedRun
from pytest_mlpatterns.measurement.launch import LaunchRunner
from pytest_mlpatterns.measurement.paired_blocks import BlockDesign
from pytest_mlpatterns.measurement.system_under_test import Starts, SystemUnderTest
from pytest_mlpatterns.measurement.variant import Variant
from pytest_mlpatterns.patterns import Pattern
from pytest_mlpatterns.records.addressing import Progress
from pytest_mlpatterns.records.objective import Objective
from pytest_mlpatterns.records.setup import Setup
from pytest_mlpatterns.records.verdict import NOTHING_ACCEPTED, Accepted, held_by
from pytest_mlpatterns.serving.deployment import Deployment
from pytest_mlpatterns.system.cpu_share import ReplicaCores
from pytest_mlpatterns.workload.plan import LoadPlan

if TYPE_CHECKING:
    from pytest_mlpatterns.baseline.lookup import BaselineMatch
    from pytest_mlpatterns.config.settings import Settings
    from pytest_mlpatterns.judging.budget import Forecast
    from pytest_mlpatterns.revision.client import RevisionClient


_SHORTENED = 4  # Part of the budget for which windows are planned at least, however little the run has left


class LoadDriver(Struct, frozen=True):
    """What sends the load of every test of a session."""

    generators: Mapping[str, Generator]  # the load generators by the place where they run
    on_progress: Callable[[Progress], None]  # takes the progress of the load several times a second
    smoke: bool = False  # each test sends one request instead of a load
    # takes a sentence that a reader should know before the measurement ends
    on_note: Callable[[str], None] = lambda _note: None
    # takes what is done once the load is over, and how long that may take; nothing when it is done
    on_search: Callable[[str], None] = lambda _text: None
    # takes what the test may take, once that is known, after each launch and pair
    on_forecast: Callable[[Forecast], None] = lambda _forecast: None

    def on(self, place: str) -> Generator:
        """The load generator that runs at this place, a value of ``generators_on=``."""
        return self.generators[place]

    def close(self) -> None:
        """End the processes of all load generators."""
        for generator in self.generators.values():
            generator.close()


class Settlement(Struct, frozen=True):
    """What decides a test that its stored baseline does not: the code that the baseline was recorded from."""

    revision: RevisionClient | None  # the same test at that code; None if the working tree is that code
    name: str  # of that code in messages, such as ``the baseline's commit (1a2b3c4)``
    note: str = ""  # half a sentence on how the commit differs from what was measured; empty if it does not


class Experiment(Struct, frozen=True, kw_only=True):
    """Everything that one perf test measures and compares."""

    test: str  # the test's id
    settings: Settings  # what the test was asked to do
    setup: Setup  # the facts that make two results comparable
    system: SystemUnderTest  # what is deployed
    plan: LoadPlan  # what is sent to it
    driver: LoadDriver  # what sends it
    command: str  # command line that runs this test alone, with the same baseline
    baseline: BaselineMatch  # the stored entry to compare with, or why there is none
    # the same test at another git revision, which then replaces the baseline; None without one
    revision: RevisionClient | None = None
    # finds the code that the baseline was recorded from, for a test that the file does not decide; raises
    # :class:`pytest_mlpatterns.revision.commits.UnknownRevisionError`. None if the file alone decides
    settle: Callable[[], Settlement] | None = None
    comparison_required: bool = False  # a test that is not compared with the revision fails, also if it is new
    # searches for NMRT that a ranking needs, by objective; None is the search without one
    searches: tuple[Objective | None, ...] = ()
    ranked: tuple[str, ...] = ()  # names of the metrics that a ranking weighs or limits
    cluster: Cluster | None = None  # the machines that take part beside this one; None if none do
    # worsenings that the team has agreed to, by the files and markers of this tree; :attr:`agreed` is less
    accepted: Accepted = NOTHING_ACCEPTED
    run_ns: int | None = None  # time that the run has left for the test; None for any
    starts: Starts = field(default_factory=Starts)  # what its starts have come to
    results_file: str = ""  # that the run will write, as a command names it; empty if it writes none
    scatter: LaunchScatter = USUAL_SCATTER  # by how much the launches of this test differ, where its history knows it

    @property
    def budget_ns(self) -> int:
        """The time of the test: its budget, or what the run has left for it."""
        own_ns = self.settings.budget_ns
        return own_ns if self.run_ns is None else min(own_ns, self.run_ns)

    @property
    def planned_ns(self) -> int:
        """The part of it that its loads are planned for."""
        return min(self.settings.planned_ns, self.budget_ns)

    def within(self, run_ns: int) -> Experiment:
        """The same with the time that the run has left for it, for which windows are planned too, within reason."""
        given_ns = self.plan.budget_ns
        planned_ns = max(min(given_ns, run_ns), given_ns // _SHORTENED)
        return replace(self, run_ns=run_ns, plan=replace(self.plan, budget_ns=planned_ns))

    @property
    def smoke(self) -> bool:
        """Whether one request is sent instead of a load, and no verdict is made."""
        return self.driver.smoke

    @property
    def agreed(self) -> Accepted:
        """What is accepted now: once the revision has answered, without what the marker of the test has there too."""
        if self.revision is None or not self.accepted.in_force:
            return self.accepted
        theirs = [one.identity for one in self.revision.accept]
        return self.accepted.without(theirs, held_by(self.revision.worktree.revision.name))

    @property
    def changes(self) -> bool:
        """Whether the load changes through the window by itself, or a function beside it may change the latency."""
        return self.setup.load.changes or self.settings.during is not None

    @property
    def generator(self) -> Generator:
        """The load generator of this test."""
        return self.driver.on(self.settings.generators_on)

    def runner(self) -> LaunchRunner:
        """Measures launches of the system under test, none of them while the other revision still collects tests."""
        return LaunchRunner(
            self.starts.patient(self.system.start),
            self.plan,
            self.generator,
            on_progress=self.driver.on_progress,
            smoke=self.smoke,
            settle=(lambda: None) if self.revision is None else self.revision.await_setup,
        )

    def variant(self, name: str) -> Variant:
        """The system under test as one variant of an interleaved run."""
        return Variant(name, self.starts.patient(self.system.start), self.plan)

    def variant_under(self, pattern: Pattern, replica_cores: ReplicaCores | None = None) -> Variant:
        """The same model under another pattern, with the same load.

        ``replica_cores``: cores of its own for each replica, instead of the test's ``cpus=``.
        """
        name = str(pattern)
        return Variant(name, self.starts.patient(self.system.start_under(pattern, replica_cores), name), self.plan)

    def interleave(
        self, first: Variant, second: Variant, look: Callable[[Deployment, Deployment], None] | None = None
    ) -> InterleavedRun:
        """An interleaved run of two variants; nothing is started yet. ``look`` is called once when both run."""
        on_progress = self.driver.on_progress
        return InterleavedRun(first, second, self.generator, on_progress=on_progress, design=self.design, look=look)

    @property
    def design(self) -> BlockDesign:
        """The design of pairs: the fewest are measured in any case, in half of what is planned if less is left."""
        least_ns = self.settings.planned_ns // (2 * FEWEST_PAIRS)
        return BlockDesign(least_ns=least_ns, beyond_ns=self.budget_ns - self.planned_ns)
