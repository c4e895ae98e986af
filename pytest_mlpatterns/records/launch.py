"""What one start of a deployment gave: samples, resource usage, warm-up, and the generator's report.

numpy appears in annotations only, so that importing this module costs nothing."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pytest_mlpatterns.records.objective import Objective
    from pytest_mlpatterns.records.samples import Samples, Window
    from pytest_mlpatterns.records.telemetry import PatternStats

__all__ = ["Capacity", "Estimate", "GeneratorReport", "Launch", "LaunchValue", "Step", "Usage", "Warmup"]


@dataclass(frozen=True, slots=True)
class Usage:
    """What the processes of a deployment used, sampled over time; arrays of shape ``(moments,)``.

    ``cpu_ns`` is cumulative over the whole process tree; ``rss_bytes`` is the tree's resident memory, where a page
    that several processes share counts once for each. ``machine_busy_ns`` is cumulative busy time of all cores,
    whoever used them, and ``others_ns`` the part of it that neither the deployment nor this process used (the load
    generator did). ``steal_ns`` is cumulative time that the machine's host gave to other machines, ``throttled_ns``
    that in which a limit of our control group stopped processes, ``frequency_hz`` the cores' mean frequency; all are 0
    where the system does not tell. ``cores`` is how many cores the machine offers.
    """

    time_ns: NDArray[np.int64]
    cpu_ns: NDArray[np.int64]
    rss_bytes: NDArray[np.int64]
    machine_busy_ns: NDArray[np.int64]
    others_ns: NDArray[np.int64]
    steal_ns: NDArray[np.int64]
    throttled_ns: NDArray[np.int64]
    frequency_hz: NDArray[np.int64]
    cores: int

    def since(self, moment: int) -> Usage:
        """The same from the moment of this index on."""
        return Usage(
            self.time_ns[moment:],
            self.cpu_ns[moment:],
            self.rss_bytes[moment:],
            self.machine_busy_ns[moment:],
            self.others_ns[moment:],
            self.steal_ns[moment:],
            self.throttled_ns[moment:],
            self.frequency_hz[moment:],
            self.cores,
        )


@dataclass(frozen=True, slots=True)
class Warmup:
    """How the warm-up ended: how long it took, and whether the data called it steady (None: it was a fixed time)."""

    duration_ns: int
    requests: int
    steady: bool | None


@dataclass(frozen=True, slots=True)
class GeneratorReport:
    """What the load generator says of itself, over the measured window.

    ``connect_ns`` is the median time that opening a connection took, since the start of the load. ``loop_lag_ns`` is
    the most by which its loop was late. ``ceiling_rps`` is what it reaches on this machine against a server that does
    nothing, where that is known. ``library_overhead_ns`` is what a client library adds to the median of a request,
    where one drives the load. ``processes`` is how many generators shared the load; their costs are added up.
    """

    cpu_ns: int
    wall_ns: int
    completed: int
    connections: int
    connection_limit_reached: bool = False
    connect_ns: int | None = None
    loop_lag_ns: int = 0
    ceiling_rps: float | None = None
    library_overhead_ns: float | None = None
    processes: int = 1

    @property
    def core_ns(self) -> int:
        """Core time that the generator processes could have used, one core each; at least 1."""
        return max(self.wall_ns, 1) * self.processes

    @property
    def rate_rps(self) -> float:
        """Requests completed per second by one generator process."""
        return self.completed * 1e9 / self.core_ns

    @property
    def core_share(self) -> float:
        """Share of a core that one generator process used."""
        return self.cpu_ns / self.core_ns


@dataclass(frozen=True, slots=True)
class Launch:
    """Everything that one start of a deployment gave: one window of samples and what was seen beside it."""

    samples: Samples
    window: Window
    usage: Usage | None
    stats: PatternStats | None
    warmup: Warmup
    generator: GeneratorReport
    cold_start_ns: int | None
    request_bytes: NDArray[np.int64]
    open_loop: bool


@dataclass(frozen=True, slots=True)
class LaunchValue:
    """One metric over one launch: its value and its relative standard error from resampling the launch's blocks."""

    value: float
    relative_error: float


@dataclass(frozen=True, slots=True)
class Step:
    """One concurrency of a capacity search: throughput in several short windows, and what went with it."""

    concurrency: int
    rates_rps: tuple[float, ...]
    median_ns: float | None
    error_ratio: float
    limited: str | None

    @property
    def rate_rps(self) -> float:
        """Median over the windows."""
        return median(self.rates_rps) if self.rates_rps else 0.0


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a capacity search found: requests per second, the concurrency at which they are reached, and how.

    ``at_least`` says that the deployment had not degraded when the search ended; ``stopped`` says why it ended.
    ``objective`` is the latency objective that was kept, None for a search without one.
    """

    nmrt: LaunchValue
    concurrency: int
    ladder: tuple[Step, ...]
    stopped: str
    at_least: bool
    objective: Objective | None = None


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % confidence interval, in the unit that the attribute's name carries."""

    value: float
    low: float
    high: float
