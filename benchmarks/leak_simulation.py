"""Is a leak found, and is nothing else called one? Courses of memory whose truth is known, by the thousand.

A course is read every 50 ms while 500 requests a second are answered for 10 s, as ``perf.assert_no_leak("100 B")`` does
it. What leaks grows by 1 KiB a request. What does not leak grows in single steps, as a logarithm, to a full cache, to
the highest of random sizes, or between collections of garbage. A leak below collections that free as much as the window
leaks is a harder case, without a claim.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from bench import Claim, Table

from pytest_mlpatterns.analysis.causes.growth import growth_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.random import Generator
    from numpy.typing import NDArray

    Requests = NDArray[np.int64]
    Memory = NDArray[np.float64]
    Course = Callable[[Generator, Requests], Memory]

CLAIM = "a leak of 1 KiB a request is found in at least 99 % of 10 s windows, and at most 1 % of others are called one"
RUNS = 10_000
RATE_RPS = 500
SECONDS = 10
READINGS = 200
KIB, MIB = 1024, 1024**2
LIMIT, LEAST = 100.0, 512 * KIB
BASE = 120 * MIB


def readings(random: Generator) -> Requests:
    """Requests answered until each reading; the rate varies, and sometimes the machine stalls."""
    pace = random.gamma(20, 1 / 20, READINGS)
    pace[random.random(READINGS) < 0.02] = 0
    return np.round(np.cumsum(pace) * RATE_RPS * SECONDS / READINGS).astype(np.int64)


def last(requests: Requests) -> float:
    """Requests at the last reading."""
    return float(requests[-1])


def noise(random: Generator, size: int) -> Memory:
    """What requests in flight hold at a reading, and a level that wanders a little."""
    held = random.exponential(200 * KIB, size) * (random.random(size) < 0.7)
    wandering = np.cumsum(random.normal(0, 4 * KIB, size))
    return held + wandering


def flat(_random: Generator, requests: Requests) -> Memory:
    return np.zeros(requests.size)


def leak(_random: Generator, requests: Requests) -> Memory:
    return KIB * requests.astype(np.float64)


def leak_in_pieces(random: Generator, requests: Requests) -> Memory:
    """The allocator takes its memory from the system in pieces."""
    piece = float(random.choice([64, 132, 256])) * KIB
    return np.ceil((leak(random, requests) + random.random() * piece) / piece) * piece


def leak_after_a_start(random: Generator, requests: Requests) -> Memory:
    """The first tenth of the window still fills buffers."""
    full = 0.1 * last(requests)
    return leak(random, requests) + random.uniform(1, 10) * MIB * np.minimum(requests / full, 1)


def saw_tooth(random: Generator, requests: Requests, longest: float) -> Memory:
    """From 0 to 1 in each period, which is a share of the window."""
    period = random.uniform(0.01, longest) * last(requests)
    times = requests.astype(np.float64) + random.random() * period
    return np.mod(times, period) / period


def leak_under_collections(random: Generator, requests: Requests) -> Memory:
    return leak(random, requests) + random.uniform(0.5, 4) * MIB * saw_tooth(random, requests, 0.05)


def single_steps(random: Generator, requests: Requests) -> Memory:
    """An allocator takes some pieces of a MiB, at any time."""
    times = random.random(random.integers(1, 5)) * last(requests)
    return MIB * np.searchsorted(np.sort(times), requests, side="right").astype(np.float64)


def logarithm(random: Generator, requests: Requests) -> Memory:
    start = last(requests) / random.uniform(10, 200)
    return random.uniform(2, 20) * MIB * np.log1p(requests / start)


def cache_that_fills(random: Generator, requests: Requests) -> Memory:
    """Every request is a miss, until 20 to 80 % of the window; then the oldest entry goes with each new one."""
    full = random.uniform(0.2, 0.8) * last(requests)
    return random.uniform(1, 16) * KIB * np.minimum(requests, full)


def cache_with_hits(random: Generator, requests: Requests) -> Memory:
    """Of N inputs, a random one at a time, a cache keeps what it has seen."""
    inputs = random.uniform(0.05, 0.4) * last(requests)
    return random.uniform(1, 16) * KIB * inputs * -np.expm1(-requests / inputs)


def random_sizes(random: Generator, requests: Requests) -> Memory:
    """Arrays of changing sizes; a part of the highest is never given back."""
    sizes = random.lognormal(np.log(2 * MIB), random.uniform(0.2, 0.6), requests.size)
    kept = random.uniform(0.3, 1) * np.maximum.accumulate(sizes)
    return np.where(random.random(requests.size) < 0.5, np.maximum(sizes, kept), kept)


def collections(random: Generator, requests: Requests) -> Memory:
    """Cycles wait for the collector; the last collections of a window may be far apart."""
    return random.uniform(0.5, 20) * MIB * saw_tooth(random, requests, 0.4)


LEAKS: tuple[Course, ...] = (leak, leak_in_pieces, leak_after_a_start)
OTHERS: tuple[Course, ...] = (
    flat,
    single_steps,
    logarithm,
    cache_that_fills,
    cache_with_hits,
    random_sizes,
    collections,
)


def shares(course: Course, runs: int = RUNS) -> tuple[float, float]:
    """Shares of the courses that are called a leak, and that are surely none."""
    random = np.random.default_rng(0)
    leaks = passes = 0
    for _ in range(runs):
        requests = readings(random)
        memory = (BASE + course(random, requests) + noise(random, READINGS)).astype(np.int64)
        growth = growth_of(requests, memory)
        assert growth is not None
        leaks += growth.exceeds(LIMIT, LEAST)
        passes += growth.stays_below(LIMIT)
    return leaks / runs, passes / runs


def measure() -> Iterator[Table]:
    rows, found = [], {}
    for course in (*LEAKS, leak_under_collections, *OTHERS):
        called, passes = shares(course)
        found[course] = called
        name = course.__name__.replace("_", " ")
        rows.append((name, *(f"{100 * share:.2f} %" for share in (called, passes, 1 - called - passes))))
    yield Table(
        f"courses of memory, {RUNS:,} each; a leak is 1 KiB a request, the limit 100 B",
        ("course", "called a leak", "below the limit", "undecided"),
        rows,
        [
            Claim("least share of leaks that are found", min(found[one] for one in LEAKS), at_least=0.99),
            Claim("largest share of others that are called a leak", max(found[one] for one in OTHERS), at_most=0.01),
        ],
    )
