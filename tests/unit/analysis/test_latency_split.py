"""The split of a latency: declared layers and samples give their parts, and the parts add up to the whole."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from support.each_row import each_row
from support.splits import AFTER, BEFORE, split, split_layer
from support.streams import stream_launch
from support.synthetic import MS, PROPERTY, START_NS, US, S, launch, samples

from pytest_mlpatterns.analysis.causes.latency_split import CallsChange, SplitChange, split_change, splits_of
from pytest_mlpatterns.patterns.tally import SplitTally
from pytest_mlpatterns.records.latency import PARTS, LatencySplit
from pytest_mlpatterns.records.launch import Launch
from pytest_mlpatterns.records.telemetry import LayerStats, PatternStats


def loaded(latency_ns: object, layers: tuple[LayerStats, ...] = (), **changes: object) -> Launch:
    """A launch of 300 requests, one every 10 ms."""
    due = START_NS + np.arange(300, dtype=np.int64) * 10 * MS
    lag = changes.pop("lag_ns", 0)
    stats = PatternStats(layers=layers) if layers else None
    found = launch(samples(due, latency_ns, lag_ns=lag), stats=stats, open_loop=bool(changes.pop("open_loop", False)))  # type: ignore[arg-type]
    return replace(found, **changes)  # type: ignore[arg-type]


def times(of: LatencySplit, *, median: bool = False) -> dict[str, float]:
    """The parts by their key, in nanoseconds."""
    return {f"{part.of}/{part.name}".lstrip("/"): part.median_ns if median else part.mean_ns for part in of.parts}


def test_parts_of_the_process_and_what_is_left_of_both_ends_are_the_whole() -> None:
    layer = split_layer([({"wire": 200 * US, "model_cpu": 2 * MS, "calls": 1}, 3 * MS)] * 300)
    (found,) = splits_of([loaded(4 * MS, (layer,))]).values()
    assert times(found) == pytest.approx({"wire": 200 * US, "model_cpu": 2 * MS, "server": 0.8 * MS, "socket": MS})
    assert times(found, median=True) == pytest.approx(times(found))
    assert (found.mean_ns, found.median_ns, found.requests) == (4 * MS, 4 * MS, 300)
    assert found.calls == {"": 1.0}


def test_median_parts_are_those_of_requests_near_the_median() -> None:
    """Two of three requests are answered by a cache; the third needs the model."""
    layer = split_layer([({}, MS)] * 200 + [({"model_cpu": 8 * MS, "calls": 1}, 9 * MS)] * 100)
    latency = np.where(np.arange(300) % 3 == 2, 10 * MS, 2 * MS)
    found = splits_of([loaded(latency, (layer,))])["rtm"]
    assert times(found, median=True) == pytest.approx({"model_cpu": 0.0, "server": MS, "socket": MS})
    assert times(found)["model_cpu"] == pytest.approx(8 * MS / 3)
    assert found.calls == {"": pytest.approx(1 / 3)}


def test_a_median_residence_that_is_not_that_of_a_median_request_gives_way_to_the_mean() -> None:
    """A third of the requests meet a lock, and those behind them wait in the sockets as long."""
    layer = split_layer([({"model_wait": 60 * US}, 600 * US)] * 190 + [({"model_wait": 6800 * US}, 7400 * US)] * 110)
    found = splits_of([loaded(7 * MS, (layer,))])["rtm"]
    assert times(found, median=True) == pytest.approx(times(found))
    assert times(found)["model_wait"] == pytest.approx((190 * 60 * US + 110 * 6800 * US) / 300)


def test_a_part_of_the_requests_of_an_entry_counts_where_the_percentiles_cut_it() -> None:
    """From p40 to p60 of ten requests are the fifth and the sixth, one of each kind."""
    layer = split_layer([({"wire": 1000}, 2000)] * 5 + [({"wire": 3000}, 8000)] * 5)
    found = splits_of([loaded(5000, (layer,))])["rtm"]
    assert times(found, median=True) == pytest.approx({"wire": 2000, "server": 3000})


@pytest.mark.parametrize(("open_loop", "waited"), [(True, 3 * MS), (False, 0)])
def test_waiting_to_be_sent_is_a_part_in_an_open_loop(open_loop: bool, waited: int) -> None:
    found = splits_of([loaded(5 * MS, lag_ns=3 * MS, open_loop=open_loop)])["rtm"]
    assert times(found) == pytest.approx({"service": 5 * MS - waited} | ({"send_wait": waited} if waited else {}))


@pytest.mark.parametrize(("waits", "median_ns"), [(300, 2 * MS), (30, 0)])
def test_waits_for_a_connection_are_of_the_median_if_most_requests_wait(waits: int, median_ns: float) -> None:
    one = loaded(5 * MS)
    report = replace(one.generator, completed=300, connection_wait_ns=600 * MS, connection_waits=waits)
    found = splits_of([replace(one, generator=report)])["rtm"]
    connection = found.part("connection")
    assert (connection.mean_ns, connection.median_ns) == (2 * MS, median_ns)
    assert sum(part.median_ns for part in found.parts) == 5 * MS


def test_stages_have_parts_and_calls_of_their_own_and_inner_processes_none() -> None:
    parts = {"a/model_wait": 2 * MS, "b/run_queue": 2 * MS, "a/model_cpu": 4 * MS, "a/calls": 1, "b/calls": 1}
    outer = split_layer([(parts, 9 * MS)] * 300)
    inner = LayerStats(1, "split", {}, {})
    found = splits_of([loaded(9 * MS, (inner, outer))])["rtm"]
    assert times(found) == pytest.approx(
        {"a/model_cpu": 4 * MS, "b/run_queue": 2 * MS, "a/model_wait": 2 * MS, "server": MS}
    )
    assert found.calls == {"a": 1.0, "b": 1.0}
    assert found.parts[0].label == "model on CPU (a)"


def test_parts_longer_than_the_whole_are_not_hidden() -> None:
    layer = split_layer([({"model_cpu": 4 * MS}, 5 * MS)] * 300)
    found = splits_of([loaded(4 * MS, (layer,))])["rtm"]
    assert times(found) == pytest.approx({"model_cpu": 4 * MS, "server": MS, "unexplained": -MS})
    assert splits_of([loaded(4.9 * MS, (layer,))])["rtm"].part("unexplained") is None


def test_what_another_server_reports_comes_out_of_its_time() -> None:
    counters = {"calls": 30, "items": 300, "wait_ns_sum": 300 * MS, "wait_ns_count": 300}
    batched = LayerStats(0, "batched", counters | {"call_ns_sum": 60 * MS, "call_ns_count": 30})
    queued = LayerStats(0, "queued", {}, {"wait_ns": {MS: 150}})
    found = splits_of([loaded(5 * MS, (batched, queued))])["rtm"]
    assert times(found) == pytest.approx(
        {"model_call": 2 * MS, "queue_wait": 0.5 * MS, "batch_wait": MS, "service": 1.5 * MS}
    )
    assert sum(part.median_ns for part in found.parts) == pytest.approx(5 * MS)


def test_a_report_longer_than_the_service_leaves_nothing_negative() -> None:
    queued = LayerStats(0, "queued", {}, {"wait_ns": {9 * MS: 300}})
    assert times(splits_of([loaded(5 * MS, (queued,))])["rtm"]) == {"queue_wait": 5 * MS}


def test_launches_count_alike_and_their_scatter_is_the_error() -> None:
    layers = [split_layer([({"model_cpu": cpu}, cpu)] * 300) for cpu in (2 * MS, 4 * MS)]
    found = splits_of([loaded(5 * MS, (layer,)) for layer in layers])["rtm"]
    part = found.part("model_cpu")
    assert part.mean_ns == pytest.approx(3 * MS)
    assert part.error_ns == pytest.approx((2 * (0.15 * MS) ** 2 + 2 * MS**2) ** 0.5 / 3**0.5 / 2**0.5)


def test_slow_requests_that_scatter_the_mean_hide_no_change_of_the_median() -> None:
    """Of a service of 5 ms one request in ten takes 60, 90 or 500 ms, another one in each launch."""
    before, now = (
        splits_of([loaded(np.where(np.arange(300) % 10, typical, slow) * MS, ()) for slow in (60, 90, 500, 90)])["rtm"]
        for typical in (1, 5)
    )
    assert [part.name for part in split_change(before, now, of="median").parts] == ["service"]
    assert split_change(before, now, of="mean").parts == (), "which scatters by more than 4 ms"


@pytest.mark.parametrize("requests", [1, 2, 3, 7])
def test_few_requests_have_a_split_too(requests: int) -> None:
    due = START_NS + np.arange(requests, dtype=np.int64) * MS
    of = samples(due, (1 + np.arange(requests)) * MS, lag_ns=np.arange(requests) * 1000)
    found = splits_of([launch(of, open_loop=True)])["rtm"]
    assert sum(part.median_ns for part in found.parts) == pytest.approx(found.median_ns)
    assert sum(part.mean_ns for part in found.parts) == pytest.approx(found.mean_ns)


def test_nothing_that_succeeded_gives_no_split() -> None:
    due = START_NS + np.arange(10, dtype=np.int64) * MS
    assert splits_of([launch(samples(due, MS, outcome=500))]) == {}


def test_streams_have_a_split_until_the_first_token_and_of_each_further_one() -> None:
    tally = SplitTally(0)
    for _ in range(100):
        first = {"model_cpu": 8 * MS, "queue_wait": 10 * MS}
        rest = {"model_cpu": 23 * MS, "queue_wait": 10 * MS, "calls": 1}
        tally.add_stream(first, 19 * MS, rest, total_ns=49 * MS, chunks=4)
    one = replace(stream_launch(ttft_ns=20 * MS, chunks=4), stats=PatternStats(layers=(tally.snapshot(),)))
    found = splits_of([one])
    assert times(found["ttft"]) == pytest.approx(
        {"model_cpu": 8 * MS, "queue_wait": 10 * MS, "server": MS, "socket": MS}
    )
    assert times(found["tpot"]) == pytest.approx({"model_cpu": 5 * MS, "server": 5 * MS})
    assert found["tpot"].mean_ns == pytest.approx(10 * MS)
    assert found["rtm"].calls == {"": 1.0}


@PROPERTY
@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.sampled_from(["wire", "a/model_cpu", "b/model_wait", "queue_wait"]), st.integers(0, S)),
            st.integers(1, S),
        ),
        min_size=1,
        max_size=20,
    ),
    st.integers(1, S),
)
def test_parts_always_add_up(requests: list[tuple[dict[str, int], int]], latency_ns: int) -> None:
    found = splits_of([loaded(latency_ns, (split_layer(requests),))])["rtm"]
    for name in ("mean_ns", "median_ns"):
        parts = [getattr(part, name) for part in found.parts]
        assert sum(parts) == pytest.approx(getattr(found, name), abs=10 + 1e-6 * max(map(abs, [*parts, S])))
    places = [list(PARTS).index(part.name) for part in found.parts]
    assert places == sorted(places)


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
