"""What one perf test is about: the system under test, its workload, and what it is compared with.

An :class:`Experiment` starts deployments, runs them against each other, and measures launches of them. The plugin
builds those of tests from the parts here, ``measure`` its own. This module must not know pytest.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.analysis.changes.series import USUAL_SCATTER, LaunchScatter
from pytest_mlpatterns.analysis.statistics.alpha_spending import FEWEST_PAIRS
from pytest_mlpatterns.engines.engine import Cluster, launch
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.measurement.interleaved import InterleavedRun
from pytest_mlpatterns.measurement.launch import LaunchRunner
from pytest_mlpatterns.measurement.paired_blocks import BlockDesign
from pytest_mlpatterns.measurement.variant import Variant
from pytest_mlpatterns.patterns import Pattern, Single
from pytest_mlpatterns.patterns.pattern import describe_env, name_of
from pytest_mlpatterns.records.setup import Setup, SystemDescription
from pytest_mlpatterns.records.verdict import NOTHING_ACCEPTED, Accepted, held_by
from pytest_mlpatterns.serving.model import NoModelError, ServicePlan, service_plan
from pytest_mlpatterns.serving.targets import App, Command, Target, Url
from pytest_mlpatterns.units import format_duration
from pytest_mlpatterns.wording import shown
from pytest_mlpatterns.workload.payload import Payload, read_payload
from pytest_mlpatterns.workload.plan import LoadPlan
from pytest_mlpatterns.workload.request_builder import RequestBuilder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import ModuleType

    from pytest_mlpatterns.baseline.lookup import BaselineMatch
    from pytest_mlpatterns.config.settings import Settings
    from pytest_mlpatterns.judging.budget import Forecast
    from pytest_mlpatterns.loadgen.generator import Generator
    from pytest_mlpatterns.records.addressing import Progress
    from pytest_mlpatterns.records.objective import Objective
    from pytest_mlpatterns.records.samples import Traced
    from pytest_mlpatterns.revision.client import RevisionClient
    from pytest_mlpatterns.serving.deployment import Deployment
    from pytest_mlpatterns.serving.model import StartOptions
    from pytest_mlpatterns.system.cpu_share import ReplicaCores


_SHORTENED = 4  # Part of the budget for which windows are planned at least, however little the run has left


class ModelUnderTest(Struct, frozen=True):
    """A model of the test's own, which this package can serve under any pattern."""

    model: object  # a callable, a class or an import string; None if the pattern brings its own
    by_value: Sequence[ModuleType]  # modules that no other process can import by name
    test: str  # the test's id, for messages
    fixture: str  # the fixture that the test uses, for messages
    why_none: str = ""  # why there is no model, if its fixture returned none; empty if there is no such fixture
    misspelled: str = ""  # end of the message if there is no such fixture; empty if no name resembles it

    def plan(self, pattern: Pattern) -> ServicePlan:
        """Pack the model for a pattern."""
        try:
            return service_plan(pattern, self.model, self.by_value)
        except NoModelError as error:
            why = self.why_none or f"{error}{self.misspelled}"
            raise SettingError(f"{self.test} asks for {self.fixture}, but {why}") from error
        except SettingError as error:
            raise SettingError(f"{self.test} asks for {self.fixture}, but {error}") from error


class SystemUnderTest(Struct, frozen=True):
    """What is deployed, and how it is started."""

    service: ServicePlan | Target  # a packed model, or a service that exists already
    options: StartOptions  # time limit, first request, directories
    # the model that ``service`` was packed from; None for a service that exists already
    model: ModelUnderTest | None = None
    by_value: Sequence[ModuleType] = ()  # modules that no other process can import by name

    @property
    def is_attached(self) -> bool:
        """Whether the service runs already and is only connected to."""
        return isinstance(self.service, Url)

    def start(self, *, profiled: bool = False, traced: Traced = "", timeout_ns: int | None = None) -> Deployment:
        """Start a deployment and wait until it is ready.

        ``timeout_ns``: start-up time limit; None for that of the test.
        """
        limit_ns = self.options.timeout_ns if timeout_ns is None else timeout_ns
        options = replace(self.options, profiled=profiled, traced=traced, timeout_ns=limit_ns)
        if isinstance(self.service, ServicePlan):
            return launch(self.service, options)
        from pytest_mlpatterns.serving.external.start import deploy_target

        return deploy_target(self.service, options)

    def start_under(self, pattern: Pattern, replica_cores: ReplicaCores | None = None) -> Callable[[], Deployment]:
        """Pack the same model for another pattern; the result starts it.

        ``replica_cores``: cores of its own for each replica, instead of the test's ``cpus=``.
        """
        if self.model is None:
            raise SettingError(f"{self.service} under {pattern}, expected a model that this package serves")
        options = self.options if replica_cores is None else replace(self.options, replica_cores=replica_cores)
        return functools.partial(launch, self.model.plan(pattern), options)


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
    results_file: str = ""  # that the run will write, as a command names it; empty if it writes none
    scatter: LaunchScatter = USUAL_SCATTER  # by how much the launches of this test differ, where its history knows it

    @property
    def budget_ns(self) -> int:
        """The time of the test: its budget, or what the run has left for it."""
        own_ns = self.settings.budget_ns
        return own_ns if self.run_ns is None else min(own_ns, self.run_ns)

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
            self.system.start,
            self.plan,
            self.generator,
            on_progress=self.driver.on_progress,
            smoke=self.smoke,
            settle=(lambda: None) if self.revision is None else self.revision.await_setup,
        )

    def variant(self, name: str, *, profiled: bool = False) -> Variant:
        """The system under test as one variant of an interleaved run; ``profiled`` as for :class:`SystemUnderTest`."""
        start = functools.partial(self.system.start, profiled=True) if profiled else self.system.start
        return Variant(name, start, self.plan)

    def variant_under(self, pattern: Pattern, replica_cores: ReplicaCores | None = None) -> Variant:
        """The same model under another pattern, with the same load.

        ``replica_cores``: cores of its own for each replica, instead of the test's ``cpus=``.
        """
        return Variant(str(pattern), self.system.start_under(pattern, replica_cores), self.plan)

    def interleave(
        self, first: Variant, second: Variant, look: Callable[[Deployment, Deployment], None] | None = None
    ) -> InterleavedRun:
        """An interleaved run of two variants; nothing is started yet. ``look`` is called once when both run.

        The fewest pairs are measured in any case, in half of the budget if less is left.
        """
        design = BlockDesign(least_ns=self.settings.budget_ns // (2 * FEWEST_PAIRS))
        on_progress = self.driver.on_progress
        return InterleavedRun(first, second, self.generator, on_progress=on_progress, design=design, look=look)


def setup_of(settings: Settings, payload: Payload, target: Target | None, *, model: str) -> Setup:
    """The facts that make two results comparable."""
    place = settings.generators_on
    during = "" if settings.during is None else name_of(settings.during)
    return Setup(
        pattern=SystemDescription(str(settings.pattern)) if target is None else target.describe(),
        load=settings.schedule.describe().beside(during),
        wire=str(settings.wire),
        payload=payload.digest,
        model=model,
        headers=payload.headers,
        duration=format_duration(settings.duration_ns),
        warmup="auto" if settings.warmup_ns is None else format_duration(settings.warmup_ns),
        timeout=format_duration(settings.timeout_ns),
        generators=str(settings.generators) + ("" if place == "local" else f" on {place}"),
        cpus="" if settings.cpus is None else f"{settings.cpus:g}",
        env=describe_env(settings.pattern),
        engine="" if target is not None or settings.engine == "local" else settings.engine,
        order="shuffled" if payload.is_shuffled else "",
    )


def read_inputs(
    settings: Settings, given: object, target: Target | None, *, builder: RequestBuilder | None = None
) -> Payload:
    """The payload of a test: its inputs as requests of its load.

    ``given``: as ``perf_payload`` or the marker has it. ``target``: the service; None for a model that this package
    serves. ``builder``: what makes the requests from inputs; None if the wire does.
    """
    return read_payload(given, settings.wire, "" if target is None else target.path, builder=builder)


def load_plan(settings: Settings, payload: Payload) -> LoadPlan:
    """What is sent, when, and for how long."""
    return LoadPlan(
        payload=payload,
        schedule=settings.schedule,
        duration_ns=settings.duration_ns,
        warmup_ns=settings.warmup_ns,
        timeout_ns=settings.timeout_ns,
        check=settings.check,
        generators=settings.generators,
        stretches=settings.stretches,
        tokens=settings.tokens,
        budget_ns=settings.budget_ns,
        launches=settings.launches,
        overloads=settings.overload,
        during=settings.during,
    )


def system_under_test(
    model: ModelUnderTest, pattern: Pattern, target: Target | None, *, options: StartOptions
) -> SystemUnderTest:
    """What is deployed: the target, or the model under the pattern."""
    if target is not None:
        return SystemUnderTest(target, options, by_value=model.by_value)
    return SystemUnderTest(model.plan(pattern), options, model, model.by_value)


def checked_target(value: object, argument: str) -> Target | None:
    """The service that exists already; None without one."""
    if value is not None and not isinstance(value, Url | App | Command):
        raise SettingError(
            f"{argument} is {shown(value)}, expected App('package.module:app'), Command('serve --port {{port}}') or "
            "Url('http://127.0.0.1:8000/predict')"
        )
    return value


def require_own_processes(settings: Settings, target: Target | None, caller: str) -> None:
    """Refuse ``cpus=`` of a service that runs already: it keeps the processor that it has."""
    if settings.cpus is not None and isinstance(target, Url):
        raise SettingError(
            f"{caller}(cpus={settings.cpus:g}) beside {target}, expected a service that the test starts: one that "
            'runs already keeps the cores that it has; write cpus="all"'
        )


def request_builder(settings: Settings, target: Target | None, caller: str) -> RequestBuilder | None:
    """What makes the requests for a target from inputs; None if the wire does."""
    if settings.request is None:
        return None
    if target is None:
        raise SettingError(
            f"{caller}(request=...) without a target, expected one whose requests it makes; see perf_target"
        )
    return RequestBuilder(settings.request, target.path)


def require_no_pattern(settings: Settings, target: Target | None, caller: str, *, argument: str) -> None:
    """Refuse a pattern for a service that exists already. ``target``: the service; None without one."""
    if target is not None and settings.pattern != Single():
        raise SettingError(
            f"{caller}(pattern={settings.pattern}) beside {argument} {target}, expected one of them: a pattern "
            "is how perf_model is served"
        )
