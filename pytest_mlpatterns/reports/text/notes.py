"""Notes on results, one line each: what a capacity search found, what a pattern's layer counted, and what steps
beside the load hurt.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.capacity.step_impact import describe_impact, worst_of
from pytest_mlpatterns.analysis.metrics.definitions import objectives_of
from pytest_mlpatterns.analysis.metrics.metric_makers import percentile_metric
from pytest_mlpatterns.analysis.statistics.intervals import min_samples
from pytest_mlpatterns.records.layer_kinds import LAYER_KINDS, layer_kind
from pytest_mlpatterns.records.result import State
from pytest_mlpatterns.records.telemetry import straggler_shares
from pytest_mlpatterns.units import SECOND_NS, format_count, format_duration, format_percent, format_rate, format_size
from pytest_mlpatterns.wording import count

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_mlpatterns.analysis.metrics.metrics import Metrics
    from pytest_mlpatterns.records.caller_classes import ClassRequests
    from pytest_mlpatterns.records.launch import Capacity, Estimate, GeneratorPart, NodeFigures
    from pytest_mlpatterns.records.layer_description import Figure
    from pytest_mlpatterns.records.result import TestResult
    from pytest_mlpatterns.records.step_impact import StepImpact
    from pytest_mlpatterns.records.stream_record import StreamRecord
    from pytest_mlpatterns.records.telemetry import LayerStats

__all__ = [
    "changed_facts",
    "changed_note",
    "describe_bulk",
    "describe_capacity",
    "describe_class",
    "describe_cycle",
    "describe_layer",
    "describe_steps",
    "found_nmrt",
    "generators_text",
    "nodes_text",
    "tokens_text",
]


def tokens_text(stream: StreamRecord) -> str:
    """The mean numbers of tokens: ``128 input and 64.0 output tokens a request``; empty if none are known."""
    means = (("input", stream.input_tokens), ("output", stream.output_tokens))
    known = [f"{format_count(mean[0])} {what}" for what, mean in means if mean is not None]
    return f"{' and '.join(known)} tokens a request on average" if known else ""


def describe_bulk(sizes: Sequence[int], time_ns: Estimate, inputs_per_s: Estimate | None) -> str:
    """A data set that was sent once: ``20,000 inputs in 20 chunks took 1.23 s: 16,260 inputs per second``.

    Args:
        sizes: inputs of each chunk.
        inputs_per_s: None if no chunk was answered.
    """
    rate = "" if inputs_per_s is None else f": {format_count(inputs_per_s.value)} inputs per second"
    chunks = f"{count(sum(sizes), 'input')} in {count(len(sizes), 'chunk')}"
    return f"{chunks} took {format_duration(time_ns.value)}{rate}"


def describe_class(one: ClassRequests, metrics: Metrics) -> str:
    """One class of callers: ``gold (poisson(20/s)): 41 requests, 20.5 req/s, RTM 5.02 ms, p95 7.10 ms, 0 failed``.

    Args:
        one: its name and load.
        metrics: of its requests.
    """
    window_s = sum(launch.window.duration_ns for launch in metrics.launches) / SECOND_NS
    ranks = [percentile_metric(rank) for rank in (50, 95) if metrics.requests >= min_samples(rank)]
    times = [(metric, found) for metric in ranks if (found := metrics.estimate(metric)) is not None]
    parts = [
        count(metrics.requests, "request"),
        format_rate(metrics.requests / window_s),
        *(f"{metric.short} {metric.show(found.value)}" for metric, found in times if math.isfinite(found.value)),
        f"{sum(metrics.failures.values()):,} failed",
    ]
    return f"{one.name} ({one.load}): {', '.join(parts)}"


def describe_capacity(capacity: Capacity) -> str:
    """A capacity search in one line: ``NMRT 391 req/s at concurrency 4: two doublings …``."""
    objective = f" with {capacity.objective}" if capacity.objective else ""
    least = "at least " if capacity.at_least else ""
    rate = format_rate(capacity.nmrt.value)
    return f"NMRT{objective} {least}{rate} at concurrency {capacity.concurrency} (the search ended: {capacity.stopped})"


def found_nmrt(result: TestResult) -> tuple[float, bool] | None:
    """NMRT, or NMRT under the first objective, in requests per second, and whether it is a lower bound only.

    An assertion ends its search as soon as it is decided, and therefore often leaves a bound. None without a search.
    """
    if names := list(objectives_of(result.metrics)):
        return result.metrics[names[0]][0], False
    bounds = [capacity.nmrt.value for capacity in result.limits.capacities]
    return (max(bounds), True) if bounds else None


def describe_cycle(layers: Sequence[LayerStats], requests: int, inputs: int) -> str:
    """Why a cache had every input, if it did: the load sent the same inputs again; empty otherwise.

    Args:
        layers: the layers over the measured window.
        requests: number of requests in the window.
        inputs: number of different inputs of the payload.
    """
    for layer in layers:
        counts = layer.counters
        asked_again = counts.get("misses", 0) + counts.get("coalesced", 0)
        if layer_kind(layer.layer).stores and counts.get("hits", 0) and not asked_again and requests > inputs:
            return (
                f"the cache had every input, because the payload was cycled: {count(requests, 'request')} from "
                f"{count(inputs, 'input')}; give more inputs, or draw them as Zipf(...) does, to see the hits of real "
                "traffic"
            )
    return ""


def describe_layer(layer: LayerStats) -> str:
    """The statistics of a pattern's layer in one line; empty if it handled no request."""
    counts = layer.counters
    last = straggler_shares(layer)
    times = [
        f"{member} {format_duration(mean)}{f' (last in {format_percent(last[member])})' if member in last else ''}"
        for kind, _, member in (name.partition(":") for name in layer.histograms)
        if member and (mean := layer.mean(f"{kind}:{member}")) is not None
    ]
    kind = layer_kind(layer.layer)
    parts = _noted(kind.figures, layer) or times or (_own_counts(layer) if layer.layer not in LAYER_KINDS else [])
    counted = [f"{counts[name]:,} {text}" for name, text in kind.words.items() if counts.get(name)]
    said = [*([", ".join(parts)] if parts else []), *counted]
    return f"{layer.layer}: {'; '.join(said)}" if said else ""


def _noted(figures: Sequence[Figure], layer: LayerStats) -> list[str]:
    """The values of a layer that its description puts into its note; none without the first of them."""
    found = [(figure, figure.read(layer)) for figure in figures if figure.note]
    if not found or found[0][1] is None:
        return []
    return [_note_of(figure, value.value, layer) for figure, value in found if value is not None]


def _note_of(figure: Figure, value: float, layer: LayerStats) -> str:
    text = figure.note.format(figure.unit.show(value))
    plain = layer.counted(figure.plain) / layer.counted(figure.over) if figure.plain else value
    return text if plain == value else f"{text} (of {figure.unit.show(plain)})"


def _own_counts(layer: LayerStats) -> list[str]:
    """The counters and histograms of a pattern of the user's own, under their own names."""
    counters = [f"{count:,} {name}" for name, count in layer.counters.items() if not name.endswith("_ns")]
    times = {name.removesuffix("_ns"): name for name in layer.histograms if name.endswith("_ns")}
    means = ((name, layer.mean(name)) for name in layer.histograms if not name.endswith("_ns"))
    numbers = [f"{format_count(mean)} {name} on average" for name, mean in means if mean is not None]
    return [*counters, *numbers, *_times(layer, **times)]


def _times(layer: LayerStats, **names: str) -> list[str]:
    """The medians of these histograms by label, or their means if only those are known."""
    found = ((word, layer.median(name), layer.mean(name)) for word, name in names.items())
    known = ((word, mean if middle is None else middle) for word, middle, mean in found)
    return [f"{word} {format_duration(value)}" for word, value in known if value is not None]


_MOST_FACTS = 6
"""Number of changes that are named."""


def changed_facts(result: TestResult, most: int = _MOST_FACTS) -> list[str]:
    """The changes of the environment, what most probably explains a change of speed first, and how many more there are.

    Against a baseline it also reports that nothing changed, since that rules out one half of the causes; the two sides
    of a revision share their environment anyway.

    Args:
        result: of one test.
        most: number of changes that are named.
    """
    changes = result.judged.facts_changed
    if changes is None or (not changes and (result.reference is None or result.reference.kind == "revision")):
        return []
    if not changes:
        return ["nothing in the environment, as far as it is known"]
    more = len(changes) - most
    return [*map(str, changes[:most]), *([f"and {more} more, which --perf-json writes"] if more > 0 else [])]


def changed_note(result: TestResult) -> str:
    """The changes of the environment as a sentence, for a result that is open or was not comparable with its reference.

    A failed comparison has them in its own text; empty without any.
    """
    if not result.judged.facts_changed or (result.reference is not None and result.outcome is not State.UNDECIDED):
        return ""
    too = "" if result.reference is not None else " too"
    return f"the environment changed{too}: {', '.join(changed_facts(result))}"


def nodes_text(nodes: Iterable[NodeFigures]) -> str:
    """Replicas, CPU and memory of each node: ``10.0.0.2 2 replicas 43 % of 16 cores 210 MiB``; empty without any."""
    return " · ".join(
        f"{node.node} {count(node.replicas, 'replica')} {format_percent(node.cpu_share)} of {node.cores:g} "
        f"{'core' if node.cores == 1 else 'cores'} {format_size(node.peak_rss_bytes)}"
        for node in nodes
    )


def generators_text(parts: Sequence[GeneratorPart]) -> str:
    """Where the load generators ran, how evenly they began, and how well their clocks are known; empty without any."""
    if not parts:
        return ""
    by_node = Counter(part.node for part in parts)
    late = [part.opened_late_ns for part in parts]
    found = [f"{number} on {node}" for node, number in by_node.items()]
    if len(parts) > 1:
        found.append(f"begun within {format_duration(max(late) - min(late))} of each other")
    if error_ns := max(part.clock_error_ns for part in parts):
        found.append(f"clocks known to ±{format_duration(error_ns)}")
    return ", ".join(found)


def _worst_impacts(impacts: Sequence[StepImpact]) -> list[StepImpact]:
    """The step of each name that hurt most, in the order of the steps."""
    by_name: dict[str, list[StepImpact]] = {}
    for impact in impacts:
        by_name.setdefault(impact.name, []).append(impact)
    return list(map(worst_of, by_name.values()))


def describe_steps(impacts: Sequence[StepImpact]) -> list[str]:
    """``step reload, 1.00 s to 1.52 s: 52 of 153 requests hurt, …``, of the launch in which it hurt most."""
    launches = len({one.launch for one in impacts})
    which = f", the worst of {count(launches, 'launch', 'launches')}" if launches > 1 else ""
    return [f"step {one.name}, {_span(one)}{which}: {describe_impact(one)}" for one in _worst_impacts(impacts)]


def _span(impact: StepImpact) -> str:
    begin, end = (f"{at_ns / SECOND_NS:.2f} s" for at_ns in (impact.begin_ns, impact.end_ns))
    return f"at {begin}" if begin == end else f"{begin} to {end}"
