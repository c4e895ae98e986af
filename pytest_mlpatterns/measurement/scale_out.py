"""One more replica of a running deployment, asked for while a closed loop keeps the service at its knee.

The load generator takes the part of a load balancer: it gets the address of the new replica as soon as that is ready,
opens connections to it, and gives it its turn. This module must not know limits or baselines.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pytest_mlpatterns.analysis.capacity.scale_out import ScaleOut, ScaleOutTimes, answers_in_share
from pytest_mlpatterns.analysis.metrics.samples import take_rows
from pytest_mlpatterns.loadgen.columns import samples_of
from pytest_mlpatterns.workload.schedule import ClosedLoop

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_mlpatterns.measurement.load_source import FurtherLoad
    from pytest_mlpatterns.records.addressing import Balance
    from pytest_mlpatterns.serving.processes import AddedReplica, Scaler

__all__ = ["ScaleOutRun"]

_POLL_S = 0.005
"""Interval at which the new replica is asked whether it is ready; a hundredth of the time that a process starts in."""
_WARMUP_NS = 100_000_000
"""Warm-up of the load that asks for a replica, in nanoseconds; the service is warm."""
_BEFORE_NS = 500_000_000
"""Load before the replica is asked for, with which the rest is compared."""
_LONGEST_NS = 15_000_000_000
"""Longest load after the replica is ready."""
_COUNT_NS = 100_000_000
"""Interval at which the new replica is asked how many requests it has received."""


@dataclass(slots=True)
class ScaleOutRun:
    """One scale-out of one deployment; used once.

    Args:
        clock: the clock of the samples.
    """

    load: FurtherLoad
    balance: Balance
    clock: Callable[[], int] = time.perf_counter_ns
    _concurrency: int = 0
    _opened_ns: int | None = None
    _replica: AddedReplica | None = None
    _ready_ns: int = 0
    _counted_ns: int = 0
    _is_over: bool = False

    def run(self, concurrency: int) -> ScaleOut:
        """Load the deployment, ask for one more replica, and load on until that has answered its share.

        Raises:
            DeploymentError: the replica did not start, or a process died under the load.
        """
        scaler, template = self.load.deployment.scaler, self.load.template
        assert scaler is not None
        self._concurrency = concurrency
        replicas = len(template.endpoint.addresses)
        job = replace(
            template,
            endpoint=replace(template.endpoint, balance=self.balance),
            schedule=ClosedLoop(concurrency),
            duration_ns=_BEFORE_NS + scaler.timeout_ns + _LONGEST_NS,
            warmup_ns=_WARMUP_NS,
        )
        result = self.load.run(
            job, poll_s=_POLL_S, on_poll=lambda: self._advance(scaler, replicas), on_window=self._open
        )
        self.load.deployment.processes.stats()  # raises if a process died
        assert self._replica is not None
        samples = samples_of(result)
        in_window = take_rows(samples, np.flatnonzero(samples.due_ns >= result.window.start_ns))
        times = ScaleOutTimes(self._replica.asked_ns, self._ready_ns)
        return ScaleOut.of(in_window, times, replicas=replicas, concurrency=concurrency)

    def _open(self) -> None:
        if self._opened_ns is None:
            self._opened_ns = self.clock()

    def _advance(self, scaler: Scaler, replicas: int) -> None:
        """Take the next step if it is time: ask for the replica, balance over it, end the load."""
        now = self.clock()
        if self._opened_ns is None or self._is_over:
            return
        if self._replica is None:
            if now - self._opened_ns >= _BEFORE_NS:
                self._replica = scaler.add()
        elif not self._ready_ns:
            if (address := self._replica.address()) is not None:
                self._ready_ns = self.clock()
                self.load.generator.add_address(address)
        elif now - self._ready_ns > _LONGEST_NS or self._has_its_share(now, replicas):
            self._is_over = True
            self.load.generator.end_load()

    def _has_its_share(self, now: int, replicas: int) -> bool:
        """Whether the new replica has surely answered as many requests as its share is taken over."""
        assert self._replica is not None
        if now - self._counted_ns < _COUNT_NS:
            return False
        self._counted_ns = now
        answers = answers_in_share(replicas, self._concurrency)
        return self._replica.requests() >= answers // (replicas + 1) + self._concurrency
