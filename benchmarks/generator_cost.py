"""What our load generator costs and what it reports, beside wrk, hey, k6, Locust and httpx, on the same server.

The server stays on one core and the client on another. The start of a client is not counted: the CPU time of a run that
only starts is taken off, where a tool takes long to start.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from bench import Claim, Table, drive, interleave, on_client_core, our_generator, run_child, serving
from services import PATH

from pytest_mlpatterns.workload.payload import read_payload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_mlpatterns.loadgen.generator import Generator

CLAIM = (
    "our generator takes at most 1.2 times the CPU per request of wrk, half that of k6, 0.3 times that of Locust, "
    "and sees wrk's median within 5 % or 30 µs"
)
OURS, REFERENCE, K6, LOCUST = "pytest-mlpatterns", "wrk", "k6", "Locust FastHttpUser"
AT_MOST = {REFERENCE: 1.2, K6: 0.5, LOCUST: 0.3}
"""Our CPU per request against theirs."""
CONNECTIONS = (1, 16, 64, 256)
USUAL = 16
REPETITIONS, USUAL_REPETITIONS = 5, 9
SECONDS = 2
_FULL = "where callers fill the server each waits for the others, so that a median is as near to wrk's as the rates are"
INPUT = [float(number % 16) for number in range(64)]


@dataclass(frozen=True)
class Figures:
    """What a client came to at one level."""

    cpu_ns_per_request: float
    median_ns: float
    throughput_rps: float


@dataclass(frozen=True)
class Client:
    """A public tool.

    ``command`` makes its command line of an address and connections, ``read`` takes its output and directory and gives
    how many requests it counted and their median in nanoseconds, ``start`` is a command that only starts it.
    """

    command: Callable[[str, int], list[str]]
    read: Callable[[str, Path], tuple[int, float]]
    start: tuple[str, ...] = ()
    levels: tuple[int, ...] = CONNECTIONS


def measure() -> Iterator[Table]:
    clients, absent = find_clients()
    with tempfile.TemporaryDirectory() as name, serving("tiny") as address, our_generator() as generator:
        directory = Path(name)
        payload = read_payload([INPUT])
        write_scripts(directory, payload.bodies[0].joined())
        url = f"http://{address[0]}:{address[1]}{PATH}"
        messages = payload.messages(*address, PATH)
        drive(generator, address, messages, concurrency=16, seconds=1)  # warms the server up
        start_s = {label: measure_start(client, directory) for label, client in clients.items()}
        for connections in CONNECTIONS:
            sides: dict[str, Callable[[], Figures]] = {
                OURS: partial(measure_ours, generator, address, messages, connections=connections)
            }
            for label, client in clients.items():
                if connections in client.levels:
                    command = client.command(url, connections)
                    sides[label] = partial(measure_client, client, command, directory, start_s=start_s[label])
            repetitions = USUAL_REPETITIONS if connections == USUAL else REPETITIONS
            yield table_of(connections, repetitions, interleave(sides, repetitions), absent=absent)
    if REFERENCE in clients:
        yield measure_fast_service(clients[REFERENCE])


def measure_fast_service(wrk: Client) -> Table:
    """Beside wrk on a service that costs nearly nothing, where the clients' own cost shows most."""
    with tempfile.TemporaryDirectory() as name, serving("fixed") as address, our_generator() as generator:
        directory = Path(name)
        payload = read_payload([INPUT])
        write_scripts(directory, payload.bodies[0].joined())
        command = wrk.command(f"http://{address[0]}:{address[1]}{PATH}", USUAL)
        messages = payload.messages(*address, PATH)
        found = interleave(
            {
                OURS: partial(measure_ours, generator, address, messages, connections=USUAL),
                REFERENCE: partial(measure_client, wrk, command, directory, start_s=0.0),
            },
            USUAL_REPETITIONS,
        )
    ours, theirs = (median(run.cpu_ns_per_request for run in found[label]) for label in (OURS, REFERENCE))
    rows = [
        (
            label,
            f"{median(run.cpu_ns_per_request for run in runs) / 1e3:.1f} µs",
            f"{median(run.throughput_rps for run in runs):,.0f}",
        )
        for label, runs in found.items()
    ]
    claim = Claim("CPU per request on a fixed answer, against wrk", ours / theirs, at_most=AT_MOST[REFERENCE])
    title = f"a fixed answer, {USUAL} connections, median of {USUAL_REPETITIONS} runs in turn"
    return Table(title, ("client", "CPU per request", "req/s"), rows, [claim])


def measure_ours(
    generator: Generator, address: tuple[str, int], messages: tuple[bytes, ...], *, connections: int
) -> Figures:
    load = drive(generator, address, messages, concurrency=connections, seconds=SECONDS)
    return Figures(load.cpu_ns_per_request, load.rtm_ns, load.throughput_rps)


def measure_start(client: Client, directory: Path) -> float:
    """CPU seconds that a client takes to start."""
    if not client.start:
        return 0.0
    with on_client_core():
        return median(run_child(client.start, directory=directory).cpu_s for _ in range(3))


def measure_client(client: Client, command: list[str], directory: Path, *, start_s: float) -> Figures:
    with on_client_core():
        done = run_child(command, directory=directory)
    requests, median_ns = client.read(done.output, directory)
    return Figures((done.cpu_s - start_s) * 1e9 / requests, median_ns, requests / SECONDS)


def table_of(connections: int, repetitions: int, found: dict[str, list[Figures]], *, absent: list[str]) -> Table:
    middle = {
        label: Figures(
            median(run.cpu_ns_per_request for run in runs),
            median(run.median_ns for run in runs),
            median(run.throughput_rps for run in runs),
        )
        for label, runs in found.items()
    }
    reference = middle.get(REFERENCE)
    rows = [
        (
            label,
            f"{figures.cpu_ns_per_request / 1e3:.1f} µs",
            f"{figures.cpu_ns_per_request / reference.cpu_ns_per_request:.2f}" if reference else "–",
            f"{figures.median_ns / 1e6:.3f} ms",
            f"{figures.median_ns / reference.median_ns:.2f}" if reference else "–",
            f"{figures.throughput_rps:,.0f}",
        )
        for label, figures in middle.items()
    ]
    ours, at = middle[OURS], f"at {connections} connections"
    claims = [
        Claim(
            f"CPU per request {at}, against {label}", ours.cpu_ns_per_request / figures.cpu_ns_per_request, at_most=most
        )
        for label, most in AT_MOST.items()
        if (figures := middle.get(label)) is not None
    ]
    if reference:
        near = max(0.05, 30e3 / reference.median_ns)
        ratio = ours.median_ns / reference.median_ns
        claims.append(Claim(f"median latency {at}, against wrk", ratio, at_least=1 - near, at_most=1 + near))
    return Table(
        f"{connections} connections, median of {repetitions} runs in turn",
        ("client", "CPU per request", "ratio", "median it reports", "ratio", "req/s"),
        rows,
        claims,
        [
            *(["Locust reports whole milliseconds"] if LOCUST in found else []),
            *([_FULL] if connections > USUAL else []),
            *([f"not installed, so not compared: {', '.join(absent)}"] if absent else []),
        ],
    )


# --- the public tools -----------------------------------------------------------------------------------------------


def find_clients() -> tuple[dict[str, Client], list[str]]:
    """The tools that are installed, and the names of those that are not."""
    beside = str(Path(sys.executable).parent)
    wrk, hey, k6, locust = (
        shutil.which(name, path=beside) or shutil.which(name) for name in ("wrk", "hey", "k6", "locust")
    )
    known = {
        REFERENCE: wrk and Client(wrk_command, read_wrk),
        "hey": hey and Client(hey_command, read_hey),
        K6: k6
        and Client(partial(k6_command, k6), read_k6, start=(k6, "run", "--quiet", "--no-usage-report", "idle.js")),
        LOCUST: locust
        and Client(partial(locust_command, locust), read_locust, start=(locust, "-f", "locust_callers.py", "--list")),
    }
    httpx = Client(httpx_command, read_httpx, start=(sys.executable, "-c", "import asyncio, httpx"), levels=(USUAL,))
    found = {label: client for label, client in known.items() if client}
    return {**found, "httpx (async)": httpx}, [label for label, client in known.items() if not client]


def wrk_command(url: str, connections: int) -> list[str]:
    return ["wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s", "--latency", "-s", "wrk.lua", url]


def read_wrk(output: str, _directory: Path) -> tuple[int, float]:
    if "Non-2xx" in output:
        raise RuntimeError(f"wrk saw failed requests:\n{output}")
    value, unit = _search(r"50%\s+([\d.]+)(us|ms|s)", output)
    (requests,) = _search(r"(\d+) requests in", output)
    return int(requests), float(value) * {"us": 1e3, "ms": 1e6, "s": 1e9}[unit]


def hey_command(url: str, connections: int) -> list[str]:
    duration = ["-z", f"{SECONDS}s", "-c", str(connections)]
    return ["hey", *duration, "-m", "POST", "-T", "application/json", "-D", "body.json", url]


def read_hey(output: str, _directory: Path) -> tuple[int, float]:
    (seconds,) = _search(r"50%+ in ([\d.]+) secs", output)
    (requests,) = _search(r"\[200\]\s+(\d+) responses", output)
    return int(requests), float(seconds) * 1e9


def k6_command(k6: str, url: str, connections: int) -> list[str]:
    load = ["--vus", str(connections), "--duration", f"{SECONDS}s", "--env", f"URL={url}"]
    return [k6, "run", "--quiet", "--no-usage-report", "--summary-export", "k6.json", *load, "k6.js"]


def read_k6(_output: str, directory: Path) -> tuple[int, float]:
    metrics = json.loads((directory / "k6.json").read_text(encoding="utf-8"))["metrics"]
    return int(metrics["http_reqs"]["count"]), float(metrics["http_req_duration"]["med"]) * 1e6


def locust_command(locust: str, url: str, connections: int) -> list[str]:
    host = url.removesuffix(PATH)
    load = ["--users", str(connections), "--spawn-rate", str(connections), "--run-time", f"{SECONDS}s", "--host", host]
    return [locust, "--locustfile", "locust_callers.py", "--headless", "--loglevel", "ERROR", "--json", *load]


def read_locust(output: str, _directory: Path) -> tuple[int, float]:
    (entry,), _ = json.JSONDecoder().raw_decode(output, output.index("[\n"))
    if entry["num_failures"]:
        raise RuntimeError(f"Locust saw failed requests:\n{output}")
    times = {float(milliseconds): count for milliseconds, count in entry["response_times"].items()}
    half, seen = sum(times.values()) / 2, 0
    for milliseconds in sorted(times):
        seen += times[milliseconds]
        if seen >= half:
            break
    return int(entry["num_requests"]), milliseconds * 1e6


def httpx_command(url: str, connections: int) -> list[str]:
    return [sys.executable, "httpx_callers.py", url, str(SECONDS), str(connections)]


def read_httpx(output: str, _directory: Path) -> tuple[int, float]:
    requests, median_ns = json.loads(output)
    return requests, median_ns


def _search(pattern: str, output: str) -> tuple[str, ...]:
    found = re.search(pattern, output)
    if found is None:
        raise RuntimeError(f"no {pattern!r} in:\n{output}")
    return found.groups()


def write_scripts(directory: Path, body: bytes) -> None:
    """The request in the language of each tool."""
    (directory / "body.json").write_bytes(body)
    text = body.decode()
    (directory / "wrk.lua").write_text(
        f'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\nwrk.body = [=[{text}]=]\n'
    )
    (directory / "k6.js").write_text(_K6)
    (directory / "idle.js").write_text("export default function () {}\n")
    (directory / "locust_callers.py").write_text(_LOCUST.format(body=body, path=PATH))
    (directory / "httpx_callers.py").write_text(_HTTPX)


_K6 = """\
import http from 'k6/http';
const body = open('./body.json');
const params = { headers: { 'Content-Type': 'application/json' } };
export default function () { http.post(__ENV.URL, body, params); }
"""
_LOCUST = """\
from locust import FastHttpUser, task


class Caller(FastHttpUser):
    @task
    def predict(self):
        self.client.post({path!r}, data={body!r}, headers={{"Content-Type": "application/json"}})
"""
_HTTPX = """\
import asyncio, json, statistics, sys, time
import httpx

url, seconds, callers = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
body = open("body.json", "rb").read()
took = []


async def call(client, until):
    while time.monotonic() < until:
        started = time.perf_counter_ns()
        response = await client.post(url, content=body, headers={"Content-Type": "application/json"})
        took.append(time.perf_counter_ns() - started)
        response.raise_for_status()


async def main():
    limits = httpx.Limits(max_connections=callers, max_keepalive_connections=callers)
    async with httpx.AsyncClient(limits=limits) as client:
        until = time.monotonic() + seconds
        await asyncio.gather(*(call(client, until) for _ in range(callers)))


asyncio.run(main())
print(json.dumps([len(took), statistics.median(took)]))
"""
