"""Jobs that tests give to the load engine."""

import json
from collections.abc import Sequence
from typing import Any

from pytest_mlpatterns.loadgen.messages import LoadJob
from pytest_mlpatterns.records.addressing import Balance
from pytest_mlpatterns.records.samples import Samples, StreamSamples
from pytest_mlpatterns.workload.endpoint import Endpoint
from pytest_mlpatterns.workload.schedule import Schedule
from pytest_mlpatterns.workload.window_plan import RequestWindow

MS = 1_000_000


def message(body: bytes, path: str = "/predict") -> bytes:
    """A request that carries this body."""
    return b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (path.encode(), len(body), body)


def wanting(path: str, **wanted: Any) -> bytes:
    """A request to a :class:`StreamingServer` for such a stream."""
    return message(json.dumps(wanted).encode(), path)


MESSAGES = tuple(message(b"input %d" % number) for number in range(5))


def window_of(requests: int) -> RequestWindow:
    """A window that ends when so many requests were due in it, however long that takes."""
    return RequestWindow(requests, least_ns=0, longest_ns=600_000 * MS)


def a_job(
    addresses: Sequence[tuple[str, int]], schedule: Schedule, balance: Balance = Balance.ROUND_ROBIN, **changes: Any
) -> LoadJob:
    """A short load of :data:`MESSAGES` without a warm-up."""
    facts: dict[str, Any] = {"messages": MESSAGES, "duration_ns": 90 * MS, "warmup_ns": 0, "timeout_ns": 30_000 * MS}
    endpoint = Endpoint(tuple(addresses), balance=balance)
    return LoadJob(endpoint=endpoint, schedule=schedule, **{**facts, **changes})


def streams_of(samples: Samples) -> StreamSamples:
    """The columns of streams, which such a load has."""
    assert samples.stream is not None
    return samples.stream
