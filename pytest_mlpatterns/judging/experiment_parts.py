"""The parts of an experiment, made from settings and from what the user gave.

It must not know pytest: the plugin builds experiments of tests from these parts, and ``measure`` its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.judging.experiment import SystemUnderTest
from pytest_mlpatterns.patterns import Single
from pytest_mlpatterns.patterns.process_env import describe_env
from pytest_mlpatterns.records.setup import Setup, SystemDescription
from pytest_mlpatterns.serving.targets import App, Command, Url
from pytest_mlpatterns.units import format_duration
from pytest_mlpatterns.wording import shown
from pytest_mlpatterns.workload.plan import LoadPlan
from pytest_mlpatterns.workload.request_builder import RequestBuilder

if TYPE_CHECKING:
    from pytest_mlpatterns.config.settings import Settings
    from pytest_mlpatterns.judging.experiment import ModelUnderTest
    from pytest_mlpatterns.patterns import Pattern
    from pytest_mlpatterns.serving.engine import StartOptions
    from pytest_mlpatterns.serving.targets import Target
    from pytest_mlpatterns.workload.payload import Payload

__all__ = [
    "checked_target",
    "load_plan",
    "request_builder",
    "require_no_pattern",
    "require_own_processes",
    "setup_of",
    "system_under_test",
]


def setup_of(settings: Settings, payload: Payload, target: Target | None, *, model: str) -> Setup:
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
        order="shuffled" if payload.is_shuffled else "",
    )


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
        cancellation=settings.cancel,
        tokens=settings.tokens,
        budget_ns=settings.budget_ns,
        launches=settings.launches,
    )


def system_under_test(
    model: ModelUnderTest, pattern: Pattern, target: Target | None, *, options: StartOptions
) -> SystemUnderTest:
    """What is deployed: the target, or the model under the pattern.

    Raises:
        SettingError: there is no model, or it cannot be sent to another process.
    """
    if target is not None:
        return SystemUnderTest(target, options, by_value=model.by_value)
    return SystemUnderTest(model.plan(pattern), options, model, model.by_value)


def checked_target(value: object, argument: str) -> Target | None:
    """The service that exists already; None without one.

    Args:
        value: as the user gave it.
        argument: its name in messages.

    Raises:
        SettingError: it is of another kind.
    """
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
    """What makes the requests for a target from inputs; None if the wire does.

    Raises:
        SettingError: there is no target.
    """
    if settings.request is None:
        return None
    if target is None:
        raise SettingError(
            f"{caller}(request=...) without a target, expected one whose requests it makes; see perf_target"
        )
    return RequestBuilder(settings.request, target.path)


def require_no_pattern(settings: Settings, target: Target | None, caller: str, *, argument: str) -> None:
    """Refuse a pattern for a service that exists already.

    Args:
        settings: with the pattern.
        target: the service; None without one.
        caller: name of the marker or function in messages.
        argument: name of the target in messages.
    """
    if target is not None and settings.pattern != Single():
        raise SettingError(
            f"{caller}(pattern={settings.pattern}) beside {argument} {target}, expected one of them: a pattern "
            "is how perf_model is served"
        )
