"""Launches with steps beside the load whose effect is declared, so that what they hurt is known."""

from dataclasses import dataclass

import numpy as np
from msgspec.structs import replace

from pytest_mlpatterns.records.capacity import DuringStep
from pytest_mlpatterns.records.launch import Launch
from pytest_mlpatterns.records.outcomes import Failure
from support.synthetic import MS, START_NS, S, launch, samples

SECONDS = 4.0
BEGIN_S = 1.0


@dataclass(frozen=True)
class Step:
    """What a step does."""

    blocked_s: float = 0.0  # requests that are due in this time after its delay wait for its end
    lost: float = 0.0  # share of the requests that are due in that time which fail instead
    delay_s: float = 0.0  # from the begin of the step to the block
    length_s: float = 0.2
    begin_s: float = BEGIN_S  # since the window opened
    slower: float = 1.0  # factor on the latency from the begin of the step to the end of the window
    name: str = "reload"


def stepped_launch(
    *steps: Step,
    seed: int = 0,
    rate_rps: float = 200.0,
    median_ns: float = 10 * MS,
    stalls: float = 0.0,
    lag_ns: int = 0,
) -> Launch:
    """Poisson arrivals of lognormal latencies that drift from block to block, with these steps.

    ``stalls`` pauses of 40 ms a second are of no step, on average; each request is sent ``lag_ns`` late.
    """
    rng = np.random.default_rng(seed)
    count = rng.poisson(rate_rps * (SECONDS + 0.5))
    due = np.sort(rng.uniform(-0.5, SECONDS, count))
    drift = np.exp(rng.normal(0, 0.05, size=1 + int(4 * (SECONDS + 0.5))))[((due + 0.5) * 4).astype(int)]
    latency = median_ns / S * drift * np.exp(rng.normal(0, 0.2, size=count))
    outcome = np.full(count, 200)
    for at in rng.uniform(-0.5, SECONDS, rng.poisson(stalls * (SECONDS + 0.5))):
        inside = (due >= at) & (due < at + 0.04)
        latency[inside] += at + 0.04 - due[inside]
    for step in steps:
        at = step.begin_s + step.delay_s
        latency[due >= step.begin_s] *= step.slower
        inside = (due >= at) & (due < at + step.blocked_s)
        latency[inside] += at + step.blocked_s - due[inside]
        lost = inside & (rng.uniform(size=count) < step.lost)
        latency[lost], outcome[lost] = 0.001, Failure.CONNECT
    due_ns, took_ns = START_NS + np.round(due * S).astype(np.int64), np.round(latency * S).astype(np.int64)
    of = samples(due_ns, took_ns, outcome=outcome, lag_ns=lag_ns)
    noted = tuple(
        DuringStep(step.name, START_NS + round(step.begin_s * S), START_NS + round((step.begin_s + step.length_s) * S))
        for step in steps
    )
    return replace(launch(of, seconds=SECONDS, open_loop=True), steps=noted)


def stepped_launches(step: Step, launches: int, *, seed: int = 0, stalls: float = 0.0) -> list[Launch]:
    """Several launches with the same step."""
    return [stepped_launch(step, seed=1000 * seed + number, stalls=stalls) for number in range(launches)]
