"""Changes of a split: which parts are named, and in which order, for declared splits."""

import pytest
from support.each_row import each_row
from support.splits import AFTER, BEFORE, split
from support.synthetic import MS, US

from pytest_mlpatterns.analysis.causes.latency_split import CallsChange, SplitChange, split_change
from pytest_mlpatterns.records.latency import LatencySplit


def changed(before: dict[str, float], now: dict[str, float], **arguments: object) -> SplitChange:
    """The change between two splits by their parts."""
    return split_change(split(before), split(now), **arguments)  # type: ignore[arg-type]


def named(change: SplitChange) -> list[str]:
    return [f"{part.of}/{part.name}".lstrip("/") for part in change.parts]


def test_the_parts_that_changed_are_named_and_the_rest_is_a_sum() -> None:
    change = split_change(BEFORE, AFTER)
    assert [(part.label, part.change_ns) for part in change.parts] == [
        ("model on CPU", pytest.approx(11.7 * MS)),
        ("queue wait", pytest.approx(MS)),
    ]
    assert change.total_ns == pytest.approx(12.71 * MS)
    assert change.rest_ns == pytest.approx(10 * US)
    assert change.calls == ()


def test_unchanged_splits_name_nothing_but_know_the_largest() -> None:
    change = changed({"model_cpu": 9 * MS, "wire": 200 * US}, {"model_cpu": 9.1 * MS, "wire": 200 * US})
    assert change.parts == ()
    assert change.largest.change_ns == pytest.approx(0.1 * MS)
    assert split_change(BEFORE, BEFORE).parts == ()
    exact, quicker = (split({"socket": MS + by}, error=0.0) for by in (0.0, -0.5))  # less than the clock shows
    assert split_change(exact, exact).parts == split_change(exact, quicker).parts == ()


@each_row(
    ("callers", "times_ms", "names"),
    (1, "model_cpu 10>10.4 socket 1>3", "socket"),  # within two errors
    (1, "model_cpu 1>1.4 socket 1>11", "socket"),  # under 5 % of the change
    # the wait follows from the service as far as callers share a process
    (8, "model_cpu 1.5>3 socket 10.5>21", "model_cpu socket"),
    (2, "model_cpu 1.5>3 socket 10.5>21", "model_cpu socket"),
    (1, "model_cpu 1.5>3 socket 10.5>21", "socket model_cpu"),
    # in an open loop a queue follows from a service that grew, but not by 70 times as much, or from less than 5 %
    (None, "model_cpu 2>2.4 queue_wait 2>12", "model_cpu queue_wait"),
    (None, "model_cpu 2>2.15 queue_wait 2>12", "queue_wait"),
    (None, "model_cpu 10>10.7 queue_wait 2>7", "model_cpu queue_wait"),
    (None, "model_cpu 10>10.45 queue_wait 2>7", "queue_wait"),
    # 64 callers wait for one process: parts of the service count by their share of it, not of the change
    (64, "model_cpu 1.5>3 wire 0.1>0.14 socket 94.5>190", "model_cpu socket"),
    # on a busy machine the code comes before what follows from it, also where it slept before
    (1, "model_cpu 1.2>1.8 run_queue 1.5>2.95 server 3>7 socket 5>5", "model_cpu server run_queue"),
    (2, "model_cpu 0>8 model_wait 2>2 run_queue 0.1>42 socket 3>57", "model_cpu run_queue socket"),
    # a gateway that computes comes before its wait for a processor
    (1, "wire 0.14>0.1 hop 0.61>0.5 run_queue 3.4>21 server 0.4>7.4 socket 2>5.5", "server run_queue socket"),
    # a part that became shorter takes nothing from one that leads, and comes last
    (4, "model_block 0>2 model_wait 5>1.7 socket 5>15", "model_block socket model_wait"),
    (None, "model_wait 5>1 model_cpu 0>9 socket 1>3", "model_cpu socket model_wait"),
    (4, "model_cpu 9>6 socket 9>2", "model_cpu socket"),  # an improvement
)
def test_parts_that_changed_are_named_in_the_order_of_causes(callers: float | None, times_ms: str, names: str) -> None:
    """``model_cpu 1.5>3``: the milliseconds of a part before and now."""
    words = times_ms.split()
    before, now = (
        {name: float(pair.split(">")[side]) * MS for name, pair in zip(words[::2], words[1::2], strict=True)}
        for side in (0, 1)
    )
    assert named(changed(before, now, callers_per_process=callers)) == names.split()


@each_row("name", ["run_queue", "server", "hop"])
def test_what_a_busy_machine_stretches_leads_where_the_code_is_as_it_was(name: str) -> None:
    before = {"model_cpu": 2 * MS, name: MS, "socket": MS}
    now = {"model_cpu": 2.01 * MS, name: 5 * MS, "socket": 3 * MS}
    assert named(changed(before, now, callers_per_process=2.0)) == [name, "socket"]
    now |= {"model_cpu": 2.4 * MS, name: 8 * MS}  # what explains too little comes by its size
    assert named(changed(before, now, callers_per_process=1.0)) == [name, "model_cpu", "socket"]


def with_calls(calls: float, **parts: float) -> LatencySplit:
    return split(parts, calls={"": calls})


@each_row(
    ("before", "now", "found"),
    (with_calls(0.08, model_cpu=0.8 * MS), with_calls(1.0, model_cpu=10 * MS), (CallsChange("", 0.08, 1.0),)),
    (  # smaller batches: each is shorter, and the wait for them longer
        with_calls(1 / 16, model_cpu=8 * MS, queue_wait=MS),
        with_calls(1 / 4, model_cpu=2 * MS, queue_wait=19 * MS),
        (CallsChange("", 1 / 16, 1 / 4),),
    ),
    (with_calls(0.5, model_cpu=MS), with_calls(0.56, model_cpu=11 * MS), ()),  # the model is slower
    (with_calls(1.0, model_cpu=MS), with_calls(1.05, model_cpu=2 * MS), ()),  # hardly more
    (with_calls(0.001, model_cpu=MS), with_calls(0.002, model_cpu=1.5 * MS), ()),  # hardly any
    (with_calls(0.2, model_cpu=MS), with_calls(0.1, model_cpu=2 * MS), ()),  # larger batches of a slower model
    (with_calls(0.0), with_calls(1.0, model_cpu=2 * MS), (CallsChange("", 0.0, 1.0),)),  # no hit any more
)
def test_calls_are_the_cause_if_they_grew_more_than_the_time_of_each(
    before: LatencySplit, now: LatencySplit, found: tuple[CallsChange, ...]
) -> None:
    assert split_change(before, now).calls == found


def test_a_model_of_an_ensemble_that_answers_last_more_often_is_not_called_more() -> None:
    before = split({"a/model_cpu": MS, "b/model_cpu": MS}, calls={"a": 0.4, "b": 0.6})
    now = split({"a/model_cpu": 2 * MS, "b/model_cpu": 0.5 * MS}, calls={"a": 0.8, "b": 0.2})
    assert split_change(before, now).calls == ()


def test_other_parts_can_be_left_out() -> None:
    change = split_change(BEFORE, AFTER, of="mean", only=("model_cpu", "server"))
    assert named(change) == ["model_cpu"]
    assert change.total_ns == pytest.approx(11.7 * MS)
