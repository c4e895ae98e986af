"""Launches and paired launches of a world, as the records that a measurement gives. Pure.

A closed loop's callers ask again when they have their answer; the blocks of a paired launch alternate, in slices where
the plan has them, so that both sides meet the same moments of the machine.
"""

from __future__ import annotations

import itertools
import math
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.analysis.metrics.blocked_values import counted
from pytest_mlpatterns.analysis.metrics.samples import take_rows
from pytest_mlpatterns.analysis.statistics.distributions import location
from pytest_mlpatterns.analysis.statistics.log_ratio import PairedLaunch, VariantFigures
from pytest_mlpatterns.measurement.paired_blocks import BlockPlan, block_ratios, stream_figures
from pytest_mlpatterns.records.launch import GeneratorReport, Launch, Usage, Warmup
from pytest_mlpatterns.records.samples import ResourceTrack, Samples, StreamSamples, Window
from pytest_mlpatterns.records.telemetry import LayerStats, PatternStats
from worlds.drawing import CORES, STEP_NS, Answers, Life, Met, Side, answers
from worlds.recorded import read
from worlds.world import MS, S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pytest_mlpatterns.records.setup import EnvironmentFacts
    from pytest_mlpatterns.workload.window_plan import RequestWindow
    from worlds.world import Machine

    Int = NDArray[np.int64]

START_NS = 5_000 * S
WARM_NS = 300 * MS
_READ_NS = 50 * MS  # Interval of the readings of a file's launch
_GENERATOR_NS = 40_000  # CPU time of the generator for a request
_BYTES = 150
_QUEUE_APART = 0.2  # By how much the mean wait for a core differs between the sides of a pair
_FIXED, _BLOCK_FIXED = 4, 1  # Moments of the fixed work of a file's launch, and before each block


class Drawn(Struct, frozen=True):
    """A launch, and the seconds that it takes from its start to its end."""

    launch: Launch
    seconds: float


class DrawnPair(Struct, frozen=True):
    """A paired launch, the launches of its sides, and the seconds that they take."""

    paired: PairedLaunch
    first: Launch
    second: Launch
    seconds: float


class Shot(Struct, frozen=True):
    """Requests in the order of completion."""

    due_ns: Int
    done_ns: Int
    answers: Answers
    index: Int  # of each request among the answers, flat

    def samples(self, inputs: int, size: float) -> Samples:
        """The record of these requests."""
        outcome = self.answers.outcome.ravel()[self.index]
        count = self.due_ns.size
        request = np.arange(count, dtype=np.uint32) % inputs
        received = np.full(count, round(_BYTES * size), dtype=np.uint32)
        found = Samples(
            self.due_ns, self.due_ns, self.done_ns, outcome, request, np.zeros(count, dtype=np.uint8), received
        )
        return found if self.answers.ttft_ns is None else replace(found, stream=self._stream(outcome))

    def _stream(self, outcome: NDArray[np.int16]) -> StreamSamples:
        found = self.answers
        assert found.ttft_ns is not None
        assert found.gaps_ns is not None
        assert found.tokens is not None
        good = outcome == 200
        first = self.due_ns + found.ttft_ns.ravel()[self.index].astype(np.int64)
        gaps = found.gaps_ns.reshape(-1, found.gaps_ns.shape[-1])[self.index]
        tokens = found.tokens.ravel()[self.index]
        arrivals = np.concatenate([first[:, None], first[:, None] + np.cumsum(gaps, axis=1).astype(np.int64)], axis=1)
        arrivals = np.minimum(arrivals, self.done_ns[:, None])
        is_chunk = (np.arange(arrivals.shape[1]) < tokens[:, None]) & good[:, None]
        return StreamSamples(
            first_byte_ns=np.where(good, first, 0),
            chunk_count=is_chunk.sum(axis=1).astype(np.uint32),
            output_tokens=np.where(good, tokens, -1).astype(np.int32),
            input_tokens=np.full(tokens.shape, 64, dtype=np.int32),
            chunk_ns=arrivals[is_chunk],
        )


def ordered(due: NDArray[np.float64], found: Answers, kept: NDArray[np.bool_] | None = None) -> Shot:
    """The requests that are kept, as they complete."""
    due_ns = due.ravel().astype(np.int64)
    done_ns = due_ns + np.maximum(found.times_ns.ravel(), 1.0).astype(np.int64)
    index = np.arange(due_ns.size) if kept is None else np.flatnonzero(kept.ravel())
    index = index[np.argsort(done_ns[index], kind="stable")]
    return Shot(due_ns[index], done_ns[index], found, index)


def closed_loop(found: Answers, start_ns: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """When each request of each caller is due: as soon as the one before has its answer."""
    ends = np.cumsum(found.times_ns, axis=-1)
    return start_ns + ends - found.times_ns


class Setting(Struct, frozen=True):
    """What the launches of one test share."""

    inputs: int = 8
    duration_ns: int = 700 * MS
    window: RequestWindow | None = None  # of a slow service; None if it lasts ``duration_ns``
    facts: EnvironmentFacts = {}


def file_launch(rng: np.random.Generator, side: Side, setting: Setting, *, machine: Machine, number: int = 0) -> Drawn:
    """One launch with a window of its own."""
    service, window = side.service, setting.window
    span_ns = float(setting.duration_ns)
    if window is not None:
        span_ns = max(window.least_ns, window.requests * service.answer_ns / service.callers)
    if service.recorded:
        launches = read(f"{service.recorded}-{machine.label}").launches
        met = Met.again(launches[rng.integers(len(launches))])
    else:
        met = Met.draw(rng, machine, number=number, span_ns=1.5 * span_ns + WARM_NS)
    life = Life.draw(rng, side, met)
    lead_ns = min(2.5 * service.answer_ns * met.mean_speed, 200 * MS)
    if service.rate_rps is not None:
        count = int((span_ns + lead_ns) / 1e9 * service.rate_rps)
        due: NDArray[np.float64] = START_NS - lead_ns + np.arange(count, dtype=np.float64) * 1e9 / service.rate_rps
        found = answers(rng, life, (count,), moments_ns=due - due[0])
        end_ns = START_NS + int(span_ns)
    else:
        found, due = _callers(rng, life, span_ns=span_ns, lead_ns=lead_ns, window=window)
        end_ns = START_NS + int(span_ns)
        if window is not None:
            later = np.sort(due[due >= START_NS].ravel())
            end_ns = int(later[window.requests]) if window.requests < later.size else int(later[-1]) + 1
    shot = ordered(due, found, due < end_ns)
    samples = shot.samples(setting.inputs, side.product("size"))
    seen = Window(START_NS, end_ns)
    read_ns = np.arange(START_NS - 3 * _READ_NS, end_ns + 3 * _READ_NS, _READ_NS, dtype=np.int64)
    generator_ns = _GENERATOR_NS * samples.outcome.size
    own_ns = _used_by(shot, read_ns)
    used = _usage(life, read_ns, own_ns, generator_ns=generator_ns)
    launch = _record(rng, life, samples=samples, window=seen, used=used if service.counted else None, setting=setting)
    fixed = tuple(met.fixed_ns(rng) for _ in range(_FIXED))
    report = _report(samples, machine, window=seen, generator_ns=generator_ns)
    launch = replace(launch, sorting_ns=fixed, generator=report, rate_rps=service.rate_rps)
    drained_s = max(int(samples.done_ns.max()) - end_ns, 0) / 1e9
    seconds = life.start_ns / 1e9 + (WARM_NS + 3 * service.answer_ns + seen.duration_ns) / 1e9 + drained_s + 0.2
    return Drawn(launch, seconds)


def _callers(
    rng: np.random.Generator, life: Life, *, span_ns: float, lead_ns: float, window: RequestWindow | None
) -> tuple[Answers, NDArray[np.float64]]:
    """The answers to the callers of a closed loop, and when they are due."""
    service = life.side.service
    expected = service.answer_ns * life.met.mean_speed
    wanted = (span_ns + lead_ns) / expected + 3 if window is None else window.requests / service.callers + 4
    while True:
        count = max(int(1.1 * wanted), 4)
        found = answers(rng, life, (service.callers, count))
        due = closed_loop(found, START_NS - lead_ns - rng.uniform(0, 1, (service.callers, 1)) * expected)
        if window is not None or float((due[:, -1] + found.times_ns[:, -1]).min()) > START_NS + span_ns:
            return found, due
        wanted *= 1.5


def _report(samples: Samples, machine: Machine, *, window: Window, generator_ns: int) -> GeneratorReport:
    wall_ns = window.duration_ns
    cpu_ns = round(0.98 * wall_ns) if machine.generator_limited else generator_ns
    return GeneratorReport(
        cpu_ns=cpu_ns, wall_ns=wall_ns, completed=samples.outcome.size, connections=8, ceiling_rps=None
    )


def _used_by(shot: Shot, read_ns: Int) -> NDArray[np.float64]:
    """CPU time until each of these moments: a request uses its own evenly while it is answered."""
    took_ns = (shot.done_ns - shot.due_ns).astype(np.float64)
    done = np.clip((read_ns[:, None] - shot.due_ns) / took_ns, 0, 1)
    found: NDArray[np.float64] = done @ shot.answers.work_ns.ravel()[shot.index]
    return found


def _usage(life: Life, read_ns: Int, own_ns: NDArray[np.float64], *, generator_ns: float) -> Usage:
    """Readings of the resources at these moments. ``own_ns``: CPU time of the service until each of them."""
    met, elapsed = life.met, (read_ns - read_ns[0]).astype(np.float64)
    share = own_ns / max(own_ns[-1], 1.0)
    others = met.others * elapsed + generator_ns * share
    rss = np.full(read_ns.shape, life.memory) + _growth(life) * own_ns / max(_per_request(life), 1.0)
    return Usage(
        time_ns=read_ns,
        cpu_ns=own_ns.astype(np.int64),
        rss_bytes=rss.astype(np.int64),
        machine_busy_ns=np.minimum(own_ns + others, CORES * elapsed).astype(np.int64),
        others_ns=others.astype(np.int64),
        steal_ns=(met.steal * CORES * elapsed).astype(np.int64),
        throttled_ns=(met.throttled * elapsed).astype(np.int64),
        frequency_hz=np.zeros(read_ns.shape, dtype=np.int64),
        cores=CORES,
        machine_cores=CORES,
        descriptors=np.full(read_ns.shape, 20),
        threads=np.full(read_ns.shape, 8),
    )


def _growth(life: Life) -> int:
    return sum(one.growth for one in life.side.changes)


def _per_request(life: Life) -> float:
    return life.side.service.cpu * life.side.service.answer_ns


def _record(
    rng: np.random.Generator,
    life: Life,
    *,
    samples: Samples,
    window: Window,
    used: Usage | None,
    setting: Setting,
) -> Launch:
    """The launch of these requests, without the times of the fixed work."""
    inside = samples.due_in(window)
    track = None
    if used is not None:
        requests = np.searchsorted(samples.done_ns, used.time_ns)
        rss = used.rss_bytes[0] + _growth(life) * requests
        track = ResourceTrack(requests, rss, used.descriptors, used.threads)
    return Launch(
        samples=samples,
        window=window,
        usage=used,
        stats=_stats(rng, life, int(inside.sum())),
        warmup=Warmup(round(WARM_NS), 50, steady=True),
        generator=GeneratorReport(cpu_ns=0, wall_ns=window.duration_ns, completed=inside.size, connections=8),
        cold_start_ns=round(life.start_ns),
        request_bytes=np.full(setting.inputs, 200, dtype=np.int64),
        open_loop=life.side.service.rate_rps is not None,
        track=track,
        facts=setting.facts,
    )


def _stats(rng: np.random.Generator, life: Life, requests: int) -> PatternStats | None:
    """What the layers of the service counted."""
    service = life.side.service
    if service.figure == "batched":
        size = max(round(16 * life.side.product("batch") * (0.5 if life.is_slow else 1.0)), 1)
        calls = max(requests // size, 1)
        layer = LayerStats(0, "batched", {"calls": calls, "items": requests}, {"size": {size: calls}})
        return PatternStats((requests,), (), (layer,))
    if service.figure == "cached":
        hits = int(rng.binomial(requests, min((1 - service.second) * life.side.product("hits"), 1.0)))
        counters = {"hits": hits, "misses": requests - hits, "coalesced": 0, "evictions": 0}
        return PatternStats((requests,), (), (LayerStats(0, "cached", counters),))
    return PatternStats((requests,)) if service.counted else None


class Blocks:
    """One side of a paired launch: its figures block by block, and all blocks as one launch."""

    def __init__(self, life: Life, setting: Setting) -> None:
        self.life, self.setting = life, setting
        self.values: dict[str, list[float]] = {}
        self.ends_ns: list[int] = [START_NS]
        self.work_ns: list[float] = [0.0]
        self.samples: Samples | None = None
        self.requests = self.failed = 0

    def draw(self, rng: np.random.Generator, moments_ns: NDArray[np.float64], *, length_ns: float, most: int) -> None:
        """Draw all blocks. ``moments_ns``: of the course of the machine, shape ``(blocks, callers, requests)``.

        ``length_ns``: of a block; ``most``: requests of it, if that ends it, else 0.
        """
        service = self.life.side.service
        found = answers(rng, self.life, moments_ns.shape, moments_ns=moments_ns)
        blocks, callers, count = moments_ns.shape
        if service.rate_rps is not None:
            due = np.broadcast_to(np.arange(count) * 1e9 / service.rate_rps, moments_ns.shape)
        else:
            due = closed_loop(found, 0.0)
        kept = due < length_ns if not most else np.broadcast_to(np.arange(count) < max(most // callers, 1), due.shape)
        at_ns, shots = float(START_NS), []
        for number in range(blocks):
            inside = kept[number]
            times = found.times_ns[number]
            last_ns = np.where(inside, due[number] + times, 0).max(axis=-1)
            end_ns = length_ns if not most else float(last_ns.max())
            good = inside & (found.outcome[number] == 200)
            known = times[good] if good.any() else times[inside]
            answered = inside.sum(axis=-1) if service.rate_rps is None else np.array([inside.sum()])
            span = last_ns if service.rate_rps is None else np.array([max(float(due[number][inside].max()), 1.0)])
            work = float(found.work_ns[number][inside].sum())
            self._add(
                {
                    "rtm": float(np.median(known)),
                    "latency_mean": location(known),
                    "throughput": float((answered / span).sum() * 1e9 * good.sum() / max(inside.sum(), 1)),
                    "cpu_per_request": work / max(int(good.sum()), 1) if service.counted else 0.0,
                }
            )
            self.work_ns.append(self.work_ns[-1] + work)
            shots.append(at_ns + due[number])
            at_ns += round(end_ns)
            self.ends_ns.append(int(at_ns))
        whole = ordered(np.stack(shots), found, kept)
        self.samples = whole.samples(self.setting.inputs, self.life.side.product("size"))
        self.requests = int(kept.sum())
        self.failed = int((self.samples.outcome != 200).sum())
        if service.stream is not None:
            self._stream_figures()

    def _add(self, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self.values.setdefault(name, []).append(value)

    def _stream_figures(self) -> None:
        assert self.samples is not None
        for start_ns, end_ns in itertools.pairwise(self.ends_ns):
            window = Window(start_ns, end_ns)
            good = self.samples.successes_in(window)
            part = take_rows(self.samples, np.flatnonzero(self.samples.due_in(window)))
            inside = good[self.samples.due_in(window)]
            closed = self.life.side.service.rate_rps is None
            self._add(stream_figures(part, window, inside, closed=closed))

    def figures(self) -> VariantFigures:
        assert self.samples is not None
        good = self.samples.outcome == 200
        latencies = counted(self.samples.latency_ns[good])
        return VariantFigures.of(self.values, requests=self.requests, failed=self.failed, latencies=latencies)

    def launch(self, rng: np.random.Generator, machine: Machine, *, with_facts: bool) -> Launch:
        assert self.samples is not None
        window = Window(self.ends_ns[0], self.ends_ns[-1])
        generator_ns = _GENERATOR_NS * self.samples.outcome.size
        read_ns = np.array(self.ends_ns, dtype=np.int64)
        used = _usage(self.life, read_ns, np.array(self.work_ns), generator_ns=generator_ns)
        setting = self.setting if with_facts else replace(self.setting, facts={})
        launch = _record(
            rng,
            self.life,
            samples=self.samples,
            window=window,
            used=used if self.life.side.service.counted else None,
            setting=setting,
        )
        fixed = fmean(self.life.met.fixed_ns(rng) for _ in range(_BLOCK_FIXED * (len(self.ends_ns) - 1)))
        report = _report(self.samples, machine, window=window, generator_ns=generator_ns)
        return replace(launch, sorting_ns=(fixed,), generator=report, rate_rps=self.life.side.service.rate_rps)


class Pairing(Struct, frozen=True):
    """The two sides of a paired launch, and the machine that both meet."""

    first: Side
    second: Side
    machine: Machine
    setting: Setting


def paired_launch(rng: np.random.Generator, of: Pairing, plan: BlockPlan, *, number: int, start_s: float) -> DrawnPair:
    """One start of both sides, loaded in alternating blocks. ``start_s``: what the start and the warm-up take."""
    second_began = bool(number % 2)
    lengths = plan.lengths_ns
    blocks, pair_ns = 2 * plan.rounds, float(sum(lengths))
    both = _met(rng, of, number=number, span_ns=blocks * pair_ns)
    met, sides = both[0], []
    for index, (side, own) in enumerate(zip((of.first, of.second), both, strict=True)):
        one = Blocks(Life.draw(rng, side, own), of.setting)
        moments = _moments(one, lengths[index], plan, index=index, began=index == number % 2, pair_ns=pair_ns)
        one.draw(rng, moments, length_ns=float(lengths[index]), most=plan.requests or 0)
        sides.append(one)
    first, second = sides
    is_busy = met.others > 0.3 or met.steal * CORES > 0.3
    disturbed = [is_busy] * blocks
    ratios = block_ratios(first.values, second.values, disturbed)
    paired = PairedLaunch(
        rtm=ratios.pop("rtm"),
        throughput=ratios.pop("throughput"),
        cpu_per_request=ratios.pop("cpu_per_request", None),
        latency_mean=ratios.pop("latency_mean"),
        streams=ratios,
        first=first.figures(),
        second=second.figures(),
        pairs=blocks,
        second_began=second_began,
        repeated=0,
        disturbed=sum(disturbed),
    )
    launches = [one.launch(rng, of.machine, with_facts=number == 0) for one in sides]
    loaded_s = sum((one.ends_ns[-1] - one.ends_ns[0]) / 1e9 for one in sides)
    return DrawnPair(paired, launches[0], launches[1], start_s + loaded_s + 0.3)


def _met(rng: np.random.Generator, of: Pairing, *, number: int, span_ns: float) -> tuple[Met, Met]:
    """What both sides of a paired launch meet: the same machine, or a recorded pair, of which either may be first."""
    service = of.first.service
    if service.recorded:
        pairs = read(f"{service.recorded}-{of.machine.label}").pairs
        pair = pairs[rng.integers(len(pairs))]
        first, second = pair if rng.random() < 0.5 else pair[::-1]
        return Met.again(first), Met.again(second)
    met = Met.draw(rng, of.machine, number=number, span_ns=span_ns)
    own = [  # one side waits while the other is loaded
        replace(met, factor=met.factor * math.exp(speed), queue_ns=met.queue_ns * math.exp(wait))
        for speed, wait in zip(rng.normal(0, 0.002, 2), rng.normal(0, _QUEUE_APART, 2), strict=True)
    ]
    return own[0], own[1]


def _moments(
    one: Blocks, length_ns: float, plan: BlockPlan, *, index: int, began: bool, pair_ns: float
) -> NDArray[np.float64]:
    """The moment of each request in the course of the machine, shape ``(blocks, callers, requests)``."""
    service, blocks = one.life.side.service, 2 * plan.rounds
    if service.rate_rps is not None:
        callers, count = 1, max(int(length_ns / 1e9 * service.rate_rps), 2)
        inside = np.arange(count) * 1e9 / service.rate_rps
    elif plan.requests:
        callers, count = service.callers, max(plan.requests // service.callers, 1)
        inside = np.arange(count) * service.answer_ns * one.life.met.mean_speed
    else:
        callers = service.callers
        count = int(2.2 * length_ns / (service.answer_ns * one.life.met.factor)) + 8
        inside = np.arange(count) * service.answer_ns * one.life.met.mean_speed
    number = np.arange(blocks)[:, None]
    is_first = (number % 2 == 0) == began
    if plan.slices > 1:
        slice_ns = max(length_ns / plan.slices, STEP_NS)
        inside = 2 * (inside // slice_ns) * slice_ns + inside % slice_ns
        moments = number * pair_ns + inside + np.where(is_first, 0.0, slice_ns)
    else:
        moments = number * pair_ns + inside + np.where(is_first, 0.0, pair_ns - length_ns)
    return np.broadcast_to(moments[:, None, :], (blocks, callers, count))


def kept_facts(named: str, *, changed: bool) -> dict[str, Any]:
    """The environment of a deployment, with the version of the named fact before or after its change."""
    facts = {"packages": "loaded", "package numpy": "2.0.0", "kernel": "Linux 6.1.0", "Python": "3.11.7"}
    return {**facts, named: "1.20" if changed else "1.19"} if named else facts


def start_seconds(sides: Sequence[Side], machine: Machine) -> float:
    """Seconds to start both sides beside each other and to warm them up."""
    longest = max(one.service.start_ns * one.product("start") for one in sides)
    warm = sum(max(100 * MS, 2 * one.service.answer_ns) for one in sides)
    return (longest * 1.2 * machine.slower * machine.starts + warm) / 1e9
