"""The blocks of one side of a pairing as one launch, so that its metrics are those of any other launch.

Between its blocks a side waits for the other one. That time is cut out: what was recorded is moved so that the blocks
lie side by side in one window. Pure; it must not know what is compared, or how a block is measured.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pytest_mlpatterns.records.launch import GeneratorReport, Usage
from pytest_mlpatterns.records.samples import Samples, Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["BlockRecording", "joined_reports", "joined_samples", "joined_usage", "joined_window", "latencies_in"]


@dataclass(frozen=True, slots=True)
class BlockRecording:
    """One block: its window, everything that was recorded around it, and what was used from its opening to the end.

    ``usage`` is None where the processes are not known.
    """

    samples: Samples
    window: Window
    usage: Usage | None
    report: GeneratorReport


def latencies_in(piece: BlockRecording) -> NDArray[np.int64]:
    """Latencies of the successful requests that were due in a block."""
    return piece.samples.latency_ns[piece.samples.successes_in(piece.window)]


def joined_window(pieces: Sequence[BlockRecording]) -> Window:
    """The window that holds all blocks, from the opening of the first on."""
    start_ns = pieces[0].window.start_ns
    return Window(start_ns, start_ns + sum(piece.window.duration_ns for piece in pieces))


def joined_samples(pieces: Sequence[BlockRecording]) -> Samples:
    """The requests that were due in the blocks, in the order of completion.

    Those before a block opened are left out, those that were answered after its end are kept: in a closed loop as many
    as were under way when it opened, so that the rate of completions stays what it was.
    """
    parts = []
    for piece, shift_ns in zip(pieces, _shifts_ns(pieces), strict=True):
        inside = piece.samples.due_in(piece.window)
        kept = {name: getattr(piece.samples, name)[inside] for name in Samples.__dataclass_fields__}
        for name in ("due_ns", "sent_ns", "done_ns"):
            kept[name] = kept[name] + shift_ns
        parts.append(kept)
    columns = {name: np.concatenate([part[name] for part in parts]) for name in Samples.__dataclass_fields__}
    order = np.argsort(columns["done_ns"], kind="stable")
    return Samples(**{name: column[order] for name, column in columns.items()})


def joined_usage(pieces: Sequence[BlockRecording]) -> Usage | None:
    """What the processes used in the blocks; None where that is not known."""
    known = [(piece, piece.usage) for piece in pieces if piece.usage is not None]
    if len(known) < len(pieces):
        return None
    lengths = [0, *(piece.window.duration_ns for piece in pieces)]
    usages = [usage for _, usage in known]

    def gained(name: str) -> NDArray[np.int64]:
        columns = [getattr(usage, name) for usage in usages]
        return np.cumsum([0, *(int(column[-1] - column[0]) for column in columns)], dtype=np.int64)

    def highest(name: str) -> NDArray[np.int64]:
        first = int(getattr(usages[0], name)[0])
        return np.array([first, *(int(getattr(usage, name).max()) for usage in usages)], dtype=np.int64)

    return Usage(
        time_ns=pieces[0].window.start_ns + np.cumsum(lengths, dtype=np.int64),
        cpu_ns=gained("cpu_ns"),
        rss_bytes=highest("rss_bytes"),
        machine_busy_ns=gained("machine_busy_ns"),
        others_ns=gained("others_ns"),
        steal_ns=gained("steal_ns"),
        throttled_ns=gained("throttled_ns"),
        frequency_hz=highest("frequency_hz"),
        cores=usages[0].cores,
    )


def joined_reports(pieces: Sequence[BlockRecording]) -> GeneratorReport:
    """What the load generator says of itself, over all blocks."""
    reports = [piece.report for piece in pieces]
    return replace(
        reports[-1],
        cpu_ns=sum(report.cpu_ns for report in reports),
        wall_ns=sum(report.wall_ns for report in reports),
        completed=sum(report.completed for report in reports),
        connections=max(report.connections for report in reports),
        connection_limit_reached=any(report.connection_limit_reached for report in reports),
        loop_lag_ns=max(report.loop_lag_ns for report in reports),
    )


def _shifts_ns(pieces: Sequence[BlockRecording]) -> list[int]:
    """By how much each block is moved so that it begins where the one before it ends."""
    shifts, at_ns = [], pieces[0].window.start_ns
    for piece in pieces:
        shifts.append(at_ns - piece.window.start_ns)
        at_ns += piece.window.duration_ns
    return shifts
