"""Mixes: classes of callers as a value, and the requests of every class; what cannot be mixed is refused."""

from __future__ import annotations

import itertools
import json
import pickle
from array import array
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.records.caller_classes import ClassRequests
from pytest_mlpatterns.wire import REST_JSON, Wire
from pytest_mlpatterns.workload.input_order import InOrder, Zipf
from pytest_mlpatterns.workload.mix import Mix, most_callers
from pytest_mlpatterns.workload.mixed_payload import read_mix
from pytest_mlpatterns.workload.plan import LoadPlan
from pytest_mlpatterns.workload.schedule import Bulk, ClosedLoop, ConstantRate, PoissonRate, Stages

if TYPE_CHECKING:
    from pytest_mlpatterns.workload.payload import Payload

MS = 1_000_000
BOTH = Mix({"gold": PoissonRate(20), "bulk": (ClosedLoop(4, think_time="5ms"), InOrder(["x", "y"]))})


def bodies(payload: Payload) -> list[Any]:
    return [json.loads(message.partition(b"\r\n\r\n")[2]) for message in payload.messages("h", 80, "/p")]


def test_a_mix_prints_its_classes_and_says_what_they_are_together() -> None:
    assert str(BOTH) == "mix(gold: poisson(20/s), bulk: closed(4, think_time=5ms))"
    assert (BOTH.closed, BOTH.length_ns, BOTH.names, most_callers(BOTH)) == (False, None, ("gold", "bulk"), 4)
    staged = Mix({"a": Stages([("1s", 4), ("1s", 2)], of="concurrency"), "b": ClosedLoop(3)})
    assert (staged.closed, staged.length_ns, most_callers(staged)) == (True, 2_000 * MS, 7)
    bare = pickle.loads(pickle.dumps(BOTH.bare()))
    assert str(bare) == str(BOTH)
    assert [one.inputs for one in bare.classes] == [None, None]
    assert "gold" in repr(BOTH)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Mix({"gold": ClosedLoop(1)}), "expected from 2 to 16 classes of callers by their names"),
        (lambda: Mix([ClosedLoop(1), ClosedLoop(2)]), "expected from 2 to 16 classes"),
        (lambda: Mix({"a": ClosedLoop(1), "b c": ClosedLoop(1)}), "Mix({'b c': ...}), expected a name of at most 32"),
        (lambda: Mix({"a": ClosedLoop(1), 5: ClosedLoop(1)}), "Mix({5: ...}), expected a name"),
        (lambda: Mix({"a": ClosedLoop(1), "b": 5}), "class b is 5, expected a schedule (ClosedLoop, ConstantRate,"),
        (lambda: Mix({"a": ClosedLoop(1), "b": ()}), "class b is (), expected a schedule"),
        (lambda: Mix({"a": ClosedLoop(1), "b": (ClosedLoop(1), [1], None, 4)}), "class b is (ClosedLoop("),
        (lambda: Mix({"a": ClosedLoop(1), "b": (ClosedLoop(1), [1], "x")}), "class b has 'x' as its third member"),
        (lambda: Mix({"a": ClosedLoop(1), "b": Bulk(10)}), "class b is bulk(chunk=10, concurrency=2), which ends"),
        (
            lambda: Mix({"a": Stages([("1s", 4)]), "b": Stages([("2s", 4)])}),
            "has classes of different lengths (a 1.00 s, b 2.00 s), expected one length",
        ),
    ],
)
def test_an_impossible_mix_is_named_with_what_is_possible(make: Any, expected: str) -> None:
    with pytest.raises(SettingError) as caught:
        make()
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_each_class_has_requests_of_its_own_one_class_after_the_other() -> None:
    payload = read_mix(BOTH, ["a", "b", "c"])
    assert bodies(payload) == [{"instances": [one]} for one in ("a", "b", "c", "x", "y")]
    assert [(part.name, part.first, part.end) for part in payload.parts] == [("gold", 0, 3), ("bulk", 3, 5)]
    assert sorted(array("I", payload.parts[0].order())) == [0, 1, 2]
    assert array("I", payload.parts[1].order()).tolist() == [3, 4]
    assert payload.name_of(4) == "item 1 of class bulk"
    assert payload.is_shuffled
    assert payload.inputs == ("a", "b", "c", "x", "y")


def test_the_identity_of_a_mix_has_its_names_inputs_and_draws() -> None:
    def digest(mix: Mix) -> str:
        return read_mix(mix, [1, 2]).digest

    plain = Mix({"a": ClosedLoop(1), "b": ClosedLoop(1)})
    assert digest(plain) == digest(Mix({"a": ClosedLoop(1), "b": ClosedLoop(2)}))
    others = (
        Mix({"a": ClosedLoop(1), "c": ClosedLoop(1)}),
        Mix({"a": ClosedLoop(1), "b": (ClosedLoop(1), [2, 1])}),
        Mix({"a": ClosedLoop(1), "b": (ClosedLoop(1), Zipf([1, 2]))}),
    )
    assert digest(plain) not in map(digest, others)


def test_a_class_makes_its_own_requests() -> None:
    mix = Mix(
        {
            "gold": (ClosedLoop(1), None, lambda one: {"json": {"gold": one}, "headers": {"x-tier": "gold"}}),
            "bulk": (ClosedLoop(1), [7], lambda one: {"path": "/batch", "json": {"bulk": one}}),
        }
    )
    payload = read_mix(mix, [1], path="/p")
    assert bodies(payload) == [{"gold": 1}, {"bulk": 7}]
    assert payload.messages("h", 80, "/p")[1].startswith(b"POST /batch ")
    assert "x-tier" in payload.headers
    assert payload.builder is not None
    with pytest.raises(SettingError, match="the class of callers gold makes its own requests"):
        payload.at("/other")


@pytest.mark.parametrize(
    ("mix", "given", "wire", "expected"),
    [
        (BOTH, None, REST_JSON, "class gold of the mix has no inputs, and the test has none"),
        (BOTH, [], REST_JSON, "class gold of the mix: perf_payload is empty"),
        (
            Mix({"a": ClosedLoop(1), "b": (ClosedLoop(1), [httpx.Request("POST", "/x")])}),
            [1],
            REST_JSON,
            "(a inputs as the wire encodes them, b complete requests), expected one kind",
        ),
        (
            Mix({"a": ClosedLoop(1), "b": (ClosedLoop(1), None, lambda one: {"json": one})}),
            [1],
            REST_JSON,
            "b what a function makes of its inputs), expected one kind",
        ),
        (
            Mix({"a": ClosedLoop(1), "b": (ClosedLoop(1), [{"turns": ["Hello"]}])}),
            ["Hello"],
            Wire("openai", "json"),
            "class b of the mix has conversations",
        ),
    ],
)
def test_requests_that_cannot_be_mixed_are_refused_with_the_class(
    mix: Mix, given: object, wire: Wire, expected: str
) -> None:
    with pytest.raises(SettingError) as caught:
        read_mix(mix, given, wire)
    assert expected in str(caught.value)


def test_a_plan_names_its_classes_and_plans_no_window_by_requests() -> None:
    plan = LoadPlan(read_mix(BOTH, [1]), BOTH, 700 * MS, None, 10_000 * MS, None, budget_ns=30_000 * MS)
    assert plan.classes == (
        ClassRequests("gold", "poisson(20/s)", 0, 1, closed=False, rate_rps=20),
        ClassRequests("bulk", "closed(4, think_time=5ms)", 1, 3, closed=True),
    )
    assert plan.window_plan(0, 3) is None


def test_inputs_that_classes_share_are_encoded_once() -> None:
    mix = Mix({name: ConstantRate(1) for name in "abc"})
    payload = read_mix(mix, [1, 2])
    assert len({id(body) for body in payload.bodies}) == 2
    assert [*itertools.chain(*(array("I", part.order()) for part in payload.parts))].count(4) == 1
