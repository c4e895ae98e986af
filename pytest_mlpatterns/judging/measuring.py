"""Measures a model or a service without pytest: in a notebook, a script or a console.

The same machinery as in a perf test. Nothing is compared and no limit is judged, so it returns figures only. It must
not know pytest.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.config.arguments import merge_markers
from pytest_mlpatterns.config.settings import Settings, read_settings
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.fields import whole_number
from pytest_mlpatterns.judging.budget import Budget, Spending
from pytest_mlpatterns.judging.sequential import SequentialMeasurement
from pytest_mlpatterns.loadgen.ceiling import measure_ceiling, measure_library_overhead
from pytest_mlpatterns.loadgen.generator import Generator
from pytest_mlpatterns.measurement.launch import LaunchRunner
from pytest_mlpatterns.measurement.system_under_test import (
    ModelUnderTest,
    SystemUnderTest,
    checked_target,
    load_plan,
    read_inputs,
    request_builder,
    require_no_pattern,
    require_own_processes,
    system_under_test,
)
from pytest_mlpatterns.patterns import Pattern
from pytest_mlpatterns.serving.model import StartOptions
from pytest_mlpatterns.serving.targets import Target
from pytest_mlpatterns.system.scratch_directory import ScratchDirectory
from pytest_mlpatterns.wording import shown
from pytest_mlpatterns.workload.plan import LoadPlan

_CALLER = "measure"
_MOST_LAUNCHES = 100  # Most launches that may be asked for
_JUDGING = ("compare", "tolerance", "inconclusive", "noise")  # Arguments of the marker that only verdicts use


def measure(
    model: Any = None,
    payload: object = None,
    *,
    pattern: Pattern | str | None = None,
    target: Target | None = None,
    launches: int = 3,
    **arguments: Any,
) -> Metrics:
    """Measure a model under load, without pytest, and return its metrics.

    Args:
        model: a callable that takes a list of inputs, a class of such, or ``"package.module:attribute"``.
        payload: the inputs that requests carry, as ``perf_payload`` returns them.
        pattern: how the model is served; ``Single()`` by default.
        target: a service that exists already, instead of a model.
        launches: how often the service is started and measured. The intervals of the metrics hold what launches differ
            by. Fewer are measured if ``budget=`` is spent before.
        arguments: any other of the marker ``perf`` that sets how to measure, such as ``concurrency=16``,
            ``duration="2s"``, ``wire="rest+binary"`` or ``check=``.

    Returns:
        The metrics of all launches together.

    Raises:
        SettingError: an argument that cannot be read, or there is no model or no payload.
        DeploymentError: the service did not start, or died.
        InvalidResultError: an answer could not be read for ``check=``.
    """
    whole_number(
        launches,
        f"measure(launches={shown(launches)})",
        least=1,
        most=_MOST_LAUNCHES,
        expected=f"a whole number from 1 to {_MOST_LAUNCHES}",
    )
    settings = _settings({"pattern": pattern, "launches": launches, **arguments})
    if payload is None:
        raise SettingError("measure(...) has no payload, expected a list of inputs; write measure(model, [[5.1, 3.5]])")
    return _measured(settings, ModelUnderTest(model, (), "measure(...)", "the model"), payload, target=target)


def _measured(settings: Settings, model: ModelUnderTest, payload: object, *, target: object) -> Metrics:
    """Start the service and the load generator, measure all launches, and end both."""
    scratch = ScratchDirectory()
    with contextlib.ExitStack() as resources:
        resources.callback(scratch.remove)
        generator = Generator(scratch.path / "generator.log", measure_ceiling)
        resources.callback(generator.close)
        generator.start(settings.generators)  # in the time that the model takes to start
        system, plan = _parts(settings, model, payload, target=target, directory=scratch.path)
        runner = LaunchRunner(system.start, plan, generator, on_progress=lambda _progress: None)
        resources.callback(runner.close)
        spending = Spending(Budget(settings.budget_ns, planned_ns=settings.planned_ns))
        with spending.counted():
            is_remote = runner.deployment.endpoint.remote
        if is_remote:
            measure_library_overhead(generator, scratch.path)
        measurement = SequentialMeasurement(
            runner, spending, settings.launches, overload=settings.overload, price=settings.price
        )
        measurement.measure_at_least(settings.launches)
        return measurement.metrics


def _settings(arguments: dict[str, Any]) -> Settings:
    """The settings that the arguments of the marker give.

    Raises:
        SettingError: one of them is unknown or cannot be read, or belongs to verdicts or to a cluster.
    """
    for name in _JUDGING:
        if arguments.get(name) is not None:
            raise SettingError(f"measure({name}=...), expected what says how to measure; nothing is judged here")
    for name in ("pattern", "wire"):
        if isinstance(arguments.get(name), list | tuple):
            raise SettingError(f"measure({name}={shown(arguments[name])}), expected one {name}; call it for each")
    settings = read_settings(merge_markers([((), arguments)], caller=_CALLER), {}, {}, caller=_CALLER)
    if settings.engine != "local" or settings.generators_on != "local":
        raise SettingError(
            "measure(...) runs on this machine only, expected engine='local'; a perf test can name another"
        )
    return settings


def _parts(
    settings: Settings, model: ModelUnderTest, payload: object, *, target: object, directory: Path
) -> tuple[SystemUnderTest, LoadPlan]:
    """What is deployed, and what is sent to it."""
    service = checked_target(target, "measure(target=...)")
    require_no_pattern(settings, service, _CALLER, argument="target")
    require_own_processes(settings, service, _CALLER)
    builder = request_builder(settings, service, _CALLER)
    inputs = read_inputs(settings, payload, service, builder=builder)
    options = StartOptions(
        timeout_ns=settings.startup_timeout_ns,
        payload=inputs,
        directory=directory,
        wire=settings.wire,
        root=Path.cwd(),
        builder=builder,
        cpus=settings.cpus,
    )
    try:
        system = system_under_test(model, settings.pattern, service, options=options)
    except SettingError as error:
        if model.model is not None:
            raise
        raise SettingError(
            "measure(...) has no model, expected a callable, a class or an import string, or target=; write "
            "measure(model, [[5.1, 3.5]])"
        ) from error
    return system, load_plan(settings, inputs)
