"""Do the intervals of the scalability law hold the truth? Capacities with known contention, coherency and noise.

Each case draws NMRT at several numbers of replicas, with a log-normal deviation between measurements, and fits the law.
Counted is how many of the 95 % intervals hold the true contention, the true coherency, and the true capacity at twice
the largest number of replicas.
"""

from __future__ import annotations

import itertools
import sys
from typing import TYPE_CHECKING

import numpy as np
from bench import Claim, Table

from pytest_mlpatterns.analysis.capacity.scalability_law import ScalabilityLaw, fit_law

if TYPE_CHECKING:
    from collections.abc import Iterator

CLAIM = "92 to 98 % of the 95 % intervals of the law hold the truth, over all cases of one noise"
RUNS = 300
NOISE = (0.01, 0.017, 0.03)
REPLICAS = ((1, 2, 4), (1, 2, 4, 8))
PASSES = (2, 4)
LAWS = ((0.0, 0.0), (0.2, 0.0), (0.05, 0.01), (0.2, 0.02))


def coverage(
    noise: float, numbers: tuple[int, ...], passes: int, *, law: ScalabilityLaw, runs: int = RUNS
) -> list[float]:
    """Shares of the intervals of contention, coherency and the predicted capacity that hold the truth."""
    random = np.random.default_rng(0)
    far = 2 * numbers[-1]
    held = np.zeros(3)
    for _ in range(runs):
        drawn = {n: list(law.capacity_rps(n) * np.exp(noise * random.standard_normal(passes))) for n in numbers}
        fitted = fit_law(drawn)
        pairs = (
            (fitted.contention, law.contention),
            (fitted.coherency, law.coherency),
            (fitted.capacity_rps(far), law.capacity_rps(far)),
        )
        held += [found.low <= truth * (1 + 1e-9) and truth * (1 - 1e-9) <= found.high for found, truth in pairs]
    return list(held / runs)


def measure() -> Iterator[Table]:
    rows, claims = [], []
    for noise in NOISE:
        found = []
        for numbers, passes, (contention, coherency) in itertools.product(REPLICAS, PASSES, LAWS):
            law = ScalabilityLaw(100.0, contention, coherency)
            shares = coverage(noise, numbers, passes, law=law)
            found.append(shares)
            rows.append(
                (
                    f"{100 * noise:g} %",
                    ", ".join(map(str, numbers)),
                    str(passes),
                    f"{contention:g}, {coherency:g}",
                    *(f"{100 * share:.0f} %" for share in shares),
                )
            )
            print(*rows[-1], sep=" | ", file=sys.stderr, flush=True)
        for name, mean in zip(("contention", "coherency", "prediction"), np.mean(found, axis=0), strict=True):
            claims.append(Claim(f"{name} at {100 * noise:g} % noise", float(mean), at_least=0.92, at_most=0.985))
    yield Table(
        f"coverage of 95 % intervals, {RUNS} runs each",
        (
            "noise",
            "replicas",
            "passes",
            "contention, coherency",
            "of contention",
            "of coherency",
            "at twice the replicas",
        ),
        rows,
        claims,
    )
