"""Notes on the launches of a test: what a reader has to know beside the figures, each as half a sentence.

This module must not know how a launch is measured, nor what is judged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.health.machine import crowding_note
from pytest_mlpatterns.analysis.health.sustained import spread_note
from pytest_mlpatterns.records.outcomes import describe_failures
from pytest_mlpatterns.reports.text.notes import describe_capacity, describe_cycle, describe_layer
from pytest_mlpatterns.units import format_duration
from pytest_mlpatterns.wording import count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.analysis.metrics.metrics import Metrics
    from pytest_mlpatterns.records.launch import GeneratorReport


def launch_notes(metrics: Metrics, *, kept: str, stretches: bool) -> list[str]:
    """What failed, and what the load generator could not do as it was asked.

    ``kept``: most bytes of answers that it keeps, in words. ``stretches``: whether windows have no length of their own.
    """
    notes: list[str] = []
    if metrics.failures:
        failed = sum(metrics.failures.values())
        kinds = describe_failures(metrics.failures, metrics.first_failure)
        notes.append(f"{failed:,} of {metrics.requests:,} requests failed ({kinds})")
    notes += generator_notes([launch.generator for launch in metrics.launches], kept)
    last = metrics.launches[-1]
    if last.given_window_ns is not None and not stretches:
        notes.append(
            f"a request takes up to {format_duration(last.longest_answer_ns)}, longer than the window of "
            f"{format_duration(last.given_window_ns)}; the window was lengthened to "
            f"{format_duration(last.window.duration_ns)}"
        )
    notes += [*metrics.stream_notes(), *metrics.figure_notes()]
    overhead = last.generator.library_overhead_ns
    if overhead is not None:
        notes.append(
            f"driven through a client library, which adds about {format_duration(overhead)} to every request here"
        )
    if last.generator.client and last.generator.cpu_ns:
        notes.append(cost_of_client(last.generator))
    spread = next(filter(None, (spread_note(launch.generator) for launch in metrics.launches)), None)
    limited = (
        metrics.generator.limited and f"{metrics.generator.limited}; a latency limit that is kept all the same holds"
    )
    return [*notes, *filter(None, [limited, spread, crowding_note(metrics.launches)])]


def cost_of_client(report: GeneratorReport) -> str:
    """What a client of the user's own takes of the processor, and how much of it is the load generator's."""
    each = format_duration(report.cpu_ns / max(report.completed, 1))
    ours = f"; one that does nothing takes {format_duration(1e9 / report.ceiling_rps)}" if report.ceiling_rps else ""
    return f"sent by perf_client {report.client}, which takes {each} of CPU time a request{ours}"


def generator_notes(reports: Sequence[GeneratorReport], kept: str) -> list[str]:
    """What the load generator could not do as it was asked, or did twice."""
    notes = []
    if any(report.connection_limit_reached for report in reports):
        notes.append("the load generator had all its connections in use; some requests waited for one")
    if again := sum(report.sent_again for report in reports):
        requests = count(again, "request was", "requests were")
        notes.append(f"{requests} sent again on a fresh connection: the server had closed the idle one")
    if any(report.answers_cut for report in reports):
        notes.append(f"check= saw fewer answers of a launch, because {kept} of them are kept at most")
    if any(report.texts_cut for report in reports):
        notes.append(
            f"tokens= counted fewer answers of a launch, because {kept} of their text are kept at "
            "most; in the others each chunk counts as a token"
        )
    return notes


def layer_notes(metrics: Metrics, *, names_wire: bool) -> list[str]:
    """What workers, searches and layers showed. ``names_wire``: whether the wire is worth a note of its own."""
    notes: list[str] = []
    replaced = sum(launch.stats.replaced for launch in metrics.launches if launch.stats)
    if replaced:
        notes.append(f"{count(replaced, 'worker process', 'worker processes')} died under load and were replaced")
    notes += map(describe_capacity, metrics.capacities)
    notable = [layer for layer in metrics.layers if layer.layer != "wire" or names_wire]
    notes += filter(None, map(describe_layer, notable))
    cycle = describe_cycle(metrics.layers, metrics.by_launch[-1].requests, metrics.launches[-1].request_bytes.size)
    return [*notes, cycle] if cycle else notes


def unsteady_notes(metrics: Metrics, *, changes: bool) -> tuple[str, ...]:
    """What shows that the load was not steady: trends through a window, and the warm-ups before them without an end."""
    if changes:
        return ()
    notes = [trend for blocks in metrics.by_launch if (trend := blocks.trend())]
    if notes and any(launch.warmup.steady is False for launch in metrics.launches):
        notes.insert(0, "the warm-up ended by its limit, not because the load was steady")
    return tuple(notes)
