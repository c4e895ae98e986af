"""A service of one server with a fixed service time under loads beyond its NMRT, by queueing theory alone."""

from collections import deque
from dataclasses import dataclass
from functools import cache

import numpy as np

from pytest_mlpatterns.analysis.capacity.overload import OfferedLoad
from pytest_mlpatterns.records.outcomes import Failure
from pytest_mlpatterns.records.samples import Window
from support.synthetic import START_NS, S, samples

NMRT_RPS = 200.0
SERVICE_NS = round(S / NMRT_RPS)
STEP_S = 2.0
RATIOS = (0.5, 0.8, 1.0, 1.25, 1.5, 2.0)


@dataclass(frozen=True)
class Breakdown:
    """What happens to requests once a service holds more of them than it can bear."""

    outcome: int  # of each request that it does not serve
    lasts_s: float = 0.0  # each time; 0 for the one request
    depth: int = 12  # requests that it can bear


@cache
def offered(
    ratio: float,
    *,
    step_s: float = STEP_S,
    watched_s: float = 0.0,
    places: int | None = None,
    timeout_s: float = 10.0,
    breaks: Breakdown | None = None,
) -> OfferedLoad:
    """A load on a service with one server and a fixed service time, fed at even intervals.

    The watched part after the step is at 0.8. At most ``places`` requests are held, with the one in service; one that
    waits longer than ``timeout_s`` is given up, but served all the same.
    """
    parts = [(0.0, step_s, ratio)] + ([(step_s, watched_s, 0.8)] if watched_s else [])
    due = np.concatenate([start + np.arange(0, length, 1 / (level * NMRT_RPS)) for start, length, level in parts])
    latency, outcome = np.zeros(due.size), np.full(due.size, 200)
    free, held, broken_until = 0.0, deque([0.0]), 0.0
    for number, at in enumerate(due.tolist()):
        while held and held[0] <= at:
            held.popleft()
        if breaks is not None and len(held) > breaks.depth and at >= broken_until:
            broken_until = at + max(breaks.lasts_s, 1e-9)
        if breaks is not None and at < broken_until:
            latency[number] = timeout_s if breaks.outcome == Failure.TIMEOUT else 0.0005
            outcome[number] = breaks.outcome
            continue
        if places is not None and len(held) >= places:
            latency[number], outcome[number] = 0.0005, 503
            continue
        free = max(free, at) + SERVICE_NS / S
        held.append(free)
        latency[number] = free - at
        if latency[number] > timeout_s:
            latency[number], outcome[number] = timeout_s, -1
    of = samples(START_NS + np.round(due * S).astype(np.int64), (latency * S).astype(np.int64), outcome=outcome)
    return OfferedLoad(ratio, of, Window(START_NS, START_NS + round(step_s * S)), round(watched_s * S), None)
