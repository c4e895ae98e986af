"""What a test is compared with side by side: another pattern, another model, a service, or plain calls of a library.

Each is a variant of an interleaved run, deployed as the test's own side is. It must not know limits, nor pytest.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Literal

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.config.lists import read_pattern
from pytest_mlpatterns.engines.engine import launch
from pytest_mlpatterns.engines.local.plain_calls import deploy_calls
from pytest_mlpatterns.errors import DeploymentError, SettingError
from pytest_mlpatterns.judging.experiment import Experiment, require_own_processes
from pytest_mlpatterns.judging.revision_comparison import NOT_IN_BLOCKS
from pytest_mlpatterns.measurement.variant import Variant
from pytest_mlpatterns.patterns import Pattern, Single
from pytest_mlpatterns.patterns.pattern import name_of
from pytest_mlpatterns.serving.external.start import deploy_target
from pytest_mlpatterns.serving.import_string import is_import_string
from pytest_mlpatterns.serving.model import is_stepped, pack_inputs, service_plan
from pytest_mlpatterns.serving.targets import App, Command, Target, Url
from pytest_mlpatterns.wording import shown
from pytest_mlpatterns.workload.request_builder import RequestBuilder
from pytest_mlpatterns.workload.schedule import ClosedLoop

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_mlpatterns.serving.deployment import Deployment
    from pytest_mlpatterns.workload.plan import LoadPlan

_KINDS = (
    "another pattern, a model (a callable, a class or an import string), or a service: App(...), Command(...) or "
    "Url(...)"
)
_MOST_THREADS = 256  # Most callers of plain calls: each is a thread, and all share one interpreter


class OtherSide(Struct, frozen=True):
    """The other side of a comparison."""

    own: str  # how the test's side is named beside it
    variant: Variant  # how it is started, and what is sent to it
    kind: Literal["pattern", "service"]  # of the other side, for results
    answers_alike: bool  # whether both sides answer in the same form, so that one check fits both and answers compare


def asked_side(experiment: Experiment, method: str, *, on: str, other: object, reference: object) -> OtherSide:
    """The other side that an assertion asks for: a pattern, a model or a service, or plain calls of a library.

    ``other``: a pattern or its name, a model, or a target; None for plain calls. ``reference``: what is called plainly;
    None for another side.
    """
    if (other is None) == (reference is None):
        found = "neither" if other is None else "both"
        raise SettingError(f"{method}(...) has {found} of other and reference=, expected one of them")
    if reference is not None and on == "nmrt":
        raise SettingError(f'{method}(on="nmrt", reference=...), expected "rtm" or "throughput" of plain calls')
    if experiment.settings.during is not None:
        raise SettingError(f"{method}(...) of a test with during=, expected none: {NOT_IN_BLOCKS}")
    return plain_side(experiment, reference, method) if other is None else other_side(experiment, other, method)


def other_side(experiment: Experiment, given: object, method: str) -> OtherSide:
    """The other side that a test names."""
    if isinstance(given, App | Command | Url):
        return _service(experiment, given, method)
    if isinstance(given, list | tuple | set):
        raise SettingError(f"{method}({shown(given)}), expected one; write an assertion for each")
    is_pattern = isinstance(given, Pattern) or (isinstance(given, type) and issubclass(given, Pattern))
    if is_pattern or (isinstance(given, str) and not is_import_string(given)):
        return _pattern(experiment, read_pattern(given, f"{method}(...)"), method)
    if callable(given) or is_stepped(given) or isinstance(given, str):
        return _model(experiment, given, method)
    raise SettingError(f"{method}(...) is {shown(given)}, expected {_KINDS}")


def plain_side(experiment: Experiment, reference: object, method: str) -> OtherSide:
    """Plain calls of a library as the other side."""
    what = f"{method}(reference=...)"
    if isinstance(reference, App | Command | Url | Pattern):
        raise SettingError(f"{what} is {shown(reference)}, expected a callable; write {method}({shown(reference)})")
    settings, plan = experiment.settings, experiment.plan
    schedule = plan.schedule
    if not isinstance(schedule, ClosedLoop) or schedule.think_time_ns or schedule.concurrency > _MOST_THREADS:
        raise SettingError(
            f"{what} under {schedule}, expected a closed loop of at most {_MOST_THREADS} callers: each calls again "
            "when its call has returned; write perf(concurrency=4)"
        )
    if settings.engine != "local":
        raise SettingError(f'{what} beside engine="{settings.engine}", which plain calls do not have; leave it out')
    _require_inputs(plan, what)
    options = experiment.system.options
    packed = service_plan(Single(), reference, experiment.system.by_value, what=what)
    inputs = pack_inputs(plan.payload.inputs, experiment.system.by_value)
    name = f"plain calls of {name_of(reference)}"
    return OtherSide(
        own=_own_name(experiment),
        variant=Variant(name, _started(name, functools.partial(deploy_calls, packed, inputs, options)), plan),
        kind="service",
        answers_alike=plan.payload.builder is None,
    )


def _pattern(experiment: Experiment, rival: Pattern, method: str) -> OtherSide:
    """The same model under another pattern."""
    pattern = experiment.setup.pattern
    if experiment.system.model is None:
        raise SettingError(
            f"{method}({rival}) for {pattern}, expected a service to compare it with, as this one is not served by a "
            'pattern; write App("package.module:app")'
        )
    if str(rival) == str(pattern):
        raise SettingError(f"{method}({rival}) under that very pattern, expected another")
    theirs = experiment.variant_under(rival)
    variant = replace(theirs, start=_started(theirs.name, theirs.start))
    return OtherSide(str(pattern), variant, "pattern", answers_alike=True)


def _model(experiment: Experiment, model: object, method: str) -> OtherSide:
    """Another model: under the test's pattern, or alone beside a service."""
    own, system, plan = experiment.system.model, experiment.system, experiment.plan
    if own is not None and (own.model is model or (isinstance(model, str) and own.model == model)):
        raise SettingError(f"{method}({name_of(model)}) is the test's own model, expected another")
    _require_inputs(plan, f"{method}({name_of(model)})")
    pattern = experiment.settings.pattern if own is not None else Single()
    packed = service_plan(pattern, model, system.by_value, what=f"{method}(...)")
    payload = plan.payload if own is not None else plan.payload.at("")
    options = replace(system.options, payload=payload, builder=None)
    mine, name = _apart(_own_name(experiment), name_of(model))
    return OtherSide(
        own=mine,
        variant=Variant(
            name, _started(name, functools.partial(launch, packed, options)), replace(plan, payload=payload)
        ),
        kind="service",
        answers_alike=plan.payload.builder is None,
    )


def _service(experiment: Experiment, target: Target, method: str) -> OtherSide:
    """A service that exists already, or that its own command starts."""
    settings, system, plan = experiment.settings, experiment.system, experiment.plan
    if target == system.service:
        raise SettingError(f"{method}({target}) is the test's own service, expected another")
    require_own_processes(settings, target, "perf")
    if _needs_library(target) != _needs_library(system.service):
        raise SettingError(
            f"{method}({target}) beside {experiment.setup.pattern}: one of them needs a client library for https or "
            "HTTP/2, whose time would count on one side only; expected both or neither"
        )
    builder = None if settings.request is None else RequestBuilder(settings.request, target.path)
    payload = plan.payload.at(target.path, builder)
    options = replace(system.options, payload=payload, builder=builder)
    mine, name = _apart(_own_name(experiment), str(target))
    return OtherSide(
        own=mine,
        variant=Variant(
            name, _started(name, functools.partial(deploy_target, target, options)), replace(plan, payload=payload)
        ),
        kind="service",
        answers_alike=True,
    )


def _own_name(experiment: Experiment) -> str:
    """The test's own side beside another model or service."""
    model = experiment.system.model
    if model is None or model.model is None:
        return str(experiment.setup.pattern)
    pattern = experiment.settings.pattern
    return name_of(model.model) if pattern == Single() else f"{name_of(model.model)}, {pattern}"


def _apart(own: str, other: str) -> tuple[str, str]:
    """Names that differ, for two sides that may be called the same, such as one application with two settings."""
    return (own, other) if own != other else (f"{own}, this side", f"{other}, the other side")


def _needs_library(service: object) -> bool:
    """Whether requests to a service go through a client library."""
    return isinstance(service, Url) and (service.is_https or service.http2)


def _require_inputs(plan: LoadPlan, found: str) -> None:
    """Refuse whole requests: a model takes inputs."""
    if plan.payload.requests and plan.payload.builder is None:
        raise SettingError(
            f"{found} beside a perf_payload of httpx.Request objects, which no model takes; expected inputs: return "
            "these from perf_payload, and make the requests with perf(request=...)"
        )


def _started(name: str, start: Callable[[], Deployment]) -> Callable[[], Deployment]:
    """The start of the other side, whose errors name it."""

    def started() -> Deployment:
        try:
            return start()
        except DeploymentError as error:
            named = error.said if error.names(name) else f"{name}: {error.said}"
            raise type(error)(f"the other side: {named}", side=name) from error

    return started
