"""A worker process of a deployment: its statistics, its end, and its replacement if the pattern asks for one."""

from __future__ import annotations

import contextlib
import itertools
import threading
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from pytest_mlpatterns.errors import ChildError, DeploymentError
from pytest_mlpatterns.records.telemetry import merged_layers
from pytest_mlpatterns.serving.process_messages import FactsQuestion, Ready, StatsQuestion, WorkerFacts, WorkerStats
from pytest_mlpatterns.system.orphans import Stopped

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from pytest_mlpatterns.records.environment_facts import EnvironmentFacts
    from pytest_mlpatterns.system.child import Child

__all__ = ["MAX_REPLACEMENTS", "SupervisedWorker"]

MAX_REPLACEMENTS = 3
"""Restart limit. A process that keeps dying is assumed to be killed by its requests."""
_REPLACEMENT_TIMEOUT_S = 60.0
_NOTHING = WorkerStats(0, 0, ())
_Answer = TypeVar("_Answer", WorkerStats, WorkerFacts)


class SupervisedWorker:
    """A worker process, and its replacements.

    Args:
        start: starts the process; its argument is called when the process has ended.
        role: names the process in messages.
        position: position of its pattern in the composition.
        listener: a listening socket that stays open while a process is replaced, so that new connections wait; None:
            the process has its own.
        answer_timeout_s: time limit for the answer to a question.

    Attributes:
        child: the process that runs now.
        replaced: number of replacements so far.
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

        Raises:
            DeploymentError: the process has ended and is not replaced, or does not respond.
        """
        with self._changed:  # otherwise an answer could be counted twice: for the process, and as retired
            while True:
                child = self.child
                try:
                    answer = self._counted_by(child)
                    break
                except ChildError as error:
                    if not self._await_replacement(child):
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
        with self._changed, contextlib.suppress(ChildError, TimeoutError):
            if not self._loading:
                return self._ask(self.child, FactsQuestion(next(self._numbers)), WorkerFacts).facts
        return {}

    def close_channel(self) -> None:
        """Ask the process to end, without waiting for it."""
        self._guarded = False
        self.child.close_channel()

    def stop(self) -> Stopped:
        """End the process and all that it and those that it replaced started, and wait until they are gone.

        Safe to call twice.

        Returns:
            The processes that it started and that did not end after SIGTERM.
        """
        self._guarded = False
        with self._changed:  # wait for a replacement that is starting
            ends = (*self._ends, self.child.stop())
            self._ends.clear()
        if self._listener is not None:
            self._listener.close()
        return Stopped(
            tuple(name for end in ends for name in end.killed), tuple(name for end in ends for name in end.survivors)
        )

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
            if not self._guarded or number != self.replaced:
                return
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
