"""A program whose time by function is known: ``benchmarks/profilers.py`` runs it, with and without a sampler.

It serves "requests" one after the other: in each the function ``named`` takes a part that the program measures itself.
It runs on any Python and imports nothing of the package.
"""

from __future__ import annotations

import asyncio
import json
import queue
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

SPIN_S = 0.001


def spin(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def work(count: int) -> int:
    total = 0
    for number in range(count):
        total += number * number
    return total


class Deep:
    """Four calls deep."""

    def serve(self, times: list[int], named_ns: list[int]) -> None:
        """One request."""
        _serve(self, times, named_ns)

    def rest(self) -> None:
        work(40_000)

    def named(self) -> None:
        self._one()

    def _one(self) -> None:
        self._two()

    def _two(self) -> None:
        work(40_000)


class Recursion(Deep):
    """Frames that come and go within microseconds: what a reader without a pause may lose."""

    def named(self) -> None:
        self._fibonacci(19)

    def _fibonacci(self, number: int) -> int:
        return number if number < 2 else self._fibonacci(number - 1) + self._fibonacci(number - 2)


class Sleep(Deep):
    def named(self) -> None:
        time.sleep(SPIN_S)


class Lock(Deep):
    """Another thread holds a lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        threading.Thread(target=self._refresh, daemon=True).start()

    def _refresh(self) -> None:
        while True:
            with self._lock:
                time.sleep(SPIN_S)
            time.sleep(0.0002)

    def named(self) -> None:
        with self._lock:
            pass


class Sort(Deep):
    def __init__(self) -> None:
        import numpy as np

        self._values = np.random.default_rng(1).random(100_000)
        self._sort = np.sort

    def named(self) -> None:
        self._sort(self._values)


class Files(Deep):
    def __init__(self) -> None:
        self._file = tempfile.NamedTemporaryFile()  # noqa: SIM115 - it lives as long as the program
        self._file.write(b"x" * 12_000_000)
        self._file.flush()

    def named(self) -> None:
        with open(self._file.name, "rb") as file:
            file.read()


class Threads(Deep):
    """A thread for each request, beside the main one."""

    def named(self) -> None:
        thread = threading.Thread(target=work, args=(40_000,))
        thread.start()
        thread.join()


class ModelThread(Deep):
    """The model runs in a thread, and an event loop waits for it, as ``Batched`` does."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[Callable[[], None], asyncio.Future[None]]] = queue.SimpleQueue()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            call, done = self._calls.get()
            call()
            self._loop.call_soon_threadsafe(done.set_result, None)

    def serve(self, times: list[int], named_ns: list[int]) -> None:
        async def one() -> None:
            done = self._loop.create_future()
            self._calls.put((lambda: Deep.serve(self, times, named_ns), done))
            await done

        self._loop.run_until_complete(one())


def _serve(program: Deep, times: list[int], named_ns: list[int]) -> None:
    started = time.perf_counter_ns()
    program.rest()
    before = time.perf_counter_ns()
    program.named()
    ended = time.perf_counter_ns()
    times.append(ended - started)
    named_ns.append(ended - before)


CASES: dict[str, Callable[[], Deep]] = {
    "deep": Deep,
    "recursion": Recursion,
    "sleep": Sleep,
    "lock": Lock,
    "sort": Sort,
    "files": Files,
    "threads": Threads,
    "model-thread": ModelThread,
}


class HandlerSampler:
    """The handler of a timer, which Python runs in the main thread when the interrupted function goes on."""

    def __init__(self, rate_hz: float) -> None:
        self.seen: Counter[str] = Counter()
        self.looks = 0
        signal.signal(signal.SIGALRM, self._look)
        signal.setitimer(signal.ITIMER_REAL, 1 / rate_hz, 1 / rate_hz)

    def _look(self, _signal: int, frame: FrameType | None) -> None:
        self.looks += 1
        self.seen.update(set(_names(frame)))

    def stop(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)


class ThreadSampler:
    """A thread that reads the stacks of the others when it gets the lock of the interpreter."""

    def __init__(self, rate_hz: float) -> None:
        self.seen: Counter[str] = Counter()
        self.looks = 0
        self._each_s = 1 / rate_hz
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ends.wait(self._each_s):
            self.looks += 1
            own = threading.get_ident()
            frames = [frame for thread, frame in sys._current_frames().items() if thread != own]
            self.seen.update({name for frame in frames for name in _names(frame)})

    def stop(self) -> None:
        self._ends.set()
        self._thread.join()


def _names(frame: FrameType | None) -> Iterator[str]:
    while frame is not None:
        yield frame.f_code.co_name
        frame = frame.f_back


def main() -> None:
    case, sampler, rate, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4])
    program = CASES[case]()
    for _ in range(50):
        program.serve([], [])
    print("ready", flush=True)
    sys.stdin.readline()
    looking: HandlerSampler | ThreadSampler | None = None
    if sampler in ("handler", "thread"):
        looking = HandlerSampler(rate) if sampler == "handler" else ThreadSampler(rate)
    times: list[int] = []
    named: list[int] = []
    cpu, started = time.process_time(), time.perf_counter()
    while time.perf_counter() - started < seconds:
        program.serve(times, named)
    found: dict[str, float] = {
        "median_ms": statistics.median(times) / 1e6,
        "truth": sum(named) / sum(times),
        "cpu": (time.process_time() - cpu) / (time.perf_counter() - started),
    }
    if looking is not None:
        looking.stop()
        served = max(looking.seen["_serve"], 1)
        found |= {"share": looking.seen["named"] / served, "looks": looking.looks}
    print(json.dumps(found), flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main()
