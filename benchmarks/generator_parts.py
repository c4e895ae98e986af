"""What each hand-written part of the load generator costs beside the public tool that could replace it.

The selector loop beside an ``asyncio.Protocol`` on uvloop, our HTTP/2 frames beside the h2 package and a grpcio client,
and the timer descriptor beside the time-outs of epoll. In each table all clients drive the same load over the same
server, which stays on one core, the client on another; the clients are in :mod:`load_clients`.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

from bench import HERE, Claim, Table, interleave, on_client_core, run_child, serving
from load_clients import RATE_RPS, Figures

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CLAIM = (
    "our selector loop takes at most 1.3 times the CPU per request of asyncio.Protocol on uvloop, our HTTP/2 frames at "
    "most half that of h2, and with a timer descriptor requests leave at least four times nearer to their due times"
)
OURS = "pytest-mlpatterns"
UVLOOP, H2, GRPCIO = "asyncio.Protocol, uvloop, httptools", "our loop over h2", "grpcio (asyncio)"
UNTIMED = "our loop without a timer descriptor"
CALLERS = (1, 16, 64)
REPETITIONS = 9


def measure() -> Iterator[Table]:
    with serving("tiny") as address:
        for callers in CALLERS:
            found = in_turn({OURS: "ours", UVLOOP: "uvloop"}, address, callers)
            text = f"CPU per request of the selector loop at {callers} connections, against uvloop"
            yield closed_table("HTTP/1.1", callers, found, claims=[Claim(text, cpu_ratio(found, UVLOOP), at_most=1.3)])
        yield open_table(in_turn({OURS: "ours", UNTIMED: "untimed", UVLOOP: "uvloop"}, address, 0))
    with serving("grpc-echo") as address:
        for callers in CALLERS:
            found = in_turn({OURS: "grpc", H2: "h2", GRPCIO: "grpcio"}, address, callers)
            text = f"CPU per request of our HTTP/2 frames at {callers} connections, against h2"
            yield closed_table("gRPC", callers, found, claims=[Claim(text, cpu_ratio(found, H2), at_most=0.5)])


def in_turn(clients: dict[str, str], address: tuple[str, int], callers: int) -> dict[str, Figures]:
    """The median of each figure for each client; they run in turn."""
    sides = {label: partial(measure_client, client, address, callers) for label, client in clients.items()}
    names = [field.name for field in dataclasses.fields(Figures)]
    return {
        label: Figures(*(median(getattr(run, name) for run in runs) for name in names))
        for label, runs in interleave(sides, REPETITIONS).items()
    }


def measure_client(client: str, address: tuple[str, int], callers: int) -> Figures:
    command = [sys.executable, str(HERE / "load_clients.py"), client, address[0], str(address[1]), str(callers)]
    with on_client_core():
        return Figures(*json.loads(run_child(command, directory=HERE).output))


def cpu_ratio(found: dict[str, Figures], other: str) -> float:
    return found[OURS].cpu_ns / found[other].cpu_ns


def closed_table(protocol: str, callers: int, found: dict[str, Figures], *, claims: Sequence[Claim]) -> Table:
    rows = [
        (
            label,
            f"{figures.cpu_ns / 1e3:.1f} µs",
            f"{figures.cpu_ns / found[OURS].cpu_ns:.2f}",
            f"{figures.median_ns / 1e6:.3f} ms",
            f"{figures.throughput_rps:,.0f}",
        )
        for label, figures in found.items()
    ]
    return Table(
        f"{protocol}, {callers} connections, median of {REPETITIONS} runs in turn",
        ("client", "CPU per request", "ratio to ours", "median it reports", "req/s"),
        rows,
        claims,
    )


def open_table(found: dict[str, Figures]) -> Table:
    rows = [
        (
            label,
            f"{figures.off_ns / 1e3:.0f} µs",
            f"{figures.median_ns / 1e6:.3f} ms",
            f"{figures.cpu_ns / 1e3:.1f} µs",
        )
        for label, figures in found.items()
    ]
    off = found[OURS].off_ns / found[UNTIMED].off_ns
    return Table(
        f"open loop of {RATE_RPS} requests/s, median of {REPETITIONS} runs in turn",
        ("client", "median distance from the due time", "median latency", "CPU per request"),
        rows,
        [
            Claim(
                "distance of requests from their due times, against a loop without a timer descriptor",
                off,
                at_most=0.25,
            )
        ],
    )
