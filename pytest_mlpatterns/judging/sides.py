"""One test's service beside another side: a pattern, a model, a service or plain calls of a library; which is faster.

Each side is a variant of an interleaved run, deployed as the test's own is. This module must not know limits or pytest.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.analysis.health.machine import why_busy
from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.analysis.statistics.alpha_spending import REVISION_ALPHA, SequentialPlan, looks_of_pairs
from pytest_mlpatterns.analysis.statistics.intervals import estimate, ratio_of
from pytest_mlpatterns.analysis.verdicts.tolerances import Tolerances
from pytest_mlpatterns.config.assertions import read_factor_metric, read_margin
from pytest_mlpatterns.config.lists import read_pattern
from pytest_mlpatterns.config.settings import NoisePolicy, require_schedule
from pytest_mlpatterns.engines.engine import launch
from pytest_mlpatterns.engines.local.plain_calls import deploy_calls
from pytest_mlpatterns.errors import DeploymentError, SettingError
from pytest_mlpatterns.judging.counting import CountedPasses
from pytest_mlpatterns.judging.look import Pairs
from pytest_mlpatterns.judging.loop import Ruling, Want, decide_pairs, ruling_of
from pytest_mlpatterns.judging.metric_rules import RatioQuestion
from pytest_mlpatterns.judging.revision_comparison import NOT_INTERLEAVED
from pytest_mlpatterns.measurement.answer_check import AnswerComparison, Side
from pytest_mlpatterns.measurement.system_under_test import read_inputs, require_own_processes, start_with
from pytest_mlpatterns.measurement.variant import Variant, started_deployments
from pytest_mlpatterns.patterns import Pattern, Single
from pytest_mlpatterns.patterns.pattern import name_of
from pytest_mlpatterns.records.count import Count
from pytest_mlpatterns.records.launch import Estimate
from pytest_mlpatterns.records.verdict import OpenBy, Outcome, Verdict, WhyOpen
from pytest_mlpatterns.serving.deployment import Deployment
from pytest_mlpatterns.serving.external.start import deploy_target
from pytest_mlpatterns.serving.import_string import is_import_string
from pytest_mlpatterns.serving.model import ServicePlan, is_stepped, pack_inputs, service_plan
from pytest_mlpatterns.serving.targets import App, Command, Target, Url, require_other_ports
from pytest_mlpatterns.units import format_percent, parse_number
from pytest_mlpatterns.wording import listed, shown
from pytest_mlpatterns.workload.own_client import ClientWire
from pytest_mlpatterns.workload.plan import LoadPlan
from pytest_mlpatterns.workload.request_builder import RequestBuilder
from pytest_mlpatterns.workload.schedule import ClosedLoop

if TYPE_CHECKING:
    from pytest_mlpatterns.judging.experiment import Experiment
    from pytest_mlpatterns.judging.sequential import SequentialMeasurement
    from pytest_mlpatterns.measurement.interleaved import InterleavedRun

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


def asked_side(experiment: Experiment, method: str, given: Mapping[str, object], *, on: str) -> OtherSide:
    """The other side that an assertion asks for.

    ``given``: one of its arguments by name, the others are None. ``other`` is a pattern or its name, a model, or a
    target; ``reference`` is called plainly; ``load`` and ``payload`` are sent to the test's own service.
    """
    asked = [name for name in given if given[name] is not None]
    if len(asked) != 1:
        found = listed([f"{name}=" for name in asked]) or "none"
        raise SettingError(f"{method}(...) has {found}, expected one of other, reference=, load= and payload=")
    (name,) = asked
    if name == "reference" and METRICS[on].of is None:
        raise SettingError(f'{method}(on="{on}", reference=...), expected "rtm" or "throughput" of plain calls')
    if name == "load" and (on == "nmrt" or METRICS[on].is_counted):
        raise SettingError(f'{method}(on="{on}", load=...), expected another metric: {on} has a load of its own')
    if experiment.settings.during is not None:
        raise SettingError(f"{method}(...) of a test with during=, expected none: {NOT_INTERLEAVED}")
    return _SIDES[name](experiment, given[name], method)


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
    name, start = f"plain calls of {name_of(reference)}", functools.partial(deploy_calls, packed, inputs, options)
    return _beside(experiment, Variant(name, start, plan), answers_alike=plan.payload.builder is None)


def load_side(experiment: Experiment, load: object, method: str) -> OtherSide:
    """The test's own service under another load."""
    plan = replace(experiment.plan, schedule=require_schedule(load, f"{method}(load=...)"))
    own, name = str(experiment.plan.schedule), str(plan.schedule)
    if own == name:
        raise SettingError(f"{method}(load={name}) under that very load, expected another")
    return _own_service(experiment, own, Variant(name, experiment.system.start, plan))


def payload_side(experiment: Experiment, payload: object, method: str) -> OtherSide:
    """The test's own service with other inputs."""
    system = experiment.system
    target = None if isinstance(system.service, ServicePlan | ClientWire) else system.service
    read = read_inputs(experiment.settings, payload, target, builder=system.options.builder)
    if read.digest == experiment.plan.payload.digest:
        raise SettingError(f"{method}(payload=...) has the test's own inputs, expected others")
    start, plan = replace(system, options=replace(system.options, payload=read)).start, experiment.plan
    theirs = Variant("the other payload", start, replace(plan, payload=read))
    return _own_service(experiment, "the test's payload", theirs)


def _own_service(experiment: Experiment, own: str, theirs: Variant) -> OtherSide:
    """The test's own service once more; a check sees its answers, which differ from those to other inputs."""
    require_other_ports(experiment.system.service, experiment.system.service)
    return _other(experiment, own, theirs, answers_alike=theirs.plan.check is not None)


def _other(experiment: Experiment, own: str, theirs: Variant, *, answers_alike: bool) -> OtherSide:
    """A service that gets its time to start, and whose errors name it."""
    start = _started(theirs.name, experiment.starts.patient(theirs.start, theirs.name))
    return OtherSide(own, replace(theirs, start=start), "service", answers_alike)


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
    start = start_with(functools.partial(launch, packed), replace(system.options, payload=payload, builder=None))
    theirs = Variant(name_of(model), start, replace(plan, payload=payload))
    return _beside(experiment, theirs, answers_alike=plan.payload.builder is None)


def _service(experiment: Experiment, target: Target, method: str) -> OtherSide:
    """A service that exists already, or that its own command starts."""
    settings, system, plan = experiment.settings, experiment.system, experiment.plan
    if target == system.service:
        raise SettingError(f"{method}({target}) is the test's own service, expected another")
    require_own_processes(settings, target, "perf")
    require_other_ports(system.service, target)
    if _needs_library(target) != _needs_library(system.service):
        raise SettingError(
            f"{method}({target}) beside {experiment.setup.pattern}: one of them needs a client library for https or "
            "HTTP/2, whose time would count on one side only; expected both or neither"
        )
    builder = None if settings.request is None else RequestBuilder(settings.request, target.path)
    payload = plan.payload.at(target.path, builder)
    options = replace(system.options, payload=payload, builder=builder)
    start = start_with(functools.partial(deploy_target, target), options)
    return _beside(experiment, Variant(str(target), start, replace(plan, payload=payload)), answers_alike=True)


def _beside(experiment: Experiment, theirs: Variant, *, answers_alike: bool) -> OtherSide:
    """Another model or service; both may be called the same, such as one application with two settings."""
    model, pattern = experiment.system.model, experiment.settings.pattern
    own, name = str(experiment.setup.pattern), theirs.name
    if model is not None and model.model is not None:
        own = name_of(model.model) if pattern == Single() else f"{name_of(model.model)}, {pattern}"
    if own == name:
        own, name = f"{own}, this side", f"{name}, the other side"
    return _other(experiment, own, replace(theirs, name=name), answers_alike=answers_alike)


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


def _started(name: str, start: Callable[..., Deployment]) -> Callable[..., Deployment]:
    """The start of the other side, whose errors name it."""

    def started(**how: Any) -> Deployment:
        try:
            return start(**how)
        except DeploymentError as error:
            named = error.said if error.names(name) else f"{name}: {error.said}"
            raise type(error)(f"the other side: {named}", side=name) from error

    return started


_SIDES = {"other": other_side, "reference": plain_side, "load": load_side, "payload": payload_side}


class Factor(Struct, frozen=True):
    """How many times as fast one side has to be as the other."""

    on: str  # one of the metrics with the role ``FACTOR``; a lower RTM is faster
    least: float  # smallest acceptable factor
    margin: float | None = None  # how many times as slow it may be, if that was asked; None if it has to be faster

    @classmethod
    def asked(cls, method: str, *, on: object, by: object, tolerances: Tolerances) -> Factor:
        """What an assertion asks for: that one side is ``by`` times as fast as the other, or slower by at most that.

        A margin that is not given is the tolerance of the metric.
        """
        name, shape = read_factor_metric(on, method), f"{method}(by=...)"
        if method == "assert_faster_than":
            is_share = isinstance(by, str) and by.strip().endswith("%")
            if times := read_margin(by, shape) if is_share else parse_number(by, name=shape, example="2.0"):
                return cls(name, times)
            raise SettingError(f"{method}(by={shown(by)}), expected more than 0, which any service is; write 2.0")
        margin = tolerances.of(name) + 1 if by is None else read_margin(by, shape)
        return cls(name, 1 / margin, margin)

    def looks(self, budget_ns: int) -> SequentialPlan:
        """When the launches are judged. Two services within a margin take as many as a comparison with a revision."""
        if self.on == "nmrt":
            return SequentialPlan(first=2, last=8)
        if self.margin is None:
            return SequentialPlan(first=3, last=8)
        return looks_of_pairs(self.margin - 1, REVISION_ALPHA, budget_ns)

    @property
    def words(self) -> str:
        """What is at least reached, in a sentence."""
        if self.margin is None:
            return f"{self.least:g}"
        share = self.margin - 1
        allowed = f"{self.margin:g} times as slow" if share >= 1 else f"{format_percent(share)} slower"
        return f"{self.least:.3g} (at most {allowed})"


class SideComparison:
    """Measures one test's service beside another one; a check of answers may raise any exception."""

    def __init__(self, experiment: Experiment, measurement: SequentialMeasurement, other: OtherSide) -> None:
        self._experiment = experiment
        self._measurement = measurement
        self._other = other
        self._answers = AnswerComparison(Side(other.own, experiment.plan), Side(other.variant.name, other.variant.plan))

    @property
    def difference(self) -> str:
        """The first answers of both sides that differed; empty if they did not."""
        return self._answers.difference

    def ask_both(self) -> None:
        """Ask both sides once, which is all that a smoke run does."""
        self._measurement.measure_at_least(1)
        with started_deployments([self._other.variant]) as (theirs,):
            if self._other.answers_alike:
                self._answers.look(self._measurement.runner.deployment, theirs)

    def decide(self, factor: Factor) -> Verdict:
        """Measure both sides until the factor is decided."""
        if METRICS[factor.on].is_counted:
            return self._by_work(factor)
        other, experiment = self._other, self._experiment
        look = self._answers.look if other.answers_alike else None
        self._measurement.runner.close()  # both sides need the machine to themselves
        run = experiment.interleave(experiment.variant(other.own), other.variant, look)
        self._measurement.watch(run)
        neighbours = experiment.settings.noise is not NoisePolicy.TRUST
        verdict = judge_factor(run, factor, budget_ns=self._measurement.time_of(run), neighbours=neighbours)
        return replace(verdict.saying(self.difference), against=other.kind)

    def _by_work(self, factor: Factor) -> Verdict:
        """Whether the test's side needs fewer instructions than the other, or as few, by the asked factor."""
        passes = CountedPasses(self._experiment, self._measurement).required(f'on="{factor.on}"')
        other, side = self._other, self._other.variant
        theirs = passes.count_sides([side], passes.now[-1].requests)
        names = other.own, side.name
        return passes.decide(lambda: replace(rule_work(passes.now, theirs, factor, names=names), against=other.kind))


def rule_work(own: Sequence[Count], theirs: Sequence[Count], asked: Factor, *, names: tuple[str, str]) -> Verdict:
    """Whether the first side needs as few instructions as is asked, of the passes of both."""
    metric = METRICS[asked.on]
    first, second = (Metrics((), counts=tuple(side)).launch_values(metric) for side in (own, theirs))
    fewer = ratio_of(second, first, metric.launch_sd, prior_degrees=metric.sd_degrees)
    outcome = Outcome.PASS if fewer.low >= asked.least else Outcome.INCONCLUSIVE
    outcome = Outcome.FAIL if fewer.high < asked.least else outcome
    shown = " against ".join(
        f"{metric.show(estimate(side, metric.launch_sd).value)} ({name})"
        for side, name in zip((first, second), names, strict=True)
    )
    reason = (
        f"{metric.label} {shown}: {fewer.value:.3g} times as few ({fewer.low:.3g} to {fewer.high:.3g}), which "
        f"{outcome.verb} at least {asked.words}"
    )
    return Verdict(metric.name, "pattern", outcome, reason)


def judge_factor(run: InterleavedRun, asked: Factor, *, budget_ns: int, neighbours: bool) -> Verdict:
    """Measure until it is decided whether the first side of a run is faster than the second by the asked factor.

    ``neighbours``: whether busy neighbours leave a missed factor open.
    """
    looks = asked.looks(budget_ns)
    wants: Want = "search" if asked.on == "nmrt" else "pair"

    def rule(pairs: Pairs) -> Ruling:
        return ruling_of([rule_factor(pairs, asked, looks, neighbours=neighbours)], wants)

    (verdict,) = decide_pairs(rule, run, looks, budget_ns=budget_ns, wants=wants).verdicts
    return verdict


def rule_factor(pairs: Pairs, asked: Factor, looks: SequentialPlan, *, neighbours: bool) -> Verdict:
    """Whether the first variant is faster than the second by the asked factor.

    Neighbours do not make the slower variant the faster one, but waiting for a core takes both equally long, and so the
    factor shrinks. A missed factor therefore rests on quiet launches alone.
    """
    metric, by = METRICS[asked.on], asked.least
    lower = metric.better == "lower"
    question = RatioQuestion(metric, by if lower else 1 / by, "higher" if lower else "lower", looks)
    ratios, busy = pairs.ratios(metric.name), None
    if not ratios:
        raise SettingError(f'on="{metric.name}" of answers that are no streams, expected another one; write on="rtm"')
    verdict = question.verdict(ratios)
    if verdict.outcome is Outcome.FAIL and neighbours and by > 1 and metric.name != "nmrt":
        quiet = pairs.quiet
        if len(quiet.launches) >= looks.first:
            verdict = question.verdict(quiet.ratios(metric.name))
        else:
            busy = why_busy([*pairs.first.launches, *pairs.second.launches])
    faster = verdict.judged
    if not lower:
        faster = Estimate(1 / faster.value, 1 / faster.high, 1 / faster.low)
    reason = (
        f"{metric.label} {pairs.named(metric.name, pairs.printed(metric.name, verdict))}: {faster.value:.3g} times as "
        f"fast ({faster.low:.3g} to {faster.high:.3g}), which {verdict.outcome.verb} at least {asked.words}; "
        f"{pairs.measured(verdict)}"
    )
    judged = Verdict(metric.name, "pattern", verdict.outcome, reason)
    if not busy:
        return judged
    return judged.left_open(WhyOpen(OpenBy.MACHINE, busy), f"but {busy} meanwhile, which makes both sides alike")
