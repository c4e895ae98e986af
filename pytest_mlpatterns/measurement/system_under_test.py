"""What a test measures and sends: the system under test, the facts that identify it, and the load.

The plugin and ``measure`` build it from settings here. This module must not know pytest, nor what is judged.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.analysis.metrics.definitions import is_known_metric
from pytest_mlpatterns.engines.engine import launch
from pytest_mlpatterns.errors import DeploymentError, SettingError
from pytest_mlpatterns.fields import unrun_function
from pytest_mlpatterns.measurement.load_source import deploy_in_process
from pytest_mlpatterns.patterns import Pattern, Single
from pytest_mlpatterns.patterns.pattern import describe_env, name_of
from pytest_mlpatterns.records.layer_description import Figure
from pytest_mlpatterns.records.package_layers import answer_figures, describe_figures
from pytest_mlpatterns.records.setup import LoadDescription, Setup, SystemDescription
from pytest_mlpatterns.serving.deployment import Deployment
from pytest_mlpatterns.serving.model import (
    NoModelError,
    ServicePlan,
    StartOptions,
    pack_client,
    pack_figures,
    service_plan,
)
from pytest_mlpatterns.serving.targets import App, Command, Target, Url
from pytest_mlpatterns.system.cpu_share import ReplicaCores
from pytest_mlpatterns.units import format_duration, parse_unit
from pytest_mlpatterns.wire import REST_JSON
from pytest_mlpatterns.wording import count, first_and_last, shown
from pytest_mlpatterns.workload.figures import Computed, FigurePlan, Read
from pytest_mlpatterns.workload.own_client import PLACES, ClientWire, parameters_of
from pytest_mlpatterns.workload.payload import Payload, read_payload
from pytest_mlpatterns.workload.plan import LoadPlan
from pytest_mlpatterns.workload.request_builder import RequestBuilder

if TYPE_CHECKING:
    from pytest_mlpatterns.config.settings import Settings


_FIGURE_NAME = re.compile(r"[a-z][a-z0-9_]*")
_FIGURE_EXAMPLE = (
    'write {"queue_time": Header("x-queue-time", unit="ms")}, Json("usage.queue_time", unit="s"), '
    "or a function of the answer"
)
IN_PROCESS = "in-process"  # What records call the system of a client that is measured by itself


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

    # a packed model, a service that exists already, or a client that is measured by itself
    service: ServicePlan | Target | ClientWire
    options: StartOptions  # time limit, first request, directories
    # the model that ``service`` was packed from; None for a service that exists already
    model: ModelUnderTest | None = None
    by_value: Sequence[ModuleType] = ()  # modules that no other process can import by name
    processes: int = 1  # in which a client that is measured by itself runs

    @property
    def is_in_process(self) -> bool:
        """Whether a client of the user's own is measured by itself."""
        return isinstance(self.service, ClientWire)

    @property
    def is_attached(self) -> bool:
        """Whether no revision can serve it: it runs already, or is a client that is measured by itself."""
        return isinstance(self.service, Url | ClientWire)

    def start(self, **how: Any) -> Deployment:
        """Start a deployment and wait until it is ready. ``how``: options by name, in place of the test's."""
        options = replace(self.options, **how)
        if isinstance(self.service, ServicePlan):
            return launch(self.service, options)
        if isinstance(self.service, ClientWire):
            return deploy_in_process(self.service, options, self.processes)
        from pytest_mlpatterns.serving.external.start import deploy_target

        return deploy_target(self.service, options)

    def start_under(self, pattern: Pattern, replica_cores: ReplicaCores | None = None) -> Callable[..., Deployment]:
        """Pack the same model for another pattern; the result starts it.

        ``replica_cores``: cores of its own for each replica, instead of the test's ``cpus=``.
        """
        if self.model is None:
            raise SettingError(f"{self.service} under {pattern}, expected a model that this package serves")
        options = self.options if replica_cores is None else replace(self.options, replica_cores=replica_cores)
        return start_with(functools.partial(launch, self.model.plan(pattern)), options)


class Starts:
    """The starts of the sides of a test: one that fails is tried once more if it was late, or one before has succeeded.

    A failure of the first start that was not late, such as an import error, comes again. ``notes``: what was tried
    again, for reports.
    """

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._succeeded: set[str] = set()
        self._given_up: dict[str, DeploymentError] = {}

    def patient(self, start: Callable[..., Deployment], side: str = "") -> Callable[..., Deployment]:
        """The start of a side, tried once more; ``side``: its name, empty for the test's own."""
        return functools.partial(self._start, start, side)

    def _start(self, start: Callable[..., Deployment], side: str, **how: Any) -> Deployment:
        if side in self._given_up:
            raise self._given_up[side]
        try:
            deployment = start(**how)
        except DeploymentError as error:
            if not (side in self._succeeded if error.retry is None else error.retry):
                raise
            deployment = self._again(start, side, error, how=how)
        self._succeeded.add(side)
        return deployment

    def _again(
        self, start: Callable[..., Deployment], side: str, first: DeploymentError, *, how: dict[str, Any]
    ) -> Deployment:
        try:
            deployment = start(**how)
        except DeploymentError as error:
            if side in self._succeeded:
                error.end_starts()
                self._given_up[side] = error
                self.notes.append(
                    f"a further start failed twice, and what was measured before it counts: {first_and_last(error)}"
                )
            else:
                error.add(f"it was tried twice; the first time: {first_and_last(first)}")
            raise
        self.notes.append(f"a start failed and was tried once more: {first_and_last(first)}")
        return deployment


def ends_starts(error: BaseException | None) -> bool:
    """Whether an error, or one that it names a side of, is of a start that was given up."""
    while error is not None and not getattr(error, "ends_starts", False):
        error = error.__cause__
    return error is not None


def start_with(deploy: Callable[[StartOptions], Deployment], options: StartOptions) -> Callable[..., Deployment]:
    """What starts a deployment with these options, or with others that it takes by name."""
    return lambda **how: deploy(replace(options, **how))


def setup_of(
    settings: Settings, payload: Payload, target: Target | None, *, model: str, is_in_process: bool = False
) -> Setup:
    """The facts that make two results comparable. ``is_in_process``: whether a client is measured by itself."""
    place = settings.generators_on
    during = "" if settings.during is None else name_of(settings.during)
    pattern = IN_PROCESS if is_in_process else str(settings.pattern)
    return Setup(
        pattern=SystemDescription(pattern) if target is None else target.describe(),
        load=LoadDescription(str(settings.schedule)).beside(during),
        wire=str(settings.wire),
        payload=payload.digest,
        model=model,
        headers=payload.headers,
        duration=_length_of(settings.duration_ns, settings.requests or 0),
        warmup=_length_of(settings.warmup_ns, settings.warmup_requests),
        timeout=format_duration(settings.timeout_ns),
        generators=str(settings.generators) + ("" if place == "local" else f" on {place}"),
        cpus="" if settings.cpus is None else f"{settings.cpus:g}",
        env=describe_env(settings.pattern),
        engine="" if target is not None or settings.engine == "local" else settings.engine,
        order="shuffled" if payload.is_shuffled else "",
    )


def _length_of(time_ns: int | None, requests: int | Literal["all"]) -> str:
    """The length of a window or a warm-up as entries hold it; ``requests`` are 0 for one that lasts its time."""
    if requests:
        return "each input once" if requests == "all" else count(requests, "request")
    return "auto" if time_ns is None else format_duration(time_ns)


def read_inputs(
    settings: Settings, given: object, target: Target | None, *, builder: RequestBuilder | None = None
) -> Payload:
    """The payload of a test: its inputs as requests of its load.

    ``given``: as ``perf_payload`` or the marker has it. ``target``: the service; None for a model that this package
    serves. ``builder``: what makes the requests from inputs; None if the wire does.
    """
    return read_payload(given, settings.wire, "" if target is None else target.path, builder=builder)


def read_figures(given: object, by_value: Sequence[ModuleType]) -> FigurePlan | None:
    """The figures that are read from answers, as ``perf_figures`` has them; None for none."""
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise SettingError(f"perf_figures is {shown(given)}, expected a dictionary; {_FIGURE_EXAMPLE}")
    figures, readers = [], {}
    for name, how in given.items():
        if not isinstance(name, str) or not _FIGURE_NAME.fullmatch(name):
            raise SettingError(f'perf_figures names {shown(name)}, expected a name in lower case such as "queue_time"')
        if is_known_metric(name) and name not in {one.name for one in answer_figures()}:
            raise SettingError(f"perf_figures names {name}, which is a metric already; rename the figure")
        read = Computed(how) if callable(how) else how
        if not isinstance(read, Read):
            raise SettingError(f"perf_figures[{shown(name)}] is {shown(how)}, expected one of three; {_FIGURE_EXAMPLE}")
        if read.better not in ("lower", "higher"):
            raise SettingError(
                f'perf_figures[{shown(name)}] has better={shown(read.better)}, expected "lower" or "higher"'
            )
        unit, factor = parse_unit(read.unit, name=f"the unit of perf_figures[{shown(name)}]")
        figures.append(Figure(name, name, unit, better=read.better))
        readers[name] = read, factor
    describe_figures(figures)
    return FigurePlan(tuple(figures), pack_figures(readers, by_value), tuple(sys.path)) if figures else None


def _requests_of(settings: Settings, payload: Payload) -> int:
    """The requests of each window; 0 for one that lasts its time."""
    given, is_drawn = settings.requests, payload.draw is not None and not payload.is_shuffled
    if given == "all" and is_drawn:
        raise SettingError(
            f'requests="all" of inputs in the order {payload.draw}, which sends some of them more often, expected a '
            "list, or a number; write requests=500"
        )
    if isinstance(given, int) and payload.conversations is not None:
        raise SettingError(
            f"requests={given} of conversations, which would end in their middle, expected each of them once; write "
            'requests="all", or duration="10s"'
        )
    return payload.beginnings if given == "all" else given or 0


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
        budget_ns=settings.planned_ns,
        launches=settings.launches,
        overloads=settings.overload,
        during=settings.during,
        requests=_requests_of(settings, payload),
        warmup_requests=settings.warmup_requests,
    )


def system_under_test(
    model: ModelUnderTest, pattern: Pattern, target: Target | None, *, options: StartOptions, processes: int = 1
) -> SystemUnderTest:
    """What is deployed: the target, the model under the pattern, or a client that is measured by itself.

    ``processes``: in which such a client runs.
    """
    if isinstance(options.wire, ClientWire) and is_alone(pattern, model.model, target):
        return SystemUnderTest(options.wire, options, by_value=model.by_value, processes=processes)
    if target is not None:
        return SystemUnderTest(target, options, by_value=model.by_value)
    return SystemUnderTest(model.plan(pattern), options, model, model.by_value)


def with_client(
    settings: Settings, client: object, by_value: Sequence[ModuleType], *, model: object, target: Target | None
) -> Settings:
    """The settings of a test whose requests a client of the user's own sends.

    ``client``: what ``perf_client`` gave; None without one.
    """
    if client is None:
        return settings
    refused = {
        "request=...": settings.request is not None,
        f'wire="{settings.wire}"': settings.wire != REST_JSON and model is None,
        f'engine="{settings.engine}"': settings.engine != "local",
        f'generators_on="{settings.generators_on}"': settings.generators_on != "local",
    }
    if found := next((name for name, is_given in refused.items() if is_given), None):
        raise SettingError(f"perf({found}) beside perf_client, which sends the requests itself; leave one of them out")
    wire = pack_client(client, by_value, settings.wire)
    methods = [one for name in ("send", "open") if callable(one := getattr(client, name, client))]
    place = next((name for one in methods for name in parameters_of(one) if name in PLACES), "")
    if place and is_alone(settings.pattern, model, target):
        raise SettingError(
            f"perf_client {wire.name} has a parameter {place}, expected none: no service is tested whose address it "
            "could get; define perf_target or perf_model, or name the parameter differently"
        )
    return replace(settings, wire=wire)


def is_alone(pattern: Pattern, model: object, target: Target | None) -> bool:
    """Whether there is no service, so that a client of the user's own is measured by itself."""
    return model is None and target is None and pattern == Single()


def checked_target(value: object, argument: str) -> Target | None:
    """The service that exists already; None without one."""
    if value is not None and not isinstance(value, Url | App | Command):
        raise SettingError(
            f"{argument} is {shown(value)}, expected App('package.module:app'), Command('serve --port {{port}}') or "
            "Url('http://127.0.0.1:8000/predict')"
        )
    return value


def checked_setup(value: object) -> Callable[..., object] | None:
    """What sets a service up after its start; None without one."""
    if value is not None and not callable(value):
        raise SettingError(f"perf_setup is {shown(value)}, expected a function; return one: def setup(client): ...")
    if value is not None and (why := unrun_function(value)):
        raise SettingError(f"perf_setup {why}")
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
