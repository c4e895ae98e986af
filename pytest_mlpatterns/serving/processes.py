"""The processes of a deployment, as a measurement sees them: of an engine, of another process, or unknown."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Protocol

from msgspec import Struct

from pytest_mlpatterns.records.setup import EnvironmentFacts
from pytest_mlpatterns.records.telemetry import LayerStats, PatternStats, merged_layers


class Processes(Protocol):
    """The processes of a deployment. A class that derives from this one inherits what most of them answer."""

    @property
    def pids(self) -> tuple[int, ...]:
        """Roots of the process trees; empty if they are unknown, or on other machines."""
        return ()

    def check(self, wait_s: float = 0.0) -> None:
        """Check that all run; wait up to ``wait_s`` for one to exit. By default, they are asked for their statistics.

        Raises:
            DeploymentError: a process has ended.
        """
        self.stats()

    def stats(self) -> PatternStats:
        """Statistics since the start.

        Raises:
            DeploymentError: a process has ended or does not answer.
        """
        ...

    def excuse(self, pid: int) -> None:
        """The process may end from now on, since the test ends it; its end is no error."""
        return

    def facts(self) -> EnvironmentFacts:
        """Their environment, as far as it is known; a process that does not answer is left out."""
        return {}

    def log_tail(self) -> str:
        """Last lines of their output; empty if it went elsewhere."""
        return ""

    def traceback_from_now(self) -> Callable[[], str]:
        """A function that returns the traceback printed since this call, and waits a little for it.

        It returns an empty text if there is none, or if tracebacks are in the statistics. It raises a
        :class:`DeploymentError` if a process has ended.
        """
        return str

    def stop(self) -> None:
        """End the processes that the deployment started, and wait for it. Safe to call twice."""
        ...


@dataclass(slots=True)
class ForeignProcesses(Processes):
    """Processes that run without this package, or were started by another process; empty if they are unknown."""

    pids: tuple[int, ...] = ()
    on_stop: Callable[[], None] | None = field(default=None)
    on_stats: Callable[[], PatternStats] = PatternStats
    on_facts: Callable[[], EnvironmentFacts] = dict

    def check(self, wait_s: float = 0.0) -> None:
        """Do nothing: the exit status of another process's child cannot be read."""

    def stats(self) -> PatternStats:
        """What the other process counted; empty statistics if there is none."""
        return self.on_stats()

    def facts(self) -> EnvironmentFacts:
        """What the other process knows of their environment; nothing if there is none."""
        return self.on_facts()

    def stop(self) -> None:
        """Call ``on_stop`` the first time."""
        on_stop, self.on_stop = self.on_stop, None
        if on_stop is not None:
            on_stop()


class PackedLayer(Struct, frozen=True):
    """The layer of a pickled pattern around the nodes inside.

    A node inside is another layer, a :class:`~pytest_mlpatterns.patterns.pattern.ModelNode`, a :class:`QueueNode`, or a
    node of the engine that stands for a process group behind this process.
    """

    pattern: bytes
    position: int
    inside: tuple[Any, ...]


class QueueNode(Struct, frozen=True):
    """A running process group that takes requests from a stream of a broker."""

    url: str
    stream: str


class Ready(Struct, frozen=True):
    """The model is built, and requests are accepted."""


class Unusable(Struct, frozen=True):
    """Why what a user names as a model is none; a traceback would add nothing."""

    words: str
    name: str = ""  # of the model, if the words begin with it; else empty
    is_absent: bool = False  # whether no directory on ``sys.path`` has the module or a similar one

    def __str__(self) -> str:
        return self.words


class LoadFailed(Struct, frozen=True):
    """The model could not be built: the user's traceback, or a reason that suffices."""

    traceback: str
    reason: Unusable | None = None


class StatsQuestion(Struct, frozen=True):
    """Asks a process for its statistics."""

    number: int


class WorkerStats(Struct, frozen=True):
    """Statistics of one process since its start, in answer to the question of this number."""

    number: int
    predict_requests: int
    tracebacks: tuple[str, ...]
    layers: tuple[LayerStats, ...] = ()


def pattern_stats(
    requests: Iterable[tuple[int, str, int]], counted: Sequence[WorkerStats], *, replaced: int
) -> PatternStats:
    """The statistics of a deployment; its replicas are the outermost group with more than one process.

    ``requests``: position and role of each process that an engine keeps running, and the requests that it and those
    before it received. ``counted``: of all processes that there were.
    """
    groups: dict[tuple[int, str], list[int]] = {}
    for position, role, received in sorted(requests, key=itemgetter(0)):
        groups.setdefault((position, role), []).append(received)
    several = next((group for group in groups.values() if len(group) > 1), None)
    return PatternStats(
        replica_requests=tuple(several or next(iter(groups.values()), ())),
        tracebacks=tuple(dict.fromkeys(text for stats in counted for text in stats.tracebacks)),
        layers=merged_layers(layer for stats in counted for layer in stats.layers),
        replaced=replaced,
    )


class FactsQuestion(Struct, frozen=True):
    """Asks a process for its environment."""

    number: int


class WorkerFacts(Struct, frozen=True):
    """The environment of one process, in answer to the question of this number."""

    number: int
    facts: EnvironmentFacts  # without its packages
    modules: Sequence[str]  # what it has loaded (:func:`pytest_mlpatterns.system.loaded_packages.loaded_modules`)


class AddedReplica(Protocol):
    """A replica that was asked for. It ends with its deployment."""

    asked_ns: int  # When it was asked for, on the clock of ``time.perf_counter_ns``

    def address(self) -> tuple[str, int] | None:
        """``(host, port)`` once the replica is ready, that is loaded and accepting connections; None until then.

        Raises:
            ModelLoadError: it could not load its model; with its traceback.
            DeploymentError: it was not ready in time.
        """
        ...

    def requests(self) -> int:
        """Number of requests that it has received; once it is ready.

        Raises:
            DeploymentError: it has ended, or does not answer.
        """
        ...


class Scaler(Protocol):
    """Adds replicas to a running deployment."""

    timeout_ns: int  # Start-up time limit of a replica

    def add(self) -> AddedReplica:
        """Start one more replica of the whole service, without waiting for it.

        It gets no request before a load balancer, or the load generator in its place, knows its address; the client of
        the deployment never does.
        """
        ...

    def has_ended(self, address: tuple[str, int]) -> bool:
        """Whether a process of the replica with this address has ended."""
        ...

    def remove(self, address: tuple[str, int]) -> None:
        """End the replica with this address, and wait for it; what it still answers, it answers first.

        No load balancer may send it further requests.
        """
        ...
