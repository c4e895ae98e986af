"""What a test's fixtures and settings make: the subject that is measured, or a deployment without load."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from pytest_mlpatterns.config.settings import model_version
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.judging.experiment import Experiment
from pytest_mlpatterns.patterns import Single
from pytest_mlpatterns.plugin.options import given_options
from pytest_mlpatterns.records.setup import Setup
from pytest_mlpatterns.serving.external.start import deploy_target
from pytest_mlpatterns.serving.local.launcher import StartOptions, launch
from pytest_mlpatterns.serving.model import service_plan
from pytest_mlpatterns.serving.targets import App, Command, Url
from pytest_mlpatterns.workload.payload import read_payload
from pytest_mlpatterns.workload.plan import LoadPlan
from pytest_mlpatterns.workload.request_builder import RequestBuilder

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_mlpatterns.config.settings import Settings
    from pytest_mlpatterns.measurement.interleaved import InterleavedRun
    from pytest_mlpatterns.measurement.variant import Variant
    from pytest_mlpatterns.patterns import Pattern
    from pytest_mlpatterns.serving.deployment import Deployment
    from pytest_mlpatterns.serving.model import ServicePlan
    from pytest_mlpatterns.serving.targets import Target
    from pytest_mlpatterns.workload.payload import Payload

__all__ = ["ExperimentBuilder"]


class ExperimentBuilder:
    """Puts together what the tests of one session deploy and measure.

    Args:
        config: knows the root directory and the conftest files.
        directory: the session's own, for sockets and logs.
        pair: measures two sides interleaved.
        trees: tops of the present tree and of the other revision's, where this pytest serves that revision.
    """

    def __init__(
        self,
        config: pytest.Config,
        directory: Path,
        pair: Callable[[Variant, Variant], InterleavedRun],
        trees: tuple[Path, Path] | None,
    ) -> None:
        self._config = config
        self._directory = directory
        self._pair = pair
        self._trees = trees

    def subject(  # noqa: PLR0913, PLR0917 - a test, and what it was given
        self,
        item: pytest.Item,
        settings: Settings,
        model: object,
        payload: object,
        target: object,
        searches: tuple[str | None, ...] = (),
    ) -> Experiment:
        """What one test measures.

        Args:
            item: the test.
            settings: its own; a model or payload in them goes before that of the fixtures.
            model: what ``perf_model`` gave.
            payload: what ``perf_payload`` gave.
            target: what ``perf_target`` gave, None for a model.
            searches: the searches for NMRT that a ranking of its patterns needs.

        Raises:
            SettingError: no inputs, no model, or a target of another kind, or beside a pattern.
        """
        model = model if settings.model is None else settings.model
        payload = payload if settings.payload is None else settings.payload
        if payload is None:
            raise SettingError(
                f"{item.nodeid} asks for perf but there are no inputs; define a fixture perf_payload that returns "
                "a list of inputs, or give payload= to the marker"
            )
        service = _target_of(target, "perf_target")
        builder = _builder_of(settings, service, "perf")
        inputs = read_payload(payload, settings.wire, "" if service is None else service.path, builder)
        startup = self._startup(settings, inputs, builder)
        plan = LoadPlan(
            payload=inputs,
            schedule=settings.schedule,
            duration_ns=settings.duration_ns,
            warmup_ns=settings.warmup_ns,
            timeout_ns=settings.timeout_ns,
            check=settings.check,
            generators=settings.generators,
        )
        setup = Setup(
            str(settings.pattern), str(settings.schedule), str(settings.wire), inputs.digest, model_version(model)
        )
        if service is not None:
            if settings.pattern != Single():
                raise SettingError(
                    f"perf(pattern={settings.pattern}) beside perf_target {service}, expected one of them: a pattern "
                    "is how perf_model is served"
                )
            setup = replace(setup, pattern=str(service), model="")
            attached = isinstance(service, Url)
            return Experiment(
                setup,
                self._command(item),
                lambda: deploy_target(service, startup),
                plan,
                self._pair,
                runs_already=attached,
            )

        def under(pattern: Pattern) -> Callable[[], Deployment]:
            recipe = self._recipe(item, pattern, model, "perf")
            return lambda: launch(recipe, startup)

        return Experiment(setup, self._command(item), under(settings.pattern), plan, self._pair, under, searches)

    def deployment(
        self, item: pytest.Item, settings: Settings, model: object, payload: object, target: object
    ) -> Deployment:
        """Start a deployment without load, of the same as :meth:`subject` takes.

        Raises:
            DeploymentError: it did not start.
            SettingError: there is no model, or a target of another kind.
        """
        model = model if settings.model is None else settings.model
        payload = payload if settings.payload is None else settings.payload
        service = _target_of(target, "perf_deploy(target=...)")
        builder = _builder_of(settings, service, "perf_deploy")
        if service is not None:
            return deploy_target(service, self._startup(settings, None, builder))
        recipe = self._recipe(item, settings.pattern, model, "perf_deploy")
        inputs = None if payload is None else read_payload(payload, settings.wire)
        return launch(recipe, self._startup(settings, inputs, builder))

    def _command(self, item: pytest.Item) -> str:
        """What runs this test alone, with the same baseline."""
        given = given_options(self._config)
        options = [f"--perf-{name}={given[name]}" for name in ("patterns", "baseline-file") if given[name] is not None]
        settings = self._config.option.inifilename
        return shlex.join(["pytest", *(["-c", str(settings)] if settings else ()), item.nodeid, *options])

    def _startup(self, settings: Settings, inputs: Payload | None, builder: RequestBuilder | None) -> StartOptions:
        return StartOptions(
            timeout_ns=settings.startup_timeout_ns,
            payload=inputs,
            directory=self._directory,
            trees=self._trees,
            wire=settings.wire,
            root=self._config.rootpath,
            builder=builder,
        )

    def _recipe(self, item: pytest.Item, pattern: Pattern, model: object, fixture: str) -> ServicePlan:
        try:
            return service_plan(pattern, model, self._by_value(item))
        except SettingError as error:
            raise SettingError(f"{item.nodeid} asks for {fixture}, but {error}") from error

    def _by_value(self, item: pytest.Item) -> list[ModuleType]:
        """The modules that no other process can import by name: the test's own file, and conftest files."""
        plugins = [plugin for plugin in self._config.pluginmanager.get_plugins() if isinstance(plugin, ModuleType)]
        conftests = [plugin for plugin in plugins if Path(plugin.__file__ or "").name == "conftest.py"]
        module = item.getparent(pytest.Module)
        return [*conftests, *([module.obj] if module is not None else [])]


def _target_of(given: object, where: str) -> Target | None:
    if given is not None and not isinstance(given, Url | App | Command):
        raise SettingError(
            f"{where} is {given!r}, expected App('package.module:app'), Command('serve --port {{port}}') or "
            "Url('http://127.0.0.1:8000/predict')"
        )
    return given


def _builder_of(settings: Settings, service: Target | None, where: str) -> RequestBuilder | None:
    if settings.request is None:
        return None
    if service is None:
        raise SettingError(
            f"{where}(request=...) without a target, expected one whose requests it makes; see perf_target"
        )
    return RequestBuilder(settings.request, service.path)
