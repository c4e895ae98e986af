"""The replicas of a service on a Ray cluster as one: their statistics, their failures, their output, their end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pytest_mlpatterns.engines.ray.cluster import SAME_CLOCK, ClockOffset
from pytest_mlpatterns.engines.ray.cluster_monitor import MONITORS, ClusterMonitor
from pytest_mlpatterns.engines.ray.messages import NodeReading, RayApplication, ReplicaState, ReplicaStats
from pytest_mlpatterns.errors import ChildError, DeploymentError
from pytest_mlpatterns.records.telemetry import LayerStats, PatternStats
from pytest_mlpatterns.serving.processes import LoadFailed, Processes, WorkerStats, pattern_stats
from pytest_mlpatterns.serving.readiness import ended_while_loading, failed_to_load, too_slow_to_load
from pytest_mlpatterns.wording import count

if TYPE_CHECKING:
    from pytest_mlpatterns.engines.ray.session import RaySession
    from pytest_mlpatterns.serving.model import StartOptions
    from pytest_mlpatterns.serving.redis.embedded_server import EmbeddedServer

_APPLICATIONS = "pytest_mlpatterns.engines.ray.remote.applications"
_READ_TIMEOUT_S = 60.0  # Time limit for the answers of all nodes: three times the limit of one, which is asked twice
_DELETE_TIMEOUT_S = 60.0  # Time limit for the end of an application; Ray Serve kills a replica after 20 s by default
_POLL_S = 0.1  # Time between two looks, each a message to the driver
_STATUS_S = 1.0  # Time between two looks at the state of the application in Ray Serve while it starts
_FAILED_STATES = ("DEPLOY_FAILED", "UNHEALTHY")


class RayProcesses(Processes):
    """The replicas of one application.

    They belong to the cluster, so they have no process id here, and a test cannot end them. The identity of the
    cluster, part of each comparison, names nodes and versions in place of facts.
    """

    def __init__(
        self,
        session: RaySession,
        application: RayApplication,
        on_stop: Callable[[], None] | None = None,
        *,
        servers: Sequence[EmbeddedServer] = (),
    ) -> None:
        self._servers = servers
        self._session = session
        self.application = application
        self._on_stop = on_stop
        self._stopped = False
        self._records = ReplicaRecords(application.restarts)
        self._offsets: Mapping[str, ClockOffset] = {}

    def make_monitor(self) -> ClusterMonitor:
        """A new monitor of what the application uses."""
        return ClusterMonitor(self._session, self.application)

    def await_loaded(self, deadline_ns: int, model: str, options: StartOptions) -> None:
        """Wait until all replicas have built their models."""
        looked_ns = time.perf_counter_ns()
        while True:
            self._read()
            self._require_loading(model, options)
            if len(self._records.in_state(ReplicaState.READY)) >= max(self.application.replicas, 1):
                self._records.complete()
                return
            now_ns = time.perf_counter_ns()
            if now_ns > deadline_ns:
                raise self._too_slow(model, options)
            if now_ns - looked_ns > _STATUS_S * 1e9:
                self._require_deployable(model)
                looked_ns = now_ns
            time.sleep(_POLL_S)  # neither Serve nor a node reports progress by itself

    def check(self, wait_s: float = 0.0) -> None:
        """Check that all replicas run; wait up to ``wait_s`` for one to end."""
        deadline = time.monotonic() + wait_s
        while True:
            self.stats()
            if time.monotonic() >= deadline:
                return
            time.sleep(_POLL_S)

    def stats(self) -> PatternStats:
        """Statistics of all replicas since the start."""
        for server in self._servers:
            server.check()
        self._read()
        if failure := self._records.failure():
            raise DeploymentError(failure)
        self._records.complete()
        return self._records.stats()

    def log_tail(self) -> str:
        """Last lines of each replica's output; empty if they cannot be read."""
        try:
            return str(self._session.call(f"{MONITORS}.log_tail", self.application.run, self.application.app))
        except (ChildError, TimeoutError):
            return ""

    def stop(self) -> None:
        """Delete the application and wait until its replicas are gone; safe to call twice."""
        if self._stopped:
            return
        self._stopped = True
        at = self.application
        try:
            if self._on_stop is not None:
                self._on_stop()
            else:
                self._session.call(f"{_APPLICATIONS}:delete", at.app, timeout_s=_DELETE_TIMEOUT_S)
            self._session.call(f"{MONITORS}.forget", at.run, at.app)
        except TimeoutError:
            raise DeploymentError(
                f"Ray Serve has not deleted the application {at.app} in {_DELETE_TIMEOUT_S:.0f} s; "
                f"delete it by hand: serve.delete({at.app!r})"
            ) from None
        except ChildError:  # the driver has ended, and with it everything of this run on the cluster
            return
        finally:
            for server in self._servers:
                server.stop()

    def _read(self) -> None:
        """Ask all nodes."""
        at = self.application
        readings: tuple[NodeReading, ...] = self._call("read", at.run, at.app)
        if any(reading.node not in self._offsets for reading in readings):
            self._offsets = self._call("offsets", at.run)
        self._records.take(readings, self._offsets)

    def _call(self, function: str, *arguments: object) -> Any:
        try:
            return self._session.call(f"{MONITORS}.{function}", *arguments, timeout_s=_READ_TIMEOUT_S)
        except TimeoutError:
            raise DeploymentError(f"the Ray cluster at {self._session.cluster.address} no longer answers") from None
        except ChildError as error:
            raise DeploymentError(
                f"the Ray cluster at {self._session.cluster.address} no longer answers: {error}"
            ) from error

    def _require_loading(self, model: str, options: StartOptions) -> None:
        """Raise if a replica failed or ended before it was ready."""
        for one in self._records.in_state(ReplicaState.FAILED):
            raise failed_to_load(LoadFailed(one.stats.text, one.stats.reason), one.stats.role, model, options=options)
        for one in self._records.in_state(ReplicaState.ENDED):
            why = f"{one.where} ended"
            if log := self.log_tail():
                why = f"{why}; it printed last:\n{log}"
            raise ended_while_loading(one.stats.role, model, why)

    def _require_deployable(self, model: str) -> None:
        """Raise if Ray Serve cannot start the application."""
        try:
            status = str(self._session.call(f"{_APPLICATIONS}:status", self.application.app))
        except (ChildError, TimeoutError):
            return  # the next reading shows it
        if any(state in status for state in _FAILED_STATES):
            log = self.log_tail()
            raise DeploymentError(
                f"{model}: Ray Serve could not start it: {status}" + (f"\nIt printed last:\n{log}" if log else ""),
                subject=model,
                of_model=True,
            )

    def _too_slow(self, model: str, options: StartOptions) -> DeploymentError:
        loading = [one.stats.role for one in self._records.in_state(ReplicaState.LOADING)]
        return too_slow_to_load(next(iter(loading), "service"), model, self.log_tail(), options=options)


MAX_REPLACEMENTS = 3
"""Restart limit of a place. A process that keeps dying is assumed to be killed by its requests, as on one machine."""


@dataclass(slots=True)
class KnownReplica:
    """A replica as it was last seen."""

    stats: ReplicaStats  # what its node reported last; its counts come from the last reading that had them
    ip: str
    offset: ClockOffset = SAME_CLOCK
    lost: bool = False  # its node no longer answers

    @property
    def where(self) -> str:
        """Its process and node, as messages name them."""
        return f"process {self.stats.pid} on node {self.ip}"

    @property
    def has_ended(self) -> bool:
        """Whether its process has ended, as far as is known."""
        return self.lost or self.stats.state is ReplicaState.ENDED

    def update(self, stats: ReplicaStats) -> None:
        """Take a later reading."""
        self.stats = stats if stats.stats is not None else replace(stats, stats=self.stats.stats)
        self.lost = False

    def counted(self) -> WorkerStats:
        """What it has counted, on this machine's clock; nothing before it is ready."""
        stats = self.stats.stats or WorkerStats(0, 0, ())
        return replace(stats, layers=tuple(map(self._here, stats.layers)))

    def _here(self, layer: LayerStats) -> LayerStats:
        series = {
            name: tuple((self.offset.here(time_ns), value) for time_ns, value in moments)
            for name, moments in layer.series.items()
        }
        return replace(layer, series=series)


@dataclass(slots=True)
class _Group:
    """The replicas of one deployment by the places that they take: the last of each place runs, or has just ended."""

    places: list[list[KnownReplica]] = field(default_factory=list)

    def add(self, new: KnownReplica, *, complete: bool) -> None:
        """A new replica takes the place of one that has ended; ``complete``: there are no further places."""
        for place in self.places:
            if place[-1].has_ended:
                place.append(new)
                return
        if complete and self.places:
            self.places[-1].append(new)  # its predecessor has ended, and that is not known yet
        else:
            self.places.append([new])

    @property
    def ended(self) -> int:
        """Number of replicas that have ended."""
        return sum(one.has_ended for place in self.places for one in place)


class ReplicaRecords:
    """Keeps what is known of each replica."""

    def __init__(self, restarts: Collection[str] = ()) -> None:
        self._restarts = restarts
        self._known: dict[str, KnownReplica] = {}
        self._groups: dict[str, _Group] = {}
        self._complete = False

    def take(self, readings: Iterable[NodeReading], offsets: Mapping[str, ClockOffset]) -> None:
        """Take a reading of all nodes that answered; replicas on the others are lost."""
        present = set()
        for reading in readings:
            for stats in reading.replicas:
                present.add(stats.replica)
                if (known := self._known.get(stats.replica)) is not None:
                    known.update(stats)
                    continue
                new = KnownReplica(stats, reading.ip, offsets.get(reading.node, SAME_CLOCK))
                self._known[stats.replica] = new
                self._groups.setdefault(stats.deployment, _Group()).add(new, complete=self._complete)
        for replica, known in self._known.items():
            known.lost = replica not in present

    def complete(self) -> None:
        """All replicas are there: later ones take the places of these."""
        self._complete = True

    def in_state(self, state: ReplicaState) -> list[KnownReplica]:
        """The replicas in this state, in the order in which they were first seen."""
        return [one for one in self._known.values() if one.stats.state is state and not one.lost]

    def failure(self) -> str:
        """What went wrong, as a sentence without a period; empty if nothing did."""
        return self._lost() or next(self._failures(), "")

    def stats(self) -> PatternStats:
        """Statistics of all replicas since the start."""
        places = [place for group in self._groups.values() for place in group.places]
        return pattern_stats(
            (
                (place[0].stats.position, place[0].stats.role, sum(one.counted().predict_requests for one in place))
                for place in places
            ),
            [one.counted() for one in self._known.values()],
            replaced=sum(group.ended for name, group in self._groups.items() if name in self._restarts),
        )

    def _lost(self) -> str:
        """The nodes that are gone with replicas that nothing replaces."""
        lost = Counter(
            one.ip for one in self._known.values() if one.lost and one.stats.deployment not in self._restarts
        )
        return "; ".join(
            f"node {ip} of the Ray cluster is gone, with {count(number, 'replica')} of this service"
            for ip, number in sorted(lost.items())
        )

    def _failures(self) -> Iterator[str]:
        for name, group in self._groups.items():
            for number, place in enumerate(group.places, 1):
                yield from self._failures_of(
                    place, name, "" if len(group.places) == 1 else f" {number} of {len(group.places)}"
                )

    def _failures_of(self, place: Sequence[KnownReplica], deployment: str, number: str) -> Iterator[str]:
        last = place[-1]
        role = f"{last.stats.role}{number}"
        if deployment in self._restarts:
            if sum(one.has_ended for one in place) > MAX_REPLACEMENTS:
                yield f"{role} (replacement {MAX_REPLACEMENTS} of {MAX_REPLACEMENTS}): {last.where} ended"
        else:
            for one in place:
                if one.has_ended:
                    yield (
                        f"{role} ({one.where}) ended; Ray Serve starts another, but what was measured is not what was "
                        "asked for"
                    )
        if last.stats.state is ReplicaState.FAILED:
            yield f"{role} ({last.where}) failed to load:\n{last.stats.reason or last.stats.text}"
        elif last.stats.state is ReplicaState.READY and last.stats.text and not last.lost:
            yield f"{role} ({last.where}) {last.stats.text}"
