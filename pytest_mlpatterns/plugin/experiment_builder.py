"""From a test's fixtures and settings to the experiment that is measured, or to a deployment without load."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import pytest
from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.baseline.lookup import BaselineMatch
from pytest_mlpatterns.config.run_settings import BaselineMode
from pytest_mlpatterns.config.settings import Settings, given_value, read_settings
from pytest_mlpatterns.engines.engine import engine_named
from pytest_mlpatterns.errors import MissingExtraError, SettingError
from pytest_mlpatterns.judging.experiment import Experiment, LoadDriver
from pytest_mlpatterns.measurement.system_under_test import (
    ModelUnderTest,
    checked_setup,
    checked_target,
    load_plan,
    read_figures,
    read_inputs,
    request_builder,
    require_no_pattern,
    require_own_processes,
    setup_of,
    system_under_test,
    with_client,
)
from pytest_mlpatterns.plugin.collection import Collection, MarkerReading, PerfItem
from pytest_mlpatterns.plugin.engine_sessions import EngineSessions
from pytest_mlpatterns.plugin.name_hints import misspelled_fixture
from pytest_mlpatterns.plugin.options import ENGINE_OPTIONS, given_options
from pytest_mlpatterns.records.result import id_from
from pytest_mlpatterns.serving.deployment import Deployment
from pytest_mlpatterns.serving.model import StartOptions, sent_by_value
from pytest_mlpatterns.serving.model_version import model_version
from pytest_mlpatterns.wording import shown
from pytest_mlpatterns.workload.payload import Payload
from pytest_mlpatterns.workload.request_builder import RequestBuilder

_OF_COMMAND = (
    "patterns",
    "cpus",
    "engine",
    "generators-on",
    *ENGINE_OPTIONS,
    "baseline-file",
    "against",
    "against-files",
)
"""Options that decide what a test is compared with, and so belong to the command that runs it alone."""
_EXPECTED = {"perf_model": 'a callable, a class or "package.module:attribute"', "perf_payload": "a list of inputs"}
"""What the user's fixtures return."""


class FixtureValues(Struct, frozen=True):
    """What the fixtures ``perf_model``, ``perf_payload``, ``perf_target`` and those beside them gave a test."""

    model: object
    payload: object
    target: object
    setup: object = None
    figures: object = None
    client: object = None

    def under(self, settings: Settings) -> FixtureValues:
        """The same, with the model and payload that the marker names instead."""
        model = self.model if settings.model is None else settings.model
        payload = self.payload if settings.payload is None else settings.payload
        return replace(self, model=model, payload=payload)


class ExperimentBuilder:
    """Builds what the tests of one session measure or deploy. ``engines``: what the tests share of each engine."""

    def __init__(
        self,
        config: pytest.Config,
        directory: Path,
        driver: LoadDriver,
        *,
        engines: EngineSessions,
        trees: tuple[Path, Path] | None,
    ) -> None:
        self._config = config
        self._directory = directory
        self._driver = driver
        self._engines = engines
        self._trees = trees

    def experiment(self, item: pytest.Item, settings: Settings, fixtures: FixtureValues) -> Experiment:
        """What one test measures, not compared with anything yet."""
        fixtures = fixtures.under(settings)
        if fixtures.payload is None:
            missing = (
                "there are no inputs; define a fixture perf_payload that returns a list of inputs, or give payload="
            )
            why = self._why_none(item, "perf_payload") or (
                f"{missing} to the marker{self._misspelled(item, 'perf_payload')}"
            )
            raise SettingError(f"{item.nodeid} asks for perf, but {why}")
        target = checked_target(fixtures.target, "perf_target")
        model, by_value = fixtures.model, self._by_value(item)
        settings = with_client(settings, fixtures.client, by_value, model=model, target=target)
        builder = request_builder(settings, target, "perf")
        with sent_by_value(by_value if fixtures.client is not None else ()):
            payload = read_inputs(settings, fixtures.payload, target, builder=builder)
        require_no_pattern(settings, target, "perf", argument="perf_target")
        require_own_processes(settings, target, "perf")
        options = self._start_options(settings, payload, builder, setup=checked_setup(fixtures.setup))
        under_test = self._model(item, model, "perf")
        system = system_under_test(under_test, settings.pattern, target, options=options, processes=settings.generators)
        version = "" if target is not None else model_version(model)
        setup = setup_of(settings, payload, target, model=version, is_in_process=system.is_in_process)
        return Experiment(
            test=item.nodeid,
            settings=settings,
            setup=setup,
            system=system,
            plan=replace(load_plan(settings, payload), figures=read_figures(fixtures.figures, by_value)),
            driver=self._driver,
            command=self._command(item),
            baseline=BaselineMatch(setup, BaselineMode.OFF),
        )

    def describe_figures(self, item: pytest.Item, fixtures: FixtureValues) -> None:
        """Make the figures known that a test reads from answers, so that its marker can name them."""
        read_figures(fixtures.figures, self._by_value(item))

    def deployment(self, node: pytest.Item | pytest.Session, settings: Settings, fixtures: FixtureValues) -> Deployment:
        """Start a deployment without load.

        ``fixtures``: what the fixtures of the test gave; its target may come from ``perf_deploy(target=...)``.
        """
        fixtures = fixtures.under(settings)
        target = checked_target(fixtures.target, "perf_deploy(target=...)")
        builder = request_builder(settings, target, "perf_deploy")
        require_own_processes(settings, target, "perf_deploy")
        first = (
            None if fixtures.payload is None or target is not None else read_inputs(settings, fixtures.payload, None)
        )
        options = self._start_options(settings, first, builder, setup=checked_setup(fixtures.setup))
        model = self._model(node, fixtures.model, "perf_deploy")
        return system_under_test(model, settings.pattern, target, options=options).start()

    def _model(self, node: pytest.Item | pytest.Session, model: object, fixture: str) -> ModelUnderTest:
        return ModelUnderTest(
            model,
            self._by_value(node),
            node.nodeid or "this run",
            fixture,
            why_none=self._why_none(node, "perf_model") if model is None else "",
            misspelled=self._misspelled(node, "perf_model") if model is None else "",
        )

    def _why_none(self, node: pytest.Item | pytest.Session, fixture: str) -> str:
        """Why a fixture of the user's gave nothing; empty if there is none of this name."""
        places = [*self._by_value(node), getattr(node, "cls", None)]
        if not any(fixture in vars(place) for place in places if place is not None):
            return ""
        return f"{fixture} returned None, expected {_EXPECTED[fixture]}; is its return missing?"

    def _misspelled(self, node: pytest.Item | pytest.Session, fixture: str) -> str:
        """The end of a message about a fixture that is not defined; empty if no name resembles it."""
        given = misspelled_fixture(fixture, self._by_value(node))
        return f"; there is {given}, rename it to {fixture}" if given else ""

    def _command(self, item: pytest.Item) -> str:
        """The command line that runs this test alone, compared with the same, from where pytest was started."""
        given = given_options(self._config)
        options = [f"--perf-{name}={given[name]}" for name in _OF_COMMAND if given[name] is not None]
        file = self._config.option.inifilename
        test = id_from(self._config.invocation_params.dir, item.nodeid, self._config.rootpath)
        return shlex.join(["pytest", *(["-c", str(file)] if file else ()), test, *options])

    def _start_options(
        self,
        settings: Settings,
        payload: Payload | None,
        builder: RequestBuilder | None,
        *,
        setup: Callable[..., object] | None,
    ) -> StartOptions:
        return StartOptions(
            timeout_ns=settings.startup_timeout_ns,
            payload=payload,
            directory=self._directory,
            trees=self._trees,
            wire=settings.wire,
            root=self._config.rootpath,
            setup=setup,
            builder=builder,
            engine=settings.engine,
            cpus=settings.cpus,
            session=self._engines.of(settings.engine),
        )

    def _by_value(self, node: pytest.Item | pytest.Session) -> list[ModuleType]:
        """The modules that no other process can import by name: the test's own file, and conftest files.

        Their package too, if pytest alone can import it (``--import-mode=importlib``). For a session these are the
        files of all its tests.
        """
        plugins = [plugin for plugin in self._config.pluginmanager.get_plugins() if isinstance(plugin, ModuleType)]
        conftests = [plugin for plugin in plugins if Path(plugin.__file__ or "").name == "conftest.py"]
        items = node.items if isinstance(node, pytest.Session) else [node]
        modules = {id(module): module for item in items if (module := item.getparent(pytest.Module)) is not None}
        found = [*conftests, *(module.obj for module in modules.values())]
        packages = (sys.modules.get(top) for top in {one.__name__.partition(".")[0] for one in found})
        return [*found, *(one for one in packages if one is not None and not _is_on_path(one))]


def _is_on_path(module: ModuleType) -> bool:
    """Whether the import path leads to a module, and not to nothing or to another one of its name."""
    spec = next(filter(None, (finder.find_spec(module.__name__, None) for finder in sys.meta_path)), None)
    file = getattr(module, "__file__", None) or ""  # a namespace has none
    return spec is not None and os.path.realpath(spec.origin or "") == os.path.realpath(file)


class ItemReader:
    """Reads the settings of tests."""

    def __init__(self, options: Mapping[str, object], ini: Mapping[str, object], collection: Collection) -> None:
        self._options = options
        self._ini = ini
        self._collection = collection

    def defaults(self) -> Settings:
        """The settings of a test without a marker."""
        return read_settings({}, self._options, self._ini)

    def read(self, item: pytest.Item) -> PerfItem:
        """Read one test; an error of its marker is part of the answer, since it fails that test alone."""
        try:
            return PerfItem(self._settings_of(item, self._collection.read_markers(item)))
        except MissingExtraError:  # ends the run: other tests would miss it too
            raise
        except SettingError as error:
            return PerfItem(self.defaults(), error)

    def read_deployment(self, arguments: Mapping[str, object], of_test: Settings) -> Settings:
        """The settings of a deployment without load. ``arguments``: of ``perf_deploy``, by name."""
        for name in ("pattern", "wire"):
            if isinstance(value := arguments[name], list | tuple):
                raise SettingError(
                    f"perf_deploy({name}={shown(value)}), expected one {name}; start one deployment after the other"
                )
        settings = read_settings(arguments, self._options, self._ini, caller="perf_deploy")
        return replace(
            settings,
            model=of_test.model if settings.model is None else settings.model,
            payload=of_test.payload if settings.payload is None else settings.payload,
            startup_timeout_ns=of_test.startup_timeout_ns,
            engine=of_test.engine,
            cpus=of_test.cpus if arguments["cpus"] is None else settings.cpus,
        )

    def _settings_of(self, item: pytest.Item, marker: MarkerReading) -> Settings:
        if marker.error is not None:
            raise marker.error
        params = getattr(getattr(item, "callspec", None), "params", {})
        members = {"pattern": params.get("_perf_pattern"), "wire": params.get("_perf_wire")}
        settings = read_settings(
            marker.arguments, self._options, self._ini, pattern=members["pattern"], wire=members["wire"]
        )
        sources = {
            name: given_value(name, marker=marker.arguments, options=self._options, ini=self._ini)[1]
            for name in _PLACES
        }
        settings = _placed(settings, sources)
        names = getattr(item, "fixturenames", ())
        if "perf" in names or {"perf_deploy", "perf_deploy_session"}.isdisjoint(names):
            for name, member in members.items():
                if isinstance(marker.arguments.get(name), list | tuple) and member is None:
                    raise SettingError(
                        f"perf({name}={shown(marker.arguments[name])}) comes too late to make one test each; give the "
                        f"list to the marker of the function, class or module, or one {name} here"
                    )
        return settings

    def name_with_variable_id(self, item: pytest.Item) -> str | None:
        """The id without brackets of a test whose patterns come from the command line or the ini file; else None."""
        if "_perf_pattern" not in getattr(item, "fixturenames", ()):
            return None
        if self._collection.read_markers(item).arguments.get("pattern") is not None:
            return None
        return f"{item.parent.nodeid if item.parent else ''}::{getattr(item, 'originalname', item.name)}"


_PLACES = ("engine", "generators_on")  # Settings that name an engine


def _placed(settings: Settings, sources: Mapping[str, str]) -> Settings:
    """The settings with a place for the load generators that exists: where the engine serves, if it sends load."""
    names = (settings.engine, settings.generators_on)
    serving, sending = (engine_named(name, place, sources[place]) for name, place in zip(names, _PLACES, strict=True))
    serving.require_installed(f'engine="{settings.engine}"')
    sending.require_installed(f'generators_on="{settings.generators_on}"')
    if sending.sends_load:
        return settings
    if sending is serving:
        return replace(settings, generators_on="local")
    raise SettingError(
        f'perf(generators_on="{settings.generators_on}"): this engine sends no load; choose generators_on="local"'
    )
