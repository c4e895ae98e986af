"""The processes of a local deployment as one: their statistics, their output, their end."""

from __future__ import annotations

import contextlib
import itertools
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_mlpatterns.errors import ChildError, DeploymentError, LeftoverWarning
from pytest_mlpatterns.records.setup import EnvironmentFacts, merged_facts
from pytest_mlpatterns.records.telemetry import PatternStats, merged_layers
from pytest_mlpatterns.serving.processes import (
    FactsQuestion,
    LoadFailed,
    Processes,
    Ready,
    StatsQuestion,
    WorkerFacts,
    WorkerStats,
    pattern_stats,
)
from pytest_mlpatterns.serving.readiness import ended_while_loading, failed_to_load, left_s, too_slow_to_load
from pytest_mlpatterns.system.orphans import Stopped, describe_killed

if TYPE_CHECKING:
    import socket

    from pytest_mlpatterns.serving.model import StartOptions
    from pytest_mlpatterns.serving.redis.embedded_server import EmbeddedServer
    from pytest_mlpatterns.system.child import Child

MAX_REPLACEMENTS = 3  # Restart limit. A process that keeps dying is assumed to be killed by its requests.
_REPLACEMENT_TIMEOUT_S = 60.0
"""Longest wait for the replacement of a process that died, in seconds: its model loads again."""
_NOTHING = WorkerStats(0, 0, ())


@dataclass(slots=True)
class LocalProcesses(Processes):
    """Workers and auxiliary servers of one deployment."""

    workers: Sequence[SupervisedWorker]  # all that were ever started
    servers: Sequence[EmbeddedServer] = ()
    model: str = ""

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids: workers first, in the order of their start."""
        return (*(worker.child.pid for worker in tuple(self.workers)), *(server.pid for server in self.servers))

    def stats(self) -> PatternStats:
        """Statistics of all workers since the start."""
        for server in self.servers:
            server.check()
        answers = [(worker, worker.stats()) for worker in tuple(self.workers)]
        return pattern_stats(
            ((worker.position, worker.role, answer.predict_requests) for worker, answer in answers),
            [answer for _, answer in answers],
            replaced=sum(worker.replaced for worker, _ in answers),
        )

    def excuse(self, pid: int) -> None:
        """The worker with this process may end from now on."""
        for worker in self.workers:
            if worker.child.pid == pid:
                worker.excuse()

    def facts(self) -> EnvironmentFacts:
        """The environment of the workers; of those that serve the same, the first answers."""
        groups = {(worker.position, worker.role): worker for worker in reversed(self.workers)}
        return merged_facts(groups[group].facts() for group in sorted(groups))

    def log_tail(self) -> str:
        """Last lines of each worker's output."""
        return "\n".join(filter(None, (worker.child.log_tail() for worker in tuple(self.workers))))

    def stop(self) -> None:
        """End all processes and wait until they are gone; workers end at the same time, servers after them.

        A warning names the processes that a model started and that had to be killed.
        """
        for worker in self.workers:
            worker.close_channel()
        ended = sum([worker.stop() for worker in self.workers], Stopped())
        for server in self.servers:
            server.stop()
        ended.require_gone()
        if ended.killed:
            warnings.warn(
                f"perf_model {self.model}: processes that it started and that did not end after SIGTERM were killed: "
                f"{describe_killed(ended.killed)}",
                LeftoverWarning,
                stacklevel=2,
            )


def await_loaded(worker: SupervisedWorker, model: str, started_ns: int, *, options: StartOptions) -> None:
    """Wait until a process has built its model and accepts connections."""
    try:
        load_of(worker, model, left_s(started_ns, options), options=options)
    except TimeoutError:
        raise too_slow_to_load(worker.role, model, worker.child.log_tail(), options=options) from None


def load_of(worker: SupervisedWorker, model: str, wait_s: float, *, options: StartOptions) -> None:
    """Return when a process has built its model and accepts connections.

    Raises TimeoutError: it has not after ``wait_s`` seconds.
    """
    try:
        message: Any = worker.child.receive(wait_s)
    except ChildError as error:
        raise ended_while_loading(worker.role, model, str(error)) from error
    if isinstance(message, LoadFailed):
        raise failed_to_load(message, worker.role, model, options=options)
    assert isinstance(message, Ready)


_Answer = TypeVar("_Answer", WorkerStats, WorkerFacts)


class SupervisedWorker:
    """A worker process, and its replacements.

    ``listener``: a listening socket that stays open while a process is replaced, so that new connections wait; None:
    the process has its own.
    """

    def __init__(
        self,
        start: Callable[[Callable[[], None]], Child],
        *,
        role: str,
        position: int,
        listener: socket.socket | None = None,
        answer_timeout_s: float = 5.0,
    ) -> None:
        self.role = role
        self.position = position
        self.replaced: int = 0
        self._is_excused = False
        self._start = start
        self._listener = listener
        self._answer_timeout_s = answer_timeout_s
        self._numbers = itertools.count(1)
        self._changed = threading.Condition(threading.RLock())
        self._guarded = False
        self._loading = False
        self._retired = self._last = _NOTHING
        self._ends: list[Stopped] = []
        self.child: Child = start(partial(self._on_end, 0))

    def guard(self) -> None:
        """Replace the process from now on when it dies."""
        with self._changed:
            self._guarded = True
            if self.child.has_ended:
                self._on_end(self.replaced)

    def stats(self) -> WorkerStats:
        """Statistics of the process and of those that it replaced.

        Counts between the last reading and the death of a process are lost with it.
        """
        with self._changed:  # otherwise an answer could be counted twice: for the process, and as retired
            while True:
                child = self.child
                try:
                    answer = self._counted_by(child)
                    break
                except ChildError as error:
                    if not self._await_replacement(child):
                        if self._is_excused:
                            return self._last
                        which = f" (replacement {self.replaced} of {MAX_REPLACEMENTS})" if self.replaced else ""
                        raise DeploymentError(f"{self.role}{which}: {error}") from error
                except TimeoutError:
                    raise DeploymentError(
                        f"{self.role}: process {child.pid} does not respond; does the model hold the GIL?"
                    ) from None
            retired = self._retired
            self._last = WorkerStats(
                answer.number,
                retired.predict_requests + answer.predict_requests,
                (*retired.tracebacks, *answer.tracebacks),
                merged_layers((*retired.layers, *answer.layers)),
            )
            return self._last

    def facts(self) -> EnvironmentFacts:
        """The environment of the process; empty if it has ended, loads or does not respond."""
        from pytest_mlpatterns.system.environment_facts import package_facts

        with self._changed, contextlib.suppress(ChildError, TimeoutError):
            if not self._loading:
                answer = self._ask(self.child, FactsQuestion(next(self._numbers)), WorkerFacts)
                return {**answer.facts, **package_facts(answer.modules)}
        return {}

    def excuse(self) -> None:
        """The test ends the process, so that its end is no error; what it counted until its last reading remains."""
        self._is_excused = True

    def close_channel(self) -> None:
        """Ask the process to end, without waiting for it."""
        self._guarded = False
        self.child.close_channel()

    def stop(self) -> Stopped:
        """End the process and all that it and those before it started, and wait for their end; safe to call twice."""
        self._guarded = False
        with self._changed:  # wait for a replacement that is starting
            ended = sum(self._ends, self.child.stop())
            self._ends.clear()
        if self._listener is not None:
            self._listener.close()
        return ended

    def _counted_by(self, child: Child) -> WorkerStats:
        if self._loading and not self._is_ready(child):
            return _NOTHING
        return self._ask(child, StatsQuestion(next(self._numbers)), WorkerStats)

    def _ask(self, child: Child, question: StatsQuestion | FactsQuestion, of: type[_Answer]) -> _Answer:
        """The answer to a numbered question; one that came after its time-out, to a question before, is left out."""
        child.send(question)
        answer = child.receive(self._answer_timeout_s)
        while not isinstance(answer, of) or answer.number != question.number:
            answer = child.receive(self._answer_timeout_s)
        return answer

    def _is_ready(self, child: Child) -> bool:
        """Whether a replacement has loaded; while it loads it has no statistics and reads no question."""
        try:
            self._loading = not isinstance(child.receive(0), Ready)
        except TimeoutError:
            return False
        return not self._loading

    def _await_replacement(self, dead: Child) -> bool:
        self._changed.wait_for(lambda: self.child is not dead or not self._guarded, _REPLACEMENT_TIMEOUT_S)
        return self.child is not dead

    def _on_end(self, number: int) -> None:
        """Replace the process number ``number``, which has ended; called in a thread of its own."""
        with self._changed:
            if number == self.replaced and self._guarded:
                self._replace()

    def _replace(self) -> None:
        """Start the next process; if there were too many, the worker is given up."""
        with self._changed:
            if self.replaced == MAX_REPLACEMENTS:
                self._guarded = False
            else:
                self.replaced += 1
                self._retired = self._last
                self._loading = True
                self._ends.append(self.child.stop())
                with contextlib.suppress(ChildError):  # it ended before it had its job; its end calls this again
                    self.child = self._start(partial(self._on_end, self.replaced))
            self._changed.notify_all()
