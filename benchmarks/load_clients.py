"""The clients of :mod:`generator_parts`, each in a process of its own: ``load_clients.py CLIENT HOST PORT CALLERS``.

``ours``, ``untimed`` (our loop without the timer descriptor) and ``uvloop`` (an ``asyncio.Protocol`` on uvloop with
httptools) drive a closed loop of HTTP/1.1 requests, or an open loop if CALLERS is 0. ``grpc`` (ours), ``h2`` (our loop
over the h2 package) and ``grpcio`` (its asyncio client) drive a closed loop of unary calls. All write the same row per
request. CPU time is that of the process within the window.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from collections import deque
from dataclasses import dataclass
from itertools import cycle
from time import perf_counter_ns, process_time_ns
from typing import TYPE_CHECKING, Any

import grpc
import httptools
import numpy as np
import uvloop
from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes
from services import PATH

from pytest_mlpatterns.loadgen import event_loop
from pytest_mlpatterns.loadgen.event_loop import LoadLoop
from pytest_mlpatterns.loadgen.messages import LoadJob
from pytest_mlpatterns.loadgen.recorder import SampleRecorder
from pytest_mlpatterns.wire import GRPC, REST_JSON, Wire
from pytest_mlpatterns.wire.grpc_call import INFER_METHOD, PREFIX_BYTES
from pytest_mlpatterns.workload.endpoint import Endpoint
from pytest_mlpatterns.workload.payload import read_payload
from pytest_mlpatterns.workload.schedule import ClosedLoop, ConstantRate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SECONDS, WARMUP_S = 1.5, 0.3
TIMEOUT_NS = 10_000_000_000
RATE_RPS, OPEN_CONNECTIONS = 400, 16
INPUT = [float(number % 16) for number in range(64)]


@dataclass(frozen=True)
class Figures:
    """One window: CPU time per request, median latency, median distance between due and sent, and the rate."""

    cpu_ns: float
    median_ns: float
    off_ns: float
    throughput_rps: float


def drive(client: str, address: tuple[str, int], callers: int) -> Figures:
    if client in ("uvloop", "grpcio"):
        drive_it = drive_uvloop if client == "uvloop" else drive_grpcio
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(drive_it(address, callers))
    is_grpc = client in ("grpc", "h2")
    job = LoadJob(
        endpoint=Endpoint((address,), wire=GRPC if is_grpc else REST_JSON),
        messages=messages_for(address, grpc=is_grpc),
        schedule=ClosedLoop(callers) if callers else ConstantRate(RATE_RPS),
        duration_ns=round(SECONDS * 1e9),
        warmup_ns=round(WARMUP_S * 1e9),
        timeout_ns=TIMEOUT_NS,
    )
    if client == "untimed":
        vars(event_loop)["Alarm"] = NoAlarm
    loop = LoadLoop(job, lambda _event: None)
    if client == "h2":
        loop.protocol = lambda to: OverH2(job.messages, to)
    recorded = loop.run()
    window = recorded.window
    return figures_of(loop.recording, window.start_ns, window.end_ns, cpu_ns=recorded.generator.cpu_ns)


def messages_for(address: tuple[str, int], *, grpc: bool) -> tuple[bytes, ...]:
    if grpc:
        payload = read_payload([np.array(INPUT, np.float32)], Wire.parse("grpc"))
        return payload.messages(*address, "/v2/models/model/infer")
    return read_payload([INPUT]).messages(*address, PATH)


def figures_of(recording: SampleRecorder, start_ns: int, end_ns: int, *, cpu_ns: int) -> Figures:
    due, sent, done = (np.array(getattr(recording, name)) for name in ("due_ns", "sent_ns", "done_ns"))
    inside = (due >= start_ns) & (due < end_ns)
    if failed := set(np.array(recording.outcome)[inside]) - {200}:
        raise RuntimeError(f"failed requests: {failed}")
    completed = int(((done >= start_ns) & (done < end_ns)).sum())
    return Figures(
        cpu_ns / completed,
        float(np.median((done - due)[inside])),
        float(np.median(abs(sent - due)[inside])),
        completed * 1e9 / (end_ns - start_ns),
    )


class NoAlarm:
    """The alarm of our loop on a system without timer descriptors."""

    def __init__(self, _selector: object) -> None: ...

    def set(self, _due_ns: int) -> None: ...

    def close(self) -> None: ...


async def window(tick: Callable[[], None]) -> tuple[int, int, int]:
    """Warm up, then give the window's beginning, its end and the CPU time within it. Our loop ticks as often."""
    await asyncio.sleep(WARMUP_S)
    start_ns, cpu_ns = perf_counter_ns(), process_time_ns()
    while perf_counter_ns() < start_ns + SECONDS * 1e9:
        await asyncio.sleep(0.05)
        tick()
    return start_ns, perf_counter_ns(), process_time_ns() - cpu_ns


# --- asyncio.Protocol, uvloop, httptools ----------------------------------------------------------------------------


class Caller(asyncio.Protocol):
    """One connection that stamps every request, and calls ``release`` when the answer is complete."""

    def __init__(self, messages: Sequence[bytes], recording: SampleRecorder, release: Callable[[Caller], None]) -> None:
        self._messages = messages
        self._requests = cycle(range(len(messages)))
        self._record, self._release = recording.add, release
        parser = httptools.HttpResponseParser(self)
        self._feed, self._status = parser.feed_data, parser.get_status_code
        self._is_complete = False
        self.due_ns = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._write = transport.write

    def send(self, due_ns: int | None = None) -> None:
        self._request = next(self._requests)
        self._received = 0
        self._is_complete = False
        self._sent_ns = perf_counter_ns()
        self.due_ns = self._sent_ns if due_ns is None else due_ns
        self._write(self._messages[self._request])

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        self._feed(data)
        if self._is_complete:
            now = perf_counter_ns()
            self._record(self.due_ns, self._sent_ns, now, self._status(), self._request, 0, self._received)
            self._release(self)

    def on_message_complete(self) -> None:
        self._is_complete = True


class OpenLoop:
    """Sends a request at each due time, by uvloop's own timers."""

    def __init__(self) -> None:
        self._idle: list[Caller] = []
        self._waiting: deque[int] = deque()
        self._loop = asyncio.get_running_loop()
        self._period_ns = 1_000_000_000 // RATE_RPS

    def release(self, caller: Caller) -> None:
        if self._waiting:
            caller.send(self._waiting.popleft())
        else:
            self._idle.append(caller)

    def send_due(self, due_ns: int) -> None:
        if self._idle:
            self._idle.pop().send(due_ns)
        else:
            self._waiting.append(due_ns)
        due_ns += self._period_ns
        self._next = self._loop.call_at(self._loop.time() + (due_ns - perf_counter_ns()) / 1e9, self.send_due, due_ns)

    def stop(self) -> None:
        self._next.cancel()


async def drive_uvloop(address: tuple[str, int], callers: int) -> Figures:
    loop, recording, messages = asyncio.get_running_loop(), SampleRecorder(), messages_for(address, grpc=False)
    opened = None if callers else OpenLoop()
    release = opened.release if opened else Caller.send
    connected = [
        (await loop.create_connection(lambda: Caller(messages, recording, release), *address))[1]
        for _ in range(callers or OPEN_CONNECTIONS)
    ]
    for caller in connected:
        release(caller)
    if opened:
        opened.send_due(perf_counter_ns())

    def expire() -> None:
        before = perf_counter_ns() - TIMEOUT_NS
        if callers and any(caller.due_ns < before for caller in connected):
            raise RuntimeError("a request was not answered in time")

    start_ns, end_ns, cpu_ns = await window(expire)
    if opened:
        opened.stop()
    for caller in connected:
        caller.transport.abort()
    return figures_of(recording, start_ns, end_ns, cpu_ns=cpu_ns)


# --- gRPC -----------------------------------------------------------------------------------------------------------


class OverH2:
    """The client protocol of our loop over h2, without those of its checks that can be switched off."""

    duplex = True

    def __init__(self, messages: Sequence[bytes], address: tuple[str, int]) -> None:
        self.used_up = self.unasked = self.is_unheard = False
        self.outbox: list[bytes | memoryview] = []
        self._messages = messages
        self._headers = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", INFER_METHOD.encode()),
            (b":authority", b"%s:%d" % (address[0].encode(), address[1])),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
        ]
        self._connection = H2Connection(
            H2Configuration(
                header_encoding=None,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
            )
        )

    def opening(self) -> bytes:
        connection = self._connection
        connection.initiate_connection()
        connection.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1})
        connection.increment_flow_control_window(2**31 - 1 - 65_535)
        return connection.data_to_send()

    def ask(self, request: int) -> bytes:
        connection = self._connection
        stream = connection.get_next_available_stream_id()
        self._bytes, self._grpc_status = 0, b""
        connection.send_headers(stream, self._headers)
        connection.send_data(stream, self._messages[request], end_stream=True)
        return connection.data_to_send()

    def take(self, data: bytes) -> int:
        outcome = 0
        for event in self._connection.receive_data(data):
            if isinstance(event, events.DataReceived):
                self._bytes += len(event.data)
                self._connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, events.TrailersReceived):
                self._grpc_status = dict(event.headers)[b"grpc-status"]
            elif isinstance(event, events.StreamEnded):
                outcome = 200 if self._grpc_status == b"0" and self._bytes > PREFIX_BYTES else 500
        if reply := self._connection.data_to_send():
            self.outbox.append(reply)
        return outcome

    def take_idle(self, data: bytes) -> bool:
        self.take(data)
        return True

    def end(self) -> int:
        return 0

    def body(self) -> bytes:
        return b""

    def head(self) -> bytes:
        return b""


async def drive_grpcio(address: tuple[str, int], callers: int) -> Figures:
    """A channel for each caller, so that each has a connection."""
    recording = SampleRecorder()
    message = messages_for(address, grpc=True)[0][PREFIX_BYTES:]
    stopped = asyncio.Event()

    async def call() -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel("{}:{}".format(*address), options=options) as channel:
            infer = channel.unary_unary(INFER_METHOD)
            while not stopped.is_set():
                sent = perf_counter_ns()
                answer = await infer(message, timeout=TIMEOUT_NS / 1e9)
                recording.add(sent, sent, perf_counter_ns(), 200, 0, 0, len(answer))

    calling = [asyncio.create_task(call()) for _ in range(callers)]
    start_ns, end_ns, cpu_ns = await window(lambda: None)
    stopped.set()
    await asyncio.gather(*calling)
    return figures_of(recording, start_ns, end_ns, cpu_ns=cpu_ns)


def main() -> None:
    client, host, port, callers = sys.argv[1:]
    print(json.dumps(dataclasses.astuple(drive(client, (host, int(port)), int(callers)))))


if __name__ == "__main__":
    main()
