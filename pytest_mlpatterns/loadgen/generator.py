"""The load generator's processes: their main loop, and the handle by which the parent asks them for load.

The processes are fresh, so that coverage, debuggers and the suite's garbage do not disturb them, and serve one job
after the other, so that starting them is paid once. Several of them share a job where the machine has cores to spare:
each takes every k-th request, all open the measured window at the same moment, and their recordings are merged exactly.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_mlpatterns.errors import ChildError
from pytest_mlpatterns.loadgen.messages import Event, LoadResult, OpenWindow, Share, Warm, WindowOpened
from pytest_mlpatterns.loadgen.process import _STOP
from pytest_mlpatterns.system.child import Child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pytest_mlpatterns.loadgen.messages import LoadJob, Transport

__all__ = ["Generator", "LoadInterrupted"]

_STOP_TIMEOUT_S = 2.0
_OPENING_DELAY_NS = 100_000_000
_SLICE_S = 0.02
_SURELY_REACHED_RPS = 1000
"""A tenth of what a slow machine reaches."""


class LoadInterrupted(KeyboardInterrupt):
    """Ctrl-C during the load, with what was recorded until then."""

    def __init__(self, recorded: LoadResult) -> None:
        super().__init__()
        self.recorded = recorded


class Generator:
    """The parent's handle; starts its processes at its first job.

    Args:
        log: file for what the processes print, which should be nothing.

        measure_ceiling: sets one of the ``ceilings_rps`` of this generator; called when a load first comes so far that
            it matters. None where it never is.

    Attributes:
        ceilings_rps: what one process reaches on this machine against a server that does nothing, where it is measured.
        library_overhead_ns: what a client library adds to the median of a request; None until measured.
    """

    def __init__(self, log: Path, measure_ceiling: Callable[[Generator, Path, Transport], None] | None = None) -> None:
        self._log = log
        self._measure_ceiling = measure_ceiling
        self._children: list[Child] = []
        self.ceilings_rps: dict[Transport, float] = {}
        self.library_overhead_ns: float | None = None

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes that run now."""
        return tuple(child.pid for child in self._children)

    def ceiling_of(self, job: LoadJob, rate_rps: float = math.inf) -> float | None:
        """What a process reaches in a job of this kind; None where that is not known.

        Args:
            job: sent over our own connections, or there is no such figure.
            rate_rps: what a process did, or may do; below what every machine reaches nothing is measured for it.
        """
        if job.remote:
            return None
        if job.spoken not in self.ceilings_rps and rate_rps > _SURELY_REACHED_RPS and self._measure_ceiling is not None:
            self._measure_ceiling(self, self._log.parent, job.spoken)
        return self.ceilings_rps.get(job.spoken)

    def run(
        self, job: LoadJob, *, poll_s: float, on_poll: Callable[[Event | None], None], processes: int = 1
    ) -> LoadResult:
        """Drive one job to its end.

        Args:
            job: what to send.
            poll_s: how often ``on_poll`` is called at least.
            on_poll: takes each event as it comes, and None when none came for ``poll_s``. What it raises ends the load.
            processes: how many generators share the job.

        Raises:
            ChildError: a process died.
            LoadInterrupted: Ctrl-C; carries what was recorded until then.
        """
        while len(self._children) < processes:
            log = self._log.with_suffix(f".{len(self._children)}.log")
            self._children.append(Child("pytest_mlpatterns.loadgen.process", log=log))
        children = self._children[:processes]
        recorded: dict[int, LoadResult] = {}
        try:
            for number, child in enumerate(children):
                child.send(replace(job, share=Share(number, processes)))
            _await(children, recorded, poll_s, on_poll)
        except KeyboardInterrupt:
            self._stop(children, recorded)
            raise LoadInterrupted(_merged(recorded)) from None
        except BaseException:
            self.close()  # whatever they still do belongs to nobody; the next job gets fresh processes
            raise
        return _merged(recorded)

    def _stop(self, children: Sequence[Child], recorded: dict[int, LoadResult]) -> None:
        """After Ctrl-C: end the job and fetch what is missing; where that fails, it stays Ctrl-C all the same."""
        try:
            for child in children:
                child.send(_STOP)
            _await(children, recorded, _STOP_TIMEOUT_S, _raise_timeout)
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
    children: Sequence[Child], recorded: dict[int, LoadResult], poll_s: float, on_poll: Callable[[Event | None], None]
) -> None:
    """Await the recording of every child that has none yet; when all are warm, tell them when the window opens."""
    warm = 0
    for number, message in _messages(children, poll_s, recorded):
        if isinstance(message, LoadResult):
            recorded[number] = message
        elif isinstance(message, Warm):
            warm += 1
            if warm == len(children):
                opening = OpenWindow(time.perf_counter_ns() + _OPENING_DELAY_NS)
                for child in children:
                    child.send(opening)
        elif number == 0 or not isinstance(message, WindowOpened):  # the window opens for all at once
            on_poll(message)


def _messages(
    children: Sequence[Child], poll_s: float, ended: Mapping[int, object]
) -> Iterator[tuple[int, LoadResult | Event | None]]:
    """What the children that have not ended say, with their number; None when nobody said anything for ``poll_s``."""
    slice_s = poll_s if len(children) == 1 else min(poll_s, _SLICE_S)  # several are looked at in turn
    last = time.perf_counter()
    while len(ended) < len(children):
        for number in [number for number in range(len(children)) if number not in ended]:
            try:
                message = children[number].receive(slice_s)
            except TimeoutError:
                if time.perf_counter() - last < poll_s:
                    continue
                message = None
            last = time.perf_counter()
            yield number, message


def _merged(recorded: Mapping[int, LoadResult]) -> LoadResult:
    """One recording of several that share a window: rows in the order of completion, costs added up."""
    parts = [recorded[number] for number in sorted(recorded)]
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
        ),
        answers=[answer for part in parts for answer in part.answers],
        stopped_early=any(part.stopped_early for part in parts),
    )


def _raise_timeout(event: Event | None) -> None:
    if event is None:
        raise TimeoutError("the load generator does not stop")
