"""Draws the launches of a world as our records are: requests, resources and the fixed work. Pure but for the generator.

One launch meets a machine (:class:`Met`), and what holds for its whole life is drawn once (:class:`Life`). This module
must not know verdicts.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct

from worlds.world import MS, NO_CHANGE, Change, Machine, Service

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from worlds.recorded import Replayed
    from worlds.recorded import Side as Recorded

    Times = NDArray[np.float64]

STEP_NS = 5 * MS  # Shortest moment of which a machine has a speed of its own
SORTING_NS = 0.7 * MS  # Time of the fixed work
CORES = 2
_FIXED_SD, _FIXED_DISTURBED = 0.02, 0.1
"""Scatter of the fixed work, and the share of its moments that take up to a half longer."""
_SHARING, _FIXED_SHARING = 0.1, 0.03
"""By how much longer a request, and the fixed work, take for each core that neighbours use: they share caches."""
_SLICE_NS, _STEAL_NS, _THROTTLE_NS = 3 * MS, 5 * MS, 30 * MS  # Mean length of a wait for a core, the host, a limit
_QUEUE_SD = 0.15  # By how much the mean wait for a core differs between launches
_MEMORY_SD, _MEMORY_JUMP, _START_SD, _CPU_SD = 0.01, 0.03, 0.06, 0.015


class Side(Struct, frozen=True):
    """One side of a comparison: a service with what became of it."""

    service: Service
    changes: tuple[Change, ...] = ()

    def product(self, name: str) -> float:
        """A factor of all changes together."""
        return float(math.prod(getattr(one, name) for one in self.changes))


class Met(Struct, frozen=True):
    """What one launch meets of its machine."""

    factor: float  # times as long as everything takes
    others: float
    steal: float
    throttled: float
    course: Times | None = None  # speed of each moment of ``STEP_NS``; None if it stays the same
    fixed_slower: float = 1.0
    queue_ns: float = 0.0
    starts: float = 1.0
    pauses_ns: Times | None = None  # begin and length of each pause, shape ``(2, pauses)``; None without any
    record: Recorded | None = None  # a launch of a real service that met it; None if it is made up

    @classmethod
    def again(cls, record: Recorded) -> Met:
        """What a recorded launch met, whose times have it already."""
        return cls(1.0, record.others, record.steal, record.throttled, record=record)

    @classmethod
    def draw(cls, rng: np.random.Generator, machine: Machine, *, number: int, span_ns: float) -> Met:
        """What the launch of this number meets."""
        is_there = number == 0 if machine.first_only else rng.random() < machine.present
        others, steal, throttled = machine.others, machine.steal, machine.throttled
        if not is_there:
            others = steal = throttled = 0.0
        factor = machine.slower * math.exp(rng.normal(0, machine.drift)) * (1 + _SHARING * others)
        course = None if machine.flicker == 1 else _course(rng, machine, span_ns)
        queue_ns = machine.queue_ns * math.exp(rng.normal(0, _QUEUE_SD)) if machine.queue_ns else 0.0
        pauses = _pauses(rng, machine, span_ns) if is_there and machine.pause_s else None
        return cls(factor, others, steal, throttled, course, machine.fixed_slower, queue_ns, machine.starts, pauses)

    def speed(self, moments_ns: Times) -> Times | float:
        """Times as long as work takes that begins at these moments."""
        if self.course is None:
            return self.factor
        index = np.minimum((moments_ns / STEP_NS).astype(np.int64), self.course.size - 1)
        found: Times = self.factor * self.course[np.maximum(index, 0)]
        return found

    @property
    def mean_speed(self) -> float:
        """The same, on average."""
        return self.factor if self.course is None else self.factor * float(self.course.mean())

    def waits(self, rng: np.random.Generator, times_ns: Times, moments_ns: Times) -> Times | float:
        """Time for which each request waits for a core, the host, a limit or the end of a pause."""
        waited: Times | float = 0.0
        if self.record is not None:
            return waited
        if self.queue_ns:
            waited = rng.gamma(2.0, self.queue_ns / 2, times_ns.shape)
        crowded = max(self.others - 1, 0.0)
        for share, length_ns in (
            (0.02 * self.others + 0.25 * crowded, _SLICE_NS),
            (np.minimum(self.steal * times_ns / _STEAL_NS, 1.0), _STEAL_NS),
            (np.minimum(self.throttled * times_ns / _THROTTLE_NS, 1.0), _THROTTLE_NS),
        ):
            if np.any(share):
                hit = rng.random(times_ns.shape) < share
                waited = waited + np.where(hit, rng.exponential(length_ns, times_ns.shape), 0.0)
        return waited if self.pauses_ns is None else waited + _paused(moments_ns, self.pauses_ns)

    def fixed_ns(self, rng: np.random.Generator) -> float:
        """Time of the fixed work at some moment."""
        if self.record is not None and self.record.fixed_ns:
            return float(rng.choice(self.record.fixed_ns))
        speed = self.factor if self.course is None else self.factor * float(rng.choice(self.course))
        late = 1 + rng.uniform(0, 0.5) * (rng.random() < _FIXED_DISTURBED)
        speed *= (1 + _FIXED_SHARING * self.others) / (1 + _SHARING * self.others)
        return SORTING_NS * self.fixed_slower * speed * late * math.exp(rng.normal(0, _FIXED_SD))


def _course(rng: np.random.Generator, machine: Machine, span_ns: float) -> Times:
    """The speed of a machine that changes between two, moment by moment."""
    steps, each = max(int(span_ns / STEP_NS), 1) + 1, machine.flicker_s * 1e9 / STEP_NS
    ends = np.cumsum(np.maximum(rng.exponential(each, 8 + int(4 * steps / each)), 1.0))
    state = np.searchsorted(ends, np.arange(steps)) + int(rng.random() < 0.5)
    found: Times = np.where(state % 2, machine.flicker, 1.0)
    return found


def _pauses(rng: np.random.Generator, machine: Machine, span_ns: float) -> Times:
    """Pauses of the whole machine at random moments, each up to twice as long as usual."""
    begins = rng.uniform(0, span_ns, rng.poisson(span_ns / 1e9 / machine.pause_s))
    return np.stack([begins, rng.uniform(0, 2, begins.size) * machine.pause_ns])


def _paused(moments_ns: Times, pauses_ns: Times) -> Times:
    """What each request waits for pauses: one of every caller meets each. ``moments_ns``: shape ``(…, requests)``."""
    waited = np.zeros(moments_ns.shape)
    apart_ns = moments_ns[..., 1:2] - moments_ns[..., :1]
    for begin_ns, length_ns in pauses_ns.T:
        since_ns = begin_ns - moments_ns
        waited += length_ns * ((since_ns >= 0) & (since_ns < apart_ns))
    return waited


class Life(Struct, frozen=True):
    """What holds for the whole life of one deployment."""

    side: Side
    met: Met  # what it meets of its machine
    factor: float  # times as long as its requests take
    cpu: float
    memory: float
    start_ns: float
    shares: tuple[float, ...]  # of the requests in the new mode of each change
    is_slow: bool  # whether it settled in the slower of two ways

    @classmethod
    def draw(cls, rng: np.random.Generator, side: Side, met: Met) -> Life:
        """The life of one deployment on the machine that it meets."""
        service, changes = side.service, side.changes
        log = rng.normal(0, service.launch_sd) if met.record is None else 0.0
        memory = rng.normal(0, _MEMORY_SD) + _MEMORY_JUMP * (rng.random() < 0.1)
        start = rng.normal(0, _START_SD) + 0.3 * (rng.random() < 0.02)
        shares = tuple(min(max(rng.normal(one.share, one.vary), 0.0), 0.95) if one.share else 0.0 for one in changes)
        slow_share = service.kinds + sum(one.kinds for one in changes)
        is_slow = bool(rng.random() < slow_share)
        times = max([service.kind_times if service.kinds else 1.0, *(one.kind_times for one in changes)])
        return cls(
            side,
            met,
            math.exp(log) * side.product("time") * (times if is_slow else 1.0),
            math.exp(0.5 * log + rng.normal(0, _CPU_SD)) * side.product("cpu"),
            service.memory * math.exp(memory) * side.product("memory"),
            (service.start_ns * math.exp(start) if met.record is None else met.record.start_ns)
            * side.product("start")
            * met.mean_speed
            * met.starts,
            shares,
            is_slow,
        )

    @property
    def waited(self) -> float:
        """The part of the factor that is waiting, which takes no CPU time."""
        return float(math.prod(one.time for one in self.side.changes if one.waits))


class Answers(Struct, frozen=True):
    """Requests of one deployment, arrays of one shape."""

    times_ns: Times  # from when a request is due until its answer has come
    work_ns: Times  # CPU time of each, which waiting for a core does not change
    outcome: NDArray[np.int16]
    ttft_ns: Times | None = None  # None for answers that come whole
    gaps_ns: Times | None = None  # with one axis more; 0 behind the last token
    tokens: NDArray[np.int64] | None = None


def answers(
    rng: np.random.Generator, life: Life, shape: tuple[int, ...], *, moments_ns: Times | None = None
) -> Answers:
    """Requests of one deployment, each at its moment of the course of the machine."""
    service, met = life.side.service, life.met
    if moments_ns is None:
        moments_ns = np.broadcast_to(np.arange(shape[-1]) * service.answer_ns * met.mean_speed, shape)
    speed, record = met.speed(moments_ns), met.record
    replayed = None if record is None else record.drawn(rng, shape)
    ttft = gaps = tokens = None
    if service.stream is None:
        plain, idle_ns = _whole(rng, life, shape, replayed=replayed)
        times = plain * speed
    else:
        ttft, gaps, tokens, idle_ns = _streamed(rng, life, shape, replayed=replayed)
        plain = ttft + gaps.sum(axis=-1)
        ttft, gaps = ttft * speed, gaps * (speed if isinstance(speed, float) else speed[..., None])
        times = ttft + gaps.sum(axis=-1)
    waits = met.waits(rng, times, moments_ns)
    times = times + waits
    if ttft is not None:
        ttft = ttft + waits
    outcome = np.full(shape, 200, dtype=np.int16)
    for one in life.side.changes:
        if one.failing:
            outcome[rng.random(shape) < one.failing] = one.status
    work = (plain - idle_ns) * speed * life.cpu / life.waited * service.cpu
    if record is not None and replayed is not None:  # most of its times was waiting for a core
        work *= record.cpu * record.mean_ns / (service.cpu * replayed.times_ns)
        work *= np.exp(rng.normal(0, service.spread, shape))
    return Answers(times, work, outcome, ttft, gaps, tokens)


def _slowed(rng: np.random.Generator, times_ns: Times, share: float, *, times: float, waits: bool) -> Times:
    """Let a share of the requests take longer; returns the time of each that is waiting."""
    longer = np.where(rng.random(times_ns.shape) < share, (times - 1) * times_ns, 0.0)
    times_ns += longer
    return longer * waits


def _whole(
    rng: np.random.Generator, life: Life, shape: tuple[int, ...], *, replayed: Replayed | None
) -> tuple[Times, Times]:
    """Times of whole answers, on a quiet machine or as they were recorded; and how much of each is waiting."""
    service, changes = life.side.service, life.side.changes
    if replayed is None:
        found = service.rtm_ns * np.exp(rng.normal(0, service.spread, shape))
    else:
        found = replayed.times_ns.copy()
    hits = life.side.product("hits")
    if service.second:
        share = 1 - (1 - service.second) * hits
        is_second = rng.random(shape) < share
        slower = {mode: math.prod(one.times for one in changes if one.mode == mode) for mode in ("fast", "second")}
        found *= np.where(is_second, service.apart * slower["second"], slower["fast"])
    idle_ns = np.zeros(shape)
    if service.heavy:  # such a request waits for something
        is_heavy = rng.random(shape) < service.heavy
        idle_ns[is_heavy] = found[is_heavy] * rng.pareto(2.5, int(is_heavy.sum()))
        found += idle_ns
    for one, share in zip(changes, life.shares, strict=True):
        if share:
            idle_ns += _slowed(rng, found, share, times=one.times, waits=one.waits)
    return life.factor * found, life.factor * idle_ns


def _streamed(
    rng: np.random.Generator, life: Life, shape: tuple[int, ...], *, replayed: Replayed | None
) -> tuple[Times, Times, NDArray[np.int64], Times]:
    """Times to the first token, the gaps behind it, the number of tokens, and how much of each time is waiting."""
    service, side = life.side.service, life.side
    stream = service.stream
    assert stream is not None
    if replayed is None:
        ttft = stream.ttft_ns * np.exp(rng.normal(0, service.spread, shape))
        pace = stream.tpot_ns * np.exp(rng.normal(0, 0.03, shape))
    else:
        times, shares = replayed.times_ns, replayed.ttft
        ttft, pace = times * shares, times * (1 - shares) / max(stream.tokens - 1, 1)
    ttft *= side.product("ttft") * life.factor
    idle_ns = np.zeros(shape)
    for one in side.changes:
        if one.ttft_share:
            idle_ns += _slowed(rng, ttft, one.ttft_share, times=one.ttft_times, waits=one.waits)
    count = np.full(shape, stream.tokens)
    if stream.lengths:
        lengths = np.exp(np.random.default_rng(1).normal(0, stream.lengths, 8))  # those of eight inputs, one by one
        count = np.maximum(np.round(stream.tokens * lengths[np.arange(shape[-1]) % 8]), 2).astype(np.int64)
        count = np.broadcast_to(count, shape)
    pace *= side.product("tpot") * life.factor
    gaps = pace[..., None] * np.exp(rng.normal(0, 0.05, (*shape, int(count.max()) - 1)))
    gaps *= np.arange(gaps.shape[-1]) < count[..., None] - 1
    return ttft, gaps, count, idle_ns


def side_of(service: Service, changes: Sequence[Change]) -> Side:
    """A side, without what is no change."""
    return Side(service, tuple(one for one in changes if one != NO_CHANGE))
