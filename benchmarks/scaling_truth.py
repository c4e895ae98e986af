"""Does a scaling measurement find what is known? Services that sleep, so that the machine's cores do not matter.

One has no shared part: n replicas serve n times the rate. In the other a fifth of the time of each request stops all
replicas: an exclusive lock for 20 %, a shared one for the rest. n replicas then take 0.8 + 0.2 n times as long for n
requests, which is the law with contention 0.20. A lock for which a replica only queues costs less: requests of two
replicas seldom meet in it.

Three more models take 0.2 s and 2 s to load, and 0.2 s and another second for the first answer. Each of their processes
writes down by itself when it started, when its model was loaded, and when it gave each answer. The truth of a scale-out
time is the time from the start of the new process to its first answer; the stamps of both processes show that it had
its share of the answers from then on.
"""

from __future__ import annotations

import fcntl
import os
import struct
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from bench import Claim, Table, our_generator

from pytest_mlpatterns.engines.local.launcher import launch
from pytest_mlpatterns.measurement.scaling import ScalingRun
from pytest_mlpatterns.measurement.variant import Variant
from pytest_mlpatterns.patterns import Single
from pytest_mlpatterns.patterns.replication import with_replicas
from pytest_mlpatterns.serving.model import StartOptions, service_plan
from pytest_mlpatterns.workload.payload import read_payload
from pytest_mlpatterns.workload.plan import LoadPlan
from pytest_mlpatterns.workload.schedule import ClosedLoop

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_mlpatterns.analysis.capacity.scaling import Scaling

CLAIM = (
    "sleeping services scale with efficiency 1.00 ± 0.03, a stop of all for 20 % gives contention 0.20 ± 0.03, and the "
    "scale-out time of models that load in 0.2 s and 2 s is within 10 % of the truth"
)
REPLICAS = (1, 2, 4)
FARTHER = 8
PASSES = 2
SECONDS = 0.04
LATE = 0.03
LOADING = {"loads in 0.2 s": (0.2, 0.0), "loads in 2 s": (2.0, 0.0), "0.2 s, and 1 s in its first answer": (0.2, 1.0)}
ANSWER_S = 0.01
SHARE_OF = 40
SCALE_OUT_PASSES = 3


class Sleeps:
    """One request at a time, each for a fixed time."""

    def __call__(self, batch: list[Any]) -> list[Any]:
        time.sleep(SECONDS)
        return batch


class StopsAll:
    """The same, with a part of the time in which no other replica works.

    Replicas take the two locks in the order in which they ask: a gate, one byte in a pipe, goes to the one that waits
    longest. Without it a replica could begin its next request while another still waits for the exclusive lock.
    """

    def __init__(self, directory: str, share: float) -> None:
        self.directory, self.share = directory, share

    def __call__(self, batch: list[Any]) -> list[Any]:
        gate = os.open(f"{self.directory}/gate", os.O_RDWR)
        with open(f"{self.directory}/work", "r+b", buffering=0) as work:
            for kind, part in ((fcntl.LOCK_SH, 1 - self.share), (fcntl.LOCK_EX, self.share)):
                os.read(gate, 1)
                fcntl.flock(work, kind)
                os.write(gate, b"g")
                until = begin(work) + SECONDS * part
                time.sleep(max(until - time.monotonic(), 0))
                os.pwrite(work.fileno(), struct.pack("d", until), 0)
                fcntl.flock(work, fcntl.LOCK_UN)
        os.close(gate)
        return batch


def begin(work: BinaryIO) -> float:
    """When a part began: when the last one ended, so that a busy machine, which wakes processes late, adds no time."""
    (ended,) = struct.unpack("d", os.pread(work.fileno(), 8, 0))
    now = time.monotonic()
    return float(ended) if ended <= now < ended + LATE else now


def loading(load_s: float, first_s: float, directory: Path) -> type:
    """A model that takes this long to load and for its first answer, and whose processes keep a diary each."""

    class Loads:
        def __init__(self) -> None:
            time.sleep(load_s)
            self.left_s = first_s
            self.diary = open(directory / f"{os.getpid()}.diary", "a", encoding="ascii")  # noqa: SIM115
            self.write("started", started_ns())
            self.write("loaded", time.perf_counter_ns())

        def __call__(self, batch: list[Any]) -> list[Any]:
            time.sleep(self.left_s + ANSWER_S)
            self.left_s = 0.0
            self.write("answered", time.perf_counter_ns())
            return batch

        def write(self, event: str, at_ns: int) -> None:
            self.diary.write(f"{event} {at_ns}\n")
            self.diary.flush()

    return Loads


def started_ns() -> int:
    """When this process started, as the kernel has it (in hundredths of a second), on the clock of perf_counter."""
    since_boot_s = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    boot_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.perf_counter_ns()
    return round(since_boot_s * 1e9) - boot_ns


@dataclass(frozen=True)
class Truth:
    """What the diaries of the two replicas of a scale-out say."""

    started_ns: int
    loaded_ns: int
    first_answer_ns: int
    share: float

    @classmethod
    def of(cls, new: dict[str, list[int]], old: dict[str, list[int]]) -> Truth:
        first = new["answered"][0]
        answers = sorted([(at, True) for at in new["answered"]] + [(at, False) for at in old["answered"]])
        since = [is_new for at, is_new in answers if at >= first][:SHARE_OF]
        return cls(new["started"][0], new["loaded"][0], first, sum(since) / len(since))


def truths(directory: Path) -> list[Truth]:
    """One for each pass, in their order: each has a deployment of its own, and the later of its processes is new."""
    diaries = []
    for path in directory.glob("*.diary"):
        diary: dict[str, list[int]] = {}
        for line in path.read_text().splitlines():
            event, at_ns = line.split()
            diary.setdefault(event, []).append(int(at_ns))
        diaries.append(diary)
    diaries.sort(key=lambda diary: diary["started"])
    return [Truth.of(new, old) for old, new in zip(diaries[::2], diaries[1::2], strict=True)]


@contextmanager
def stopping(share: float) -> Iterator[StopsAll]:
    """A model that stops all replicas for a share of its time, as long as its pipe is open."""
    with tempfile.TemporaryDirectory() as directory:
        os.mkfifo(f"{directory}/gate")
        Path(directory, "work").write_bytes(struct.pack("d", 0.0))
        gate = os.open(f"{directory}/gate", os.O_RDWR)
        os.write(gate, b"g")
        try:
            yield StopsAll(directory, share)
        finally:
            os.close(gate)


def measured(model: object, directory: Path, replicas: tuple[int, ...], *, passes: int = PASSES) -> Scaling:
    """The scaling of a model under ``Single()``."""
    payload = read_payload([0])
    plan = LoadPlan(payload, ClosedLoop(1), 10**9, 10**8, 10 * 10**9, None)
    options = StartOptions(20 * 10**9, payload, directory)
    variants: Mapping[int, Variant] = {
        number: Variant(
            f"{number} replicas", partial(launch, service_plan(with_replicas(Single(), number), model), options), plan
        )
        for number in replicas
    }
    with our_generator() as generator:
        run = ScalingRun(variants, generator, on_progress=lambda _: None)
        for _ in range(passes):
            run.measure_pass()
        return run.scaling


def measure() -> Iterator[Table]:
    yield scaling_table()
    yield scale_out_table()


def scale_out_table() -> Table:
    """The scale-out time beside what the processes themselves wrote down, for each pass."""
    rows, claims = [], []
    for service, (load_s, first_s) in LOADING.items():
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            scaling = measured(loading(load_s, first_s, directory), directory, (1,), passes=SCALE_OUT_PASSES)
            found = zip(scaling.scale_outs, truths(directory), strict=True)
        for number, (measured_one, truth) in enumerate(found, 1):
            true_ns = truth.first_answer_ns - truth.started_ns
            label, ns = f"{service}, pass {number}", measured_one.duration_ns
            if ns is None:
                raise RuntimeError(measured_one.never)
            start_ms = (truth.loaded_ns - truth.started_ns) / 1e6
            times = (start_ms, true_ns / 1e6, ns / 1e6, (measured_one.p99_ns or 0) / 1e6)
            rows.append((label, *(f"{one:,.0f} ms" for one in times), f"{truth.share:.2f}"))
            claims.append(Claim(f"{label}: measured over true", ns / true_ns, at_least=0.9, at_most=1.1))
            claims.append(Claim(f"{label}: share from then on", truth.share, at_least=0.45, at_most=0.55))
    return Table(
        "scale-out time, one replica to two",
        (
            "service",
            "start to loaded",
            "start to first answer",
            "measured",
            "p99 meanwhile",
            f"share of the next {SHARE_OF} answers",
        ),
        rows,
        claims,
    )


def scaling_table() -> Table:
    """Efficiency, contention and prediction beside the law of the services."""
    with tempfile.TemporaryDirectory() as name, stopping(0.2) as stops_all:
        directory = Path(name)
        rows, claims = [], []
        for label, model, contention in (
            ("no shared part", Sleeps(), 0.0),
            ("all stop for 20 %", stops_all, 0.2),
        ):
            scaling = measured(model, directory, REPLICAS)
            predicted = scaling.predicted_rps(FARTHER)
            truth = FARTHER / (1 + contention * (FARTHER - 1)) * scaling.steps[0].nmrt_rps.value
            for step in scaling.steps[1:]:
                found = scaling.efficiency(step.replicas)
                true = 1 / (1 + contention * (step.replicas - 1))
                rows.append((label, f"efficiency of {step.replicas}", f"{true:.3f}", *_shown(found)))
                claims.append(
                    Claim(f"{label}: efficiency of {step.replicas}", found.value - true, at_least=-0.03, at_most=0.03)
                )
            sigma = scaling.contention
            rows.append((label, "contention", f"{contention:.3f}", *_shown(sigma)))
            rows.append((label, f"NMRT of {FARTHER}, predicted", f"{truth:.1f}", *_shown(predicted, 1)))
            claims.append(Claim(f"{label}: contention", sigma.value - contention, at_least=-0.03, at_most=0.03))
            claims.append(Claim(f"{label}: prediction", predicted.value / truth, at_least=0.9, at_most=1.1))
        return Table(
            f"scaling at {', '.join(map(str, REPLICAS))} replicas, {PASSES} passes",
            ("service", "figure", "truth", "measured", "low", "high"),
            rows,
            claims,
        )


def _shown(found: Any, digits: int = 3) -> tuple[str, str, str]:
    return f"{found.value:.{digits}f}", f"{found.low:.{digits}f}", f"{found.high:.{digits}f}"
