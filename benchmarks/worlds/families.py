"""The families of worlds: what changed, on which machine, and what a verdict should be.

A change counts as worse if what it touches is worse by at least twice the tolerance. What a change of the surroundings
does to both sides is worse only beside a stored entry, and then it must not pass; against a revision it is no change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct

from worlds import recorded
from worlds.world import MS, NO_CHANGE, Change, Course, Machine, Mode, S, Service, Stream, Truth, World

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from worlds.recorded import Recording

_T = TypeVar("_T")
USUAL = Service("3 ms")
FOUR = Service("8 ms, 4 callers", rtm_ns=8 * MS, callers=4)
TWO_MODES = Service("two modes", second=0.3)
HEAVY = Service("heavy tail", heavy=0.05)
FEW = Service("60 ms", rtm_ns=60 * MS, spread=0.1)
SLOW = Service("400 ms, 4 callers", rtm_ns=400 * MS, callers=4, spread=0.1, start_ns=3 * S)
QUICK = Service("1 ms", rtm_ns=1 * MS)
CROWD = Service("1 ms, 8 callers", rtm_ns=1 * MS, callers=8)
OPEN = Service("5 ms, 100/s", rtm_ns=5 * MS, rate_rps=100)
UNCOUNTED = Service("5 ms, processes unknown", rtm_ns=5 * MS, counted=False)
UNSTEADY = Service("launches 4 %", launch_sd=0.04)
SCATTERED = tuple(Service(f"launches {sd:.0%}", launch_sd=sd) for sd in (0.1, 0.2, 0.35))
BATCHED = Service("batches, two ways", rtm_ns=16 * MS, callers=8, kinds=0.4, figure="batched", launch_sd=0.015)
ONE_WAY = Service("batches", rtm_ns=16 * MS, callers=8, figure="batched", launch_sd=0.015)
CACHED = Service("cache", rtm_ns=1 * MS, callers=4, second=0.2, apart=8.0, figure="cached")
STREAM = Service("stream", stream=Stream(80 * MS, 8 * MS, 20), callers=4, start_ns=1 * S)
LENGTHS = Service("stream with lengths", stream=Stream(60 * MS, 10 * MS, 30, lengths=0.5), callers=2, start_ns=1 * S)
LONG = Service("long stream", stream=Stream(200 * MS, 20 * MS, 60), callers=8, start_ns=1 * S)
STREAM_RATE = Service("stream, 20/s", stream=Stream(200 * MS, 10 * MS, 20), rate_rps=20, start_ns=1 * S)

WHOLE = (USUAL, FOUR, TWO_MODES, HEAVY, FEW, QUICK, OPEN, UNCOUNTED, UNSTEADY)
STREAMS = (STREAM, LENGTHS, STREAM_RATE)
ALL = (*WHOLE, SLOW, BATCHED, CACHED, *STREAMS)
COUNTED = (USUAL, FOUR, TWO_MODES, QUICK)
MANY = (*COUNTED, UNCOUNTED)  # services with some hundred requests a launch

IDLE = Machine()
NEIGHBOURS = (
    Machine("a neighbour", others=0.9),
    Machine("two neighbours", others=1.7, drift=0.03),
    Machine("neighbours now and then", others=1.2, present=0.5, drift=0.02),
)
STEAL = (
    Machine("steal 2 %", steal=0.021),
    Machine("steal 15 %", steal=0.15),
    Machine("steal", steal=0.05, present=0.4),
)
THROTTLED = (Machine("throttled", throttled=0.05), Machine("throttled", throttled=0.3))
ONE_STEAL = Machine("steal in one launch", steal=0.021, first_only=True)
SLOWER = tuple(Machine(f"{times:g} times as slow", slower=times) for times in (1.1, 1.3, 1.6, 2.0))
FASTER = tuple(Machine(f"{times:g} times as slow", slower=times) for times in (0.5, 0.7, 0.9))
CHANGING = tuple(
    Machine(f"speed changes in {seconds:g} s", flicker=flicker, flicker_s=seconds, drift=0.03)
    for flicker, seconds in ((1.6, 0.03), (1.6, 0.3), (2.2, 0.1), (1.4, 3.0))
)
PAUSING = tuple(
    Machine(f"pauses of {length} ms each {seconds:g} s", pause_s=seconds, pause_ns=length * MS, present=present)
    for length, seconds, present in ((8, 0.2, 1.0), (8, 1.0, 1.0), (20, 0.5, 0.5), (20, 2.0, 1.0))
)
LIMITED = Machine("the generator is the limit", generator_limited=True, others=1.0)
LOADED = Machine("load of 20", others=1.9, queue_ns=5 * MS, starts=5.0, drift=0.02)
ANY = (IDLE, IDLE, *NEIGHBOURS, STEAL[2], SLOWER[1], CHANGING[1])

BASELINE = (Mode.FILE, Mode.SETTLED)
COMPARED = (Mode.FILE, Mode.SETTLED, Mode.REVISION)
SIDES = (*COMPARED, Mode.PARITY)
SHARED = (Mode.FILE, Mode.SETTLED, Mode.TREE)
STORED = (*SHARED, Mode.DIRTY)
_HISTORY = (Mode.HISTORY,)


class Replay(Struct, frozen=True):
    """A real service, and the conditions under which its launches were recorded, then and now."""

    service: Service
    then: Machine
    now: Machine


def replays() -> tuple[Replay, ...]:
    """Each recorded service, from its quietest condition to each other one, and from each to the same."""
    found: dict[str, list[Recording]] = {}
    for name in recorded.names():
        found.setdefault(name.rpartition("-")[0], []).append(recorded.read(name))
    together = []
    for known in found.values():
        ascending = sorted(known, key=lambda one: one.median_ns)
        machines = [Machine(one.condition) for one in ascending]
        service = _recorded_service(ascending[0])
        pairs = dict.fromkeys([*((machines[0], one) for one in machines), *((one, one) for one in machines)])
        together += [Replay(service, then, now) for then, now in pairs]
    return tuple(together)


def _recorded_service(of: Recording) -> Service:
    stream = None
    if of.tokens:
        ttft = of.median_ns * of.ttft_share
        stream = Stream(ttft, (of.median_ns - ttft) / (of.tokens - 1), of.tokens)
    return Service(of.service, rtm_ns=of.median_ns, callers=of.callers, stream=stream, recorded=of.service)


class Family(Struct, frozen=True):
    """Worlds that one row of the table counts; each draws one of the values of every field."""

    name: str
    truth: Truth
    modes: tuple[Mode, ...]
    changes: Sequence[Change] = (NO_CHANGE,)
    services: Sequence[Service] = ALL
    now: Sequence[Machine] = (IDLE,)
    then: Sequence[Machine] = (IDLE,)
    around: Sequence[Change] = (NO_CHANGE,)
    named: str = ""
    same_machine: bool = False  # whether the machine was the same when the baseline was recorded
    elsewhere: bool = False
    courses: Sequence[Course] = ()
    replays: Sequence[Replay] = ()

    def world(self, rng: np.random.Generator, mode: Mode) -> World:
        """Draw one of its worlds."""
        now = _one(rng, self.now)
        if self.replays:
            replay = _one(rng, self.replays)
            return World(replay.service, mode, self.truth, replay.then, replay.now, change=_one(rng, self.changes))
        return World(
            service=_one(rng, self.services),
            mode=mode,
            truth=self.truth,
            then=now if self.same_machine else _one(rng, self.then),
            now=now,
            change=_one(rng, self.changes),
            around=_one(rng, self.around),
            named=self.named,
            elsewhere=self.elsewhere,
            course=_one(rng, self.courses) if self.courses else None,
        )


def _one(rng: np.random.Generator, values: Sequence[_T]) -> _T:
    return values[int(rng.integers(len(values)))]


def _times(*factors: float, waits: bool = False) -> tuple[Change, ...]:
    return tuple(Change(f"x{factor:g}", time=factor, waits=waits) for factor in factors)


_PACKAGE = "package onnxruntime"
_QUARTER = tuple(
    Change(f"{share:.0%} x3", share=share, times=3.0, vary=vary, waits=waits)
    for share in (0.2, 0.25, 0.3, 0.35)
    for vary, waits in ((0.0, False), (0.04, True))
)
_TAIL = tuple(
    Change(f"{share:.0%} x{times:g}", share=share, times=times, waits=waits)
    for share, times, waits in ((0.02, 10, True), (0.05, 6, False), (0.08, 4, True))
)
_FINE, _WORSE, _REPLAYS = Truth.FINE, Truth.WORSE, replays()
FAMILIES = (
    # no change: the machine alone
    Family("unchanged, idle", _FINE, (*STORED, Mode.REVISION, Mode.PARITY)),
    Family("unchanged, neighbours now", _FINE, (*STORED, Mode.REVISION, Mode.PARITY), now=NEIGHBOURS),
    Family("unchanged, neighbours then", _FINE, SHARED, then=NEIGHBOURS),
    Family("unchanged, neighbours then and now", _FINE, SHARED, now=NEIGHBOURS, same_machine=True),
    Family("unchanged, steal now", _FINE, (*SHARED, Mode.REVISION), now=STEAL),
    Family("unchanged, throttled now", _FINE, (*SHARED, Mode.REVISION), now=THROTTLED),
    Family("unchanged, machine slower", _FINE, STORED, now=SLOWER),
    Family("unchanged, machine faster", _FINE, STORED, now=FASTER),
    Family("unchanged, speed changes", _FINE, (*SHARED, Mode.REVISION, Mode.PARITY), now=CHANGING, same_machine=True),
    Family("unchanged, speed changes now alone", _FINE, (*SHARED, Mode.REVISION), now=CHANGING),
    Family(
        "unchanged, pauses of the machine",
        _FINE,
        (*SHARED, Mode.REVISION, Mode.PARITY),
        services=(USUAL, FOUR, QUICK, CROWD),
        now=PAUSING,
        same_machine=True,
    ),
    Family(
        "unchanged, launches differ by 10 to 35 %",
        _FINE,
        (*SHARED, Mode.REVISION, Mode.PARITY),
        services=SCATTERED,
        now=(IDLE, IDLE, *NEIGHBOURS),
    ),
    Family("unchanged, another machine", _FINE, (Mode.SETTLED,), now=(*SLOWER, *FASTER), elsewhere=True),
    Family("unchanged, load of 20", _FINE, (Mode.SETTLED, Mode.REVISION), now=(LOADED,)),
    Family(
        "unchanged, a harmless package, any machine",
        _FINE,
        SHARED,
        now=(IDLE, *NEIGHBOURS, *SLOWER, *STEAL),
        around=[Change("another version")],
        named=_PACKAGE,
    ),
    Family(
        "unchanged, a harmless package, speed changes",
        _FINE,
        SHARED,
        now=CHANGING,
        around=[Change("another version")],
        named=_PACKAGE,
    ),
    # no worse
    Family("faster", _FINE, SIDES, _times(0.5, 0.7, 0.9), now=ANY),
    Family("+3 to 5 %", _FINE, SIDES, _times(1.03, 1.05), now=(IDLE, IDLE, *NEIGHBOURS)),
    Family("waits less, more CPU allowed", _FINE, COMPARED, [Change("CPU +3 %", cpu=1.03)], MANY),
    # the code is worse
    Family("everything +20 to 50 %", _WORSE, SIDES, _times(1.22, 1.3, 1.5), now=ANY),
    Family("everything +22 to 50 %, machine faster", _WORSE, STORED[:2], _times(1.22, 1.3, 1.5), now=FASTER),
    Family("everything +50 to 1,000 %", _WORSE, SIDES, _times(1.6, 2.0, 4.0, 11.0), now=ANY),
    Family("waits +25 to 100 %", _WORSE, COMPARED, _times(1.25, 1.5, 2.0, waits=True), now=ANY),
    Family("a fifth to a third x3", _WORSE, COMPARED, _QUARTER, (*MANY, OPEN)),
    Family("a fifth to a third x3, busy", _WORSE, COMPARED, _QUARTER, (*MANY, OPEN), now=NEIGHBOURS),
    Family("half x2", _WORSE, COMPARED, [Change("half x2", share=0.5, times=2.0)], (*WHOLE, SLOW)),
    Family("2 to 8 % x4 to 10", _WORSE, COMPARED, _TAIL, MANY),
    Family("2 % x10, 20 requests a launch", _WORSE, COMPARED, _TAIL[:1], (FEW, SLOW)),
    Family("fast mode x1.5", _WORSE, COMPARED, [Change("fast", mode="fast", times=1.5)], (TWO_MODES,)),
    Family("second mode x2", _WORSE, COMPARED, [Change("second", mode="second", times=2.0)], (TWO_MODES,)),
    Family(
        "TTFT: 9 % x4 to 10",
        _WORSE,
        COMPARED,
        [Change(f"9 % x{times}", ttft_share=0.09, ttft_times=times, waits=True) for times in (4, 10)],
        (STREAM, LONG, STREAM_RATE),
    ),
    Family(
        "TTFT: a fifth to a third x3",
        _WORSE,
        COMPARED,
        [
            Change(f"{share:.0%} x3", ttft_share=share, ttft_times=3, waits=waits)
            for share in (0.2, 0.25, 0.3, 0.35)
            for waits in (False, True)
        ],
        (STREAM, LONG, STREAM_RATE),
    ),
    Family("TTFT +30 to 200 %", _WORSE, COMPARED, [Change("TTFT", ttft=times) for times in (1.3, 2.0, 3.0)], STREAMS),
    Family("TPOT +25 to 100 %", _WORSE, COMPARED, [Change("TPOT", tpot=times) for times in (1.25, 1.5, 2.0)], STREAMS),
    Family("2 to 4 % fail", _WORSE, COMPARED, [Change("fail", failing=share) for share in (0.02, 0.04)], (*MANY, OPEN)),
    Family("10 to 30 % refused", _WORSE, COMPARED, [Change("429", failing=share, status=429) for share in (0.1, 0.3)]),
    Family("memory +40 to 100 %", _WORSE, COMPARED, [Change("memory", memory=times) for times in (1.4, 2.0)], COUNTED),
    Family(
        "leak of 4 to 40 KiB", _WORSE, COMPARED, [Change("leak", growth=size) for size in (4096, 40960)], (USUAL, QUICK)
    ),
    Family("start x2.2 to 4", _WORSE, COMPARED, [Change("start", start=times) for times in (2.2, 4.0)], MANY),
    Family(
        "CPU +20 to 80 %",
        _WORSE,
        COMPARED,
        [Change("CPU", cpu=times) for times in (1.2, 1.4, 1.8)],
        (USUAL, FOUR, QUICK),
    ),
    Family("answers x1.5", _WORSE, COMPARED, [Change("size", size=1.5)], MANY),
    Family(
        "batches of half the size, x1.4", _WORSE, COMPARED, [Change("batches", batch=0.5, time=1.4)], (ONE_WAY, BATCHED)
    ),
    Family(
        "half of the launches x1.4 to 2, a new way",
        _WORSE,
        COMPARED,
        [Change(f"half x{times}", kinds=0.5, kind_times=times) for times in (1.4, 2.0)],
        (USUAL, FOUR, ONE_WAY),
    ),
    Family("the faster way is lost", _WORSE, COMPARED, [Change("always slow", kinds=0.6)], (BATCHED,)),
    Family("a broken cache", _WORSE, COMPARED, [Change("no hits", hits=0.0)], (CACHED,)),
    Family(
        "a broken cache, load of 20",
        _WORSE,
        (Mode.SETTLED, Mode.REVISION),
        [Change("no hits", hits=0.0)],
        (CACHED,),
        (LOADED,),
    ),
    Family(
        "everything +22 to 50 %, another machine",
        _WORSE,
        (Mode.SETTLED,),
        _times(1.22, 1.5),
        now=(*SLOWER, *FASTER),
        elsewhere=True,
    ),
    # what both sides meet is worse
    Family("a package x1.3 to 4", _WORSE, SHARED, around=_times(1.3, 2.0, 4.0), named=_PACKAGE),
    Family(
        "a package x1.3 to 4, steal in one launch",
        _WORSE,
        SHARED,
        now=(ONE_STEAL,),
        around=_times(1.3, 2.0, 4.0),
        named=_PACKAGE,
    ),
    Family(
        "a package x1.5 to 4, a neighbour",
        _WORSE,
        SHARED,
        now=(NEIGHBOURS[0],),
        around=_times(1.5, 4.0),
        named=_PACKAGE,
    ),
    Family(
        "a package: 2 to 8 % x4 to 10, fixed work 7 % slower",
        _WORSE,
        SHARED,
        services=MANY,
        now=(Machine("fixed work slower", fixed_slower=1.08),),
        around=_TAIL,
        named=_PACKAGE,
    ),
    Family(
        "a package: 2 to 8 % x4 to 10, a neighbour",
        _WORSE,
        SHARED,
        services=MANY,
        now=(NEIGHBOURS[0],),
        around=_TAIL,
        named=_PACKAGE,
    ),
    Family(
        "a variable: CPU +45 %, steal in one launch",
        _WORSE,
        SHARED,
        services=(USUAL, FOUR, QUICK),
        now=(ONE_STEAL,),
        around=[Change("CPU", cpu=1.45)],
        named="OMP_NUM_THREADS",
    ),
    Family(
        "a data file: CPU +50 to 80 %, a limit stops it",
        _WORSE,
        SHARED,
        services=(USUAL, FOUR, QUICK),
        now=THROTTLED[1:],
        around=[Change("CPU", cpu=times) for times in (1.5, 1.8)],
    ),
    Family("a data file x1.5 to 4", _WORSE, SHARED, around=_times(1.5, 2.5, 4.0)),
    Family("a data file x2 to 4, machine slower", _WORSE, SHARED, now=SLOWER[1:3], around=_times(2.0, 4.0)),
    Family(
        "a data file x1.5 to 4, neighbours then and now",
        _WORSE,
        SHARED,
        now=NEIGHBOURS,
        same_machine=True,
        around=_times(1.5, 2.5, 4.0),
    ),
    Family(
        "another service: waits x1.5 to 4, neighbours",
        _WORSE,
        SHARED,
        now=(NEIGHBOURS[0], ONE_STEAL),
        around=_times(1.5, 4.0, waits=True),
    ),
    Family(
        "a data file x4, the generator is the limit",
        _WORSE,
        (Mode.FILE, Mode.TREE),
        services=MANY,
        now=(LIMITED,),
        around=_times(4.0),
    ),
    # the entry's commit holds the regression
    Family("dirty entry: everything +30 to 300 %", _WORSE, (Mode.DIRTY,), _times(1.3, 2.0, 4.0)),
    Family(
        "dirty entry: everything +30 to 300 %, busy",
        _WORSE,
        (Mode.DIRTY,),
        _times(1.3, 2.0, 4.0),
        now=(NEIGHBOURS[0], ONE_STEAL),
    ),
    # launches of real services, drawn again
    Family("replayed, unchanged", _FINE, COMPARED, replays=_REPLAYS),
    Family("replayed, +25 to 100 %", _WORSE, COMPARED, _times(1.25, 1.5, 2.0), replays=_REPLAYS),
    Family("replayed, a quarter x3", _WORSE, COMPARED, [Change("25 % x3", share=0.25, times=3.0)], replays=_REPLAYS),
    # the runs of many commits
    Family("history: nothing", _FINE, _HISTORY, courses=(Course(), Course(run_sd=0.03), Course(outliers=0.05))),
    Family("history: faster by 20 %", _FINE, _HISTORY, courses=(Course(((0, 0.8),)),)),
    Family("history: +20 to 50 %", _WORSE, _HISTORY, courses=(Course(((0, 1.2),)), Course(((0, 1.5),), run_sd=0.03))),
    Family(
        "history: two steps of 20 %, 5 or 6 commits apart",
        _WORSE,
        _HISTORY,
        courses=tuple(Course(((0, 1.2), (gap, 1.2))) for gap in (5, 6)),
    ),
    Family(
        "history: two steps of 20 %, 7 to 10 commits apart",
        _WORSE,
        _HISTORY,
        courses=tuple(Course(((0, 1.2), (gap, 1.2))) for gap in (7, 8, 10)),
    ),
)
