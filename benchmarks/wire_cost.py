"""What each wire costs: bytes, response time and CPU per request for tensors of three sizes.

The model gives back what it gets, one request is in flight, the server stays on one core and the client on another. The
floor is a bare socket that gives back as many bytes; beside our generator, tritonclient asks the same servers.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from bench import Claim, Table, interleave, on_client_core, on_server_core, our_generator, spread

from pytest_mlpatterns import Single, Wire
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.engines.local.launcher import launch
from pytest_mlpatterns.measurement.launch import LaunchRunner
from pytest_mlpatterns.serving.model import StartOptions, service_plan
from pytest_mlpatterns.workload.payload import read_payload
from pytest_mlpatterns.workload.plan import LoadPlan
from pytest_mlpatterns.workload.schedule import ClosedLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pytest_mlpatterns.loadgen.generator import Generator
    from pytest_mlpatterns.serving.deployment import Deployment

CLAIM = (
    "a tensor of 1 MB over rest+binary and grpc takes at most 1.3 times what tritonclient needs for it, and at most a "
    "fifth of what it takes over rest+json"
)
SIZES = {"1 KB": 256, "100 KB": 25_600, "1 MB": 262_144}
"""How many numbers of 32 bits make a tensor."""
CLAIMED = "1 MB"
JSON, BINARY, GRPC = "rest+json", "rest+binary", "grpc"
WIRES = (JSON, f"{JSON}+zstd", BINARY, f"{BINARY}+zstd", "rest+msgpack", GRPC)
CLIENTS = {BINARY: "tritonclient, HTTP", GRPC: "tritonclient, gRPC"}
ECHO = "bare socket"
LAUNCHES = 3
SECONDS, WARMUP_S = 1.5, 0.3


@dataclass(frozen=True)
class Figures:
    """What one window came to; what is None does not apply."""

    rtm_ns: float
    request_bytes: float | None = None
    response_bytes: float | None = None
    server_ns: float | None = None
    client_ns: float | None = None


def measure() -> Iterator[Table]:
    for called in SIZES:
        yield measure_size(called)


def measure_size(called: str) -> Table:
    """Every wire in turn, launched so many times."""
    tensor = np.random.default_rng(0).random(SIZES[called], dtype=np.float32)
    with our_generator() as generator:
        sides: dict[str, Callable[[], Figures]] = {ECHO: partial(measure_echo, tensor.nbytes)}
        for wire in WIRES:
            sides[wire] = partial(measure_wire, generator, wire, tensor)
        for wire, label in CLIENTS.items():
            sides[label] = partial(measure_client, wire, tensor)
        return table_of(called, interleave(sides, LAUNCHES))


@contextlib.contextmanager
def deployed(wire: str, tensor: Any) -> Iterator[Deployment]:
    """The model that gives back what it gets, on the server's core."""
    with tempfile.TemporaryDirectory() as directory:
        payload = read_payload([tensor], Wire.parse(wire))
        startup = StartOptions(60 * 10**9, payload, Path(directory), wire=Wire.parse(wire))
        with on_server_core():
            deployment = launch(service_plan(Single(), "services:identity"), startup)
        try:
            yield deployment
        finally:
            deployment.close()


def measure_wire(generator: Generator, wire: str, tensor: Any) -> Figures:
    """Our generator at our server.

    Raises:
        RuntimeError: a request failed, or an answer was not what was asked.
    """
    with deployed(wire, tensor) as deployment:
        plan = LoadPlan(
            payload=read_payload([tensor], Wire.parse(wire)),
            schedule=ClosedLoop(1),
            duration_ns=round(SECONDS * 1e9),
            warmup_ns=round(WARMUP_S * 1e9),
            timeout_ns=10 * 10**9,
            check=None,
        )
        bench = LaunchRunner(lambda: deployment, plan, generator, on_progress=lambda _progress: None)
        with on_client_core():
            metrics = Metrics((bench.measure(),))
        if metrics.failures or not np.array_equal(np.float32(deployment.predict(tensor)), tensor):
            raise RuntimeError(f"{wire}: requests failed, or were answered wrongly: {metrics.failures}")
    server = metrics.cpu_ns_per_request
    return Figures(
        rtm_ns=metrics.rtm_ns.value,
        request_bytes=metrics.request_bytes.value,
        response_bytes=metrics.response_bytes.value if metrics.response_bytes else None,
        server_ns=server.value if server else None,
        client_ns=metrics.generator.cpu_ns_per_request,
    )


def measure_client(wire: str, tensor: Any) -> Figures:
    """Tritonclient at our server, in a process of its own."""
    with deployed(wire, tensor) as deployment:
        host, port = deployment.addresses[0]
        command = [sys.executable, __file__, wire, f"{host}:{port}", deployment.model_name, str(tensor.size)]
        with on_client_core():
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    rtm_ns, cpu_ns = map(float, done.stdout.split())
    return Figures(rtm_ns, client_ns=cpu_ns)


def measure_echo(size: int) -> Figures:
    """Bytes to a process that sends them back, over a socket with nothing around."""
    with on_server_core():
        server = subprocess.Popen([sys.executable, __file__, "echo", str(size)], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = "127.0.0.1", int(server.stdout.readline())
        with on_client_core():
            done = subprocess.run(
                [sys.executable, __file__, "ask", str(address[1]), str(size)],
                capture_output=True,
                text=True,
                check=True,
                timeout=60,
            )
    finally:
        server.kill()
        server.wait()
        if server.stdout is not None:
            server.stdout.close()
    rtm_ns, cpu_ns = map(float, done.stdout.split())
    return Figures(rtm_ns, size, size, None, cpu_ns)


# --- what is printed ------------------------------------------------------------------------------------------------


def table_of(called: str, found: Mapping[str, Sequence[Figures]]) -> Table:
    rows = []
    floor = rtm(found[ECHO])
    for label, runs in found.items():
        rows.append(
            (
                label,
                *(_bytes(runs, name) for name in ("request_bytes", "response_bytes")),
                f"{rtm(runs) / 1e3:,.0f} µs",
                spread([run.rtm_ns for run in runs]),
                f"{rtm(runs) / floor:.2f}",
                *(_time(runs, name) for name in ("server_ns", "client_ns")),
            )
        )
    headings = ("wire", "bytes out", "bytes back", "RTM", "spread", "it / bare socket", "server CPU", "client CPU")
    claims = claims_of(found) if called == CLAIMED else ()
    return Table(
        f"{called} of float32 there and back, 1 request in flight, median of {LAUNCHES} launches in turn",
        headings,
        rows,
        claims,
    )


def claims_of(found: Mapping[str, Sequence[Figures]]) -> list[Claim]:
    return [
        *(
            Claim(f"RTM of {wire}, against {client}", rtm(found[wire]) / rtm(found[client]), at_most=1.3)
            for wire, client in CLIENTS.items()
        ),
        *(
            Claim(f"RTM of {JSON}, against {wire}", rtm(found[JSON]) / rtm(found[wire]), at_least=5.0)
            for wire in CLIENTS
        ),
    ]


def rtm(runs: Sequence[Figures]) -> float:
    return median(run.rtm_ns for run in runs)


def _bytes(runs: Sequence[Figures], name: str) -> str:
    value = getattr(runs[0], name)
    return "" if value is None else f"{value:,.0f}"


def _time(runs: Sequence[Figures], name: str) -> str:
    values = [value for run in runs if (value := getattr(run, name)) is not None]
    return f"{median(values) / 1e3:,.0f} µs" if values else ""


# --- the processes --------------------------------------------------------------------------------------------------


def echo(size: int) -> None:
    """Give back so many bytes, again and again."""
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    connection, _ = listener.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    buffer = memoryview(bytearray(size))
    while receive(connection, buffer):
        connection.sendall(buffer)


def receive(connection: socket.socket, buffer: memoryview) -> bool:
    """Fill the buffer; False where the other side has closed."""
    at = 0
    while at < len(buffer):
        got = connection.recv_into(buffer[at:])
        if not got:
            return False
        at += got
    return True


def ask_socket(port: int, size: int) -> None:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sent, buffer = bytes(size), memoryview(bytearray(size))

    def once() -> None:
        connection.sendall(sent)
        receive(connection, buffer)

    tell(once)


def ask_triton(wire: str, address: str, model: str, *, count: int) -> None:
    import importlib

    library = importlib.import_module("tritonclient.grpc" if wire == GRPC else "tritonclient.http")
    client = library.InferenceServerClient(address)
    tensor = np.random.default_rng(0).random((1, count), dtype=np.float32)

    def once() -> None:
        given = library.InferInput("input-0", [1, count], "FP32")
        given.set_data_from_numpy(tensor)
        client.infer(model, [given]).as_numpy("output-0")

    tell(once)


def tell(once: Callable[[], None]) -> None:
    """Print the median of calls in nanoseconds, and the CPU time of each."""
    end = time.perf_counter() + WARMUP_S
    while time.perf_counter() < end:
        once()
    latencies, cpu, end = [], time.process_time_ns(), time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        started = time.perf_counter_ns()
        once()
        latencies.append(time.perf_counter_ns() - started)
    print(median(latencies), (time.process_time_ns() - cpu) / len(latencies))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["echo", size]:
            echo(int(size))
        case ["ask", port, size]:
            ask_socket(int(port), int(size))
        case [wire, address, model, count]:
            ask_triton(wire, address, model, count=int(count))
