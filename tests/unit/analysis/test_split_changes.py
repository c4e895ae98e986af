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


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ({"model_cpu": 10 * MS, "socket": MS}, {"model_cpu": 10.4 * MS, "socket": 3 * MS}),  # within two errors
        ({"model_cpu": MS, "socket": MS}, {"model_cpu": 1.4 * MS, "socket": 11 * MS}),  # under 5 % of the change
    ],
)
def test_a_change_within_noise_or_of_little_weight_is_not_named(
    before: dict[str, float], now: dict[str, float]
) -> None:
    assert named(changed(before, now, callers_per_process=1.0)) == ["socket"]


def test_unchanged_splits_name_nothing_but_know_the_largest() -> None:
    change = changed({"model_cpu": 9 * MS, "wire": 200 * US}, {"model_cpu": 9.1 * MS, "wire": 200 * US})

    assert change.parts == ()
    assert change.largest is not None
    assert change.largest.change_ns == pytest.approx(0.1 * MS)
    assert split_change(BEFORE, BEFORE).parts == ()
    exact, quicker = (split({"socket": MS + by}, error=0.0) for by in (0.0, -0.5))  # less than the clock shows
    assert split_change(exact, exact).parts == split_change(exact, quicker).parts == ()


@pytest.mark.parametrize(("callers", "first"), [(8.0, "model_cpu"), (2.0, "model_cpu"), (1.0, "socket")])
def test_the_wait_follows_from_the_service_as_far_as_callers_share_a_process(callers: float, first: str) -> None:
    before = {"model_cpu": 1.5 * MS, "socket": 10.5 * MS}
    now = {"model_cpu": 3 * MS, "socket": 21 * MS}

    assert named(changed(before, now, callers_per_process=callers))[0] == first


@each_row(
    ("cpu", "queue_now", "first"),
    [
        ((2, 2.4), 12, "model_cpu"),
        ((2, 2.15), 12, "queue_wait"),  # 70 times as much
        ((10, 10.7), 7, "model_cpu"),
        ((10, 10.45), 7, "queue_wait"),  # by less than 5 %
    ],
)
def test_in_an_open_loop_a_queue_follows_from_a_service_that_grew(
    cpu: tuple[float, float], queue_now: float, first: str
) -> None:
    before, now = (
        {"model_cpu": cpu_ms * MS, "queue_wait": queue_ms * MS}
        for cpu_ms, queue_ms in zip(cpu, (2, queue_now), strict=True)
    )

    assert named(changed(before, now))[0] == first


def test_where_waits_follow_parts_of_the_service_count_by_their_share_of_it() -> None:
    """64 callers wait for one process: the model's 1.5 ms are under 2 % of the change."""
    before = {"model_cpu": 1.5 * MS, "wire": 100 * US, "socket": 94.5 * MS}
    now = {"model_cpu": 3 * MS, "wire": 140 * US, "socket": 190 * MS}

    assert named(changed(before, now, callers_per_process=64.0)) == ["model_cpu", "socket"]


def test_on_a_busy_machine_the_code_comes_before_what_follows_from_it() -> None:
    before = {"model_cpu": 1.2 * MS, "run_queue": 1.5 * MS, "server": 3 * MS, "socket": 5 * MS}
    now = {"model_cpu": 1.8 * MS, "run_queue": 2.95 * MS, "server": 7 * MS, "socket": 5 * MS}

    assert named(changed(before, now, callers_per_process=1.0)) == ["model_cpu", "server", "run_queue"]


def test_a_gateway_that_computes_comes_before_its_wait_for_a_processor() -> None:
    before = {"wire": 0.14 * MS, "hop": 0.61 * MS, "run_queue": 3.4 * MS, "server": 0.4 * MS, "socket": 2 * MS}
    now = {"wire": 0.1 * MS, "hop": 0.5 * MS, "run_queue": 21 * MS, "server": 7.4 * MS, "socket": 5.5 * MS}

    assert named(changed(before, now, callers_per_process=1.0)) == ["server", "run_queue", "socket"]


def test_code_that_computes_where_it_slept_before_meets_a_busy_machine() -> None:
    before = {"model_wait": 2 * MS, "run_queue": 0.1 * MS, "socket": 3 * MS}
    now = {"model_cpu": 8 * MS, "model_wait": 2 * MS, "run_queue": 42 * MS, "socket": 57 * MS}

    assert named(changed(before, now, callers_per_process=2.0)) == ["model_cpu", "run_queue", "socket"]


@pytest.mark.parametrize("name", ["run_queue", "server", "hop"])
def test_what_a_busy_machine_stretches_leads_where_the_code_is_as_it_was(name: str) -> None:
    before = {"model_cpu": 2 * MS, name: MS, "socket": MS}
    now = {"model_cpu": 2.01 * MS, name: 5 * MS, "socket": 3 * MS}

    assert named(changed(before, now, callers_per_process=2.0)) == [name, "socket"]
    now |= {"model_cpu": 2.4 * MS, name: 8 * MS}  # what explains too little comes by its size
    assert named(changed(before, now, callers_per_process=1.0)) == [name, "model_cpu", "socket"]


def test_a_part_that_became_shorter_takes_nothing_from_one_that_leads() -> None:
    before = {"model_wait": 5 * MS, "socket": 5 * MS}
    now = {"model_block": 2 * MS, "model_wait": 1.7 * MS, "socket": 15 * MS}

    assert named(changed(before, now, callers_per_process=4.0)) == ["model_block", "socket", "model_wait"]


def test_parts_that_became_shorter_come_last() -> None:
    change = changed({"model_wait": 5 * MS, "socket": MS}, {"model_cpu": 9 * MS, "model_wait": MS, "socket": 3 * MS})

    assert named(change) == ["model_cpu", "socket", "model_wait"]


def test_an_improvement_is_in_the_order_of_causes_too() -> None:
    before, now = {"model_cpu": 9 * MS, "socket": 9 * MS}, {"model_cpu": 6 * MS, "socket": 2 * MS}

    assert named(changed(before, now, callers_per_process=4.0)) == ["model_cpu", "socket"]


def with_calls(calls: float, **parts: float) -> LatencySplit:
    return split(parts, calls={"": calls})


@each_row(
    ("before", "now", "found"),
    [
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
    ],
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
