"""Whether the samples of a thousand generators merge exactly, in which memory and time, and what a sketch would tell.

``python benchmarks/scale_simulation.py --generators 1000 --requests 100000000`` merges the rows of simulated generators
by the code that merges real ones, looks at every row, and makes every metric of them. Rows are functions of the number
of their request, so nothing is kept beside them to compare with. ``--memory 4GB`` supposes that this much is free.
Then it computes from the measured costs what a test at 10⁴, 10⁵ and 10⁶ requests per second needs.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import pickle
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from bench import Claim, Table, drive, our_generator, serving
from services import PATH

from pytest_mlpatterns.analysis.metrics.blocked_values import counted
from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.analysis.metrics.distribution_summary import percentiles_of_counts
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.loadgen.ceiling import ROW_BYTES, require_fit
from pytest_mlpatterns.loadgen.columns import merged_columns
from pytest_mlpatterns.records.launch import GeneratorReport, Launch, Warmup
from pytest_mlpatterns.records.samples import Samples, Window
from pytest_mlpatterns.system.pipe_messages import MessageWriter, read_message
from pytest_mlpatterns.units import format_size, parse_size
from pytest_mlpatterns.workload.payload import read_payload

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

CLAIM = "the samples of 1,000 generators merge without a row lost or changed; a sketch of them is at most 0.8 % off"
GENERATORS = 1000
REQUESTS = 10_000_000
RATES_RPS = (10**4, 10**5, 10**6)

RATE_RPS = 1_000_000
LEAST_NS = 2_000_000
PERCENTS = (50.0, 95.0, 99.0, 99.9)
CHUNK = 1_000_000
WINDOW_S = 10
LARGEST_SHARE = 0.7
"""Share of a core above which a generator counts as the limit."""
CORES = 16
NETWORK_BYTES_S = 10e9 / 8
MESSAGE_BYTES = 1000
"""Of a request and its response together, with headers: a short input and a short output."""


# --- simulated generators -------------------------------------------------------------------------------------------


def due_ns(request: NDArray[np.int64]) -> NDArray[np.int64]:
    """Even arrivals."""
    return request * (10**9 // RATE_RPS)


def latency_ns(request: NDArray[np.int64]) -> NDArray[np.int64]:
    """Draws of a Pareto distribution with shape 4, by operations whose rounding is defined: both draws are alike."""
    share = (mixed(request) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return (LEAST_NS / np.sqrt(np.sqrt(1.0 - share))).astype(np.int64)


def mixed(request: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Random 64 bits for each number (SplitMix64: Steele, Lea & Flood 2014)."""
    bits = (request.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def row_of(request: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """The columns of these requests."""
    due = due_ns(request)
    return {
        "due_ns": due,
        "sent_ns": due + 1 + request % 997,
        "done_ns": due + latency_ns(request),
        "outcome": np.where(request % 1009 == 0, 503, 200).astype(np.int16),
        "request": request.astype(np.uint32),
        "target": (request % 251).astype(np.uint8),
        "received_bytes": (200 + request % 101).astype(np.uint32),
    }


def recording(number: int, generators: int, requests: int) -> dict[str, NDArray[Any]]:
    """What one generator recorded: every k-th request, in the order of completion."""
    request = np.arange(number, requests, generators, dtype=np.int64)
    order = np.argsort(due_ns(request) + latency_ns(request), kind="stable")
    return row_of(request[order])


def wrong_rows(columns: Mapping[str, NDArray[Any]], requests: int) -> int:
    """Rows that are not those of their request, out of order, missing or there twice."""
    done = columns["done_ns"]
    seen = np.zeros(requests, dtype=np.bool_)
    wrong = abs(len(done) - requests)
    for start in range(0, len(done), CHUNK):
        rows = slice(start, start + CHUNK)
        request = columns["request"][rows].astype(np.int64)
        expected = row_of(request)
        equal = [columns[name][rows] == values for name, values in expected.items()]
        wrong += int((~np.logical_and.reduce(equal)).sum())
        wrong += int((np.diff(done[max(start - 1, 0) : start + CHUNK]) < 0).sum())
        seen[request] = True
    return wrong + int((~seen).sum())


# --- what is measured -----------------------------------------------------------------------------------------------


@dataclass
class Stages:
    """What each stage took, and the highest memory of this process up to its end."""

    rows: list[tuple[str, ...]] = field(default_factory=list)
    cpu_s: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began, began_cpu = time.perf_counter(), time.process_time()
        yield
        wall_s, self.cpu_s[name] = time.perf_counter() - began, time.process_time() - began_cpu
        now = format_size(psutil.Process(os.getpid()).memory_info().rss)
        self.rows.append((name, f"{wall_s:.2f} s", f"{self.cpu_s[name]:.2f} s", now, format_size(peak_bytes())))
        print(*self.rows[-1], sep=" | ", file=sys.stderr, flush=True)


def peak_bytes() -> int:
    """High-water mark of this process's resident memory."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


@dataclass(frozen=True)
class Costs:
    """Measured CPU seconds for each sample, on both ends of the pipe, and for each request; memory for each sample."""

    pipe_s: float
    merge_s: float
    metrics_s: float
    request_s: float
    memory_bytes: float


def measure(generators: int = GENERATORS, requests: int = REQUESTS, free_bytes: int | None = None) -> Iterator[Table]:
    title = f"{requests:,} samples of {generators:,} generators"
    if free_bytes is not None and (refusal := refusal_of(requests, free_bytes)):
        yield Table(title, ("", "value"), [("refused", refusal)])
        return
    stages = Stages()
    with stages.stage("generators recorded"):
        parts: list[Mapping[str, Any]] = [recording(number, generators, requests) for number in range(generators)]
    with stages.stage("sketches counted"):
        sketches = [counted((part["done_ns"] - part["due_ns"])[part["outcome"] == 200]) for part in parts]
    with stages.stage("sketches merged"):
        sketch: Counter[int] = Counter()
        for one in sketches:
            sketch.update(one)
    with stages.stage("samples merged"):
        merged = merged_columns(parts)
    del parts
    with stages.stage("every row looked at"):
        wrong = wrong_rows(merged, requests)
    merged["request"][:] = 0  # from here on an index of prepared requests, of which there is one
    launch = launch_of(merged, requests)
    with stages.stage("every metric with its interval"):
        metrics = Metrics((launch,))
        for metric in METRICS.values():
            metrics.estimate(metric)
    yield Table(
        title,
        ("stage", "time", "CPU time", "memory after it", "highest so far"),
        stages.rows,
        [Claim("rows that are wrong after the merge", wrong, at_most=0)],
    )
    yield sketch_table(metrics, sketch, sketches)
    highest = peak_bytes()
    per_sample = {name: seconds / requests for name, seconds in stages.cpu_s.items()}
    costs = Costs(
        pipe_s=pipe_seconds(merged),
        merge_s=per_sample["samples merged"],
        metrics_s=per_sample["every metric with its interval"],
        request_s=request_seconds(),
        memory_bytes=highest / requests,
    )
    yield paper_table(costs)


def refusal_of(requests: int, free_bytes: int) -> str:
    """Why a load of this many requests is refused with this much free memory; empty if it is not."""
    try:
        require_fit(requests, free_bytes)
    except SettingError as error:
        return str(error)
    return ""


def launch_of(columns: Mapping[str, Any], requests: int) -> Launch:
    window = Window(0, requests * (10**9 // RATE_RPS))
    return Launch(
        samples=Samples(**columns),
        window=window,
        usage=None,
        stats=None,
        warmup=Warmup(0, 0, steady=None),
        generator=GeneratorReport(cpu_ns=0, wall_ns=window.duration_ns, completed=requests, connections=0),
        cold_start_ns=None,
        request_bytes=np.array([500], dtype=np.int64),
        open_loop=True,
    )


def sketch_table(metrics: Metrics, sketch: Mapping[int, int], sketches: Sequence[Mapping[int, int]]) -> Table:
    """The percentiles of all samples beside those of the sketch, and beside those of the distribution drawn from."""
    exact = np.percentile(metrics.latencies_ns, PERCENTS)
    known = dict(percentiles_of_counts(sketch))
    rows, errors = [], []
    for percent, value in zip(PERCENTS, exact, strict=True):
        truth = LEAST_NS / (1 - percent / 100) ** 0.25
        errors.append(abs(known[percent] / value - 1))
        rows.append(
            (f"p{percent:g}", *(f"{ns / 1e6:.4f} ms" for ns in (truth, value, known[percent])), f"{errors[-1]:.2%}")
        )
    size = sum(len(pickle.dumps(one)) for one in sketches)
    return Table(
        f"percentiles of the latency, from all samples and from sketches of {format_size(size)} together",
        ("", "drawn from", "all samples", "sketch", "error of the sketch"),
        rows,
        [Claim("largest error of a sketch's percentile", max(errors), at_most=0.008)],
        ["a sketch has no order of completion: no throughput over time, no blocks, no interval of a percentile"],
    )


def pipe_seconds(columns: Mapping[str, NDArray[Any]]) -> float:
    """CPU seconds for each sample on a pipe, from one process to another."""
    rows = min(len(columns["done_ns"]), CHUNK)
    message = {name: pickle.PickleBuffer(values[:rows].data) for name, values in columns.items()}
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0) as source, open(writing, "wb", buffering=0) as sink:
        writer = threading.Thread(target=MessageWriter(sink).write, args=(message,))
        began_s = time.process_time()
        writer.start()
        read_message(source)
        writer.join()
        return (time.process_time() - began_s) / rows


def request_seconds() -> float:
    """CPU seconds of a generator for each request to a small service under uvicorn."""
    messages = read_payload([[float(number % 16) for number in range(64)]])
    with serving("tiny") as address, our_generator() as generator:
        load = drive(generator, address, messages.messages(*address, PATH), concurrency=16, seconds=2.0)
    return load.cpu_ns_per_request / 1e9


def paper_table(costs: Costs) -> Table:
    """What a window takes at each rate."""
    rows = []
    for rate in RATES_RPS:
        samples = rate * WINDOW_S
        generators = math.ceil(rate * costs.request_s / LARGEST_SHARE)
        traffic = rate * MESSAGE_BYTES / NETWORK_BYTES_S
        nodes = math.ceil(max(generators / (CORES - 1), traffic / LARGEST_SHARE))
        rows.append(
            (
                f"{rate:,}/s",
                f"{generators:,}",
                f"{nodes:,}",
                f"{traffic / nodes:.1%}",
                format_size(samples * ROW_BYTES),
                f"{samples * ROW_BYTES / NETWORK_BYTES_S + samples * costs.pipe_s:.2f} s",
                f"{samples * costs.merge_s:.1f} s",
                f"{samples * costs.metrics_s:.1f} s",
                format_size(samples * costs.memory_bytes),
            )
        )
    return Table(
        f"on paper: a window of {WINDOW_S} s, generators on nodes of {CORES} cores and 10 Gbit/s",
        ("load", "generators", "nodes", "of their network", "samples", "sent", "merged", "metrics", "memory of pytest"),
        rows,
        [],
        [
            f"measured here for each request: {costs.request_s * 1e6:.1f} µs of a generator's CPU; for each sample: "
            f"{costs.pipe_s * 1e9:.0f} ns on the pipe, {costs.merge_s * 1e9:.0f} ns merged, "
            f"{costs.metrics_s * 1e9:.0f} ns in metrics",
            f"a generator uses at most {LARGEST_SHARE:.0%} of its core, its node as much of its network; one core of "
            f"a node is left free; a request and its response have {MESSAGE_BYTES:,} bytes together",
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--generators", type=int, default=GENERATORS)
    parser.add_argument("--requests", type=int, default=REQUESTS)
    parser.add_argument("--memory", help="suppose that this much is free, such as 4GB")
    options = parser.parse_args()
    free = None if options.memory is None else parse_size(options.memory, name="--memory")
    claims: list[Claim] = []
    for table in measure(options.generators, options.requests, free):
        claims += table.claims
        print(f"{table}\n", flush=True)
    sys.exit(not all(claim.met for claim in claims))


if __name__ == "__main__":
    main()
