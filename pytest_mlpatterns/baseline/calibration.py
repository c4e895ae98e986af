"""The speed of this machine relative to another one, and a baseline entry scaled by it.

A fixed workload on one core resembles model serving: half plain Python, half small numpy. Its ratio compares
processors, not numbers of cores, so machines with different numbers of cores are not compared. This module must not
know verdicts.
"""

from __future__ import annotations

import time
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.metric_definitions import is_known_metric, metric_named
from pytest_mlpatterns.errors import ChildError
from pytest_mlpatterns.records.baseline_entry import Calibration
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.system.child import Channel, Child

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_mlpatterns.records.baseline_entry import Entry

__all__ = ["WORKLOAD", "measure_calibration", "ratio_between", "scaled"]

WORKLOAD = 1
"""Version of the workload; a change of the workload increments it and invalidates older calibrations."""
_ROUNDS = 6
_TIMEOUT_S = 60.0


def measure_calibration(directory: Path, cores: float) -> Calibration:
    """Run the workload in a fresh process, without the tracers and the garbage of this one.

    Args:
        directory: takes the log of the process.
        cores: of this machine.

    Raises:
        ChildError: the process ended without an answer, or gave none in time.
    """
    child = Child(__name__, log=directory / "calibrate.log")
    try:
        return Calibration(child.receive(_TIMEOUT_S), cores, WORKLOAD)
    except TimeoutError:
        raise ChildError(
            f"the calibration workload, which takes half a second, did not end in {_TIMEOUT_S:.0f} s; "
            "leave the machine more room, or switch perf_calibrate off"
        ) from None
    finally:
        child.stop()


def ratio_between(here: Calibration, there: Calibration) -> float | None:
    """How much longer the same work takes here than there; None if the two are not comparable."""
    if (here.workload, here.cores) != (there.workload, there.cores):
        return None
    return here.ns / there.ns


def scaled(entry: Entry, ratio: float) -> Entry:
    """What an entry of another machine would be here: times multiplied by the ratio, rates divided by it.

    Shares, sizes, counts and unknown metrics stay as they are, and so does the throughput of a paced load: an open
    loop, or a closed loop with think time.
    """
    metrics = {
        name: tuple(LaunchValue(launch.value * factor, launch.relative_error) for launch in launches)
        for name, launches in entry.metrics.items()
        for factor in [1.0 if entry.setup.load.paced and name == "throughput" else _factor(name, ratio)]
    }
    latency = tuple((percent, ns * ratio) for percent, ns in entry.latency)
    counts = tuple(
        replace(launch, latencies={round(ns * ratio): count for ns, count in launch.latencies.items()})
        for launch in entry.counts
    )
    costs = tuple(cost * ratio for cost in entry.generator_costs_ns)
    return replace(
        entry,
        metrics=metrics,
        anchor=None,
        latency=latency,
        counts=counts,
        generator_costs_ns=costs,
        sorting_ns=tuple(ns * ratio for ns in entry.sorting_ns),
    )


def _factor(name: str, ratio: float) -> float:
    return metric_named(name).unit.scale(ratio) if is_known_metric(name) else 1.0


def main() -> None:
    """The child: measure the workload in CPU time, which does not depend on how busy the machine is."""
    channel = Channel()
    rounds = []
    for _ in range(_ROUNDS):
        started = time.process_time_ns()
        _work()
        rounds.append(time.process_time_ns() - started)
    channel.send(float(median(rounds[1:])))  # the first round fills caches


def _work() -> float:
    """About 35 ms of a core of 2024: dictionaries, text and lists, then small matrices, sorting and functions."""
    import numpy as np

    state, counts = 1, dict[str, int]()
    for _ in range(40_000):
        state = (state * 1_103_515_245 + 12_345) % 2_147_483_648
        key = f"k{state % 251}"
        counts[key] = counts.get(key, 0) + (state >> 16)
    ordered = sorted(counts.items(), key=lambda pair: pair[1])

    weights = np.linspace(-1.0, 1.0, 48 * 48).reshape(48, 48)
    layer = np.full((48, 48), 0.5)
    for _ in range(800):  # small enough that no library uses several cores
        layer = np.tanh(weights @ layer)
    values = np.modf(np.arange(100_000) * 0.618_033_988_75)[0]
    values.sort()
    return float(np.exp(-values).cumsum()[-1] + layer.sum() + ordered[0][1])
