"""Notes on launches and results, one line each: what a reader has to know beside the figures.

They are on the load, on what layers counted, what steps hurt, capacity, scalability indices and overload. Pure: takes a
measurement, returns text. This module must not know how a launch is measured, nor what is judged. Also:
``analysis/health/machine.py`` has the words on a machine that is busy, or slower than at the recording, and
``judging/settled_comparison.py`` the note on a test that passes although the machine is slower.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from pytest_mlpatterns.analysis.capacity.overload import times_capacity
from pytest_mlpatterns.analysis.capacity.step_impact import describe_impact, worst_of
from pytest_mlpatterns.analysis.health.machine import crowding_note
from pytest_mlpatterns.analysis.health.sustained import spread_note
from pytest_mlpatterns.analysis.metrics.definitions import METRICS, nmrt_metric, objectives_of
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.records.capacity import (
    Behaviour,
    Interval,
    Overload,
    OverloadStep,
    ScaleOutRecord,
    ScalingRecord,
    ScalingStepRecord,
    StepImpact,
)
from pytest_mlpatterns.records.latency import StreamRecord
from pytest_mlpatterns.records.launch import Capacity, GeneratorPart, GeneratorReport, NodeFigures
from pytest_mlpatterns.records.layer_description import Figure
from pytest_mlpatterns.records.outcomes import describe_failures, describe_outcome
from pytest_mlpatterns.records.package_layers import LAYER_KINDS, layer_kind
from pytest_mlpatterns.records.result import State, TestResult
from pytest_mlpatterns.records.telemetry import LayerStats, straggler_shares
from pytest_mlpatterns.reports.text.terminal_text import BARS
from pytest_mlpatterns.units import SECOND_NS, format_count, format_duration, format_percent, format_rate, format_size
from pytest_mlpatterns.wording import count, listed


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


def tokens_text(stream: StreamRecord) -> str:
    """The mean numbers of tokens: ``128 input and 64.0 output tokens a request``; empty if none are known."""
    means = (("input", stream.input_tokens), ("output", stream.output_tokens))
    known = [f"{format_count(mean[0])} {what}" for what, mean in means if mean is not None]
    return f"{' and '.join(known)} tokens a request on average" if known else ""


def describe_capacity(capacity: Capacity) -> str:
    """A capacity search in one line: ``capacity (NMRT) 391 req/s at concurrency 4: two doublings …``."""
    least = "at least " if capacity.at_least else ""
    rate = format_rate(capacity.nmrt.value)
    label = nmrt_metric(capacity.objective).label
    return f"{label} {least}{rate} at concurrency {capacity.concurrency} (the search ended: {capacity.stopped})"


def found_nmrt(result: TestResult) -> tuple[float, bool] | None:
    """NMRT, or NMRT under the first objective, in requests per second, and whether it is a lower bound only.

    An assertion ends its search as soon as it is decided, and therefore often leaves a bound. None without a search.
    """
    if names := list(objectives_of(result.metrics)):
        return result.metrics[names[0]][0], False
    bounds = [capacity.nmrt.value for capacity in result.limits.capacities]
    return (max(bounds), True) if bounds else None


def describe_cycle(layers: Sequence[LayerStats], requests: int, inputs: int) -> str:
    """Why a cache had every input, if it did: the load sent the same inputs again; empty otherwise."""
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
    times = ((name, layer.median(name), layer.mean(name)) for name in layer.histograms if name.endswith("_ns"))
    known = ((name.removesuffix("_ns"), mean if middle is None else middle) for name, middle, mean in times)
    means = ((name, layer.mean(name)) for name in layer.histograms if not name.endswith("_ns"))
    numbers = [f"{format_count(mean)} {name} on average" for name, mean in means if mean is not None]
    return [*counters, *numbers, *(f"{name} {format_duration(value)}" for name, value in known if value is not None)]


_MOST_FACTS = 6  # Number of changes that are named


def changed_facts(result: TestResult, most: int = _MOST_FACTS) -> list[str]:
    """The changes of the environment, what most probably explains a change of speed first, and how many more there are.

    Against a baseline it also reports that nothing changed, since that rules out one half of the causes; the two sides
    of a revision share their environment anyway.
    """
    changes = result.judged.facts_changed
    if changes is None or (not changes and (result.reference is None or result.reference.kind == "revision")):
        return []
    if not changes:
        return ["nothing in the environment, as far as it is known"]
    more = len(changes) - most
    return [*map(str, changes[:most]), *([f"and {more} more, which --perf-json writes"] if more > 0 else [])]


def changed_note(result: TestResult) -> str:
    """The changes of the environment as a sentence, for a result that is open or could not be compared.

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


def describe_steps(impacts: Sequence[StepImpact]) -> list[str]:
    """``step reload, 1.00 s to 1.52 s: 52 of 153 requests hurt, …``, of the launch in which it hurt most."""
    launches = len({one.launch for one in impacts})
    which = f", the worst of {count(launches, 'launch', 'launches')}" if launches > 1 else ""
    names = dict.fromkeys(one.name for one in impacts)
    worst = (worst_of([one for one in impacts if one.name == name]) for name in names)
    return [f"step {one.name}, {_span(one)}{which}: {describe_impact(one)}" for one in worst]


def _span(impact: StepImpact) -> str:
    begin, end = (f"{at_ns / SECOND_NS:.2f} s" for at_ns in (impact.begin_ns, impact.end_ns))
    return f"at {begin}" if begin == end else f"{begin} to {end}"


_WHOLE_INDEX = ("hsx", "sc")
_INDEX_PARTS = ("hsxt", "hsxe", "hsxc")


def describe_indices(
    metrics: Mapping[str, tuple[float, float, float]], missing_indices: Mapping[str, str]
) -> list[str]:
    """``HSX 90.2 % (88.1 % to 92.3 %), SC 1.80 (1.70 to 1.91); HSXt 95.0 %, …``, and what is missing."""
    whole = [
        f"{METRICS[name].label} {_range(metrics[name], METRICS[name].show)}" for name in _WHOLE_INDEX if name in metrics
    ]
    parts = [
        f"{METRICS[name].label} {METRICS[name].show(metrics[name][0])}" for name in _INDEX_PARTS if name in metrics
    ]
    known = "; ".join(", ".join(some) for some in (whole, parts) if some)
    return [*filter(None, [known]), *describe_missing_indices(missing_indices)]


def describe_missing_indices(missing: Mapping[str, str]) -> list[str]:
    """A sentence for each reason: ``HSX and SC are not known: the test has no price; set …``."""
    names: dict[str, list[str]] = {}
    for name in _WHOLE_INDEX:
        if name in missing:
            names.setdefault(missing[name], []).append(METRICS[name].label)
    return [f"{listed(some)} {'are' if some[1:] else 'is'} not known: {why}" for why, some in names.items()]


_FEWEST_PASSES = 3
"""Passes from which their interval is shown; two spans' a hundred times its lower end for figures 5 % apart."""
_SHOWN: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("asl", "ASL", format_percent),
    ("cpu_per_request", "CPU per request", format_duration),
    ("peak_memory", "peak memory", format_size),
)


def describe_scaling(scaling: ScalingRecord | None) -> list[str]:
    """A scaling measurement in a few lines; none without one."""
    if scaling is None:
        return []
    lines = [*map(_step_line, scaling.steps)]
    if scaling.cpus_per_replica is not None:
        lines.append(f"each replica ran alone on {count(scaling.cpus_per_replica, 'core')}")
    if scaling.law:
        coefficients = [f"{name} {_range(found, '{:.3f}'.format)}" for name, found in scaling.law.items()]
        peak = scaling.peak_replicas
        most = "each further replica adds capacity" if peak is None else f"the most at {peak:,.0f} replicas"
        lines.append(f"scalability law: {', '.join(coefficients)}; by it {most}")
    return [*lines, *filter(None, [scaling.ended_by, _scale_out_line(scaling.scale_out)])]


def _step_line(step: ScalingStepRecord) -> str:
    """``2 replicas: capacity (NMRT) 198 req/s (195 req/s to 201 req/s) at concurrency 4, efficiency 99 % (…), …``."""
    if nmrt := step.figures.get("nmrt"):
        found = [f"{METRICS['nmrt'].label} {_range(nmrt, format_rate)} at concurrency {step.concurrency:g}"]
    else:
        found = [f"{METRICS['nmrt'].label} is not known ({step.bound})"]
    if (efficiency := step.figures.get("scaling_efficiency")) and step.replicas > 1:
        found.append(f"efficiency {_range(efficiency, format_percent)}")
    found += [f"{label} {show(step.figures[name][0])}" for name, label, show in _SHOWN if name in step.figures]
    return f"{count(step.replicas, 'replica')}: {', '.join(found)}"


def _scale_out_line(found: ScaleOutRecord | None) -> str:
    """``one more replica carries its share 840 ms (2 passes: 820 ms, 860 ms) after it was asked for, …``."""
    if found is None:
        return ""
    if found.duration is None:
        parts = [f"the scale-out time is not known: {found.unknown}"]
    else:
        took = f"{format_duration(found.duration[0])} ({scale_out_spread(found)})"
        parts = [f"one more replica under load carries its share {took} after it was asked for"]
    if found.p99_ns is not None and found.p99_before_ns is not None:
        before, after = format_duration(found.p99_before_ns), format_duration(found.p99_ns)
        parts.append(f"meanwhile p99 was up to {after} (before: {before})")
    if found.requests:
        parts.append(f"{found.failed:,} of {count(found.requests, 'request')} failed")
    return ", ".join(parts)


def scale_out_spread(found: ScaleOutRecord) -> str:
    """How sure the scale-out time is: its interval, or each pass if there are too few for one; empty if not known."""
    if found.duration is None:
        return ""
    passes = [format_duration(one) for one in found.passes_ns if one is not None]
    if len(passes) < _FEWEST_PASSES:
        return f"{count(len(passes), 'pass', 'passes')}: {', '.join(passes)}"
    return "{} to {}".format(*map(format_duration, found.duration[1:]))


def _range(found: Interval, show: Callable[[float], str]) -> str:
    value, low, high = map(show, found)
    return f"{value} ({low} to {high})"


BEHAVIOURS = {
    Behaviour.SHEDS: "sheds load",
    Behaviour.HOLDS: "keeps its goodput",
    Behaviour.DEGRADES: "degrades",
    Behaviour.COLLAPSES: "collapses",
}
"""What the goodput of a service does beyond its capacity (NMRT), in a word or two."""

_COLUMN = 5  # Width of a column of figures, with which eight of them fit a failure in a terminal of 80 columns
_OVERLOAD_LABEL = 8  # Width of the labels in the table of loads


def describe_step(step: OverloadStep, overload: Overload) -> str:
    """What became of the requests of one load: ``at 2 times the capacity (NMRT) 51 % … in time, 49 % rejected``."""
    return f"at {times_capacity(step.load_ratio)} {describe_answers(step, overload)}"


def describe_answers(step: OverloadStep, overload: Overload) -> str:
    """The same without the load, for a sentence that has it."""
    others = (
        (step.late_ratio, f"later than {format_duration(overload.limit_ns)}"),
        (step.rejected_ratio, "rejected"),
        (step.timed_out_ratio, "timed out"),
        (step.failed_ratio, f"failed{_kind_of_failure(step)}"),
    )
    parts = [f"{format_percent(share)} {word}" for share, word in others if share]
    p99 = "" if step.p99_ns is None else f", p99 of the answers {format_duration(step.p99_ns)}"
    kept = f"{format_percent(step.in_time_ratio)} of the requests were in time"
    return f"{', '.join([kept, *parts])}{p99}"


def describe_overload(overload: Overload) -> str:
    """A measurement in one sentence: what the goodput does, how long recovery takes, and what disturbed it."""
    limited = next((step.limited for step in overload.steps if step.limited), "")
    busy = next((step.busy for step in overload.steps if step.busy), "")
    return "; ".join(filter(None, [describe_behaviour(overload), limited, busy]))


def describe_behaviour(overload: Overload) -> str:
    """What the goodput does, and how long the service takes to recover."""
    peak = overload.peak
    goodput = format_percent(peak.goodput_rps / overload.nmrt_rps)
    load = f"{times_capacity(peak.load_ratio)} of {format_rate(overload.nmrt_rps)}"
    words = {
        Behaviour.SHEDS: f"the service sheds load: at {load} its goodput is {goodput} of the capacity, and it rejects "
        f"{format_percent(peak.rejected_ratio)} of the requests",
        Behaviour.HOLDS: f"the service keeps its goodput: at {load} it is {goodput} of the capacity",
        Behaviour.DEGRADES: f"the service degrades: at {load} its goodput is {goodput} of the capacity, {_loss(peak)}",
        Behaviour.COLLAPSES: f"the service collapses: at {load} its goodput is {goodput} of the capacity, "
        f"{_loss(peak)}",
    }[overload.behaviour]
    cut = f"cut: {overload.cut}" if overload.cut else ""
    return "; ".join(filter(None, [words, describe_recovery(overload), cut]))


def describe_recovery(overload: Overload) -> str:
    """How long the service takes to recover after the peak."""
    if overload.recovery_ns is None:
        return f"it has not recovered {format_duration(overload.watched_ns)} after the peak"
    if overload.recovery_ns == 0:
        return "it recovers at once"
    return f"it recovers in {format_duration(overload.recovery_ns)}"


def _loss(step: OverloadStep) -> str:
    """How most of the requests of a load are lost, and what would help."""
    words = {
        "since requests wait until their answers are too late (congestion collapse); let it reject sooner, as "
        "Queued(capacity=...) with a small capacity does": step.late_ratio,
        f"since {format_percent(step.timed_out_ratio)} of the requests get no answer within their time-out; look for "
        "what they wait for, and let it reject sooner": step.timed_out_ratio,
        f"since it rejects {format_percent(step.rejected_ratio)} of the requests, more than the load exceeds the "
        "capacity; let it hold more of them": step.rejected_ratio,
        f"since {format_percent(step.failed_ratio)} of the requests fail{_kind_of_failure(step)}; "
        "its log may have the reason": step.failed_ratio,
    }
    return max(words, key=words.__getitem__)


def _kind_of_failure(step: OverloadStep) -> str:
    """The most frequent failure in brackets; empty without one."""
    return "" if step.failed_outcome is None else f" ({describe_outcome(step.failed_outcome)})"


def overload_picture(overload: Overload) -> list[str]:
    """The curve of goodput against offered load, with rejected and late requests, a column for each load."""
    steps = (*overload.steps, overload.back)
    loads = [f"{step.load_ratio:g}" for step in overload.steps] + [f"→{overload.back.load_ratio:g}"]
    rows = {
        "offered": loads,
        "goodput": [_percent(step.goodput_rps / overload.nmrt_rps) for step in steps],
        "": [_bar(step.goodput_rps / overload.nmrt_rps) for step in steps],
        "rejected": [_percent(step.rejected_ratio) for step in steps],
        "late": [_percent(step.late_ratio + step.timed_out_ratio) for step in steps],
    }
    units = {"offered": "× NMRT", "goodput": "of NMRT", "rejected": "of offered", "late": "of offered"}
    lines = (
        f"{label:<{_OVERLOAD_LABEL}}{''.join(f'{text:>{_COLUMN}}' for text in texts)}  {units.get(label, '')}"
        for label, texts in rows.items()
    )
    return [line.rstrip() for line in lines]


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"


def _bar(share: float) -> str:
    top = len(BARS) - 1
    return 4 * BARS[min(max(round(share * top), 0), top)]
