"""A connection that a client of the user's own makes: a function in a thread, or a task of an event loop.

To the loop it is a connection as any other, with at most one request in flight. The client stamps its answer where it
runs, and the loop records it. Callers outlive a job, since a block of a comparison is too short to open them anew.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import gc
import os
import queue
import selectors
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from functools import cache, partial
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.loadgen.connection import Connection
from pytest_mlpatterns.loadgen.messages import LoadJob
from pytest_mlpatterns.loadgen.process import usual_priority
from pytest_mlpatterns.records.outcomes import Failure
from pytest_mlpatterns.wire.body import WireError
from pytest_mlpatterns.workload.own_client import Caller, ClientAnswer, ClientWire, run_now

if TYPE_CHECKING:
    from pytest_mlpatterns.loadgen.event_loop import LoadLoop

_KEPT_ADDRESSES = 8  # Addresses whose callers are kept: two sides have a few servers each


class ClientPool:
    """What this process has of one client: its code, its event loop if it is async, and its callers without a request.

    Garbage is collected again, since the client may rely on it.
    """

    def __init__(self, wire: ClientWire) -> None:
        self.loop: asyncio.AbstractEventLoop | None = asyncio.new_event_loop() if wire.is_async else None
        self.reader: int
        self.reader, self._writer = os.pipe()
        os.set_blocking(self.reader, False)
        self._answered: deque[tuple[ClientConnection, ThreadCaller | TaskCaller]] = deque()
        self._client = wire.load()
        self._idle: dict[str, list[ThreadCaller | TaskCaller]] = {}
        gc.freeze()
        gc.enable()
        atexit.register(self.end)

    def take(self, address: str, scheme: str) -> ThreadCaller | TaskCaller:
        """A caller of this address."""
        if idle := self._idle.get(address):
            return idle.pop()
        caller = Caller(self._client, address, scheme=scheme)
        return ThreadCaller(caller, address) if self.loop is None else TaskCaller(caller, address, self.loop)

    def give_back(self, caller: ThreadCaller | TaskCaller) -> None:
        """Keep a caller for the next job, and end callers whose addresses are no longer used."""
        self._idle[caller.address] = [*self._idle.pop(caller.address, []), caller]
        while len(self._idle) > _KEPT_ADDRESSES:
            for one in self._idle.pop(next(iter(self._idle))):
                one.end()

    def report(self, connection: ClientConnection, caller: ThreadCaller | TaskCaller) -> None:
        """Let the loop record the answer of a caller; from its thread or task."""
        self._answered.append((connection, caller))
        os.write(self._writer, b"a")

    def pass_on(self, _mask: int) -> None:
        """Let the connections record the answers that have come; for the loop."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.reader, 4096)
        while self._answered:
            connection, caller = self._answered.popleft()
            connection.take(caller)

    def end(self) -> None:
        """Close all callers, with the process."""
        ended = [one.end() for callers in self._idle.values() for one in callers]
        self._idle.clear()
        for one in ended:
            if isinstance(one, threading.Thread):
                one.join(1.0)
        if self.loop is not None:
            self.loop.run_until_complete(asyncio.wait_for(asyncio.gather(*asyncio.all_tasks(self.loop)), 1.0))


def client_connections(owner: LoadLoop, job: LoadJob, wire: ClientWire) -> Callable[[tuple[str, int], int], Connection]:
    """The function that creates the connections of a job."""
    pool = pool_of(wire)
    owner.selector.register(pool.reader, selectors.EVENT_READ, pool.pass_on)
    inputs = [wire.decode_outputs(message, {})[0] for message in job.messages]
    return partial(ClientConnection, owner, job=job, inputs=inputs)


@cache
def pool_of(wire: ClientWire) -> ClientPool:
    """What this process has of a client, from its first job on."""
    return ClientPool(wire)


class ThreadCaller:
    """A caller in a thread of its own."""

    def __init__(self, caller: Caller, address: str) -> None:
        self.caller = caller
        self.address = address
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)  # one that hangs does not keep the process
        self._thread.start()

    def run(self, work: Callable[[], Coroutine[Any, Any, None]], on_done: Callable[[], None]) -> None:
        """Run work after what was given before, and report its end from the thread."""

        def done() -> None:
            with contextlib.suppress(Exception):  # of an opening, which the next call repeats
                run_now(work())
            on_done()

        self._work.put(done)

    def end(self) -> threading.Thread:
        """Close the client after what it does now."""
        self.run(self.caller.close, lambda: None)
        self._work.put(None)
        return self._thread

    def _run(self) -> None:
        if self.caller.is_alone:
            usual_priority()
        while (work := self._work.get()) is not None:
            work()


class TaskCaller:
    """A caller whose requests are tasks of an event loop."""

    def __init__(self, caller: Caller, address: str, loop: asyncio.AbstractEventLoop) -> None:
        self.caller = caller
        self.address = address
        self._loop = loop
        self._task: asyncio.Task[None] | None = None
        if caller.is_alone:
            loop.call_soon(usual_priority)

    def run(self, work: Callable[[], Coroutine[Any, Any, None]], on_done: Callable[[], None]) -> None:
        """Run work after what was given before, and report its end from the loop."""
        before = None if self._task is None or self._task.done() else self._task

        async def done() -> None:
            if before is not None:
                await asyncio.wait([before])
            with contextlib.suppress(Exception):  # of an opening, which the next call repeats
                await work()
            on_done()

        self._task = self._loop.create_task(done())

    def end(self) -> None:
        """Cancel what it does now, and close the client."""
        if self._task is not None:
            self._task.cancel()
        self.run(self.caller.close, lambda: None)


class TaskSelector(selectors.BaseSelector):
    """A selector that runs the event loop of a client while it waits."""

    def __init__(self, wire: ClientWire) -> None:
        loop = pool_of(wire).loop
        assert loop is not None
        self._loop = loop
        self._keys: dict[Any, selectors.SelectorKey] = {}
        self._ready: list[tuple[selectors.SelectorKey, int]] = []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Watch a descriptor that can be read."""
        self._keys[fileobj] = key = selectors.SelectorKey(fileobj, fileobj, events, data)
        self._loop.add_reader(fileobj, self._note, key)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """Watch a descriptor no longer."""
        self._loop.remove_reader(fileobj)
        return self._keys.pop(fileobj)

    def _note(self, key: selectors.SelectorKey) -> None:
        self._ready.append((key, selectors.EVENT_READ))
        self._loop.stop()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Run the event loop until a key is noted, or the time is over."""
        ending = self._loop.call_later(timeout or 0, self._loop.stop)
        self._loop.run_forever()
        ending.cancel()
        ready, self._ready = self._ready, []
        return ready

    def close(self) -> None:
        """Watch nothing; the event loop stays for the next job."""
        for fileobj in list(self._keys):
            self.unregister(fileobj)

    def get_map(self) -> dict[Any, selectors.SelectorKey]:
        """The watched descriptors."""
        return self._keys


class ClientConnection(Connection):
    """One caller of the user's client. ``inputs``: of the job, not pickled."""

    __slots__ = ("_add", "_caller", "_due_at_once", "_has_failed", "_inputs", "_is_due_now", "_job", "_place", "_pool")

    busy: bool
    request: int
    due_ns: int

    def __init__(
        self, owner: LoadLoop, address: tuple[str, int], target: int, *, job: LoadJob, inputs: Sequence[Any]
    ) -> None:
        super().__init__(owner, address, target)
        assert job.client is not None
        self._job, self._inputs = job, inputs
        self._pool = pool_of(job.client)
        self._due_at_once = owner.load_run.due_at_once
        host = job.endpoint.host  # a name, where the address is a number
        self._place = f"{f'[{host}]' if ':' in host else host}:{address[1]}" if address[1] else ""
        self._caller: ThreadCaller | TaskCaller | None = None
        self._is_due_now = True
        self._has_failed = False

    def open(self) -> None:
        """Open the client ahead of the first request."""
        self._own().run(self._own().caller.open, lambda: None)

    def send(self, request: int, due_ns: int | None = None, ready_ns: int | None = None) -> None:
        """Let the client send the input of this index; times as of :meth:`Connection.send`."""
        now = perf_counter_ns()
        self.request, self.busy = request, True
        self._is_due_now = due_ns is None
        self.due_ns = now if due_ns is None else due_ns
        self._sent_ns = ready_ns or now
        caller = self._own()
        report = partial(self._pool.report, self, caller)
        caller.run(partial(caller.caller.call, self._inputs[request]), report)

    def take(self, caller: ThreadCaller | TaskCaller) -> None:
        """Record the answer that the caller has, unless its time was over."""
        if caller is not self._caller or not self.busy:
            return
        answer = caller.caller.answer
        if self._is_due_now:  # when it began, as the way to the thread or task is ours
            self.due_ns = self._due_at_once(self.due_ns, answer.began_ns)
        sent_ns = self.due_ns if self._is_due_now or self._job.is_in_process else self._sent_ns
        self.busy = False
        self._add(self.due_ns, sent_ns, answer.done_ns, answer.outcome, self.request, self.target, 0)
        if self._answers is not None and not answer.error:
            self._keep(answer)
        if answer.error:
            self._end_caller()
            self.open()
        rests, self._has_failed = self._has_failed and bool(answer.error), bool(answer.error)
        self._completed(self, answer.done_ns, failed=rests)  # after two errors, as a service that is gone gives

    def fail(self, failure: Failure) -> None:
        """Give up the request in flight, whose caller may hang; the next one has another caller."""
        if not self.busy:
            return
        self._end_caller()
        self.busy = False
        now, add = perf_counter_ns(), self._owner.recording.adder_of(None)
        add(self.due_ns, self._sent_ns, now, failure.value, self.request, self.target, 0)
        self._completed(self, now, failed=True)

    def close(self) -> None:
        """Leave the caller to the next job; one with a request in flight ends."""
        if self.busy:
            self._end_caller()
        elif self._caller is not None:
            self._pool.give_back(self._caller)
            self._caller = None

    def _own(self) -> ThreadCaller | TaskCaller:
        if self._caller is None:
            self._caller = self._pool.take(self._place, self._job.endpoint.url.partition(":")[0])
            self._add = self._owner.recording.adder_of(self._caller.caller.answer)
        return self._caller

    def _end_caller(self) -> None:
        """After an error or a time-out the client may be in any state, so the caller gets another one."""
        caller, self._caller = self._caller, None
        if caller is not None:
            caller.end()

    def _keep(self, answer: ClientAnswer) -> None:
        assert self._answers is not None
        assert self._job.client is not None
        try:  # figures are read from the value itself
            body = self._job.client.encode_outputs(answer.value).joined() if self._answers.keeps else b""
            self._answers.offer(self.request, body, value=b"" if answer.value is None else answer.value)
        except WireError:
            self._answers.skip()
