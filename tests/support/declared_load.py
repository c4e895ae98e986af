"""A load run against a service whose answers take declared times, on a clock of its own: nothing is waited for."""

from collections.abc import Callable
from heapq import heappop, heappush

from pytest_mlpatterns.loadgen.arrivals import NEVER_NS
from pytest_mlpatterns.loadgen.load_run import TICK_NS, LoadRun
from pytest_mlpatterns.loadgen.messages import LoadJob, LoadResult

START_NS = 10**9


def run_declared(job: LoadJob, latency_ns: Callable[[int, int], int], outcome: int = 200) -> LoadResult:
    """Run a job to its end, in the order of the generator's own loop.

    ``latency_ns`` has the time to answer a request, by its index and how many were sent before it.
    """
    now = START_NS
    flying: list[tuple[int, int, int, int]] = []
    sent = 0

    def send(request: int, due_ns: int | None) -> None:
        nonlocal sent
        heappush(flying, (now + latency_ns(request, sent), sent, now if due_ns is None else due_ns, request))
        sent += 1

    run = LoadRun(job, send, lambda _event: None)
    run.start(now)
    next_tick = now + run.first_tick_ns
    while not run.draining or flying:
        done = flying[0][0] if flying else NEVER_NS
        now = max(now, min(done, next_tick, run.next_due_ns))
        again = 0
        while flying and flying[0][0] <= now:
            done_ns, number, due_ns, request = heappop(flying)
            run.recording.add(due_ns, done_ns - latency_ns(request, number), done_ns, outcome, request, 0, 1)
            again += run.answered(due_ns, done_ns, failed=outcome < 0)
        for _ in range(again):
            send(run.next_request(), None)
        if now >= run.next_due_ns:
            run.send_due(now)
        if now >= next_tick:
            next_tick = now + TICK_NS
            run.tick(now, 1, limit_reached=False)
    return run.result()
