"""Merges the recordings of generators that shared a load: rows in the order of completion, costs summed.

It must not know where the generators ran, nor how their recordings came.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_mlpatterns.records.launch import GeneratorPart

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_mlpatterns.loadgen.generator_process import GeneratorProcess
    from pytest_mlpatterns.loadgen.messages import LoadResult

__all__ = ["merged", "parts_of"]


def merged(parts: Sequence[LoadResult]) -> LoadResult:
    """One recording of all; the window is the one that they share."""
    if len(parts) == 1:
        return parts[0]
    from pytest_mlpatterns.loadgen.columns import merged_columns

    first = parts[0]
    reports = [part.generator for part in parts]
    connects = sorted(report.connect_ns for report in reports if report.connect_ns is not None)
    return replace(
        first,
        columns=merged_columns([part.columns for part in parts]),
        warmup=replace(
            first.warmup,
            requests=sum(part.warmup.requests for part in parts),
            steady=None if first.warmup.steady is None else all(part.warmup.steady for part in parts),
        ),
        generator=replace(
            first.generator,
            cpu_ns=sum(report.cpu_ns for report in reports),
            completed=sum(report.completed for report in reports),
            connections=sum(report.connections for report in reports),
            connection_limit_reached=any(report.connection_limit_reached for report in reports),
            connect_ns=connects[len(connects) // 2] if connects else None,
            connection_wait_ns=sum(report.connection_wait_ns for report in reports),
            connection_waits=sum(report.connection_waits for report in reports),
            loop_lag_ns=max(report.loop_lag_ns for report in reports),
            processes=len(parts),
            answers_cut=any(report.answers_cut for report in reports),
            texts_cut=any(report.texts_cut for report in reports),
            opened_late_ns=max(report.opened_late_ns for report in reports),
            ticks_cpu_ns=sum(report.ticks_cpu_ns for report in reports),
        ),
        answers=[answer for part in parts for answer in part.answers],
        stopped_early=any(part.stopped_early for part in parts),
        failed={outcome: answer for part in reversed(parts) for outcome, answer in part.failed.items()},
    )


def parts_of(
    processes: Sequence[GeneratorProcess], results: Mapping[int, LoadResult], ceilings_rps: Sequence[float]
) -> tuple[GeneratorPart, ...]:
    """The figures of each generator by itself, in the order of their numbers.

    Args:
        processes: the generators.
        results: what they recorded, by number.
        ceilings_rps: what each of them reaches against a server that does nothing; empty if that is not known.
    """
    return tuple(
        GeneratorPart(
            node=processes[number].node,
            completed=(report := results[number].generator).completed,
            core_share=report.core_share,
            ceiling_rps=ceilings_rps[number] if ceilings_rps else None,
            opened_late_ns=report.opened_late_ns,
            clock_error_ns=processes[number].clock_error_ns,
        )
        for number in sorted(results)
    )
