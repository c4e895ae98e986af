"""What travels between pytest, the Ray driver and the processes of a cluster; it loads without Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from pytest_mlpatterns.records.addressing import Balance

if TYPE_CHECKING:
    from pytest_mlpatterns.engines.ray.cluster import ClockOffset, ClusterFacts
    from pytest_mlpatterns.errors import MlpatternsError
    from pytest_mlpatterns.patterns.pattern import ModelNode
    from pytest_mlpatterns.serving.processes import PackedLayer, Unusable, WorkerStats
    from pytest_mlpatterns.system.cpu_share import ReplicaCores
    from pytest_mlpatterns.wire import Wire


@dataclass(frozen=True, slots=True)
class RayJob:
    """What a driver connects to."""

    address: str | None = None  # ``host:port`` of a cluster, or ``auto`` for the one on this machine; None starts one
    source: str = ""  # where the address was given, such as ``RAY_ADDRESS``, for messages
    runtime_env: Mapping[str, Any] = field(default_factory=dict)
    root: Path = Path()  # directory to which paths in the runtime environment are relative
    run: str = ""  # name of the run that this driver belongs to, if another driver began it
    temporary: Path = Path("/tmp")  # noqa: S108 - Ray's sockets need a short path
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def subject(self) -> str:
        """The beginning of a message about a connection that failed."""
        return "Ray did not start" if self.address is None else f"{self.source}={self.address}: Ray did not connect"


class Call(Struct, frozen=True):
    """Asks the driver to call a function, ``package.module:function`` or ``package.module:object.method``."""

    number: int
    function: str
    arguments: tuple[object, ...]


class Returned(Struct, frozen=True):
    """What a call returned."""

    number: int
    value: object


class Raised(Struct, frozen=True):
    """What a call raised: an error of this package, or the traceback of another one."""

    number: int
    error: MlpatternsError | None
    traceback: str = ""


class DriverReady(Struct, frozen=True):
    """The driver is connected; the notes are for the user."""

    cluster: ClusterFacts
    notes: tuple[str, ...] = ()


class DriverFailed(Struct, frozen=True):
    """The driver cannot connect."""

    error: MlpatternsError


class Leave(Struct, frozen=True):
    """Asks the driver to remove its applications and to end."""


class HandleNode(Struct, frozen=True):
    """A process group behind a process, as a deployment of Ray Serve that is reached by a handle."""

    deployment: str
    position: int
    replicas: int = 1
    in_flight: int = 1  # number of requests that a queue should have in flight at each process


class Application(Struct, frozen=True):
    """What all replicas of an application share."""

    app: str
    run: str  # name of the run, which is in the names of its node monitors
    name: str
    wire: Wire
    import_path: tuple[str, ...] = ()
    # top of the tree in which the user works, and of the tree from which code is imported instead; None: there is
    # one tree
    trees: tuple[Path, Path] | None = None
    own_server: str | None = None  # address of the store that the deployment started for itself; None: it needs none
    # cores of its own for each replica of the whole service; None: one logical CPU for each process
    cores: ReplicaCores | None = None


class ReplicaJob(Struct, frozen=True):
    """What one replica of a deployment does with a request."""

    application: Application
    # what it does; a :class:`HandleNode` in it stands for a deployment behind
    node: PackedLayer | HandleNode | ModelNode
    role: str
    position: int
    deployment: str
    restarts: bool = False  # a replica that dies is replaced, and the service goes on: it works for a queue


class DeploymentPlan(Struct, frozen=True):
    """One deployment of an application."""

    job: ReplicaJob
    replicas: int = 1
    balance: Balance = Balance.ROUND_ROBIN
    max_ongoing: int = 100_000  # number of requests that Ray Serve sends to a replica at a time
    max_queued: int = -1  # number of requests that may wait for a replica in each process that calls them; -1: no bound
    cpus: float = 1.0  # number of logical CPUs that Ray reserves for each replica
    env: Mapping[str, str] = {}
    behind: tuple[str, ...] = ()  # names of the deployments that its replicas call

    @property
    def name(self) -> str:
        """Its name in the application."""
        return self.job.deployment


class ApplicationPlan(Struct, frozen=True):
    """An application of Ray Serve: its deployments, the innermost first, the one that clients reach last."""

    app: str
    deployments: tuple[DeploymentPlan, ...]

    @property
    def run(self) -> str:
        """Name of the run that it belongs to."""
        return self.deployments[-1].job.application.run

    @property
    def cpus(self) -> float:
        """Number of logical CPUs that Ray reserves for all of it."""
        return sum(one.replicas * one.cpus for one in self.deployments)


class HandleAnswer(Struct, frozen=True):
    """What a replica behind a handle answers; an error travels as a value, so that it stays the request's own."""

    outputs: object = None  # one for each input; None if there is an error or the answer is a stream
    worked_ns: int = 0  # time that the request took there
    # when its model ended the call before, on the clock of ``perf_counter_ns`` of its machine; 0: unknown
    free_ns: int = 0
    machine: str = ""  # identity of its machine, whose processes share that clock
    status: int = 0  # HTTP status of the error; 0: there is none
    text: str = ""
    retry_after_s: int | None = None
    streams: bool = False  # the model streams its answer, which has to be asked for as a stream
    parts: Mapping[str, int] = {}  # where the time of the request went there


class ReplicaState(StrEnum):
    """What a replica is doing."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    ENDED = "ended"


class ReplicaStats(Struct, frozen=True):
    """One replica, as the monitor of its node knows it."""

    deployment: str
    role: str
    position: int
    replica: str
    pid: int
    state: ReplicaState = ReplicaState.LOADING
    stats: WorkerStats | None = None  # what it has counted; None before it is ready
    text: str = ""  # its traceback if it failed, its end if it ended
    reason: Unusable | None = None  # why it failed, if that says it all; else None


class NodeReading(Struct, frozen=True):
    """What the monitor of one node has read at one moment."""

    node: str
    ip: str
    machine: str  # identity of the machine; several nodes may lie on one
    clock_ns: int  # the moment, on the clock of ``perf_counter_ns`` of the machine
    # by the names of the columns of ``Usage``, what the service's replicas on the node use, their children
    # included, and the counters of the machine; None for one that is not known
    columns: Mapping[str, int | None]
    serve_cpu_ns: int  # CPU time of the processes of Ray and Ray Serve on the node
    generator_ns: int  # CPU time of the load generators on the node, and of pytest and its driver
    cores: float
    machine_cores: int = 1
    # ``(pid, thread, CPU time in ns)`` of each thread of the replicas; empty if they were not asked for
    threads: tuple[tuple[int, int, int], ...] = ()
    replicas: tuple[ReplicaStats, ...] = ()  # the service's replicas on the node, also those that have ended


class RayApplication(Struct, frozen=True):
    """A running application, as any process that knows its cluster finds it."""

    app: str
    run: str
    restarts: tuple[str, ...] = ()  # names of the deployments whose replicas are replaced when they die
    cores: float = 0.0  # number of cores of the machines on which it runs
    replicas: int = 0


class HostFacts(Struct, frozen=True):
    """The host of one generator: the actor that starts its process on a node."""

    node: str
    machine: str
    clock: ClockOffset  # how far its clock is ahead of the clock of pytest
    allowed_connections: int | None  # connections that a process there may open; None if the system knows no limit


class Started(Struct, frozen=True):
    """A generator process has started on its node."""

    pid: int


class Ended(Struct, frozen=True):
    """A generator process sends nothing more, and why."""

    why: str


class Heard(Struct, frozen=True):
    """A message of a generator process, as the driver keeps it until pytest has it."""

    number: int  # counts the messages that the driver took; pytest asks for those after the last one that it has
    key: int
    message: object
