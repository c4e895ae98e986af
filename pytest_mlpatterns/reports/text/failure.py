"""The facts of one result in words: what stands in a failure below its first line, and in notes."""

from __future__ import annotations

import shlex
from textwrap import wrap
from typing import TYPE_CHECKING

from pytest_mlpatterns import wording
from pytest_mlpatterns.analysis.metric_definitions import METRICS
from pytest_mlpatterns.records.launch import Estimate
from pytest_mlpatterns.records.outcomes import describe_failures
from pytest_mlpatterns.records.telemetry import straggler_shares
from pytest_mlpatterns.records.verdict import Outcome
from pytest_mlpatterns.reports.text.sketches import latency_picture, load_picture
from pytest_mlpatterns.reports.text.styled_text import width_of
from pytest_mlpatterns.units import format_count, format_duration, format_percent, format_rate, format_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_mlpatterns.records.launch import Capacity
    from pytest_mlpatterns.records.result import Location, TestResult
    from pytest_mlpatterns.records.telemetry import LayerStats
    from pytest_mlpatterns.records.verdict import Verdict

__all__ = ["describe_capacity", "describe_layer", "failure_text", "measured_counts", "measurement_text", "next_step"]

_WIDTH = 64
"""Of what stands behind a label: with it, and what pytest writes before it, 80 columns."""
_LABEL = 10
_BESIDE = ("rtm", "p95", "throughput", "error_rate", "asl", "cpu_per_request", "peak_memory")


def describe_capacity(capacity: Capacity) -> str:
    """A capacity search in one line: ``NMRT 391 req/s at concurrency 4: two doublings …``."""
    objective = f" with {capacity.objective}" if capacity.objective else ""
    least = "at least " if capacity.at_least else ""
    rate = format_rate(capacity.nmrt.value)
    return f"NMRT{objective} {least}{rate} at concurrency {capacity.concurrency} (the search ended: {capacity.stopped})"


def describe_layer(layer: LayerStats) -> str:
    """What a pattern's layer knows of itself in one line; empty where it saw nothing."""
    counts = layer.counters
    last = straggler_shares(layer)
    times = [
        f"{member} {format_duration(mean)}{f' (last in {format_percent(last[member])})' if member in last else ''}"
        for kind, _, member in (name.partition(":") for name in layer.histograms)
        if member and (mean := layer.mean(f"{kind}:{member}")) is not None
    ]
    parts: list[str] = []
    if layer.layer == "cached" and (asked := sum(counts.get(name, 0) for name in ("hits", "coalesced", "misses"))):
        hits = (counts.get("hits", 0) + counts.get("coalesced", 0)) / asked
        spent = (
            f"a {name} takes {_median(layer, f'{name}_ns')}"
            for name in ("hit", "miss")
            if layer.histograms.get(f"{name}_ns")
        )
        parts = [", ".join([f"{format_percent(hits)} hits", *spent])]
    elif layer.layer == "batched" and (size := layer.mean("size")) is not None:
        parts = [", ".join([f"{format_count(size)} inputs a call", *_times(layer, wait="wait_ns", call="call_ns")])]
    elif layer.layer == "queued" and (counts.get("observed_ns") or layer.mean("depth") is not None):
        observed = counts.get("observed_ns", 0)
        depth = counts.get("depth_ns", 0) / observed if observed else layer.mean("depth") or 0.0
        parts = [", ".join([f"{format_count(depth)} waiting on average", *_times(layer, wait="wait_ns")])]
    elif layer.layer == "hop" and layer.histograms.get("hop_ns"):
        parts = [f"{_median(layer, 'hop_ns')} there and back"]
    elif layer.layer == "wire" and (requests := counts.get("requests")):
        parts = [_describe_wire(counts, requests)]
    elif times:
        parts = [", ".join(times)]
    said = [f"{counts[name]:,} {words}" for name, words in _TOLD.items() if counts.get(name)]
    return f"{layer.layer}: {'; '.join([*parts, *said])}" if parts or said else ""


def _describe_wire(counts: Mapping[str, int], requests: int) -> str:
    """Sizes of bodies as they came and went, in brackets before compression, and what reading and writing them took."""
    sizes = []
    for way, words in (("received", "in"), ("sent", "out")):
        size, plain = (counts.get(f"{way}{kind}_bytes", 0) / requests for kind in ("", "_plain"))
        sizes.append(f"{format_size(size)} {words}{f' (of {format_size(plain)})' if plain != size else ''}")
    spent = [f"{way} {format_duration(counts.get(f'{way}_ns', 0) / requests)}" for way in ("decode", "encode")]
    return ", ".join([*sizes, *spent])


def _median(layer: LayerStats, name: str) -> str:
    return format_duration(layer.median(name) or 0.0)


def _times(layer: LayerStats, **names: str) -> list[str]:
    """Medians of these spreads in words, means where no more is told; nothing of what was not seen."""
    found = ((word, layer.median(name), layer.mean(name)) for word, name in names.items())
    known = ((word, mean if middle is None else middle) for word, middle, mean in found)
    return [f"{word} {format_duration(value)}" for word, value in known if value is not None]


_TOLD = {
    "coalesced": "joined a call under way",
    "evictions": "evicted",
    "store_errors": "answered without the store",
    "failed_alone": "failed alone",
    "rejected": "rejected",
    "redelivered": "given to a worker again",
    "duplicated": "answered twice",
    "lost": "lost",
    "broker_errors": "refused because the broker was away",
    "errors": "failed",
}
"""Counters that are told where they are not zero."""


def failure_text(verdicts: Sequence[Verdict], result: TestResult) -> str:
    """A failure: the first line is the verdict with its figures, the rest says what it stands on and what to do."""
    lines = [
        *(verdict.reason for verdict in verdicts),
        *_facts(result, {verdict.metric for verdict in verdicts}),
        *_labelled("next", next_step(verdicts, result)),
    ]
    return "\n".join(lines)


def measured_counts(result: TestResult) -> list[str]:
    """How much was measured: ``["2 launches", "24 blocks", "7,406 requests"]``."""
    return [
        wording.count(result.launch_count, "launch", "launches"),
        wording.count(result.blocks, "block"),
        wording.count(result.requests, "request"),
    ]


def measurement_text(result: TestResult) -> str:
    """What was measured, for a test that failed by something else than a verdict of ours."""
    return "\n".join(_facts(result, set()))


def _facts(result: TestResult, shown: set[str]) -> list[str]:
    """What a verdict stands on; metrics that are told elsewhere are left out."""
    setup = result.setup
    failed = sum(result.failed_requests.values())
    kinds = describe_failures({int(code): count for code, count in result.failed_requests.items()})
    measured = [
        *measured_counts(result),
        f"{failed:,} failed{f' ({kinds})' if kinds else ''}",
        f"{result.seconds_spent:.1f} s",
    ]
    return [
        *_fact("test", [result.test]),
        *_fact("set-up", [f"pattern {setup.pattern}", f"load {setup.load}", f"wire {setup.wire}"]),
        *(_fact("against", [result.reference.name]) if result.reference is not None else ()),
        *_fact("measured", measured),
        *_fact("beside", _beside(result, shown)),
        *_labelled("noise", [part for text in result.noise for part in wrap(text, _WIDTH, break_on_hyphens=False)]),
        *_labelled("latency", latency_picture(result)),
        *_labelled("load", load_picture(result)),
    ]


def _fact(label: str, parts: Sequence[str]) -> list[str]:
    """A labelled line of some parts, which goes on below where it gets too long; nothing where there are none."""
    lines: list[str] = []
    for number, part in enumerate(parts):
        said = part if number == len(parts) - 1 else f"{part},"
        if lines and width_of(lines[-1]) + width_of(said) < _WIDTH:
            lines[-1] += f" {said}"
        else:
            lines.append(said)
    return _labelled(label, lines)


def _labelled(label: str, lines: Sequence[str]) -> list[str]:
    """Lines behind a label."""
    return [f"  {'' if number else label:<{_LABEL}}{text}".rstrip() for number, text in enumerate(lines)]


def _beside(result: TestResult, shown: set[str]) -> list[str]:
    return [
        f"{METRICS[name].label} {METRICS[name].show(Estimate(*result.metrics[name]).value)}"
        for name in _BESIDE
        if name in result.metrics and name not in shown
    ]


def next_step(verdicts: Sequence[Verdict], result: TestResult) -> list[str]:
    """What to do about these verdicts; a command stands on a line of its own, so that it can be copied."""
    again = result.command or f"pytest {shlex.quote(result.test)}"
    if any(verdict.outcome is Outcome.INCONCLUSIVE for verdict in verdicts):
        return [
            "measure longer: raise budget=, launches= and duration= where",
            "its marker names them, or",
            f"{again} --perf-budget 120s --perf-duration 10s",
        ]
    if any(verdict.against == "baseline" for verdict in verdicts):
        return ["find the slower change; if it is meant, accept it:", f"{again} --perf-baseline update"]
    if any(verdict.against == "revision" for verdict in verdicts):
        is_service = result.setup.pattern.is_started_from_source
        mend = "compare with a later revision" if is_service else "give the model another perf_version"
        return ["find the slower change since then; if it is meant to cost that,", mend]
    where = result.test.partition("::")[0] if result.location is None else _position(result.location)
    return ["find what is slow; if the limit is too tight, change it:", where]


def _position(location: Location) -> str:
    return f"{location.file}:{location.line}"
