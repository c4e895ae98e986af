"""Charts of one test: its launches, distributions and their parts beside what it was compared with, and the rest.

The steps of the function beside the load are marks on all that goes over time. Without data there is no chart. Pure.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise

from msgspec.structs import replace

from pytest_mlpatterns.analysis.capacity.step_impact import describe_impact
from pytest_mlpatterns.analysis.metrics.definitions import METRICS, leading_time, metric_named
from pytest_mlpatterns.records.latency import SERVICE_PARTS, STREAM_QUANTITIES, LatencySplit, Percentiles, SplitMetric
from pytest_mlpatterns.records.launch import Capacity
from pytest_mlpatterns.records.layer_description import LevelChart, PartsChart, SizesChart
from pytest_mlpatterns.records.package_layers import layer_kind
from pytest_mlpatterns.records.result import TestResult
from pytest_mlpatterns.records.samples import GrowthRecord
from pytest_mlpatterns.records.telemetry import LayerStats
from pytest_mlpatterns.reports.html.chart import Cell, Chart, Column, Track, heading_of, thinned
from pytest_mlpatterns.reports.text.comparison import LATENCY, comparisons_of, distributions_of
from pytest_mlpatterns.reports.text.notes import describe_capacity
from pytest_mlpatterns.reports.text.terminal_text import percent_below
from pytest_mlpatterns.units import SECOND_NS, format_count, format_duration, format_percent, format_size


def charts_of(result: TestResult) -> tuple[Chart, ...]:
    """The charts of everything that was measured: the launches, where the time goes, the distributions, the rest."""
    found = [_launches(result), *split_charts(result), *histogram_charts(result)]
    found += [*map(_ladder, result.limits.capacities), growth_chart(result), tracks_chart(result), _replicas(result)]
    return tuple(chart for chart in (*found, *layer_charts(result.measured.layers)) if chart is not None)


def _launches(result: TestResult) -> Chart | None:
    """The latency or TTFT of each launch, by the statistic that was judged, so that an outlier is visible."""
    usual = leading_time(streams=result.stream is not None).name
    name = next((one.figure for one in comparisons_of(result) if one.metric == usual), usual)
    if len(launches := result.measured.launches.get(name, ())) < 2:
        return None
    return Chart(
        "ranges",
        f"{heading_of(metric_named(name))} by launch",
        "with two standard errors",
        (Column("launch", "text"), *(Column(name, "duration") for name in ("value", "from", "to"))),
        tuple(
            (f"{number}", value, max(value * (1 - 2 * error), 0.0), value * (1 + 2 * error))
            for number, (value, error) in enumerate(launches, start=1)
        ),
    )


_MARKED = (50, 95, 99)  # Percentiles that a distribution marks
_MOST_BINS = 18  # Most bins of a chart; narrower ones cannot be seen
_NAMES = {
    LATENCY: ("Latency", "requests", "latency"),
    "ttft": ("Time to first token", "requests", "time to first token"),
    "itl": ("Inter-token latency", "gaps between tokens", "gap between tokens"),
    "tpot": ("Time per output token", "requests", "time per output token"),
}
"""Title, what is counted, and the axis of each time."""


def other_name(result: TestResult) -> str:
    """The name of the reference in a legend: ``baseline``, or the name of the revision."""
    assert result.reference is not None
    return "baseline" if result.reference.kind == "baseline" else result.reference.name


def histogram_charts(result: TestResult) -> list[Chart | None]:
    """The distribution of each time that was measured: with streams also of their tokens, and of the latency."""
    return [
        histogram_chart(result, quantity)
        for quantity in ((*STREAM_QUANTITIES, LATENCY) if result.stream else (LATENCY,))
    ]


def histogram_chart(result: TestResult, quantity: str = LATENCY) -> Chart | None:
    """The share of the requests in each bin of a time; for the reference estimated from its percentiles.

    ``quantity``: ``latency``, or a time of streams: ``ttft``, ``itl``, ``tpot``.
    """
    found = distributions_of(result, quantity)
    if found.own is None:
        return None
    present, other, own = found.present, found.other, found.own.histogram
    (title, what, axis), total = _NAMES[quantity], sum(own.counts)
    measured_beside = bool(other and found.beside)
    reached = accumulate(own.counts, initial=0)
    counted = tuple((100 * up_to / total, edge) for up_to, edge in zip(reached, own.edges_ns, strict=True))
    sides = [side for side in (present if measured_beside else counted, other) if side]
    low = max(min(side[0][1] for side in sides), 1.0)
    high = max(*(side[-1][1] for side in sides), low * 1.01)
    bins = min(len(own.counts), _MOST_BINS) if len(sides) == 1 else _MOST_BINS
    edges = [low * (high / low) ** (number / bins) for number in range(bins + 1)]
    shares = [_shares_in(side, edges) for side in sides]
    fullest = max(range(bins), key=shares[0].__getitem__)
    between = f"{format_duration(edges[fullest])} to {format_duration(edges[fullest + 1])}"
    of = f"{total:,} successful {what}" if what == "requests" else f"{total:,} {what}"
    names = ["this run", *([other_name(result)] if other else [])]
    return Chart(
        "histogram",
        f"{title} distribution",
        f"most often {between}; {'both measured together' if measured_beside else of}",
        (Column("from", "duration"), Column("to", "duration"), *(Column(name, "ratio") for name in names)),
        tuple((*ends, *row) for ends, row in zip(pairwise(edges), zip(*shares, strict=True), strict=True)),
        {f"p{percent:g}": value for percent, value in present if percent in _MARKED},
        axis=axis,
    )


def _shares_in(side: Percentiles, edges: Sequence[float]) -> list[float]:
    """The share of a distribution in each bin, interpolated between its percentiles on a log scale of latency."""
    below = [percent_below(side, edge) / 100 for edge in edges[1:-1]]
    return [high - low for low, high in pairwise([0.0, *below, 1.0])]


_SPLIT_TITLES: Mapping[SplitMetric, str] = {
    "rtm": "Where the time of a median request goes",
    "ttft": "Where the time to a median first token goes",
    "tpot": "Where the time of a median token goes",
}


def split_charts(result: TestResult) -> tuple[Chart, ...]:
    """A chart of the median latency, or of streams of their first and further tokens; none of what is not known."""
    reference = result.reference
    now = result.causes.split if reference is None or not reference.present.split else reference.present.split
    before = {} if reference is None else reference.split
    return tuple(
        _split_chart(result, now[metric], before.get(metric))
        for metric in _SPLIT_TITLES
        if METRICS[metric].of_streams is (result.stream is not None) and metric in now and now[metric].parts
    )


def _split_chart(result: TestResult, now: LatencySplit, before: LatencySplit | None) -> Chart:
    parts = {(part.name, part.of): part.label for split in (now, before) if split is not None for part in split.parts}
    rows: list[tuple[Cell, ...]] = []
    for (name, of), label in parts.items():
        sides = [split and split.part(name, of) for split in ((now,) if before is None else (now, before))]
        times = [part.median_ns if part else 0.0 for part in sides]
        rows.append((label, *times, "worked on" if name in SERVICE_PARTS else "waits"))
    columns = [Column("part", "text"), Column("this run", "duration")]
    if before is not None:
        columns.append(Column(other_name(result), "duration"))
    return Chart(
        "bars", _SPLIT_TITLES[now.metric], _split_summary(now, before), (*columns, Column("kind", "text")), tuple(rows)
    )


def _split_summary(now: LatencySplit, before: LatencySplit | None) -> str:
    largest = max(now.parts, key=lambda part: part.median_ns)
    whole = format_duration(now.median_ns)
    if before is not None:
        whole = f"{format_duration(before.median_ns)} → {whole}"
    return f"{whole}; most of it: {largest.label}, {format_duration(largest.median_ns)}"


def _ladder(capacity: Capacity) -> Chart | None:
    """Throughput and median latency by concurrency; None of a search of one step."""
    steps = sorted((step for step in capacity.ladder if step.rates_rps), key=lambda step: step.concurrency)
    if len(steps) < 2:
        return None
    names = ("throughput", "slowest window", "fastest window")
    return Chart(
        "ranges",
        f"Throughput by concurrency{f' with {capacity.objective}' if capacity.objective else ''}",
        describe_capacity(capacity),
        (
            Column("requests in flight", "text"),
            *(Column(f"{name}, req/s", "rate") for name in names),
            Column("median latency", "duration"),
            Column("failed", "ratio"),
            Column("limited by", "text"),
        ),
        tuple(
            (
                f"{step.concurrency:,}{' (NMRT)' if step.concurrency == capacity.concurrency else ''}",
                step.rate_rps,
                min(step.rates_rps),
                max(step.rates_rps),
                step.median_ns,
                step.error_ratio,
                step.limited,
            )
            for step in steps
        ),
    )


def tracks_chart(result: TestResult) -> Chart | None:
    """What was observed through the last launch, one course below the other, with its steps; None without a course."""
    conditions, moments = result.conditions, result.causes.latency_over_time
    steps = [one for one in result.causes.steps if one.launch == result.measured.launch_count]
    impact = "; ".join(f"{one.name}: {describe_impact(one)}" for one in steps)
    tokens = () if result.stream is None else result.stream.tokens_over_time
    latencies = tuple(
        (one.seconds, one.median_ns, one.worst_ns)
        for one in moments
        if one.median_ns is not None and one.worst_ns is not None
    )
    failed = tuple((one.seconds, float(one.failed)) for one in moments)
    tracks = [
        Track("Latency", "duration", ("median", "longest"), latencies, impact),
        Track("Failed requests", "count", ("failed",), failed if any(number for _, number in failed) else ()),
        Track("Output tokens", "count", ("per second",), tokens),
        Track("System load", "ratio", ("deployment", "whole machine"), conditions.load_over_time),
        Track("Memory", "size", ("resident",), conditions.memory_over_time),
        *(
            _level(chart, layer)
            for layer in result.measured.layers
            for chart in layer_kind(layer.layer).charts
            if isinstance(chart, LevelChart)
        ),
    ]
    spans = tuple((one.begin_ns / SECOND_NS, one.end_ns / SECOND_NS, one.name) for one in steps)
    known = [track for track in tracks if len(track.rows) > 1]
    if not known:
        return None
    last = max(track.rows[-1][0] for track in known)
    tracks = [replace(track, rows=tuple(thinned(track.rows))) for track in known]
    return Chart("tracks", "Over time", f"{last:.3g} s of the last launch", spans=spans, tracks=tuple(tracks))


def _replicas(result: TestResult) -> Chart | None:
    """The share of the requests that each replica answered."""
    if not result.measured.replica_share:
        return None
    shares = [mean for mean, _, _ in result.measured.replica_share]
    even = format_percent(1 / len(shares))
    return Chart(
        "ranges",
        "Share of requests per replica",
        f"{format_percent(min(shares))} to {format_percent(max(shares))}; an equal share is {even}",
        (Column("replica", "text"), *(Column(name, "ratio") for name in ("share", "lowest of a launch", "highest"))),
        tuple((f"replica {number}", *share) for number, share in enumerate(result.measured.replica_share, start=1)),
    )


def growth_chart(result: TestResult) -> Chart | None:
    """Memory over the requests; None if the test had no long load."""
    growth = result.causes.growth
    if growth is None or len(growth.requests) < 2:
        return None
    rows = tuple((float(at), float(size)) for at, size in zip(growth.requests, growth.rss_bytes, strict=True))
    track = Track("Memory", "size", ("resident",), rows, _growth_note(growth))
    return Chart("tracks", "Memory over requests", f"{growth.requests[-1]:,} requests", tracks=(track,))


def _growth_note(growth: GrowthRecord) -> str:
    if growth.slope is None:
        return ""
    value, low, high = growth.slope
    text = f"{format_size(value)} (±{format_size((high - low) / 2)}) per request in the second half"
    return f"{text}, {'levelling off' if growth.levels_off else 'not levelling off'}" if low > 0 else text


def layer_charts(layers: Sequence[LayerStats]) -> tuple[Chart, ...]:
    """The counters of each layer, from the outermost inwards, and all the times that they measured."""
    found: list[Chart | None] = []
    for layer in layers:
        for chart in layer_kind(layer.layer).charts:
            if isinstance(chart, PartsChart):
                found.append(_parts(chart, layer))
            elif isinstance(chart, SizesChart):
                found.append(_sizes(chart, layer))
        found.append(_last(layer))
    return tuple(chart for chart in (*found, _times(layers)) if chart is not None)


def _shares(title: str, summary: str, counts: Mapping[str, int], *, part: str, what: str) -> Chart:
    """How often each of some things was counted."""
    columns = (Column(part, "text"), Column(f"share of {what}", "ratio"), Column(what, "count"))
    total = sum(counts.values())
    return Chart("bars", title, summary, columns, tuple((name, n / total, n) for name, n in counts.items()))


def _parts(chart: PartsChart, layer: LayerStats) -> Chart | None:
    counts = {name: layer.counters.get(name, 0) for name in chart.parts}
    total = sum(counts.values())
    if not total:
        return None
    share = (total - [*counts.values()][-1]) / total
    summary = f"{format_percent(share)} of {total:,} {chart.what} {chart.summary}"
    kept = {chart.parts[name]: n for name, n in counts.items() if n or name not in chart.optional}
    return _shares(chart.title, summary, kept, part=chart.part, what=chart.what)


def _sizes(chart: SizesChart, layer: LayerStats) -> Chart | None:
    sizes, mean = layer.histograms.get(chart.histogram, {}), layer.mean(chart.histogram)
    if mean is None or not sizes:  # other servers may report only the mean
        return None
    what, when = chart.what, chart.when
    summary = f"{format_count(mean)} {what} per {when.removesuffix('s')} on average, {sum(sizes.values()):,} {when}"
    counts = {f"{size:,}": sizes[size] for size in sorted(sizes)}
    return _shares(chart.title, summary, counts, part=f"{what} in the {chart.group}", what=when)


def _last(layer: LayerStats) -> Chart | None:
    """How often each model of an ensemble answered last."""
    counts = {name.removeprefix("last:"): n for name, n in layer.counters.items() if name.startswith("last:")}
    if len(counts) < 2:
        return None
    slowest = max(counts, key=counts.__getitem__)
    return _shares("Which model answered last", f"most often {slowest}", counts, part="model", what="requests")


def _level(chart: LevelChart, layer: LayerStats) -> Track:
    """A level over time; the last one lasts until the window ends."""
    series = layer.series.get(chart.level, ())
    observed = layer.counters.get("observed_ns", 0)
    moments = [((time - series[0][0]) / SECOND_NS, float(value)) for time, value in series]
    if len(moments) > 1 and observed / SECOND_NS > moments[-1][0]:
        moments.append((observed / SECOND_NS, moments[-1][1]))
    mean = layer.counters.get(f"{chart.level}_ns", 0) / observed if observed else 0.0
    note = f"{format_count(mean)} on average" if observed else ""
    return Track(chart.title, "count", (chart.what,), tuple(moments), note, is_level=True)


def _times(layers: Sequence[LayerStats]) -> Chart | None:
    """Every time that the layers measured, from the outermost layer inwards."""
    rows = [
        (_timed(layer, name), _quantile(histogram, 0.5), _quantile(histogram, 0.05), _quantile(histogram, 0.95))
        for layer in layers
        for name, histogram in layer.histograms.items()
        if histogram and (name.endswith("_ns") or ":" in name)
    ]
    if not rows:
        return None
    longest = max(rows, key=lambda row: row[1])
    return Chart(
        "ranges",
        "Times in the layers",
        f"median of each, and from p5 to p95; longest: {longest[0]}, {format_duration(longest[1])}",
        (Column("part", "text"), *(Column(name, "duration") for name in ("median", "p5", "p95"))),
        tuple(rows),
    )


def _timed(layer: LayerStats, histogram: str) -> str:
    kind, _, name = histogram.partition(":")
    if name:
        return f"{kind} {name}"
    what = histogram.removesuffix("_ns").replace("_", " ")
    return what if what == layer.layer else f"{layer.layer}: {what}"


def _quantile(histogram: Mapping[int, int], share: float) -> float:
    """The lowest value that this share of the observations does not exceed; the histogram is not empty."""
    ordered = sorted(histogram)
    wanted = sum(histogram.values()) * share
    reached = accumulate(histogram[value] for value in ordered)
    return float(next((value for value, count in zip(ordered, reached, strict=True) if count >= wanted), ordered[-1]))
