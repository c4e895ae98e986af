"""A world as a value: a service, a machine when its baseline was recorded and now, and what became of the service.

Everything that a verdict ought to find out is declared here, so that the truth is known. This module draws nothing.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

MS, S = 1_000_000, 1_000_000_000


class Mode(StrEnum):
    """What a test is compared with."""

    FILE = "file"  # the stored entry alone
    SETTLED = "settled"  # the entry, and the code that it was recorded from, at a later commit
    TREE = "tree"  # the entry, and the working tree is the code that it was recorded from
    DIRTY = "dirty"  # the entry, whose commit holds other files than were measured
    REVISION = "revision"  # another revision in the same minutes
    PARITY = "parity"  # another service in the same minutes: ``assert_not_slower_than``
    HISTORY = "history"  # the runs of earlier commits


class Truth(StrEnum):
    """What a verdict should be."""

    FINE = "fine"  # no worse than its reference, or by less than the tolerance: a FAIL is wrong
    WORSE = "worse"  # worse by twice the tolerance or more: a PASS is wrong


class Stream(Struct, frozen=True):
    """An answer that comes in pieces."""

    ttft_ns: float  # time to the first token
    tpot_ns: float  # time from one token to the next
    tokens: int
    lengths: float = 0.0  # relative scatter of the number of tokens between inputs


class Service(Struct, frozen=True):
    """How a service answers when nothing disturbs it."""

    label: str
    rtm_ns: float = 3 * MS  # of whole answers; of streams it follows from their tokens
    callers: int = 1  # requests in flight of a closed loop
    rate_rps: float | None = None  # of an open loop; None for a closed one
    spread: float = 0.15  # standard deviation of the logarithm of a time
    second: float = 0.0  # share of the requests that take ``apart`` times as long
    apart: float = 2.5
    heavy: float = 0.0  # share of the requests with a Pareto tail of exponent 2.5
    launch_sd: float = 0.012  # standard deviation between launches
    cpu: float = 0.7  # CPU time of a request, of its own time
    counted: bool = True  # whether its processes are known
    start_ns: float = 0.6 * S
    memory: int = 150 * 2**20
    kinds: float = 0.0  # share of the launches that settle in the slower of two ways
    kind_times: float = 1.4  # times as long as in the faster way
    figure: str = ""  # layer whose figure goes with the ways: ``batched`` or ``cached``; empty for none
    stream: Stream | None = None
    recorded: str = ""  # name of a real service whose launches are replayed; empty for a made-up one

    @property
    def answer_ns(self) -> float:
        """Time of a whole answer."""
        return self.rtm_ns if self.stream is None else self.stream.ttft_ns + self.stream.tpot_ns * self.stream.tokens


class Machine(Struct, frozen=True):
    """What the machine does to a launch."""

    label: str = "idle"  # of a real service the condition under which it was recorded
    slower: float = 1.0  # times as long as everything takes
    others: float = 0.0  # cores of two that neighbours use
    steal: float = 0.0  # share of the time that the host takes
    throttled: float = 0.0  # share of the time in which a limit stops the processes
    present: float = 1.0  # share of the launches that meet neighbours, steal and throttling
    first_only: bool = False  # whether the first launch alone meets them
    flicker: float = 1.0  # the cores change between 1 and this many times as long
    flicker_s: float = 0.3  # how long one of these speeds lasts, in the mean
    fixed_slower: float = 1.0  # times as long as the fixed work alone takes
    starts: float = 1.0  # times as long as a start takes, which needs more cores than a request
    queue_ns: float = 0.0  # time for which each request waits for a core among many processes, in the mean
    pause_s: float = 0.0  # seconds from one pause of the whole machine to the next, in the mean; 0 without pauses
    pause_ns: float = 0.0  # how long a pause lasts, in the mean
    generator_limited: bool = False  # whether the load generator uses its whole core
    drift: float = 0.008  # standard deviation of the speed between launches


class Change(Struct, frozen=True):
    """What became of a service; 1 and 0 are no change."""

    label: str = "none"
    time: float = 1.0  # times as long as every request takes, and its CPU time
    cpu: float = 1.0  # times as much CPU time, beside the latency
    waits: bool = False  # whether what times are longer by is waiting, which takes no CPU time
    share: float = 0.0  # share of the requests that take ``times`` as long, a new mode
    vary: float = 0.0  # standard deviation of that share between launches
    times: float = 1.0
    mode: str = ""  # the mode of two that takes ``times`` as long: ``fast`` or ``second``
    ttft: float = 1.0
    tpot: float = 1.0
    ttft_share: float = 0.0  # share of the streams whose first token takes ``ttft_times`` as long
    ttft_times: float = 1.0
    failing: float = 0.0  # share of the requests that fail
    status: int = 500  # of those that fail
    memory: float = 1.0
    growth: int = 0  # bytes that a request leaves behind
    start: float = 1.0
    batch: float = 1.0  # times as large as batches are
    kinds: float = 0.0  # further share of the launches that settle in the slower way
    kind_times: float = 1.0  # times as long as the slower way takes, of a service that has none
    hits: float = 1.0  # times as many of the inputs that a cache knows
    size: float = 1.0  # of an answer


NO_CHANGE = Change()


class Course(Struct, frozen=True):
    """What happens to a service over its commits."""

    steps: tuple[tuple[int, float], ...] = ()  # commits after the first change, and times as long from each of them on
    run_sd: float = 0.01  # scatter from run to run
    launch_sd: float = 0.01
    creep: float = 0.0  # growth from commit to commit
    outliers: float = 0.0  # share of runs on a machine that is slower


class World(Struct, frozen=True):
    """One test of which the truth is known."""

    service: Service
    mode: Mode
    truth: Truth
    then: Machine = Machine()  # when the baseline was recorded
    now: Machine = Machine()
    change: Change = NO_CHANGE  # of the code
    around: Change = NO_CHANGE  # of what the recorded code meets today too: a package, a data file, another service
    named: str = ""  # the fact that shows it, such as ``package onnxruntime``; empty if nothing does
    elsewhere: bool = False  # whether the entry is of another machine
    course: Course | None = None  # of a history; None for other modes

    @property
    def label(self) -> str:
        """The world in a few words."""
        around = f", around it {self.around.label}" if self.around != NO_CHANGE else ""
        return f"{self.service.label}, {self.then.label} then, {self.now.label} now, change {self.change.label}{around}"


class Ruling(Struct, frozen=True):
    """What came of the test of one world."""

    # ``pass``, ``fail``, ``slower`` (probably slower), ``open``, ``none`` (no verdict), ``invalid``, or ``error`` of
    # the bench
    kind: str
    metrics: tuple[str, ...] = ()  # those that failed, or were left open
    reasons: str = ""  # of these
    seconds: float = 0.0  # that the test would have taken
    launches: int = 0
    world: str = ""  # in a few words

    @property
    def is_open(self) -> bool:
        """Whether nothing was decided."""
        return self.kind in ("slower", "open")
