"""One load run: warm-up, measured window, drain.

The event loops share it. A loop passes the time and the finished requests; the run decides what to send and when the
next phase begins, and returns the recording at the end. It opens no sockets and reads no clock. Also:
:mod:`pytest_mlpatterns.loadgen.warmup` has the rules that end an automatic warm-up.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Generator
from statistics import median
from time import process_time_ns

from msgspec.structs import replace

from pytest_mlpatterns.loadgen.arrivals import NEVER_NS, Arrivals, ConversationArrivals, arrivals_of
from pytest_mlpatterns.loadgen.messages import Event, LoadJob, LoadResult, Warm, WindowOpened
from pytest_mlpatterns.loadgen.recorder import (
    KEPT_BYTES,
    FigureColumns,
    ResponseSample,
    SampleRecorder,
    StreamColumns,
)
from pytest_mlpatterns.loadgen.warmup import (
    MIN_WINDOW_REQUESTS,
    WARMUP_CAP_NS,
    WINDOW_NS,
    WarmupAnswers,
    WarmupWindow,
    is_steady,
)
from pytest_mlpatterns.records.addressing import Progress
from pytest_mlpatterns.records.launch import GeneratorReport, Warmup
from pytest_mlpatterns.records.samples import Window
from pytest_mlpatterns.workload.schedule import ClosedLoop, Schedule
from pytest_mlpatterns.workload.window_plan import RequestWindow, WindowPlan

TICK_NS = 50_000_000  # Interval at which a loop calls :meth:`LoadRun.tick`
_SURELY_DEAD = 8  # Requests in a row without an answer, for two time-outs, that end a window of given requests
_SETTLE_NS = 15_000_000  # Least delay of the first tick, in nanoseconds
_PROGRESS_TICKS = 5  # Ticks of 50 ms from one report of the progress to the next: four a second, as an eye follows


class LoadRun:
    """The phases of one job.

    ``send``: sends the prepared request of this index; a due time of None means now.

    ``answers``: the kept responses; None if the job keeps none. ``figures``: the same if figures are read from them;
    else None. ``waited_ns``: wait for a connection of each request
    that had none, since the window opened, and ``sent_again_ns`` due times of the requests sent once more.
    ``due_after_answer_ns``: when the request is due that follows an answer; None for when it is sent. In the warm-up of
    a schedule with a length it is the time of the answer: one that is sent as the window opens counts in the warm-up.
    """

    due_after_answer_ns: int | None = None

    def __init__(self, job: LoadJob, send: Callable[[int, int | None], None], emit: Callable[[Event], None]) -> None:
        self.recording: SampleRecorder = SampleRecorder(
            StreamColumns(KEPT_BYTES // job.share.of if job.keep_texts else 0) if job.stream else None
        )
        self.answers: ResponseSample | None = _kept_answers(job, self.recording)
        self.figures: FigureColumns | None = self.answers if isinstance(self.answers, FigureColumns) else None
        self.connect_ns: array[int] = array("q")
        self.waited_ns: array[int] = array("q")
        self.sent_again_ns: array[int] = array("q")
        self.draining: bool = False
        self.stop_early = False
        self._job = job
        self._send = send
        self._emit = emit
        self._draws = _drawn(job)
        next(self._draws)
        self.next_request: Callable[[], int] = self._draws.__next__
        self._conversations = ConversationArrivals(job.think_ns, self._go_on, self.recording) if job.think_ns else None
        self._has_length = job.schedule.length_ns is not None
        self._arrivals = self._arrivals_of(ClosedLoop(1) if self._has_length else job.schedule)
        self._arrivals_since_ns = 0
        self._start_ns = 0
        self._stop_ns = NEVER_NS
        self._ticks = self._last_tick_ns = 0
        self._warmup: Warmup | None = None
        self._reported_warm = False
        self._open_at_ns = NEVER_NS
        self._callers = _callers_of(job)
        self._warmup_answers = WarmupAnswers(self._callers, 0)
        self._warm_by_answers = False
        self._warmup_windows: list[WarmupWindow] = []
        self._warmup_row = 0
        self._warmup_since_ns = 0
        self._planned = job.window if isinstance(job.window, RequestWindow) else None
        self._is_given = self._planned is not None and self._planned.is_given
        self._left = -1  # below zero it counts the requests without a limit
        self._alive = (0, 0)  # rows at the last tick after which the latest request had an answer, and its time
        self._full = self._full_seen = self._is_emptying = False
        self._window_row = self._window_start_ns = self._followed = 0
        self._window_cpu_ns = self._ticks_cpu_ns = 0
        self._loop_lag_ns = 0
        self._opened_late_ns = 0
        self._report: GeneratorReport | None = None

    @property
    def next_due_ns(self) -> int:
        """Time of the next call of :meth:`send_due`; ``NEVER_NS`` if only responses make requests due."""
        if self._full and not self._full_seen:
            return 0
        due_ns = self._arrivals.next_due_ns
        if self._warmup is None:
            due_ns = min(due_ns, self._open_at_ns)
        elif due_ns >= self._stop_ns:
            due_ns = NEVER_NS
        return due_ns

    @property
    def first_tick_ns(self) -> int:
        """Delay of the first tick after the start; short for a job without a warm-up."""
        return TICK_NS if self._job.warmup_ns is None else min(TICK_NS, max(self._job.warmup_ns, _SETTLE_NS))

    def open_at(self, at_ns: int) -> None:
        """Open the window at this time, together with the generators that share the load. Thread-safe.

        From then on the caller of the warm-up of a schedule with a length sends nothing, also if this loop is late: its
        requests would count as the schedule's.
        """
        if self._has_length and self._warmup is None:
            self._stop_ns = at_ns
        self._open_at_ns = at_ns

    def start(self, now_ns: int) -> None:
        """Begin the warm-up."""
        self._start_ns = self._warmup_since_ns = self._last_tick_ns = now_ns
        closed = self._has_length or self._job.schedule.closed
        self._warmup_answers = WarmupAnswers(self._callers, now_ns, closed=closed)
        self._alive = (0, now_ns)
        if self._opens_at_once:  # its first requests count too
            self._open_window(now_ns)
        self._arrivals.start(now_ns)

    def answered(self, due_ns: int, now_ns: int, *, failed: bool) -> bool:
        """Note that a request has ended. Returns whether the loop must send :attr:`next_request` now."""
        if self._warmup is None and not self._is_emptying:
            self._see_warm(now_ns)
        is_over = self._left == 0 and (self._conversations is None if self._is_given else self._is_full(now_ns))
        if is_over or now_ns >= self._stop_ns or self._is_emptying:
            return False
        if self._has_length and self._warmup is None:
            self.due_after_answer_ns = now_ns
        again = due_ns >= self._arrivals_since_ns and self._arrivals.answered(now_ns, failed=failed)
        if again and self._left:
            self._left -= 1
        elif self._left == 0 and self._is_given:  # of conversations, whose next turns are no beginnings
            return False
        return again

    def _see_warm(self, now_ns: int) -> None:
        """End the warm-up with the answer that shows that it is over."""
        is_slow = self._warmup_answers.add(now_ns)
        if self._waits_for_answers or (self._job.warmup_requests and self._may_open):
            is_warm = self._warm(now_ns)
        else:
            is_warm = self._warm_by_answers = is_slow and self._may_open
        if is_warm:
            self._end_warmup(now_ns)  # here, so that the request that follows is the first of the window

    def _end_warmup(self, now_ns: int) -> None:
        """Open the window; one of given requests once all that was sent in the warm-up is answered."""
        if self._is_given and self._in_flight:
            self._is_emptying = True
            self._arrivals.finish()
        else:
            self._open_window(now_ns)

    def due_at_once(self, asked_ns: int, sent_ns: int) -> int:
        """When a request was due that was to be sent at once: as it was sent, or asked for if a phase began between.

        It belongs to the phase before then.
        """
        begins_between = any(asked_ns < begin_ns <= sent_ns for begin_ns in (self._window_start_ns, self._stop_ns))
        return asked_ns if begins_between else sent_ns

    def send_due(self, now_ns: int) -> None:
        """Send every request that is due by now."""
        self._see_full(now_ns)
        if self._warmup is None and now_ns >= self._open_at_ns:
            self._opened_late_ns = now_ns - self._open_at_ns
            self._open_window(self._open_at_ns)
        self._arrivals.send_due(min(now_ns, self._stop_ns))

    def tick(self, now_ns: int, connections: int, *, limit_reached: bool) -> None:
        """Begin the next phase if it is time; called every 50 ms. What is due is sent before, so that none is lost."""
        if now_ns >= self.next_due_ns:
            self.send_due(now_ns)
        cpu_ns = process_time_ns()
        self._loop_lag_ns = max(self._loop_lag_ns, now_ns - self._last_tick_ns - TICK_NS)
        self._last_tick_ns = now_ns
        self._see_full(now_ns)
        if self._warmup is None and (self.stop_early or self._is_emptying or self._warm(now_ns)):
            if self.stop_early:
                self._open_window(now_ns)
            elif self._job.share.of == 1:
                self._end_warmup(now_ns)
            elif not self._reported_warm:
                self._reported_warm = True
                self._emit(Warm())
        is_over = self.stop_early or now_ns >= self._stop_ns or (self._is_given and self._is_done(now_ns))
        if self._warmup is not None and not self.draining and is_over:
            self._close_window(now_ns, connections, limit_reached=limit_reached)
        if not self.draining and not self._is_emptying:
            self._arrivals.tick(now_ns)
        self._report_progress(now_ns)
        self._ticks_cpu_ns += process_time_ns() - cpu_ns

    def _report_progress(self, now_ns: int) -> None:
        """Report the progress, at each fifth tick."""
        self._ticks += 1
        if self._ticks % _PROGRESS_TICKS == 0:
            recent = max(self._window_row, len(self.recording) - 1000)
            latency, ttft = self.recording.median_latency_ns(recent), self.recording.median_ttft_ns(recent)
            self._emit(Progress(now_ns - self._start_ns, len(self.recording), latency, ttft))

    def result(self) -> LoadResult:
        """Everything recorded; valid once the window is closed."""
        assert self._warmup is not None
        assert self._report is not None
        figures = self.figures
        columns = {} if figures is None else figures.columns()
        return LoadResult(
            columns=self.recording.columns(streams=self._has_streams) | columns,
            window=Window(self._window_start_ns, self._stop_ns),
            warmup=self._warmup,
            generator=replace(
                self._report,
                client="" if self._job.client is None else self._job.client.name,
                cpu_ns=0 if self._job.is_in_process else self._report.cpu_ns,
                answers_cut=self.answers is not None and self.answers.is_cut,
                texts_cut=self.recording.streams is not None and self.recording.streams.texts_cut,
            ),
            answers=self.answers.kept if self.answers is not None else [],
            stopped_early=self.stop_early,
            failed={} if self.recording.streams is None else self.recording.streams.failed,
            planned=self._planned,
            figure_faults={} if figures is None else figures.reader.faults,
            without_figure={} if figures is None else figures.reader.without,
        )

    @property
    def _has_streams(self) -> bool:
        """Whether answers are streams; of a client only its answers show it, if this process has all of them."""
        streams = self.recording.streams
        if streams is None or self._job.client is None or self._job.share.of > 1:
            return self._job.stream
        return len(streams.chunk_ns) > 0

    def _arrivals_of(self, schedule: Schedule) -> Arrivals:
        arrivals = arrivals_of(schedule, self._send_next, self._job.share, stagger_ns=self._job.stagger_ns)
        return arrivals if self._conversations is None else self._conversations.begun_by(arrivals)

    def _send_next(self, due_ns: int | None) -> None:
        if self._left == 0 and (self._is_given or self._is_full(self._last_tick_ns if due_ns is None else due_ns)):
            return
        self._left -= self._left != 0
        self._send(self.next_request(), due_ns)

    def _go_on(self, request: int, due_ns: int | None) -> None:
        """Send a turn after the first one of a conversation, which ``_left`` does not count."""
        self._followed += 1
        self._send(request, due_ns)

    @property
    def _in_flight(self) -> int:
        """Requests without an answer, in the warm-up or in a window of given requests."""
        begun = -1 if self._warmup is None or self._planned is None else self._planned.requests
        return begun - self._left + self._followed - (len(self.recording) - self._window_row)

    def _is_done(self, now_ns: int) -> bool:
        """Whether all given requests are answered, or the service is surely dead."""
        if self.recording.outcome and self.recording.outcome[-1] > 0:
            self._alive = (len(self.recording), now_ns)
        rows, since_ns = self._alive
        if len(self.recording) - rows >= _SURELY_DEAD and now_ns - since_ns > 2 * self._job.timeout_ns:
            return True
        goes_on = self._conversations is not None and self._conversations.goes_on
        return self._left == 0 and not self._in_flight and not goes_on

    def _is_full(self, now_ns: int) -> bool:
        """Whether the window has all its requests. It ends when the loop has sent what it was about to send."""
        assert self._planned is not None
        self._full = self._full or now_ns >= self._window_start_ns + self._planned.least_ns
        return self._full

    def _see_full(self, now_ns: int) -> None:
        if self._full and not self._full_seen:
            self._full_seen = True
            self._stop_ns = min(self._stop_ns, now_ns)

    @property
    def _opens_at_once(self) -> bool:
        """Whether the window begins with the load."""
        return self._planned is not None and self._job.warmup_ns == 0

    @property
    def _may_open(self) -> bool:
        """Whether this generator decides by itself when a warm-up ends that has no fixed length."""
        return self._job.warmup_ns is None and self._job.share.of == 1

    @property
    def _waits_for_answers(self) -> bool:
        """Whether a warm-up of fixed length goes on until there is an answer for each caller.

        A window that begins before them may end before them too, and then no request is due in it.
        """
        planned = isinstance(self._job.window, WindowPlan) and self._job.warmup_ns is not None
        return planned and self._job.schedule.closed and not self._has_length

    @property
    def _has_no_callers(self) -> bool:
        """Whether this generator sends nothing in the warm-up: it shares a load that has fewer callers then."""
        schedule, share = self._job.schedule, self._job.share
        if self._has_length:
            return not share.part_of(1)
        return isinstance(schedule, ClosedLoop) and not share.part_of(schedule.concurrency)

    def _warm(self, now_ns: int) -> bool:
        """Whether the warm-up is over: its time is up, or the load is steady."""
        if self._has_no_callers:
            return True
        if self._job.warmup_requests:
            seen = -1 - self._left if self._is_given else self._warmup_answers.count
            return seen >= self._job.share.part_of(self._job.warmup_requests)
        elapsed = now_ns - self._start_ns
        if self._job.warmup_ns is not None:
            is_answered = not self._waits_for_answers or self._warmup_answers.count >= self._callers
            return elapsed >= self._job.warmup_ns and is_answered
        since, count = now_ns - self._warmup_since_ns, len(self.recording) - self._warmup_row
        if since >= WINDOW_NS and count >= MIN_WINDOW_REQUESTS:
            latency = self.recording.median_latency_ns(self._warmup_row)
            if latency is not None:
                self._warmup_windows.append(WarmupWindow(count * 1e9 / since, latency))
            self._warmup_row, self._warmup_since_ns = len(self.recording), now_ns
        return is_steady(self._warmup_windows) or (elapsed >= WARMUP_CAP_NS and self._warmup_answers.count > 0)

    def _open_window(self, now_ns: int) -> None:
        steady = self._warmup_answers.is_steady if self._warm_by_answers else is_steady(self._warmup_windows)
        steady = steady or self._has_no_callers  # the others decide whether the load is
        fixed = self._job.warmup_ns is not None or self._job.warmup_requests > 0
        self._warmup = Warmup(now_ns - self._start_ns, len(self.recording), None if fixed else steady)
        self._window_start_ns, self._window_row = now_ns, len(self.recording)
        self.due_after_answer_ns = None
        self._stop_ns = now_ns + self._job.duration_ns
        self._plan_requests(now_ns)
        self._loop_lag_ns = 0
        del self.waited_ns[:], self.sent_again_ns[:]
        if self.answers is not None:
            self.answers.clear()
        if self.recording.streams is not None:
            self.recording.streams.drop_texts(now_ns)
        shared_clock = self._job.share.of > 1 and not self._job.schedule.closed
        begins_anew = self._is_given and not self._opens_at_once
        if self._has_length or shared_clock or begins_anew:  # generators of a load start its clock at the same moment
            if not shared_clock or self._has_length:  # nothing that the callers of the warm-up began goes on
                self._arrivals.finish()
                self._arrivals_since_ns = now_ns
            self._arrivals = self._arrivals_of(self._job.schedule)
            self._arrivals.start(now_ns)
        self._emit(WindowOpened(now_ns))
        self._ticks_cpu_ns = 0
        self._window_cpu_ns = process_time_ns()

    def _plan_requests(self, now_ns: int) -> None:
        """If the window ends by its requests, begin to count them, and the order of the inputs."""
        interval_ns = self._warmup_answers.interval_ns
        if isinstance(self._job.window, WindowPlan) and interval_ns and self.recording.median_latency_ns(0):
            self._planned = self._job.window.window(interval_ns, now_ns - self._start_ns)
        self._is_emptying, self._followed = False, 0
        if self._planned is not None:
            not_yet_sent = -1 - self._left - self._draws.send(True)
            self._left = self._planned.requests - not_yet_sent
            self._stop_ns = now_ns + self._planned.longest_ns

    def _close_window(self, now_ns: int, connections: int, *, limit_reached: bool) -> None:
        self.draining = True
        self._stop_ns = min(self._stop_ns, now_ns)
        self._arrivals.finish()
        self._report = GeneratorReport(
            cpu_ns=process_time_ns() - self._window_cpu_ns,
            wall_ns=now_ns - self._window_start_ns,
            completed=len(self.recording) - self._window_row,
            connections=connections,
            connection_limit_reached=limit_reached,
            connect_ns=int(median(self.connect_ns)) if self.connect_ns else None,
            connection_wait_ns=sum(self.waited_ns),
            connection_waits=len(self.waited_ns),
            sent_again=len(self.sent_again_ns),
            loop_lag_ns=self._loop_lag_ns,
            opened_late_ns=self._opened_late_ns,
            ticks_cpu_ns=self._ticks_cpu_ns,
        )


def _kept_answers(job: LoadJob, recording: SampleRecorder) -> ResponseSample | None:
    limit, limit_bytes = job.keep_answers, KEPT_BYTES // job.share.of
    if job.figures is not None:
        return FigureColumns(job.figures, recording, limit=limit, limit_bytes=limit_bytes)
    return ResponseSample(limit, limit_bytes) if limit else None


def _callers_of(job: LoadJob) -> int:
    """Requests in flight of this generator's closed loop; 1 of another load."""
    return max(job.share.part_of(job.schedule.concurrency), 1) if isinstance(job.schedule, ClosedLoop) else 1


def _drawn(job: LoadJob) -> Generator[int, bool | None]:
    """Indices of this generator's requests, without end, after a first value that is none of them.

    ``send(True)`` begins the order anew and returns how many were drawn since it began.
    """
    order = array("I", job.order) or range(len(job.messages))
    first, step, count = job.share.number, job.share.of, len(order)
    drawn = 0
    while True:
        while (yield drawn):
            drawn = 0
        number = first
        while not (yield order[number % count]):
            number += step
        drawn = (number - first) // step + 1
