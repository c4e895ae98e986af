"""The capacity of one service at several numbers of replicas, in interleaved order, so that drift is no scaling.

A pass starts each number of replicas once, alone on the machine, searches for its capacity, and measures one window at
the concurrency that reaches it. The smallest number is then asked for one more replica under that load. The next pass
goes through the numbers in the opposite order. This module must not know limits, baselines or pytest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from msgspec.structs import replace

from pytest_mlpatterns.analysis.capacity.scale_out import ScaleOut
from pytest_mlpatterns.analysis.capacity.scaling import Scaling, ScalingStep
from pytest_mlpatterns.loadgen.generator import Generator
from pytest_mlpatterns.measurement.launch import MAX_SEARCH_NS, LaunchRunner
from pytest_mlpatterns.measurement.variant import Variant, named_errors
from pytest_mlpatterns.records.addressing import Balance, Progress
from pytest_mlpatterns.records.launch import Capacity, Launch
from pytest_mlpatterns.records.price import Price
from pytest_mlpatterns.system.environment import available_cores
from pytest_mlpatterns.workload.schedule import ClosedLoop

_WINDOW_NS = 1_000_000_000  # Window at the capacity of each number of replicas, in nanoseconds
_WARMUP_NS = 100_000_000  # Warm-up of this window, in nanoseconds; the search has warmed the service
_BY_THE_KERNEL = (
    'with balance="shared-socket" the kernel gives a new replica only new connections, and callers keep theirs; choose '
    '"round-robin" or "least-outstanding"'
)
_BY_A_GATEWAY = (
    "a gateway process chooses among the replicas, and the load generator, which balances over a new one, knows no "
    'such rule; choose balance="round-robin" or "least-outstanding"'
)
"""Why no replica is added behind a gateway."""
BY_NO_ENGINE = 'the engine of this test adds no replica to a running service; choose engine="local"'


class ScalingRun:
    """Measures a service at several numbers of replicas.

    ``price``: of cores and memory; None if there is no cost. ``cpus_per_replica``: number of cores on which each
    replica runs alone; None if they share the cores. ``balance``: how the load generator balances over a replica that
    is added; None: a gateway would have to.
    """

    def __init__(
        self,
        variants: Mapping[int, Variant],
        generator: Generator,
        *,
        on_progress: Callable[[Progress], None],
        price: Price | None = None,
        cpus_per_replica: int | None = None,
        balance: Balance | None = Balance.ROUND_ROBIN,
    ) -> None:
        self.passes: int = 0
        self.spent_s: float = 0.0
        self._variants = variants
        self._generator = generator
        self._on_progress = on_progress
        self._price = price
        self._cpus_per_replica = cpus_per_replica
        self._balance = balance
        self._scale_outs: list[ScaleOut] = []
        self._cores = available_cores()
        self._no_scale_out = _why_no_scale_out(balance)
        self._capacities: dict[int, list[Capacity]] = {number: [] for number in sorted(variants)}
        self._launches: dict[int, list[Launch]] = {number: [] for number in self._capacities}

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of replicas, ascending."""
        return tuple(self._capacities)

    @property
    def scaling(self) -> Scaling:
        """What all passes so far found."""
        return Scaling(
            tuple(
                ScalingStep.of(number, tuple(found), tuple(self._launches[number]), price=self._price)
                for number, found in self._capacities.items()
            ),
            self._cores,
            tuple(self._scale_outs),
            self._no_scale_out,
            cpus_per_replica=self._cpus_per_replica,
        )

    def measure_pass(self) -> None:
        """Measure every number of replicas once more."""
        started = time.perf_counter()
        try:
            for number in self.numbers if self.passes % 2 == 0 else reversed(self.numbers):
                with named_errors(self._variants[number]):
                    self._measure(number)
            self.passes += 1
        finally:
            self.spent_s += time.perf_counter() - started

    def _measure(self, number: int) -> None:
        variant = self._variants[number]
        runner = LaunchRunner(variant.start, variant.plan, self._generator, on_progress=self._on_progress)
        try:
            if (cores := runner.deployment.cores) is not None:
                self._cores = cores
            capacity = runner.search(lambda _rate: False, None, MAX_SEARCH_NS)
            self._capacities[number].append(capacity)
            if capacity.nmrt.value > 0:
                at_nmrt = ClosedLoop(capacity.concurrency)
                plan = replace(variant.plan, schedule=at_nmrt, duration_ns=_WINDOW_NS, warmup_ns=_WARMUP_NS)
                plan = replace(plan, requests=0, check=None)
                self._launches[number].append(runner.measure(plan))
                if number == self.numbers[0]:
                    if runner.deployment.scaler is None:
                        self._no_scale_out = BY_NO_ENGINE
                    if self._balance is not None and not self._no_scale_out:
                        self._scale_outs.append(runner.scale_out(capacity.concurrency, self._balance))
        finally:
            runner.close()


def _why_no_scale_out(balance: Balance | None) -> str:
    """Why the load generator cannot balance over a replica that is added; empty if it can."""
    if balance is None:
        return _BY_A_GATEWAY
    return _BY_THE_KERNEL if balance is Balance.SHARED_SOCKET else ""
