"""What a test can be compared with side by side: how each other side is named, what is sent to it, what is refused."""

import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.each_row import each_row

from pytest_mlpatterns import App, Batched, Cached, Command, DeploymentError, ModelLoadError, SettingError, Single, Url
from pytest_mlpatterns.analysis.verdicts.tolerances import Tolerances
from pytest_mlpatterns.baseline.lookup import BaselineMatch
from pytest_mlpatterns.config.run_settings import BaselineMode
from pytest_mlpatterns.config.settings import read_settings
from pytest_mlpatterns.judging import sides as module
from pytest_mlpatterns.judging.experiment import Experiment, LoadDriver
from pytest_mlpatterns.judging.sides import Factor, asked_side, other_side, plain_side
from pytest_mlpatterns.measurement.system_under_test import (
    ModelUnderTest,
    load_plan,
    request_builder,
    setup_of,
    system_under_test,
)
from pytest_mlpatterns.measurement.variant import Variant
from pytest_mlpatterns.serving.deployment import Deployment
from pytest_mlpatterns.serving.model import StartOptions
from pytest_mlpatterns.serving.targets import Target
from pytest_mlpatterns.workload.input_order import InOrder, Zipf
from pytest_mlpatterns.workload.payload import read_payload
from pytest_mlpatterns.workload.schedule import ClosedLoop

METHOD = "assert_faster_than"


def own(batch: list[Any]) -> list[Any]:
    return batch


def rival(batch: list[Any]) -> list[Any]:
    return batch


def as_json(value: Any) -> dict[str, Any]:
    return {"json": {"x": value}}


def experiment(target: Target | None = None, payload: object = (1, 2), **marker: Any) -> Experiment:
    """A test's own side: the model ``own``, or a target."""
    settings = read_settings(marker, {}, {})
    builder = request_builder(settings, target, "perf")
    given = list(payload) if isinstance(payload, list | tuple) else payload
    inputs = read_payload(given, settings.wire, target.path if target else "", builder=builder)
    options = StartOptions(10**9, inputs, Path(), wire=settings.wire, builder=builder, engine=settings.engine)
    model = ModelUnderTest(None if target else own, (), "test_it", "perf")
    setup = setup_of(settings, inputs, target, model="")
    return Experiment(
        test="test_it",
        settings=settings,
        setup=setup,
        system=system_under_test(model, settings.pattern, target, options=options),
        plan=load_plan(settings, inputs),
        driver=LoadDriver({}, lambda _progress: None),
        command="pytest",
        baseline=BaselineMatch(setup, BaselineMode.OFF),
    )


@pytest.mark.parametrize(
    ("marker", "requests", "duration", "warmup"),
    [
        ({}, 0, "700 ms", "auto"),
        ({"requests": 500, "warmup": 50}, 500, "500 requests", "50 requests"),
        ({"requests": "all", "warmup": "2s"}, 2, "each input once", "2.00 s"),
        ({"requests": "all", "payload": InOrder([1, 2, 3])}, 3, "each input once", "auto"),
    ],
)
def test_a_window_of_given_requests_is_a_fact_of_the_set_up(
    marker: dict[str, Any], requests: int, duration: str, warmup: str
) -> None:
    mine = experiment(**{"payload": (1, 2), **marker})
    assert mine.plan.requests == requests
    assert (mine.setup.duration, mine.setup.warmup) == (duration, warmup)


def test_a_number_of_requests_that_has_no_meaning_is_refused() -> None:
    with pytest.raises(SettingError, match=r'requests="all" of inputs in the order zipf.*write requests=500'):
        experiment(payload=Zipf([1, 2]), requests="all")
    talks = [{"turns": ["a", "b"]}, {"turns": ["c"]}]
    with pytest.raises(SettingError, match=r'requests=5 of conversations.*write requests="all"'):
        experiment(payload=talks, requests=5, wire="openai")
    assert experiment(payload=talks, requests="all", wire="openai").plan.requests == 2


LIT = Command("serve {port}", path="/predict")


@each_row(
    ("mine", "given", "names", "kind"),
    [
        (experiment(pattern=Cached()), Single(), ("cached", "single"), "pattern"),
        (experiment(pattern=Cached()), "batched|cached", ("cached", "batched|cached"), "pattern"),
        (experiment(), rival, ("own", "rival"), "service"),
        (experiment(), "shop.model:predict", ("own", "predict"), "service"),
        (experiment(pattern=Cached()), rival, ("own, cached", "rival"), "service"),
        (experiment(), App("a:app"), ("own", "App('a:app')"), "service"),
        (experiment(LIT), App("a:app"), (str(LIT), "App('a:app')"), "service"),
        (experiment(LIT), rival, (str(LIT), "rival"), "service"),
        (
            experiment(App("a:app")),
            App("a:app", env={"THREADS": "4"}),
            ("App('a:app'), this side", "App('a:app'), the other side"),
            "service",
        ),
    ],
)
def test_both_sides_have_short_names_that_differ(
    mine: Experiment, given: object, names: tuple[str, str], kind: str
) -> None:
    found = other_side(mine, given, METHOD)
    assert ((found.own, found.variant.name), found.kind) == (names, kind)
    calls = plain_side(experiment(LIT, request=as_json), rival, METHOD)
    assert (calls.own, calls.variant.name) == (str(LIT), "plain calls of rival")


def test_each_service_gets_the_same_inputs_at_its_own_path_and_a_model_over_the_wire() -> None:
    mine = experiment(LIT, request=as_json)
    theirs = other_side(mine, App("a:app", path="/score"), METHOD).variant.plan
    assert [request.url.path for request in mine.plan.payload.requests] == ["/predict", "/predict"]
    assert [request.url.path for request in theirs.payload.requests] == ["/score", "/score"]
    assert [request.content for request in theirs.payload.requests] == [b'{"x":1}', b'{"x":2}']
    assert theirs.payload.order() == mine.plan.payload.order()
    assert theirs.schedule == mine.plan.schedule
    of_model = other_side(mine, rival, METHOD).variant.plan.payload
    assert (of_model.bodies[0].joined(), [*of_model.requests]) == (b'{"instances":[1]}', [])


def test_the_path_decides_the_protocol_of_each_side() -> None:
    mine = experiment(App("a:app", path="/v1/models/m:predict"))
    theirs = other_side(mine, App("a:app", path="/v2/models/m/infer"), METHOD).variant.plan
    assert b"instances" in mine.plan.payload.bodies[0].joined()
    assert b"inputs" in theirs.payload.bodies[0].joined()


@each_row(
    ("found", "alike"),
    [
        (other_side(experiment(pattern=Cached()), "single", METHOD), True),
        (other_side(experiment(LIT, request=as_json), App("a:app"), METHOD), True),
        (other_side(experiment(LIT), rival, METHOD), True),
        (other_side(experiment(LIT, request=as_json), rival, METHOD), False),
        (plain_side(experiment(LIT, request=as_json), rival, METHOD), False),
        (plain_side(experiment(), rival, METHOD), True),
    ],
)
def test_answers_compare_only_in_the_same_form(found: module.OtherSide, alike: bool) -> None:
    assert found.answers_alike is alike


@each_row(
    ("mine", "given", "words"),
    [
        (
            experiment(),
            5,
            "is 5, expected another pattern, a model (a callable, a class or an import string), or a ser",
        ),
        (experiment(), [Single(), Cached()], "expected one; write an assertion for each"),
        (experiment(), Batched, "is the class Batched, expected a value; write Batched()"),
        (experiment(), "sngle", "did you mean single?"),
        (
            experiment(pattern=Cached()),
            "cached",
            "assert_faster_than(cached) under that very pattern, expected another",
        ),
        (experiment(), own, "assert_faster_than(own) is the test's own model, expected another"),
        (experiment(LIT), Command("serve {port}", path="/predict"), "is the test's own service, expected another"),
        (
            experiment(LIT),
            "cached",
            "for Command('serve {port}', path='/predict'), expected a service to compare it wi",
        ),
        (experiment(cpus=1), Url("http://h/"), "expected a service that the test starts"),
        (experiment(App("a:app")), Url("https://h/"), "whose time would count on one side only; expected both or neit"),
        (experiment(App("a:app"), [httpx.Request("POST", "/x")]), rival, "which no model takes; expected inputs"),
    ],
)
def test_what_cannot_be_compared_is_refused(mine: Experiment, given: object, words: str) -> None:
    with pytest.raises(SettingError, match=re.escape(words)):
        other_side(mine, given, METHOD)


@each_row(
    ("mine", "given", "words"),
    [
        (experiment(), 5, "assert_faster_than(reference=...) is int, expected a callable that takes a list of inputs"),
        (experiment(), App("a:app"), "expected a callable; write assert_faster_than(App('a:app'))"),
        (experiment(rate_rps=10), rival, "under constant(10/s), expected a closed loop of at most 256 callers"),
        (experiment(load=ClosedLoop(2, "5ms")), rival, "write perf(concurrency=4)"),
        (experiment(concurrency=257), rival, "expected a closed loop of at most 256 callers"),
        (experiment(engine="ray"), rival, 'beside engine="ray", which plain calls do not have; leave it out'),
        (experiment(App("a:app"), [httpx.Request("POST", "/x")]), rival, "make the requests with perf(request=...)"),
    ],
)
def test_calls_that_cannot_have_the_load_of_the_test_are_refused(mine: Experiment, given: object, words: str) -> None:
    with pytest.raises(SettingError, match=re.escape(words)):
        plain_side(mine, given, METHOD)


@each_row(
    ("error", "said"),
    (DeploymentError("App('a:app'): it ended", subject=App("a:app")), "App('a:app'): it ended"),
    (DeploymentError("it ended"), "App('a:app'): it ended"),
    (ModelLoadError("App('a:app') failed", subject=App("a:app"), of_model=True), "App('a:app') failed"),
)
def test_an_error_of_its_start_is_that_of_the_other_side(error: DeploymentError, said: str) -> None:
    def start() -> Deployment:
        raise error

    with pytest.raises(type(error), match=f"^{re.escape(f'the other side: {said}')}$"):
        module._started("App('a:app')", start)()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Experiment, "variant_under", lambda self, rival: Variant(str(rival), start, self.plan))
        with pytest.raises(type(error), match=r"^the other side: "):
            other_side(experiment(pattern=Cached()), "single", METHOD).variant.start()


@each_row(
    ("sides", "marker", "message"),
    [
        ({}, {}, "(...) has none, expected one of other, reference=, load= and payload="),
        ({"other": Cached(), "reference": rival}, {}, "(...) has other= and reference=, expected one of other, ref"),
        ({"load": ClosedLoop(2), "payload": [3]}, {}, "(...) has load= and payload=, expected one of other, ref"),
        ({"load": 2}, {}, "(load=...) is 2, expected a schedule; write ClosedLoop(16)"),
        ({"load": ClosedLoop(1)}, {}, "(load=closed(1)) under that very load, expected another"),
        ({"payload": [1, 2]}, {}, "(payload=...) has the test's own inputs, expected others"),
        (
            {"other": Cached(), "reference": None},
            {"during": len, "rate_rps": 10},
            "of a test with during=, expected none: its steps need a whole window, and two sides are measured in short",
        ),
    ],
)
def test_what_an_assertion_asks_for_is_one_side(sides: dict[str, Any], marker: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=re.escape(message)):
        asked_side(experiment(**marker), METHOD, sides, on="rtm")


def test_a_pattern_and_a_library_are_asked_for() -> None:
    assert asked_side(experiment(), METHOD, {"other": Cached(), "load": None}, on="rtm").kind == "pattern"
    assert asked_side(experiment(), METHOD, {"other": None, "reference": rival}, on="rtm").kind == "service"
    with pytest.raises(SettingError, match=r'on="nmrt", reference=...\), expected "rtm" or "throughput"'):
        asked_side(experiment(), METHOD, {"reference": rival}, on="nmrt")


@pytest.mark.parametrize("mine", [experiment(concurrency=4), experiment(LIT, request=as_json, concurrency=4)])
def test_another_load_or_other_inputs_are_sent_to_the_same_service(mine: Experiment) -> None:
    loaded = asked_side(mine, METHOD, {"load": ClosedLoop(2)}, on="ttft")
    assert (loaded.own, loaded.variant.name) == ("closed(4)", "closed(2)")
    assert (loaded.variant.plan.schedule, loaded.variant.plan.payload) == (ClosedLoop(2), mine.plan.payload)
    other = asked_side(mine, METHOD, {"payload": [3]}, on="nmrt")
    assert (other.own, other.variant.name) == ("the test's payload", "the other payload")
    assert [*other.variant.plan.payload.inputs] == [3]
    assert other.variant.plan.payload.builder == mine.plan.payload.builder
    assert other.variant.plan.schedule == ClosedLoop(4)
    assert not loaded.answers_alike
    with pytest.raises(SettingError, match=r'on="nmrt", load=...\), expected another metric'):
        asked_side(mine, METHOD, {"load": ClosedLoop(2)}, on="nmrt")


def test_a_factor_is_a_number_or_a_share_more() -> None:
    assert Factor.asked(METHOD, on="ttft", by="30%", tolerances=Tolerances()).least == pytest.approx(1.3)
    assert Factor.asked(METHOD, on="ttft", by=2.5, tolerances=Tolerances()).words == "2.5"
    usual = Factor.asked("assert_not_slower_than", on="rtm", by=None, tolerances=Tolerances())
    assert usual.least == pytest.approx(1 / (1 + Tolerances().of("rtm")))
