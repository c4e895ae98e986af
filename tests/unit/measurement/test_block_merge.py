"""Blocks of one side joined into a launch: what is kept, where it lies; rates and medians stay as they were."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from msgspec import structs
from support.each_row import each_row
from support.synthetic import MS, START_NS, S, launch, samples, usage

from pytest_mlpatterns.analysis.metrics.blocks import LaunchBlocks
from pytest_mlpatterns.measurement.paired_blocks import (
    BlockRecording,
    answer_rate,
    block_latencies,
    joined_slices,
    merge_reports,
    merge_samples,
    merge_usage,
    merge_windows,
    own_part,
)
from pytest_mlpatterns.records.launch import GeneratorPart, GeneratorReport, NodeUsage, Usage
from pytest_mlpatterns.records.samples import Samples, Window

REPORT = GeneratorReport(cpu_ns=10 * MS, wall_ns=200 * MS, completed=20, connections=2, connect_ns=1000)


def piece(
    start_ns: int, *, latency_ns: int = 9 * MS, length_ns: int = 200 * MS, used: Usage | None = None
) -> BlockRecording:
    """A block of requests every 10 ms; they begin 50 ms before its window opens."""
    due = np.arange(start_ns - 50 * MS, start_ns + length_ns, 10 * MS)
    return BlockRecording(samples(due, latency_ns), Window(start_ns, start_ns + length_ns), used, REPORT)


def block_usage(cpu_ns: int, busy_ns: int, rss: int) -> Usage:
    columns = (250 * MS, cpu_ns, rss, busy_ns, 40 * MS, 30 * MS, 20 * MS, 3_000_000_000)
    return Usage(*(np.array([0, value]) for value in columns), cores=2, machine_cores=2)  # type: ignore[arg-type]


PIECES = [piece(START_NS), piece(START_NS + 5 * S, length_ns=400 * MS), piece(START_NS + 9 * S)]


def test_the_window_is_as_long_as_all_blocks() -> None:
    assert merge_windows(PIECES) == Window(START_NS, START_NS + 800 * MS)


def test_blocks_are_adjacent_and_requests_before_a_block_are_left_out() -> None:
    found = merge_samples(PIECES)
    assert found.due_ns.tolist() == list(range(START_NS, START_NS + 800 * MS, 10 * MS))
    assert (found.done_ns - found.due_ns == 9 * MS).all()
    assert (np.diff(found.done_ns) >= 0).all()


def test_rows_are_in_the_order_of_completion_across_blocks() -> None:
    found = merge_samples([piece(START_NS, latency_ns=50 * MS), piece(START_NS + S, latency_ns=1 * MS)])
    assert (np.diff(found.done_ns) >= 0).all()
    assert sorted(found.due_ns) == list(range(START_NS, START_NS + 400 * MS, 10 * MS))


def test_throughput_and_rtm_are_those_of_the_blocks() -> None:
    of = structs.replace(launch(merge_samples(PIECES)), window=merge_windows(PIECES))
    blocks = LaunchBlocks(of)
    throughput, rtm = blocks.throughput(), blocks.percentile(50)
    assert throughput.value == pytest.approx(100, rel=0.02)
    assert rtm.value == 9 * MS


def test_latencies_of_a_block_are_of_what_succeeded_in_its_window() -> None:
    whole = PIECES[0]
    outcome = whole.samples.outcome.copy()
    outcome[-1] = 503
    failed = structs.replace(whole, samples=structs.replace(whole.samples, outcome=outcome))
    assert block_latencies(whole).tolist() == [9 * MS] * 20
    assert block_latencies(failed).tolist() == [9 * MS] * 19


def test_what_was_used_adds_up_over_the_blocks_and_memory_is_the_highest() -> None:
    used = [block_usage(100 * MS, 300 * MS, 5), block_usage(300 * MS, 500 * MS, 9), block_usage(100 * MS, 200 * MS, 7)]
    found = merge_usage([structs.replace(one, usage=use) for one, use in zip(PIECES, used, strict=True)])
    assert (found.time_ns - START_NS).tolist() == [0, 200 * MS, 600 * MS, 800 * MS]
    assert found.cpu_ns.tolist() == [0, 100 * MS, 400 * MS, 500 * MS]
    assert found.machine_busy_ns.tolist() == [0, 300 * MS, 800 * MS, 1000 * MS]
    assert found.others_ns.tolist() == [0, 40 * MS, 80 * MS, 120 * MS]
    assert (found.steal_ns[-1], found.throttled_ns[-1]) == (90 * MS, 60 * MS)
    assert (found.rss_bytes.max(), found.frequency_hz.max()) == (9, 3_000_000_000)
    assert found.cores == 2


def test_a_merged_deployment_is_limited_if_its_blocks_are() -> None:
    uses = [replace(block_usage(1, 1, 1), limited=True) for _ in PIECES]
    found = merge_usage([structs.replace(one, usage=use) for one, use in zip(PIECES, uses, strict=True)])
    assert found.limited


def test_unknown_processes_in_one_block_make_the_usage_unknown() -> None:
    assert merge_usage([PIECES[0], structs.replace(PIECES[1], usage=block_usage(1, 1, 1))]) is None


def test_costs_of_the_generator_add_up() -> None:
    late = structs.replace(
        REPORT,
        loop_lag_ns=5,
        connections=7,
        connection_limit_reached=True,
        connection_wait_ns=3 * MS,
        connection_waits=2,
        sent_again=4,
    )
    found = merge_reports([PIECES[0], structs.replace(PIECES[1], report=late), PIECES[2]])
    assert (found.cpu_ns, found.wall_ns, found.completed) == (30 * MS, 600 * MS, 60)
    assert (found.connections, found.connection_limit_reached, found.loop_lag_ns) == (7, True, 5)
    assert (found.connection_wait_ns, found.connection_waits, found.sent_again) == (3 * MS, 2, 4)


def test_each_generator_of_a_cluster_keeps_its_own_figures() -> None:
    part = GeneratorPart("10.0.0.2", completed=10, core_share=0.2, ceiling_rps=9.0)
    busy = structs.replace(part, core_share=0.8, opened_late_ns=5, clock_error_ns=7)
    other = structs.replace(part, node="10.0.0.3")
    reports = [
        structs.replace(REPORT, parts=(part, other)),
        structs.replace(REPORT, wall_ns=600 * MS, parts=(busy, other)),
    ]
    found = merge_reports(
        [structs.replace(one, report=report) for one, report in zip(PIECES[:2], reports, strict=True)]
    )
    first, second = found.parts
    assert (first.node, first.completed, first.ceiling_rps) == ("10.0.0.2", 20, 9.0)
    assert first.core_share == pytest.approx((0.2 * 200 + 0.8 * 600) / 800)
    assert (first.opened_late_ns, first.clock_error_ns) == (5, 7)
    assert second == structs.replace(other, completed=20)


def test_usage_from_a_moment_on() -> None:
    whole = usage()
    found = whole.since(-2)
    assert found.time_ns.tolist() == whole.time_ns[-2:].tolist()
    assert found.cores == whole.cores


def test_nodes_of_a_cluster_that_have_replicas_in_all_blocks_are_merged_as_the_whole() -> None:
    def node(name: str, cpu_ns: int, rss: int) -> NodeUsage:
        return NodeUsage(name, 4.0, 1, np.array([7, 7 + cpu_ns]), np.array([5, rss]), np.array([0, 2 * cpu_ns]))

    used = replace(block_usage(1, 1, 1), without_generator=True)
    blocks = [
        piece(START_NS, used=replace(used, nodes=(node("a", 30, 100), node("b", 1, 1)))),
        piece(START_NS + 5 * S, used=replace(used, nodes=(node("a", 40, 90),))),
    ]
    merged = merge_usage(blocks)
    (only,) = merged.nodes
    assert (only.node, only.cpu_ns.tolist(), only.serve_cpu_ns.tolist()) == ("a", [0, 30, 70], [0, 60, 140])
    assert only.rss_bytes.tolist() == [5, 100, 90]
    assert merged.without_generator


@each_row(
    ("done_ms", "latency_ms", "closed", "rate"),
    (range(60, 330, 10), 10, True, 100),
    ([95, 135, 175, 215, 255, 295, 335], 40, True, 25),  # no answer falls on an edge
    ([110, 170, 230, 290, 350], 60, True, 1 / 0.06),  # the first answer is in the window: since the load began
    ([150, 150, 250, 250, 350, 350], 100, True, 20),  # two callers in step
    ([160, 190, 270, 330, 380, 470], [110, 140, 110, 140, 110, 140], True, 1 / 0.11 + 1 / 0.14),
    ([400], 350, True, 1 / 0.35),
    (range(140, 350, 10), 90, False, 100),
    ([140, 190, 240, 290, 340, 390, 440, 490], 90, False, 20),  # a variant that falls behind
    ([150], 100, False, 10),
)
def test_the_answer_rate_is_not_rounded(
    done_ms: Sequence[int], latency_ms: int | Sequence[int], closed: bool, rate: float
) -> None:
    """Of a block from 100 ms to 300 ms, whose load began at 50 ms."""
    latency_ns, window = np.array(latency_ms) * MS, Window(100 * MS, 300 * MS)
    found = samples(np.array(done_ms) * MS - latency_ns, latency_ns)
    assert answer_rate(found, window, closed=closed) == pytest.approx(rate)
    weights = np.full(len(done_ms), 8)
    assert not closed or answer_rate(found, window, closed=True, weights=weights) == pytest.approx(8 * rate)


def in_slices(latency_ns: int, slices: int = 4, *, slice_ns: int = 5 * MS) -> tuple[Samples, list[Window]]:
    """The requests of one caller in slices that begin every 20 ms."""
    starts = [START_NS + 20 * MS * number for number in range(slices)]
    due = [at for start in starts for at in range(start, start + slice_ns, latency_ns)]
    return samples(due, latency_ns), [Window(start, start + slice_ns) for start in starts]


@each_row("latency_ns", [1 * MS, 2 * MS, 3 * MS, 4 * MS, 7 * MS])
def test_the_rate_of_a_caller_in_slices_is_that_of_its_answers(latency_ns: int) -> None:
    found, window = joined_slices(*in_slices(latency_ns))
    assert answer_rate(found, window, closed=True) == pytest.approx(1e9 / latency_ns)
    assert (np.diff(np.sort(found.due_ns)) == latency_ns).all()
    assert found.due_in(window).all()
    assert (found.latency_ns == latency_ns).all()


def test_a_slice_of_several_callers_lasts_until_each_has_its_last_answer_on_average() -> None:
    start, end = START_NS, START_NS + 10 * MS
    due = [start, start, start + 8 * MS, start + 6 * MS]
    found, window = joined_slices(samples(due, [8 * MS, 6 * MS, 6 * MS, 6 * MS]), [Window(start, end)])
    assert window == Window(start, start + 13 * MS)
    assert found.due_ns.size == 4


def test_a_slice_without_a_late_answer_lasts_as_long_as_it_was_sent() -> None:
    found, window = joined_slices(samples([START_NS], 1 * MS), [Window(START_NS, START_NS + 5 * MS)])
    assert (found.due_ns.size, window.duration_ns) == (1, 5 * MS)


def test_a_side_has_what_it_used_itself_and_its_share_of_what_others_used() -> None:
    report = structs.replace(REPORT, cpu_ns=10 * MS)
    usages = [block_usage(60 * MS, 300 * MS, 5), block_usage(80 * MS, 300 * MS, 5)]
    usages[0] = replace(usages[0], others_ns=np.array([0, 160 * MS]))  # 80 of the other side, 20 of the generator
    first, second = (structs.replace(piece(START_NS, length_ns=100 * MS), usage=used, report=report) for used in usages)
    own = own_part(first, second)
    assert own.time_ns.tolist() == [START_NS, START_NS + 100 * MS]
    assert own.cpu_ns[-1] - own.cpu_ns[0] == 60 * MS
    assert own.others_ns[-1] - own.others_ns[0] == 10 * MS + 60 * MS * 100 // 250
    assert own.machine_busy_ns[-1] - own.machine_busy_ns[0] == 70 * MS + (300 - 60 - 80 - 20) * MS * 100 // 250
    assert own.steal_ns[-1] - own.steal_ns[0] == 12 * MS
    apart = own_part(structs.replace(first, usage=replace(usages[0], without_generator=True)), second)
    assert apart.others_ns[-1] - apart.others_ns[0] == 80 * MS * 100 // 250
    assert own_part(first, structs.replace(second, usage=None)) is None
