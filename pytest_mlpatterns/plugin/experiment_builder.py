"""From a test's fixtures and settings to the experiment that is measured, or to a deployment without load."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from pytest_mlpatterns.baseline.lookup import BaselineMatch
from pytest_mlpatterns.config.run_settings import BaselineMode
from pytest_mlpatterns.config.settings import model_version
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.judging.experiment import Experiment, ModelUnderTest, SystemUnderTest
from pytest_mlpatterns.patterns import Single
from pytest_mlpatterns.patterns.process_env import describe_env
from pytest_mlpatterns.plugin.options import given_options
from pytest_mlpatterns.records.setup import Setup, SystemDescription
from pytest_mlpatterns.serving.engine import StartOptions
from pytest_mlpatterns.serving.targets import App, Command, Url
from pytest_mlpatterns.units import format_duration
from pytest_mlpatterns.wording import shown
from pytest_mlpatterns.workload.payload import read_payload
from pytest_mlpatterns.workload.plan import LoadPlan
from pytest_mlpatterns.workload.request_builder import RequestBuilder

if TYPE_CHECKING:
    from pytest_mlpatterns.config.settings import Settings
    from pytest_mlpatterns.judging.experiment import LoadDriver
    from pytest_mlpatterns.patterns import Pattern
    from pytest_mlpatterns.plugin.ray_session import SessionRay
    from pytest_mlpatterns.serving.deployment import Deployment
    from pytest_mlpatterns.serving.targets import Target
    from pytest_mlpatterns.workload.payload import Payload

__all__ = ["ExperimentBuilder", "FixtureValues"]

_OF_COMMAND = (
    "patterns",
    "cpus",
    "engine",
    "generators-on",
    "ray-address",
    "ray-runtime-env",
    "baseline-file",
    "against",
    "against-files",
)
"""Options that decide what a test is compared with, and so belong to the command that runs it alone."""


@dataclass(frozen=True, slots=True)
class FixtureValues:
    """What the fixtures ``perf_model``, ``perf_payload`` and ``perf_target`` gave a test."""

    model: object
    payload: object
    target: object

    def under(self, settings: Settings) -> FixtureValues:
        """The same, with the model and payload that the marker names instead."""
        model = self.model if settings.model is None else settings.model
        payload = self.payload if settings.payload is None else settings.payload
        return FixtureValues(model, payload, self.target)


class ExperimentBuilder:
    """Builds what the tests of one session measure or deploy.

    Args:
        config: knows the root directory and the conftest files.
        directory: the session's own, for sockets and logs.
        driver: what sends the load.
        ray: the Ray cluster of tests that use one.
        trees: tops of the present tree and of the other revision's, if this pytest serves that revision.
    """

    def __init__(
        self,
        config: pytest.Config,
        directory: Path,
        driver: LoadDriver,
        *,
        ray: SessionRay,
        trees: tuple[Path, Path] | None,
    ) -> None:
        self._config = config
        self._directory = directory
        self._driver = driver
        self._ray = ray
        self._trees = trees

    def experiment(self, item: pytest.Item, settings: Settings, fixtures: FixtureValues) -> Experiment:
        """What one test measures, not compared with anything yet.

        Args:
            item: the test.
            settings: its own; a model or payload in them replaces the fixture's.
            fixtures: what its fixtures gave.

        Raises:
            SettingError: no inputs, no model, or a target of another kind, or beside a pattern.
        """
        fixtures = fixtures.under(settings)
        if fixtures.payload is None:
            raise SettingError(
                f"{item.nodeid} asks for perf but there are no inputs; define a fixture perf_payload that returns "
                "a list of inputs, or give payload= to the marker"
            )
        target = _checked_target(fixtures.target, "perf_target")
        builder = _request_builder(settings, target, "perf")
        payload = read_payload(fixtures.payload, settings.wire, "" if target is None else target.path, builder=builder)
        if target is not None and settings.pattern != Single():
            raise SettingError(
                f"perf(pattern={settings.pattern}) beside perf_target {target}, expected one of them: a pattern "
                "is how perf_model is served"
            )
        _require_own_processes(settings, target, "perf")
        setup = _setup_of(settings, payload, target, model="" if target is not None else model_version(fixtures.model))
        options = self._start_options(settings, payload, builder)
        return Experiment(
            test=item.nodeid,
            settings=settings,
            setup=setup,
            system=_system(self._model(item, fixtures.model, "perf"), settings.pattern, target, options=options),
            plan=_load_plan(settings, payload),
            driver=self._driver,
            command=self._command(item),
            baseline=BaselineMatch(setup, BaselineMode.OFF),
        )

    def deployment(self, node: pytest.Item | pytest.Session, settings: Settings, fixtures: FixtureValues) -> Deployment:
        """Start a deployment without load.

        Args:
            node: the test, or the session.
            settings: of the deployment; a model or payload in them replaces the fixture's.
            fixtures: what the test's fixtures gave; its target may come from ``perf_deploy(target=...)``.

        Raises:
            DeploymentError: it did not start.
            SettingError: there is no model, or a target of another kind.
        """
        fixtures = fixtures.under(settings)
        target = _checked_target(fixtures.target, "perf_deploy(target=...)")
        builder = _request_builder(settings, target, "perf_deploy")
        _require_own_processes(settings, target, "perf_deploy")
        first = (
            None if fixtures.payload is None or target is not None else read_payload(fixtures.payload, settings.wire)
        )
        options = self._start_options(settings, first, builder)
        model = self._model(node, fixtures.model, "perf_deploy")
        return _system(model, settings.pattern, target, options=options).start()

    def _model(self, node: pytest.Item | pytest.Session, model: object, fixture: str) -> ModelUnderTest:
        return ModelUnderTest(model, self._by_value(node), node.nodeid or "this run", fixture)

    def _command(self, item: pytest.Item) -> str:
        """The command line that runs this test alone, compared with the same."""
        given = given_options(self._config)
        options = [f"--perf-{name}={given[name]}" for name in _OF_COMMAND if given[name] is not None]
        file = self._config.option.inifilename
        return shlex.join(["pytest", *(["-c", str(file)] if file else ()), item.nodeid, *options])

    def _start_options(
        self, settings: Settings, payload: Payload | None, builder: RequestBuilder | None
    ) -> StartOptions:
        return StartOptions(
            timeout_ns=settings.startup_timeout_ns,
            payload=payload,
            directory=self._directory,
            trees=self._trees,
            wire=settings.wire,
            root=self._config.rootpath,
            builder=builder,
            engine=settings.engine,
            cpus=settings.cpus,
            cluster=self._ray.session if settings.engine == "ray" else None,
        )

    def _by_value(self, node: pytest.Item | pytest.Session) -> list[ModuleType]:
        """The modules that no other process can import by name: the test's own file, and conftest files.

        For a session these are the files of all its tests.
        """
        plugins = [plugin for plugin in self._config.pluginmanager.get_plugins() if isinstance(plugin, ModuleType)]
        conftests = [plugin for plugin in plugins if Path(plugin.__file__ or "").name == "conftest.py"]
        items = node.items if isinstance(node, pytest.Session) else [node]
        modules = {id(module): module for item in items if (module := item.getparent(pytest.Module)) is not None}
        return [*conftests, *(module.obj for module in modules.values())]


def _setup_of(settings: Settings, payload: Payload, target: Target | None, *, model: str) -> Setup:
    """The facts that make two results comparable."""
    return Setup(
        pattern=SystemDescription(str(settings.pattern)) if target is None else target.describe(),
        load=settings.schedule.describe().cancelling(settings.cancel),
        wire=str(settings.wire),
        payload=payload.digest,
        model=model,
        headers=payload.headers,
        duration=format_duration(settings.duration_ns),
        warmup="auto" if settings.warmup_ns is None else format_duration(settings.warmup_ns),
        timeout=format_duration(settings.timeout_ns),
        generators=f"{settings.generators} on ray" if settings.generators_on == "ray" else str(settings.generators),
        cpus="" if settings.cpus is None else f"{settings.cpus:g}",
        env=describe_env(settings.pattern),
        engine="" if target is not None or settings.engine == "local" else settings.engine,
    )


def _load_plan(settings: Settings, payload: Payload) -> LoadPlan:
    return LoadPlan(
        payload=payload,
        schedule=settings.schedule,
        duration_ns=settings.duration_ns,
        warmup_ns=settings.warmup_ns,
        timeout_ns=settings.timeout_ns,
        check=settings.check,
        generators=settings.generators,
        stretches=settings.stretches,
        cancellation=settings.cancel,
        tokens=settings.tokens,
    )


def _system(
    model: ModelUnderTest, pattern: Pattern, target: Target | None, *, options: StartOptions
) -> SystemUnderTest:
    if target is not None:
        return SystemUnderTest(target, options)
    return SystemUnderTest(model.plan(pattern), options, model)


def _checked_target(value: object, argument: str) -> Target | None:
    if value is not None and not isinstance(value, Url | App | Command):
        raise SettingError(
            f"{argument} is {shown(value)}, expected App('package.module:app'), Command('serve --port {{port}}') or "
            "Url('http://127.0.0.1:8000/predict')"
        )
    return value


def _require_own_processes(settings: Settings, target: Target | None, fixture: str) -> None:
    """A service that runs already keeps the processor that it has."""
    if settings.cpus is not None and isinstance(target, Url):
        raise SettingError(
            f"{fixture}(cpus={settings.cpus:g}) beside {target}, expected a service that the test starts: one that "
            'runs already keeps the cores that it has; write cpus="all"'
        )


def _request_builder(settings: Settings, target: Target | None, fixture: str) -> RequestBuilder | None:
    if settings.request is None:
        return None
    if target is None:
        raise SettingError(
            f"{fixture}(request=...) without a target, expected one whose requests it makes; see perf_target"
        )
    return RequestBuilder(settings.request, target.path)
