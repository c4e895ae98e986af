"""Readings of several nodes as one usage: sums over nodes, each machine once, at the marks of this process's clock."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.nodes import reading, replica
from support.synthetic import MS, PROPERTY, S

from pytest_mlpatterns.engines.ray.cluster import ClockOffset
from pytest_mlpatterns.engines.ray.cluster_monitor import usage_of
from pytest_mlpatterns.engines.ray.messages import NodeReading, ReplicaState
from pytest_mlpatterns.records.launch import Usage

MARKS = (S, 2 * S, 3 * S)


def even(node: int = 1, *, serves: bool = True, machine: str = "", **rates: float) -> list[NodeReading]:
    """Readings a little after each mark, whose counters grow at these rates of cores."""
    name = machine or f"machine-{node}"
    replicas = (replica(f"{node}"),) if serves else ()
    return [
        reading(
            node,
            *replicas,
            clock_ns=mark + 3 * MS,
            machine=name,
            **{column: round(rate * (mark + 3 * MS)) for column, rate in rates.items()},
        )
        for mark in MARKS
    ]


def usage(*readings: NodeReading, offsets: Any = None) -> Usage:
    return usage_of(MARKS, readings, offsets or {})


def test_without_a_replica_there_is_no_usage() -> None:
    assert usage_of(MARKS, even(serves=False), {}) is None
    assert usage_of(MARKS, (), {}) is None
    assert usage_of((), even(), {}) is None


def test_there_is_a_row_for_each_mark_and_counters_belong_to_it() -> None:
    found = usage(*even(cpu_ns=0.5))
    assert found.time_ns.tolist() == list(MARKS)
    # before the first reading nothing is known, after it the counter is that of the mark
    assert found.cpu_ns.tolist() == [round(0.5 * (S + 3 * MS)), S, round(1.5 * S)]


def test_nodes_are_added_up() -> None:
    found = usage(*even(1, cpu_ns=0.5, machine_busy_ns=2), *even(2, cpu_ns=1.5, machine_busy_ns=1))
    assert found.cpu_ns[2] - found.cpu_ns[1] == 2 * S
    assert found.machine_busy_ns[2] - found.machine_busy_ns[1] == 3 * S
    assert (found.cores, found.machine_cores) == (8, 8)


def test_nodes_on_one_machine_count_its_counters_and_cores_once() -> None:
    one = even(1, cpu_ns=0.5, machine_busy_ns=2, machine="same")
    two = even(2, cpu_ns=0.25, machine_busy_ns=2, machine="same")
    found = usage(*one, *two)
    assert found.cpu_ns[2] - found.cpu_ns[1] == round(0.75 * S)
    assert found.machine_busy_ns[2] - found.machine_busy_ns[1] == 2 * S
    assert found.others_ns[2] - found.others_ns[1] == round(1.25 * S)
    assert (found.cores, found.machine_cores) == (4, 4)


def test_two_containers_of_a_machine_have_the_cores_of_both() -> None:
    found = usage(*(reading(node, replica(f"{node}"), machine="same", cores=4.0, machine_cores=16) for node in (1, 2)))
    assert (found.cores, found.machine_cores) == (8, 16)


def test_others_are_what_neither_replicas_nor_ray_nor_generators_used() -> None:
    found = usage(*even(machine_busy_ns=4, steal_ns=1, cpu_ns=0.5, serve_cpu_ns=0.25, generator_ns=1))
    assert found.others_ns[2] - found.others_ns[1] == round(1.25 * S)
    assert found.steal_ns[2] - found.steal_ns[1] == S
    assert found.without_generator


def test_a_node_without_replicas_counts_as_others_only_if_it_shares_a_machine() -> None:
    apart = even(2, serves=False, machine_busy_ns=3, generator_ns=1)
    beside = even(3, serves=False, machine_busy_ns=2, generator_ns=1, machine="machine-1")
    found = usage(*even(1, machine_busy_ns=2, cpu_ns=0.5), *apart, *beside)
    assert found.others_ns[2] - found.others_ns[1] == round(0.5 * S)
    assert [node.node for node in found.nodes] == ["10.0.0.1"]


def test_counters_of_a_node_are_read_on_its_own_clock() -> None:
    ahead = [reading(1, replica(), clock_ns=mark + 90 * S, cpu_ns=(mark // S) ** 2 * MS) for mark in (S, 2 * S, 3 * S)]
    found = usage(*ahead, offsets={ahead[0].node: ClockOffset(90 * S, 0)})
    assert found.cpu_ns.tolist() == [MS, 4 * MS, 9 * MS]


def test_a_reading_that_is_missing_is_interpolated_and_a_lost_node_stays_as_it_was() -> None:
    first, second, third = even(1, cpu_ns=1)
    found = usage(first, third)
    assert found.cpu_ns[1] == pytest.approx(2 * S, abs=1)
    lost = usage(*even(1, cpu_ns=1), *even(2, cpu_ns=1)[:1])
    assert lost.cpu_ns[2] - lost.cpu_ns[1] == S
    assert second.clock_ns == 2 * S + 3 * MS


def test_each_node_is_a_part_of_the_whole() -> None:
    found = usage(*even(1, cpu_ns=0.5, rss_bytes=0.1, serve_cpu_ns=0.1), *even(2, cpu_ns=1.5, rss_bytes=0.2))
    one, two = found.nodes
    assert (one.cpu_ns + two.cpu_ns).tolist() == found.cpu_ns.tolist()
    assert (one.rss_bytes + two.rss_bytes).tolist() == found.rss_bytes.tolist()
    assert one.serve_cpu_ns[2] - one.serve_cpu_ns[1] == pytest.approx(0.1 * S, abs=1)
    assert (one.node, one.cores, one.replicas) == ("10.0.0.1", 4, 1)
    later = found.since(1)
    assert later.nodes[0].cpu_ns.tolist() == one.cpu_ns[1:].tolist()
    assert later.nodes[1].rss_bytes.size == later.nodes[1].serve_cpu_ns.size == 2


def test_nodes_with_one_address_are_told_apart_and_ended_replicas_do_not_count() -> None:
    same = [reading(node, replica(f"{node}"), ip="127.0.0.1") for node in (1 << 220, 2 << 220)]
    ended = reading(3 << 220, replica("c"), replica("d", ReplicaState.ENDED))
    found = usage(*same, ended)
    assert [node.node for node in found.nodes] == ["127.0.0.1/100000", "127.0.0.1/200000", f"10.0.0.{3 << 220}"]
    assert [node.replicas for node in found.nodes] == [1, 1, 1]


def test_the_machine_that_was_throttled_and_the_mean_frequency() -> None:
    one = even(1, throttled_ns=0.1, frequency_hz=1, machine="same")
    two = even(2, throttled_ns=0.3, frequency_hz=1, machine="same")
    found = usage(*one, *two)
    assert found.throttled_ns[2] - found.throttled_ns[1] == round(0.3 * S)
    assert found.frequency_hz.tolist() == [mark + 3 * MS for mark in MARKS]


def test_memory_is_what_was_read_and_not_what_lies_between() -> None:
    sizes = {S: 100, 2 * S: 900, 3 * S: 200}
    found = usage(*(reading(1, replica(), clock_ns=at + 3 * MS, rss_bytes=size) for at, size in sizes.items()))
    assert found.rss_bytes.tolist() == [100, 900, 200]
    lost = usage(*(reading(1, replica(), clock_ns=at + 3 * MS, rss_bytes=sizes[at]) for at in (S, 2 * S)))
    assert lost.rss_bytes.tolist() == [100, 900, 900]


def test_threads_that_did_the_work_are_counted_for_each_process_of_each_node() -> None:
    def at(node: int, mark: int, *threads: tuple[int, int, int]) -> NodeReading:
        return reading(node, replica(f"{node}"), clock_ns=mark, threads=threads)

    found = usage(
        at(1, S, (7, 1, 0), (7, 2, 0)),
        at(2, S, (7, 1, 0)),
        at(1, 2 * S),  # a poll does not read them
        at(1, 3 * S, (7, 1, S), (7, 2, S), (8, 1, 0)),
        at(2, 3 * S, (7, 1, S)),
    )
    assert sorted(found.busy_threads) == [1, 2]


@PROPERTY
@given(st.lists(st.integers(0, 10**15), min_size=2, max_size=20), st.integers(-(10**12), 10**12))
def test_cumulative_counters_never_fall(values: list[int], offset_ns: int) -> None:
    values.sort()
    marks = [S * number for number in range(len(values))]
    readings = [
        reading(1, replica(), clock_ns=mark + offset_ns, cpu_ns=value)
        for mark, value in zip(marks, values, strict=True)
    ]
    found = usage_of(marks, readings, {readings[0].node: ClockOffset(offset_ns, 0)})
    assert (np.diff(found.cpu_ns) >= 0).all()
    assert found.cpu_ns.tolist() == values
