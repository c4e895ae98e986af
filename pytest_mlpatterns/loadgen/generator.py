"""The parent's handle of the load generator processes: starts them, gives them jobs, merges their recordings.

The processes are fresh Pythons, so coverage, debuggers and the garbage of the test suite do not disturb them; they
serve one job after another, so they start once. Several of them can share a job: each sends every k-th request, all
open the measured window at the same moment, and their rows are merged in the order of completion.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_mlpatterns.errors import ChildError
from pytest_mlpatterns.loadgen.connection_limit import check_connections
from pytest_mlpatterns.loadgen.messages import AddAddress, Event, LoadResult, OpenWindow, Share, Warm, WindowOpened
from pytest_mlpatterns.loadgen.process import STOP
from pytest_mlpatterns.loadgen.watch import GeneratorWatch
from pytest_mlpatterns.system.child import Child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from pytest_mlpatterns.loadgen.messages import LoadJob, Transport

__all__ = ["Generator", "LoadInterrupted"]

_STOP_TIMEOUT_S = 2.0
_OPENING_DELAY_NS = 100_000_000
_SLICE_S = 0.02
_WATCH_S = 0.25
_SURELY_REACHED_RPS = 1000
"""Rate that every machine reaches; a tenth of a slow machine's ceiling."""


class LoadInterrupted(KeyboardInterrupt):
    """Ctrl-C during a load; ``result`` holds what was recorded until then."""

    def __init__(self, result: LoadResult) -> None:
        super().__init__()
        self.result = result


class Generator:
    """Handle of the generator processes, which start with the first job if not before.

    Args:
        log: file for the output of the processes, which is normally empty.
        measure_ceiling: measures one of ``ceilings_rps``; called when a load first needs it. None: never measure.

    Attributes:
        ceilings_rps: requests per second that one process reaches on this machine against a null server, if measured.
        library_overhead_ns: time that a client library adds to the median of a request; None until measured.
    """

    def __init__(self, log: Path, measure_ceiling: Callable[[Generator, Path, Transport], None] | None = None) -> None:
        self._log = log
        self._measure_ceiling = measure_ceiling
        self._children: list[Child] = []
        self._loading = 0
        self.ceilings_rps: dict[Transport, float] = {}
        self.library_overhead_ns: float | None = None

    @property
    def pids(self) -> tuple[int, ...]:
        """Ids of the running processes."""
        return tuple(child.pid for child in self._children)

    def ceiling_of(self, job: LoadJob, rate_rps: float = math.inf) -> float | None:
        """Ceiling of one process for jobs of this transport; None if it is unknown.

        Args:
            job: a job; one that a client library drives has no ceiling.
            rate_rps: rate of a process; below a rate that every machine reaches the ceiling is not measured.
        """
        if job.endpoint.remote:
            return None
        if (
            job.transport not in self.ceilings_rps
            and rate_rps > _SURELY_REACHED_RPS
            and self._measure_ceiling is not None
        ):
            self._measure_ceiling(self, self._log.parent, job.transport)
        return self.ceilings_rps.get(job.transport)

    def start(self, processes: int = 1) -> None:
        """Start processes that do not run yet; :meth:`run` does so too, and waits for them.

        Args:
            processes: number of processes that are needed.
        """
        while len(self._children) < processes:
            log = self._log.with_suffix(f".{len(self._children)}.log")
            self._children.append(Child("pytest_mlpatterns.loadgen.process", log=log))

    def run(
        self, job: LoadJob, *, poll_s: float, on_poll: Callable[[Event | None], None], processes: int = 1
    ) -> LoadResult:
        """Run one job to its end.

        Args:
            job: the load to generate.
            poll_s: longest interval between two calls of ``on_poll``, in seconds.
            on_poll: receives each event, and None if none arrived for ``poll_s``. An exception in it ends the load.
            processes: number of generators that share the job.

        Returns:
            The recording, merged over the processes.

        Raises:
            ChildError: a generator process died, is stopped, or does not report; it is ended and replaced.
            LoadInterrupted: Ctrl-C; it carries what was recorded until then.
            SettingError: the load needs more connections than the system allows.
        """
        check_connections(job, processes)
        self.start(processes)
        children = self._children[:processes]
        self._loading = processes
        result: dict[int, LoadResult] = {}
        watch = GeneratorWatch(children, job)
        try:
            for number, child in enumerate(children):
                child.send(replace(job, share=Share(number, processes)))
            _await(watch, result, poll_s, on_poll=on_poll)
        except KeyboardInterrupt:
            self._stop(watch, result)
            raise LoadInterrupted(_merge(result)) from None
        except BaseException:
            self.close()  # their present job is abandoned; the next job gets fresh processes
            raise
        return _merge(result)

    def add_address(self, address: tuple[str, int]) -> None:
        """Balance the present load over one more server, ``(host, port)``; for ``on_poll`` of :meth:`run`.

        Its requests have the highest ``target``. Nothing happens if the load has just ended.
        """
        self._tell(AddAddress(address))

    def end_load(self) -> None:
        """End the present load early, without its requests in flight; for ``on_poll`` of :meth:`run`."""
        self._tell(STOP)

    def _tell(self, message: object) -> None:
        for child in self._children[: self._loading]:
            child.send(message)

    def _stop(self, watch: GeneratorWatch, result: dict[int, LoadResult]) -> None:
        """After Ctrl-C: end the job and collect the missing recordings; on failure raise KeyboardInterrupt."""
        try:
            for child in watch.children:
                child.send(STOP)
            _await(watch, result, _STOP_TIMEOUT_S, on_poll=_raise_timeout)
        except (ChildError, TimeoutError):
            self.close()
            raise KeyboardInterrupt from None

    def close(self) -> None:
        """End the processes."""
        for child in self._children:
            child.close_channel()
        for child in self._children:
            child.stop()
        self._children.clear()


def _await(
    watch: GeneratorWatch, result: dict[int, LoadResult], poll_s: float, *, on_poll: Callable[[Event | None], None]
) -> None:
    """Await the recording of every child; when all are warm, send them the time at which the window opens."""
    warm, children = 0, watch.children
    for number, message in _messages(watch, poll_s, result):
        if isinstance(message, LoadResult):
            result[number] = message
        elif isinstance(message, Warm):
            warm += 1
            if warm == len(children):
                opening = OpenWindow(time.perf_counter_ns() + _OPENING_DELAY_NS)
                for child in children:
                    child.send(opening)
        elif number == 0 or not isinstance(message, WindowOpened):  # the window opens for all at once
            on_poll(message)


def _messages(
    watch: GeneratorWatch, poll_s: float, ended: Mapping[int, object]
) -> Iterator[tuple[int, LoadResult | Event | None]]:
    """Messages of the children that have not ended, with their number; None after ``poll_s`` without a message."""
    children = watch.children
    slice_s = min(poll_s, _SLICE_S if len(children) > 1 else _WATCH_S)  # several children are polled in turn
    last = time.perf_counter()
    while len(ended) < len(children):
        for number in (left := [number for number in range(len(children)) if number not in ended]):
            try:
                message = children[number].receive(slice_s)
                watch.heard(number)
            except TimeoutError:
                watch.waited(left, slice_s)
                if time.perf_counter() - last < poll_s:
                    continue
                message = None
            last = time.perf_counter()
            yield number, message


def _merge(result: Mapping[int, LoadResult]) -> LoadResult:
    """Merge recordings that share a window: rows in the order of completion, costs summed."""
    parts = [result[number] for number in sorted(result)]
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
        generator=replace(
            first.generator,
            cpu_ns=sum(report.cpu_ns for report in reports),
            completed=sum(report.completed for report in reports),
            connections=sum(report.connections for report in reports),
            connection_limit_reached=any(report.connection_limit_reached for report in reports),
            connect_ns=connects[len(connects) // 2] if connects else None,
            loop_lag_ns=max(report.loop_lag_ns for report in reports),
            processes=len(parts),
            answers_cut=any(report.answers_cut for report in reports),
            texts_cut=any(report.texts_cut for report in reports),
        ),
        answers=[answer for part in parts for answer in part.answers],
        stopped_early=any(part.stopped_early for part in parts),
    )


def _raise_timeout(event: Event | None) -> None:
    if event is None:
        raise TimeoutError("the load generator does not stop")
