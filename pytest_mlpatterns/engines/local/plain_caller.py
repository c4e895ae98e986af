"""Calls a model in a loop in the process that holds it, without a server: what ``reference=`` is compared with.

Each caller is a thread that calls again as soon as its call has returned, with the next of the same inputs. The time of
a call is from the call to its return; nothing is encoded and nothing is sent. This module must not know why it is
asked.
"""

from __future__ import annotations

import itertools
import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter_ns
from typing import Any

from msgspec import Struct

from pytest_mlpatterns.fields import unrun_answer
from pytest_mlpatterns.loadgen.messages import LoadJob, LoadResult
from pytest_mlpatterns.patterns.layer import matched
from pytest_mlpatterns.records.launch import GeneratorReport, Warmup
from pytest_mlpatterns.records.outcomes import FailedAnswer
from pytest_mlpatterns.records.samples import Window
from pytest_mlpatterns.serving.tracebacks import MAX_TRACEBACKS, error_line, user_traceback
from pytest_mlpatterns.wire import REST_JSON, codec_of
from pytest_mlpatterns.workload.schedule import ClosedLoop
from pytest_mlpatterns.workload.window_plan import RequestWindow

_GOOD, _FAILED = 200, 500
"""Outcomes of a call, as an HTTP server would answer it: so samples of both sides have the same meaning."""


class Called(Struct, frozen=True):
    """What one call returned."""

    output: bytes | None  # the output in the JSON that a server would have sent; None if it cannot be written so
    traceback: str = ""  # of the error; empty if it succeeded


class PlainCaller:
    """Calls one model."""

    def __init__(self, model: Callable[[list[Any]], Any], inputs: Sequence[Any], name: str) -> None:
        self.calls: int = 0
        self.tracebacks: list[str] = []
        self._model = model
        self._inputs = inputs
        self._name = name
        self._threads: ThreadPoolExecutor | None = None
        self._width = 0
        self._ended = False
        self._failed: FailedAnswer | None = None

    def answer(self, asked: int | LoadJob) -> Called | LoadResult:
        """Make one call, outside the loop, with the input of this index, or the calls of a load."""
        return self.one(asked) if isinstance(asked, int) else self.loop(asked)

    def end(self) -> None:
        """Begin no further call."""
        self._ended = True

    def one(self, number: int) -> Called:
        """Call the model with one input, and check what it returns."""
        self.calls += 1
        try:
            outputs = self._model([self._inputs[number]])
            if why := unrun_answer(outputs):
                return Called(None, f"{self._name} {why}")
            (output,) = matched(outputs, 1, self._name)
        except Exception as error:  # the user's code may raise anything
            return Called(None, user_traceback(error))
        try:
            return Called(codec_of(REST_JSON).encode_outputs([output]).joined())
        except Exception:  # of any library's own type: such an output is only not compared with answers
            return Called(None)

    def loop(self, job: LoadJob) -> LoadResult:
        """Call the model until the window is over, and wait for the calls that run then.

        The calls are recorded as requests are: due and sent when they began, in the order in which they returned, and
        no byte received.
        """
        assert isinstance(job.schedule, ClosedLoop)
        self._failed = None
        start_ns = perf_counter_ns()
        draw = _Draw(start_ns, job)
        rows = [row for part in self._in_threads(job.schedule.concurrency, draw) for row in part]
        rows.sort(key=lambda row: row[1])
        self.calls += len(rows)
        last_ns = max((row[0] for row in rows), default=start_ns)
        end_ns = draw.end_ns if draw.window is None else max(min(draw.end_ns, perf_counter_ns()), last_ns + 1)
        began_ns = array("q", [row[0] for row in rows]).tobytes()
        return LoadResult(
            columns={
                "due_ns": began_ns,
                "sent_ns": began_ns,
                "done_ns": array("q", [row[1] for row in rows]).tobytes(),
                "outcome": array("h", [row[2] for row in rows]).tobytes(),
                "request": array("I", [row[3] for row in rows]).tobytes(),
                "target": bytes(len(rows)),
                "received_bytes": bytes(4 * len(rows)),
            },
            window=Window(start_ns, end_ns),
            warmup=Warmup(0, 0, None),
            generator=GeneratorReport(cpu_ns=0, wall_ns=end_ns - start_ns, completed=len(rows), connections=0),
            answers=[],
            stopped_early=False,
            failed={} if self._failed is None else {_FAILED: self._failed},
            planned=draw.window,
        )

    def _in_threads(self, callers: int, draw: _Draw) -> Iterator[list[tuple[int, int, int, int]]]:
        """The rows of each caller; the threads stay, since libraries keep pools of their own for each."""
        if callers == 1:
            return iter([self._caller(draw)])
        if self._threads is None or self._width < callers:
            self._threads, self._width = ThreadPoolExecutor(callers), callers
        return self._threads.map(self._caller, [draw] * callers)

    def _caller(self, draw: _Draw) -> list[tuple[int, int, int, int]]:
        """One caller: its calls as rows of start, end, outcome and input."""
        rows = []
        model, inputs, order, count = self._model, self._inputs, draw.order, len(draw.order)
        while not self._ended and (number := draw.next_call()) is not None:
            index = order[number % count]
            batch = [inputs[index]]
            outcome = _GOOD
            began_ns = perf_counter_ns()
            try:
                model(batch)
            except Exception as error:  # the user's code may raise anything
                done_ns = perf_counter_ns()
                outcome = _FAILED
                self._note(index, error)
            else:
                done_ns = perf_counter_ns()
            rows.append((began_ns, done_ns, outcome, index))
        return rows

    def _note(self, index: int, error: Exception) -> None:
        text = user_traceback(error)
        if self._failed is None:
            self._failed = FailedAnswer(index, error_line(text) or text.rpartition("\n")[2])
        if text not in self.tracebacks and len(self.tracebacks) < MAX_TRACEBACKS:
            self.tracebacks.append(text)


class _Draw:
    """The calls of one load: which is next, and when none is."""

    def __init__(self, start_ns: int, job: LoadJob) -> None:
        self.order: array[int] = array("I", job.order)
        self.window: RequestWindow | None = job.window if isinstance(job.window, RequestWindow) else None
        self.end_ns = start_ns + job.most_ns
        self._least_end_ns = start_ns + (0 if self.window is None else self.window.least_ns)
        self._most = sys.maxsize if self.window is None else self.window.requests
        self._numbers = itertools.count()

    def next_call(self) -> int | None:
        """The number of the next call; None if the round is over."""
        now_ns = perf_counter_ns()
        if now_ns >= self.end_ns:
            return None
        number = next(self._numbers)
        if number >= self._most and now_ns >= self._least_end_ns:
            self.end_ns = min(self.end_ns, now_ns)
            return None
        return number
