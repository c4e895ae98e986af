"""What our generator costs for each chunk of a stream, in CPU time of its process."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from bench import Claim, Table, our_generator, spread
from streams import Wanted, drive_streams, recording_server

if TYPE_CHECKING:
    from collections.abc import Iterator

CLAIM = "a chunk takes at most 6 µs of the generator's CPU, and 10,000 chunks a second less than half a core"
MOST_NS = 6_000
MOST_CORE = 0.5
PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions", "REST JSON": "/v1/models/m:predict"}
LEVELS = ((16, 5.0), (64, 10.0), (256, 25.0))
"""Streams, and milliseconds between two chunks of each."""
TOKENS = 200
SECONDS = 3
REPETITIONS = 3


def measure() -> Iterator[Table]:
    rows, claims = [], []
    with our_generator() as generator:
        for label, path in PATHS.items():
            for streams, gap_ms in LEVELS:
                with recording_server(Wanted(max_tokens=TOKENS, first_ms=20, gap_ms=gap_ms)) as server:
                    loads = [
                        drive_streams(generator, server, path, streams=streams, seconds=SECONDS)
                        for _ in range(REPETITIONS)
                    ]
                costs_ns = [load.cpu_ns_per_chunk for load in loads]
                cost_ns, rate = median(costs_ns), median(load.chunks_per_s for load in loads)
                core = median(load.report.core_share for load in loads)
                rows.append(
                    (
                        label,
                        str(streams),
                        f"{rate:,.0f}",
                        f"{cost_ns / 1e3:.1f} µs",
                        spread(costs_ns),
                        f"{100 * core:.0f} %",
                    )
                )
                if streams > 16:  # few streams seldom share a wake-up, whose cost is the system's
                    claims.append(
                        Claim(f"{label}, {streams} streams: µs of CPU for a chunk", cost_ns / 1e3, MOST_NS / 1e3)
                    )
                claims.append(
                    Claim(f"{label}, {streams} streams: cores at 10,000 chunks/s", core * 10_000 / rate, MOST_CORE)
                )
    headings = ("answers", "streams", "chunks/s", "CPU per chunk", "", "of a core")
    yield Table(f"CPU of the generator, median of {REPETITIONS} runs", headings, rows, claims)
