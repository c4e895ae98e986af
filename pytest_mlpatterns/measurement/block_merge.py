"""Merges the blocks of one variant into one launch, so that its metrics are those of any other launch.

Between its blocks a variant waits for the other one. That time is cut out: the recordings are shifted so that the
blocks are adjacent in one window. Pure; it must not know what is compared, or how a block is measured.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from pytest_mlpatterns.analysis.sample_rows import join_samples, shift_samples, take_rows
from pytest_mlpatterns.records.launch import GeneratorPart, GeneratorReport, NodeUsage, Usage
from pytest_mlpatterns.records.samples import Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pytest_mlpatterns.records.samples import Samples

__all__ = ["BlockRecording", "block_latencies", "merge_reports", "merge_samples", "merge_usage", "merge_windows"]


@dataclass(frozen=True, slots=True)
class BlockRecording:
    """One block.

    Attributes:
        samples: every request of the load, including those outside the window.
        window: the block.
        usage: resources used from the start of the window to the end of the load; None if the processes are not known.
        report: the generator's own figures.
    """

    samples: Samples
    window: Window
    usage: Usage | None
    report: GeneratorReport


def block_latencies(block: BlockRecording) -> NDArray[np.int64]:
    """Latencies, in nanoseconds, of the successful requests that were due in a block."""
    return block.samples.latency_ns[block.samples.successes_in(block.window)]


def merge_windows(blocks: Sequence[BlockRecording]) -> Window:
    """The window of all blocks, adjacent; it starts with the first block."""
    start_ns = blocks[0].window.start_ns
    return Window(start_ns, start_ns + sum(block.window.duration_ns for block in blocks))


def merge_samples(blocks: Sequence[BlockRecording]) -> Samples:
    """The requests that were due in the blocks, in the order of completion.

    Requests before a block are left out. Requests that were answered after its end are kept: in a closed loop they are
    as many as were in flight at its start, so the rate of completions stays the same.
    """
    parts = []
    for block, shift_ns in zip(blocks, _shifts_ns(blocks), strict=True):
        inside = np.flatnonzero(block.window.covers(block.samples.due_ns))  # those that were cancelled too
        parts.append(shift_samples(take_rows(block.samples, inside), shift_ns))
    return join_samples(parts)


def merge_usage(blocks: Sequence[BlockRecording]) -> Usage | None:
    """Resources that the processes used in the blocks; None if one block does not know them."""
    known = [(block, block.usage) for block in blocks if block.usage is not None]
    if len(known) < len(blocks):
        return None
    lengths = [0, *(block.window.duration_ns for block in blocks)]
    usages = [usage for _, usage in known]

    gained, highest = partial(_gained, usages), partial(_highest, usages)

    return Usage(
        time_ns=blocks[0].window.start_ns + np.cumsum(lengths, dtype=np.int64),
        cpu_ns=gained("cpu_ns"),
        rss_bytes=highest("rss_bytes"),
        machine_busy_ns=gained("machine_busy_ns"),
        others_ns=gained("others_ns"),
        steal_ns=gained("steal_ns"),
        throttled_ns=gained("throttled_ns"),
        frequency_hz=highest("frequency_hz"),
        cores=usages[0].cores,
        machine_cores=usages[0].machine_cores,
        busy_threads=max((usage.busy_threads for usage in usages), key=sum),
        limited=usages[0].limited,
        energy_uj=None if any(usage.energy_uj is None for usage in usages) else gained("energy_uj"),
        nodes=_merge_nodes(usages),
        without_generator=usages[0].without_generator,
    )


def _merge_nodes(usages: Sequence[Usage]) -> tuple[NodeUsage, ...]:
    """The nodes that have replicas in all blocks, merged as :func:`merge_usage` merges the whole."""
    by_name = [{node.node: node for node in usage.nodes} for usage in usages]
    merged = []
    for name, last in by_name[-1].items():
        if all(name in nodes for nodes in by_name):
            parts = [nodes[name] for nodes in by_name]
            cpu_ns, serve_cpu_ns = (_gained(parts, column) for column in ("cpu_ns", "serve_cpu_ns"))
            rss_bytes = _highest(parts, "rss_bytes")
            merged.append(replace(last, cpu_ns=cpu_ns, rss_bytes=rss_bytes, serve_cpu_ns=serve_cpu_ns))
    return tuple(merged)


def _gained(parts: Sequence[Usage | NodeUsage], name: str) -> NDArray[np.int64]:
    """The growth of a column, cumulative over the blocks, from 0 on."""
    columns = [getattr(part, name) for part in parts]
    return np.cumsum([0, *(int(column[-1] - column[0]) for column in columns)], dtype=np.int64)


def _highest(parts: Sequence[Usage | NodeUsage], name: str) -> NDArray[np.int64]:
    """The first value of a column, and its highest of each block."""
    first = int(getattr(parts[0], name)[0])
    return np.array([first, *(int(getattr(part, name).max()) for part in parts)], dtype=np.int64)


def merge_reports(blocks: Sequence[BlockRecording]) -> GeneratorReport:
    """The generator's own figures over all blocks."""
    reports = [block.report for block in blocks]
    return replace(
        reports[-1],
        cpu_ns=sum(report.cpu_ns for report in reports),
        wall_ns=sum(report.wall_ns for report in reports),
        completed=sum(report.completed for report in reports),
        connections=max(report.connections for report in reports),
        connection_limit_reached=any(report.connection_limit_reached for report in reports),
        connection_wait_ns=sum(report.connection_wait_ns for report in reports),
        connection_waits=sum(report.connection_waits for report in reports),
        loop_lag_ns=max(report.loop_lag_ns for report in reports),
        texts_cut=any(report.texts_cut for report in reports),
        opened_late_ns=max(report.opened_late_ns for report in reports),
        ticks_cpu_ns=sum(report.ticks_cpu_ns for report in reports),
        parts=tuple(_merge_part(reports, number) for number in range(len(reports[-1].parts))),
    )


def _merge_part(reports: Sequence[GeneratorReport], number: int) -> GeneratorPart:
    """One generator's own figures over all blocks."""
    parts = [report.parts[number] for report in reports]
    busy_ns = sum(part.core_share * report.wall_ns for part, report in zip(parts, reports, strict=True))
    return replace(
        parts[-1],
        completed=sum(part.completed for part in parts),
        core_share=busy_ns / max(sum(report.wall_ns for report in reports), 1),
        opened_late_ns=max(part.opened_late_ns for part in parts),
        clock_error_ns=max(part.clock_error_ns for part in parts),
    )


def _shifts_ns(blocks: Sequence[BlockRecording]) -> list[int]:
    """The shift of each block that makes it start at the end of the previous one."""
    shifts, at_ns = [], blocks[0].window.start_ns
    for block in blocks:
        shifts.append(at_ns - block.window.start_ns)
        at_ns += block.window.duration_ns
    return shifts
