"""The parent's handle of the load generator processes: starts them, gives them jobs, merges their recordings.

The processes are fresh Pythons, so coverage, debuggers and the garbage of the test suite do not disturb them; they
serve one job after another, so they start once. Several of them can share a job, on this machine or on the nodes of a
cluster: each sends its share of the requests, all open the measured window at the same moment, and their rows are
merged in the order of completion. A generator reports its progress every quarter of a second, from the first request to
the last answer, and a job has a time limit.

This module must not know where the generators ran, nor how their recordings came.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from pytest_mlpatterns.errors import ChildError
from pytest_mlpatterns.loadgen.generator_process import GeneratorPool, GeneratorProcess, LocalPool
from pytest_mlpatterns.loadgen.messages import (
    AddAddress,
    Event,
    LoadJob,
    LoadResult,
    OpenWindow,
    RemoveAddress,
    Share,
    Transport,
    Warm,
    WindowOpened,
)
from pytest_mlpatterns.loadgen.process import STOP
from pytest_mlpatterns.loadgen.warmup import WARMUP_CAP_NS
from pytest_mlpatterns.records.launch import GeneratorPart, merged_reports

_SLICE_S = 0.02  # Wait for one of several processes, in seconds, before the next one has its turn
_WATCH_S = 0.25  # Longest wait for a message until the processes are looked at, in seconds
_SURELY_REACHED_RPS = 1000  # Rate that every machine reaches; a tenth of a slow machine's ceiling
_QUIET_S = 0.75  # Three intervals of progress; then the state of the process is read
_SILENT_S = 20.0  # Longest time without a message, including the start of the process and the reading of a large job
_LATE_S = 30.0  # Time that a job may take beyond its warm-up, its window and its time-out
_ENDED = "this load is invalid; the process was ended, and the next load gets another"
"""What follows from the end of a generator process, for messages."""


class LoadInterrupted(KeyboardInterrupt):
    """Ctrl-C during a load; ``result`` holds what was recorded until then."""

    def __init__(self, result: LoadResult) -> None:
        super().__init__()
        self.result = result


class Generator:
    """Handle of the generator processes, which start with the first job if not before.

    ``measure_ceiling``: measures one of ``ceilings_rps``; called when a load first needs it. None: never measure.
    ``pool``: where the processes come from; None for this machine. ``ceilings_rps``: requests per second that one
    process reaches on this machine against a null server, if measured. ``library_overhead_ns``: time that a client
    library adds to the median of a request; None until measured.
    """

    def __init__(
        self,
        log: Path,
        measure_ceiling: Callable[[Generator, Path, Transport], None] | None = None,
        pool: GeneratorPool | None = None,
    ) -> None:
        self._log = log
        self._measure_ceiling = measure_ceiling
        self.pool: GeneratorPool = LocalPool() if pool is None else pool
        self._processes: list[GeneratorProcess] = []
        self._loading = 0
        self.ceilings_rps: dict[Transport, float] = {}
        self.library_overhead_ns: float | None = None

    @property
    def pids(self) -> tuple[int, ...]:
        """Ids of the processes that run on this machine."""
        return tuple(process.pid for process in self._processes if process.pid is not None)

    def ceiling_of(self, job: LoadJob, rate_rps: float = math.inf) -> float | None:
        """Ceiling of one process for jobs of this transport, on average over the nodes; None if it is unknown."""
        if job.endpoint.remote:
            return None
        if job.transport in self.ceilings_rps or rate_rps <= _SURELY_REACHED_RPS:
            return self.ceilings_rps.get(job.transport)
        if found := self.pool.ceilings_rps(job.transport, max(self._loading, 1)):
            return sum(found) / len(found)
        if self._measure_ceiling is not None:
            self._measure_ceiling(self, self._log.parent, job.transport)
        return self.ceilings_rps.get(job.transport)

    def start(self, processes: int = 1) -> None:
        """Start processes that do not run yet; :meth:`run` does so too, and waits for them."""
        if processes > len(self._processes):
            self.pool.begin(processes)
        while (number := len(self._processes)) < processes:
            self._processes.append(self.pool.start(number, self._log.with_suffix(f".{number}.log")))

    def run(
        self, job: LoadJob, *, poll_s: float, on_poll: Callable[[Event | None], None], processes: int = 1
    ) -> LoadResult:
        """Run one job to its end.

        ``poll_s``: longest interval between two calls of ``on_poll``, in seconds. ``on_poll``: receives each event, and
        None if none arrived for ``poll_s``. An exception in it ends the load.
        """
        self.pool.prepare(job, processes)
        self.start(processes)
        sharing = self._processes[:processes]
        self._loading = processes
        result: dict[int, LoadResult] = {}
        watch = GeneratorWatch(sharing, job)
        try:
            for number, process in enumerate(sharing):
                process.send(replace(job, share=Share(number, processes)))
            self._await(watch, result, poll_s, on_poll=on_poll)
        except KeyboardInterrupt:
            self._stop(watch, result)
            raise LoadInterrupted(self._merged(job, sharing, result)) from None
        except BaseException:
            self.close()  # their present job is abandoned; the next job gets fresh processes
            raise
        return self._merged(job, sharing, result)

    def add_address(self, address: tuple[str, int]) -> None:
        """Balance the present load over one more server, ``(host, port)``; for ``on_poll`` of :meth:`run`.

        Its requests have the highest ``target``. Nothing happens if the load has just ended.
        """
        self._tell(AddAddress(address))

    def remove_address(self, address: tuple[str, int]) -> None:
        """Send no further requests of the present load to a server; those in flight there are awaited.

        Nothing happens if it is the only one, or if the load has just ended.
        """
        self._tell(RemoveAddress(address))

    def end_load(self) -> None:
        """End the present load early, without its requests in flight; for ``on_poll`` of :meth:`run`."""
        self._tell(STOP)

    def _tell(self, message: object) -> None:
        for process in self._processes[: self._loading]:
            process.send(message)

    def _stop(self, watch: GeneratorWatch, result: dict[int, LoadResult]) -> None:
        """After Ctrl-C: end the job and collect the missing recordings; on failure raise KeyboardInterrupt."""
        try:
            for process in watch.processes:
                process.send(STOP)
            self._await(watch, result, self.pool.stop_timeout_s, on_poll=_raise_timeout)
        except (ChildError, TimeoutError):
            self.close()
            raise KeyboardInterrupt from None

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.close_channel()
        for process in self._processes:
            process.stop()
        self._processes.clear()

    def _await(
        self,
        watch: GeneratorWatch,
        result: dict[int, LoadResult],
        poll_s: float,
        *,
        on_poll: Callable[[Event | None], None],
    ) -> None:
        """Await the recording of every process; when all are warm, send them the time at which the window opens."""
        warm, processes = 0, watch.processes
        for number, message in _messages(watch, poll_s, result):
            if isinstance(message, LoadResult):
                result[number] = message
            elif isinstance(message, Warm):
                warm += 1
                if warm == len(processes):
                    opening = OpenWindow(time.perf_counter_ns() + self.pool.opening_delay_ns(len(processes)))
                    for process in processes:
                        process.send(opening)
            elif number == 0 or not isinstance(message, WindowOpened):  # the window opens for all at once
                on_poll(message)

    def _merged(
        self, job: LoadJob, processes: Sequence[GeneratorProcess], result: Mapping[int, LoadResult]
    ) -> LoadResult:
        """The merged recording; of processes on nodes, with the figures of each."""
        whole = merged([result[number] for number in sorted(result)])
        report = whole.generator
        if not any(process.node for process in processes):
            return whole
        is_fast = report.rate_rps > _SURELY_REACHED_RPS and not whole.stopped_early and not job.endpoint.remote
        ceilings = self.pool.ceilings_rps(job.transport, len(processes)) if is_fast else ()
        return replace(whole, generator=replace(report, parts=parts_of(processes, result, ceilings)))


def _messages(
    watch: GeneratorWatch, poll_s: float, ended: Mapping[int, object]
) -> Iterator[tuple[int, LoadResult | Event | None]]:
    """Messages of the processes that have not ended, with their number; None after ``poll_s`` without a message."""
    processes = watch.processes
    slice_s = min(poll_s, _SLICE_S if len(processes) > 1 else _WATCH_S)  # several processes are polled in turn
    last = time.perf_counter()
    while len(ended) < len(processes):
        for number in (left := [number for number in range(len(processes)) if number not in ended]):
            try:
                message = processes[number].receive(slice_s)
                watch.heard(number)
            except TimeoutError:
                watch.waited(left, slice_s)
                if time.perf_counter() - last < poll_s:
                    continue
                message = None
            last = time.perf_counter()
            yield number, message


def _raise_timeout(event: Event | None) -> None:
    if event is None:
        raise TimeoutError("the load generator does not stop")


def merged(parts: Sequence[LoadResult]) -> LoadResult:
    """One recording of all; the window is the one that they share."""
    if len(parts) == 1:
        return parts[0]
    from pytest_mlpatterns.loadgen.columns import merged_columns

    first = parts[0]
    reports = [part.generator for part in parts]
    connects = sorted(report.connect_ns for report in reports if report.connect_ns is not None)
    return replace(
        first,
        columns=merged_columns([part.columns for part in parts]),
        warmup=replace(
            first.warmup,
            requests=sum(part.warmup.requests for part in parts),
            steady=None if first.warmup.steady is None else all(part.warmup.steady for part in parts),
        ),
        generator=merged_reports(
            reports,
            wall_ns=first.generator.wall_ns,
            connections=sum(report.connections for report in reports),
            connect_ns=connects[len(connects) // 2] if connects else None,
            processes=len(parts),
        ),
        answers=[answer for part in parts for answer in part.answers],
        stopped_early=any(part.stopped_early for part in parts),
        failed={outcome: answer for part in reversed(parts) for outcome, answer in part.failed.items()},
        figure_faults={name: why for part in reversed(parts) for name, why in part.figure_faults.items()},
        without_figure={name: answer for part in reversed(parts) for name, answer in part.without_figure.items()},
    )


def parts_of(
    processes: Sequence[GeneratorProcess], results: Mapping[int, LoadResult], ceilings_rps: Sequence[float]
) -> tuple[GeneratorPart, ...]:
    """The figures of each generator by itself, in the order of their numbers.

    ``ceilings_rps``: what each of them reaches against a server that does nothing; empty if that is not known.
    """
    return tuple(
        GeneratorPart(
            node=processes[number].node,
            completed=(report := results[number].generator).completed,
            core_share=report.core_share,
            ceiling_rps=ceilings_rps[number] if ceilings_rps else None,
            opened_late_ns=report.opened_late_ns,
            clock_error_ns=processes[number].clock_error_ns,
        )
        for number in sorted(results)
    )


class GeneratorWatch:
    """Watches the processes of one job.

    Only the time in which this process waited counts, so that a pause of the whole machine is no silence.
    """

    def __init__(self, processes: Sequence[GeneratorProcess], job: LoadJob) -> None:
        self.processes = processes
        self._quiet_s = [0.0] * len(processes)
        warmup_ns = (job.warmup_requests * job.timeout_ns or WARMUP_CAP_NS) if job.warmup_ns is None else job.warmup_ns
        answer_ns = 2 * job.timeout_ns  # the one that a warm-up waits for, and the last one of the window
        self._longest_s = (warmup_ns + job.most_ns + answer_ns) / 1e9 + _LATE_S
        self._began = time.perf_counter()

    def heard(self, number: int) -> None:
        """Note a message of a process."""
        self._quiet_s[number] = 0.0
        if time.perf_counter() - self._began > self._longest_s:
            raise ChildError(
                f"the load generator ({self.processes[number].name}) is not done with its load after "
                f"{self._longest_s:.0f} s: {_ENDED}"
            )

    def waited(self, numbers: Sequence[int], seconds: float) -> None:
        """Add to the silence of these processes."""
        for number in numbers:
            self._quiet_s[number] += seconds
            quiet_s, process = self._quiet_s[number], self.processes[number]
            if quiet_s >= _QUIET_S and (stopped := process.why_stopped()):
                raise ChildError(f"the load generator is stopped: {stopped}: {_ENDED}")
            if quiet_s >= _SILENT_S:
                raise ChildError(f"the load generator ({process.name}) has sent nothing for {quiet_s:.0f} s: {_ENDED}")
