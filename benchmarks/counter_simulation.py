"""How much throughput, CPU per request and tokens per second scatter between launches of few requests, by rule.

A closed loop of two callers in front of a service whose launches are all alike, so that a scatter is that of the rule
and of the requests. Windows of stored launches open at an arbitrary moment; blocks of interleaved runs begin with the
load. The rules:

- completions: answers that came between the last completions before both edges, and the CPU time between the edges;
- shares: the same, and a request that crosses an edge counts on each side by the share of its time there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean, median
from typing import TYPE_CHECKING

import numpy as np
from bench import Claim, Table

from pytest_mlpatterns.analysis.metrics.blocked_values import AnswerCounts
from pytest_mlpatterns.analysis.metrics.blocks import LaunchBlocks
from pytest_mlpatterns.measurement.paired_blocks import answer_rate
from pytest_mlpatterns.records.launch import GeneratorReport, Launch, Usage, Warmup
from pytest_mlpatterns.records.samples import Samples, StreamSamples, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

CLAIM = (
    "with 10 to 30 requests in a window, equal launches scatter by shares at most 1.2 times as much as their requests, "
    "by completions up to 3 times; with 1,000 requests both rules are alike"
)
TRIALS = 200
MS, S = 1_000_000, 1_000_000_000
CALLERS, TOKENS = 2, 8
READING_NS = 50 * MS
COUNTERS = ("throughput", "CPU per request", "tokens per second")
RULES = ("completions", "shares")


@dataclass(frozen=True)
class Service:
    """Answers that take about ``latency_s``, and that compute in the first part of their time, before any token."""

    label: str
    latency_s: float = 0.25
    latency_cv: float = 0.03
    computes: float = 1.0


EVEN = Service("250 ms ± 3 %, computes all the time")
VARIED = Service("250 ms ± 20 %, computes all the time", latency_cv=0.20)
PROMPT = Service("250 ms ± 3 %, computes in the first half", computes=0.5)
FAST = Service("4 ms ± 20 %", 0.004, 0.20)


@dataclass(frozen=True)
class Load:
    """The requests of a load, by completion, and what the CPU had done by any moment."""

    samples: Samples
    used_ns: Callable[[NDArray[np.float64]], NDArray[np.float64]]


def load(rng: np.random.Generator, service: Service, *, begin_ns: Sequence[int], end_ns: int) -> Load:
    """Callers that each begin at a moment and send until the end; what is in flight then is answered."""
    spans = [span for since_ns in begin_ns for span in _caller(rng, service, since_ns=since_ns, end_ns=end_ns)]
    due, done = np.array(sorted(spans, key=lambda span: span[1]), dtype=np.int64).T
    pieces = np.linspace(0.5, 1.0, TOKENS)
    chunks = (due[:, None] + pieces * (done - due)[:, None]).astype(np.int64)
    ones = np.ones(due.size)
    streams = StreamSamples(
        first_byte_ns=due + 1,
        chunk_count=(TOKENS * ones).astype(np.uint32),
        output_tokens=(TOKENS * ones).astype(np.int32),
        input_tokens=(-ones).astype(np.int32),
        chunk_ns=chunks.ravel(),
    )
    none = np.zeros(due.size, dtype=np.uint32)
    outcome, size = (200 * ones).astype(np.int16), (900 * ones).astype(np.uint32)
    samples = Samples(due, due, done, outcome, none, none.astype(np.uint8), size, streams)

    def used_ns(moments: NDArray[np.float64]) -> NDArray[np.float64]:
        computed = service.computes * (done - due)
        used: NDArray[np.float64] = np.clip(moments[:, None] - due, 0, computed).sum(axis=1)
        return used / service.computes

    return Load(samples, used_ns)


def _caller(rng: np.random.Generator, service: Service, *, since_ns: int, end_ns: int) -> Iterator[tuple[int, int]]:
    now = since_ns
    while now < end_ns:
        took = int(service.latency_s * S * math.exp(rng.normal(0, service.latency_cv)))
        yield now, now + took
        now += took


def stored(rng: np.random.Generator, service: Service, requests: int) -> dict[tuple[str, str], tuple[float, float]]:
    """Every counter of one stored launch by both rules: its value, and the standard error that it is given."""
    start, length = 100 * S, int(requests * service.latency_s / CALLERS * S)
    begin = [start - int(rng.uniform(3, 5) * service.latency_s * S) for _ in range(CALLERS)]
    found = load(rng, service, begin_ns=begin, end_ns=start + length)
    read_ns = np.arange(min(begin), start + length + 2 * service.latency_s * S, READING_NS)
    launch = launch_of(found, Window(start, start + length), read_ns)
    blocks = LaunchBlocks(launch)
    assert blocks.streams is not None
    shares = blocks.throughput(), blocks.used_per_answer("cpu_ns"), blocks.streams.output_tokens()
    plain = by_completions(found, np.linspace(start, start + length, blocks.count + 1), read_ns)
    known = {
        (name, "shares"): (one.value, one.relative_error) for name, one in zip(COUNTERS, shares, strict=True) if one
    }
    return known | {(name, "completions"): (one, math.nan) for name, one in zip(COUNTERS, plain, strict=True)}


def launch_of(found: Load, window: Window, read_ns: NDArray[np.float64]) -> Launch:
    zero = np.zeros(read_ns.size, dtype=np.int64)
    used = found.used_ns(read_ns).astype(np.int64)
    usage = Usage(read_ns.astype(np.int64), used, zero, used, zero, zero, zero, zero, cores=2, machine_cores=2)
    report = GeneratorReport(0, window.duration_ns, found.samples.done_ns.size, CALLERS)
    return Launch(
        samples=found.samples,
        window=window,
        usage=usage,
        stats=None,
        warmup=Warmup(S, 8, steady=True),
        generator=report,
        cold_start_ns=None,
        request_bytes=np.array([200]),
        open_loop=False,
    )


def by_completions(found: Load, edges_ns: NDArray[np.float64], read_ns: NDArray[np.float64]) -> tuple[float, ...]:
    """The counters as they are without shares."""
    samples = found.samples
    assert samples.stream is not None
    answers = AnswerCounts(samples.done_ns, samples.done_ns, closed=False)
    arrived = np.sort(samples.stream.chunk_ns)
    tokens = AnswerCounts(arrived, arrived, closed=False)
    rates = []
    for counts in (answers, tokens):
        first, *_, last = counts.cuts(edges_ns)
        rates.append(float(np.diff(counts.by(np.array([first, last])))[0] * S / (last - first)))
    ends = edges_ns[[0, -1]]
    used = np.diff(np.interp(ends, read_ns, found.used_ns(read_ns)))[0]
    return rates[0], float(used / np.diff(answers.by(ends))[0]), rates[1]


def interleaved(rng: np.random.Generator, services: tuple[Service, Service], requests: int) -> dict[str, float]:
    """The log ratio of the throughput of one paired launch of four pairs of blocks, by rule."""
    rates: dict[str, list[list[float]]] = {rule: [[], []] for rule in RULES}
    for _ in range(4):
        for side, service in enumerate(services):
            start, length = 100 * S, int(requests / 4 * services[0].latency_s / CALLERS * S)
            end = start + 15 * MS + length
            found = load(rng, service, begin_ns=[start] * CALLERS, end_ns=end).samples
            window = Window(start + 15 * MS, end)
            rates["shares"][side].append(answer_rate(found, window, closed=True))
            last = found.done_ns[found.done_ns < end].max(initial=0) or found.done_ns[-1]
            rates["completions"][side].append(max(int((found.done_ns < end).sum()), 1) * S / (last - start))
    return {rule: median(math.log(b / a) for a, b in zip(*sides, strict=True)) for rule, sides in rates.items()}


def measure() -> Iterator[Table]:
    yield of_stored_launches()
    yield of_paired_launches()


def of_stored_launches() -> Table:
    rows: list[Sequence[str]] = []
    own, before, fast = [], [], []
    for service in (EVEN, VARIED, PROMPT, FAST):
        for requests in (1000,) if service is FAST else (10, 20, 30):
            rng = np.random.default_rng(1)
            found = [stored(rng, service, requests) for _ in range(TRIALS)]
            scatter = {key: float(np.std(np.log([one[key][0] for one in found]))) for key in found[0]}
            errors = {name: fmean(one[name, "shares"][1] for one in found) for name in COUNTERS}
            for name in COUNTERS:
                floor, shares = service.latency_cv / math.sqrt(requests), scatter[name, "shares"]
                figures = floor, scatter[name, "completions"], shares, errors[name]
                rows.append((service.label, str(requests), name, *(f"{100 * one:.2f} %" for one in figures)))
                if service is FAST:
                    fast.append(shares / scatter[name, "completions"])
                elif service is EVEN:
                    own.append(shares / floor)
                    before.append(scatter[name, "completions"] / floor)
    claims = [
        Claim("even service, scatter by shares over that of its requests, largest", max(own), at_most=1.2),
        Claim("the same by completions", max(before), at_least=2),
        Claim("fast service, scatter by shares over that by completions, largest", max(fast), at_most=1.05),
    ]
    headings = ("service", "requests", "counter", "of its requests", "completions", "shares", "error by blocks")
    return Table(f"scatter of {TRIALS} equal launches", headings, rows, claims)


def of_paired_launches() -> Table:
    rows: list[Sequence[str]] = []
    ratios: list[float] = []
    for service in (EVEN, VARIED, PROMPT, FAST):
        for change in (0.0, 0.1):
            for requests in (4000,) if service is FAST else (12, 20, 32):
                rng = np.random.default_rng(2)
                slower = Service("", service.latency_s * (1 + change), service.latency_cv, service.computes)
                found = [interleaved(rng, (service, slower), requests) for _ in range(TRIALS)]
                cells, scatter = [], {}
                for rule in RULES:
                    values = [one[rule] + math.log1p(change) for one in found]
                    scatter[rule] = math.hypot(float(np.mean(values)), float(np.std(values)))
                    cells.append(f"{100 * np.mean(values):+.2f} ± {100 * np.std(values):.2f} %")
                rows.append((service.label, str(requests), f"{change:+.0%}", *cells))
                if service is not FAST:
                    ratios.append(scatter["shares"] / scatter["completions"])
    claims = [Claim("error of the ratio by shares over that by completions, largest", max(ratios), at_most=1.0)]
    headings = ("service", "requests of a side", "slower", "completions", "shares")
    title = f"error of the throughput's ratio, {TRIALS} paired launches of four pairs of blocks"
    return Table(title, headings, rows, claims)
