"""The generator's ceiling on this machine, measured by a short run against a null server.

A result near the ceiling describes the generator rather than the deployment. If a client library drives the load, the
time that it adds to a request is measured here too.

Whether a load fits: its connections into the limit on open files, its samples into free memory.

The samples of an open loop are known from its schedule and checked before it. A closed loop has as many as the service
answers, which is checked while it runs. Pure; it must not know where the generators run, nor read what is free.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from msgspec.structs import replace

from pytest_mlpatterns.errors import ChildError, SettingError
from pytest_mlpatterns.loadgen.columns import samples_of
from pytest_mlpatterns.loadgen.messages import LoadJob, LoadResult, Transport
from pytest_mlpatterns.loadgen.warmup import WARMUP_CAP_NS
from pytest_mlpatterns.records.addressing import Remote
from pytest_mlpatterns.system.child import Child
from pytest_mlpatterns.system.process_limits import OTHER_FILES
from pytest_mlpatterns.units import SECOND_NS, format_size
from pytest_mlpatterns.wire import GRPC, REST_JSON
from pytest_mlpatterns.wire.grpc_call import message_prefix
from pytest_mlpatterns.workload.endpoint import Endpoint
from pytest_mlpatterns.workload.own_client import ClientWire, answer_nothing, await_nothing
from pytest_mlpatterns.workload.schedule import ClosedLoop, Stages, Trace, most_callers

if TYPE_CHECKING:
    from pytest_mlpatterns.loadgen.generator import Generator

ROW_BYTES = 35  # One request in the recording
MERGED_ROW_BYTES = 112
"""One request while recordings are merged: the parts, their times on one clock, the order, one column, the result."""
_FREE_SHARE = 0.5  # Share of the free memory that samples may take; the rest is for merging them and for the service


def check_connections(job: LoadJob, processes: int, allowed: int | None) -> None:
    """Check that each generator may open the connections of a closed loop: one for each caller, to each address.

    ``allowed``: connections that the system allows each of them; None if it knows no limit.
    """
    needed = most_callers(job.schedule)
    if allowed is None or job.endpoint.remote or not needed:
        return
    addresses = max(len(job.endpoint.addresses), 1)
    callers = allowed // addresses * processes
    if needed > callers:
        each = f" to each of {addresses} addresses" if addresses > 1 else ""
        lower = f"lower the concurrency to {callers}, or " if callers else ""
        files = -(-needed // processes) * addresses + OTHER_FILES
        raise SettingError(
            f"{needed:,} requests in flight need as many connections{each}, but the system allows "
            f"{callers:,} (a process may open {allowed:,} beside its other {OTHER_FILES} files); "
            f"{lower}raise the hard limit on open files (ulimit -Hn) to {files}"
        )


def check_samples(job: LoadJob, free_bytes: int) -> None:
    """Check that the samples of an open loop take at most half of the free memory while they are merged."""
    if (rows := known_rows(job)) is not None:
        require_fit(rows, free_bytes)


def require_fit(rows: int, free_bytes: int) -> None:
    """Check that samples take at most half of the free memory while they are merged."""
    needed = rows * MERGED_ROW_BYTES
    if needed > _FREE_SHARE * free_bytes:
        raise SettingError(
            f"a load of {rows:,} requests gives {format_size(needed)} of samples while they are merged, and "
            f"{format_size(free_bytes)} are free, of which they may take half; shorten duration="
        )


def known_rows(job: LoadJob) -> int | None:
    """Most requests that an open loop records, its warm-up included; None for a closed loop."""
    schedule, warmup_ns = job.schedule, WARMUP_CAP_NS if job.warmup_ns is None else job.warmup_ns
    if isinstance(schedule, ClosedLoop) or schedule.closed:
        return None
    if isinstance(schedule, Trace):
        return schedule.arrivals_count
    if isinstance(schedule, Stages):
        rate_rps = max(schedule.start, *(level for _, level in schedule.stages))
    else:
        rate_rps = schedule.rate_rps
    return round(rate_rps * (job.most_ns + warmup_ns) / SECOND_NS)


_CONCURRENCY = 32  # Requests in flight; with more the rate of a generator grows no more
_WARMUP_NS = 50_000_000
"""Warm-up of a measurement of the ceiling, in nanoseconds; the code paths of Python are warm then."""
_DURATION_NS = 150_000_000
"""First window of a measurement, in nanoseconds: thousands of requests on a machine that is not held up."""
_LEAST_COMPLETED = 100
"""Requests that a measurement needs: beside other work a window may pass in which the server never runs."""
_WINDOWS = 6  # Windows that a measurement may take, each twice as long as the last: 9.5 s together
_REQUESTS = {
    Transport.HTTP1: b"POST / HTTP/1.1\r\nhost: null\r\ncontent-length: 17\r\n\r\n" + b'{"instances":[0]}',
    Transport.GRPC: message_prefix(64) + bytes(64),
}
"""The smallest request of each transport."""
_WIRES = {Transport.HTTP1: REST_JSON, Transport.GRPC: GRPC}
_NULL_CLIENTS = {Transport.THREAD: answer_nothing, Transport.TASK: await_nothing}
_START_TIMEOUT_S = 20.0  # Time limit for the start of the null server, in seconds, on a busy machine too


def measure_ceiling(generator: Generator, directory: Path, transport: Transport = Transport.HTTP1) -> None:
    """Set one of ``generator.ceilings_rps``: completions per second of the generator's own CPU time.

    The null server may be slower than the generator: only the generator's CPU time counts.
    """
    with nullcontext(1) if transport in _NULL_CLIENTS else _null_server(directory, transport) as port:
        report = _run(generator, _job(port, _CONCURRENCY, transport)).generator
    generator.ceilings_rps[transport] = report.completed * 1e9 / max(report.cpu_ns, 1)


def measure_library_overhead(generator: Generator, directory: Path) -> None:
    """Set ``generator.library_overhead_ns``: the client library's median minus ours, with one request in flight."""
    generator.library_overhead_ns = generator.pool.library_overhead_ns()
    if generator.library_overhead_ns is not None:  # measured beside the generators, which are elsewhere
        return
    medians = []
    with _null_server(directory, Transport.HTTP1) as port:
        for remote in (None, Remote(f"http://127.0.0.1:{port}", http2=False)):
            job = _job(port, 1, Transport.HTTP1)
            job = replace(job, endpoint=replace(job.endpoint, remote=remote))
            samples = samples_of(_run(generator, job))
            medians.append(float(np.median(samples.latency_ns)))
    generator.library_overhead_ns = medians[1] - medians[0]


def _run(generator: Generator, job: LoadJob) -> LoadResult:
    """The job's result in the first window that is long enough."""
    for doubled in range(_WINDOWS):
        longer = replace(job, duration_ns=job.duration_ns << doubled)
        result = generator.run(longer, poll_s=_START_TIMEOUT_S, on_poll=_ignore)
        if result.generator.completed >= _LEAST_COMPLETED:
            return result
    raise ChildError(
        f"the load generator got {result.generator.completed} answers in {longer.duration_ns / 1e9:.1f} s from a "
        f"server that does nothing, expected {_LEAST_COMPLETED} or more: this machine is too busy to measure; end "
        f"what else runs on it and run the test again"
    )


@contextmanager
def _null_server(directory: Path, transport: Transport) -> Iterator[int]:
    server = Child("pytest_mlpatterns.loadgen.null_server", log=directory / "null-server.log")
    try:
        server.send(transport)
        try:
            port: int = server.receive(_START_TIMEOUT_S)
        except TimeoutError:
            raise ChildError(
                f"the server that shows what the load generator can do (process {server.pid}) does not listen after "
                f"{_START_TIMEOUT_S:.0f} s; run the test again"
            ) from None
        yield port
    finally:
        server.stop()


def _job(port: int, concurrency: int, transport: Transport) -> LoadJob:
    wire, message = _WIRES.get(transport), _REQUESTS.get(transport)
    if wire is None or message is None:
        client = _NULL_CLIENTS[transport]
        wire = ClientWire(packed=pickle.dumps(client), is_async=transport is Transport.TASK)
        message = pickle.dumps(None)
    return LoadJob(
        endpoint=Endpoint((("127.0.0.1", port),), wire=wire),
        messages=(message,),
        stream=transport in _NULL_CLIENTS,
        schedule=ClosedLoop(concurrency),
        duration_ns=_DURATION_NS,
        warmup_ns=_WARMUP_NS,
        timeout_ns=3_000_000_000,
    )


def _ignore(_event: object) -> None:
    """Ignore progress."""
