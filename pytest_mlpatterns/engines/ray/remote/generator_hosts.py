"""The hosts of load generators on all nodes, as the driver calls them: one actor on each node that has a generator."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from pytest_mlpatterns.engines.ray.cluster import ClockOffset, NodeFacts
from pytest_mlpatterns.engines.ray.generator_host import GeneratorHost, place, with_raw_columns
from pytest_mlpatterns.engines.ray.messages import Ended, Heard, HostFacts
from pytest_mlpatterns.engines.ray.remote.cluster import CLOCK_AGE_S, is_head, measured_offset, on_node
from pytest_mlpatterns.errors import ChildError, MlpatternsError
from pytest_mlpatterns.loadgen.messages import LoadJob, Transport

_CEILING_S = 90.0  # Time limit for one ceiling, in seconds
_LISTEN_S = 5.0  # Time of one wait for the messages of a host, in seconds
_START_S = 60.0  # Time limit for the start of an actor, and for its first answer
_ANSWER_S = 20.0  # Time limit for a short answer of an actor, in seconds
_THREADS = 8  # Calls that a host answers at once: one waits for messages, and the others are short


class _Hosts:
    """The hosts by node, the generators by number, and what their processes sent."""

    def __init__(self) -> None:
        self._messages: Any = None
        self._hosts: dict[str, _Host] = {}
        self._placed: list[str] = []
        self._host_of: dict[int, _Host] = {}
        self._ceilings: dict[tuple[str, Transport], float] = {}
        self._heard: deque[Heard] = deque()
        self._count = 0
        self._changed = threading.Condition()
        self._opening = threading.Lock()

    def open_hosts(self, generators: int) -> tuple[HostFacts, ...]:
        """Start missing hosts of generators, and compare their clocks with this one."""
        with self._opening:
            failed: dict[str, ChildError] = {}
            while missing := self._start_missing(generators, failed):
                failed |= missing  # a node that has just gone is alive for Ray until it misses some heartbeats
            found = [self._hosts[node] for node in self._placed[:generators]]
            for host in dict.fromkeys(found):
                host.compare_clocks()
            return tuple(host.facts for host in found)

    def _start_missing(self, generators: int, failed: Mapping[str, ChildError]) -> dict[str, ChildError]:
        """Place the generators on the nodes that are alive and did not fail; returns the nodes that fail now."""
        alive = {node: known for node, known in _alive().items() if node not in failed}
        if not alive:
            raise next(iter(failed.values()), ChildError("the Ray cluster no longer answers"))
        for node in [node for node, host in self._hosts.items() if host.is_lost or node not in alive]:
            del self._hosts[node]
        self._placed[:generators] = place(self._placed, [*map(_facts_of, alive.values())], generators)
        new = [node for node in dict.fromkeys(self._placed[:generators]) if node not in self._hosts]
        actors = [on_node(GeneratorHost, node, max_concurrency=_THREADS).remote(ends_with_parent=True) for node in new]
        started = [
            _Host(node, alive[node]["NodeManagerAddress"], actor) for node, actor in zip(new, actors, strict=True)
        ]
        fails = {}
        for host, facts in [(host, host.actor.facts.remote()) for host in started]:
            try:
                host.await_start(facts)
            except ChildError as error:
                fails[host.node] = error
                continue
            self._hosts[host.node] = host
            threading.Thread(target=self._listen, args=(host,), name=f"host {host.ip}", daemon=True).start()
        return fails

    def stage(self, messages: tuple[bytes, ...]) -> None:
        """Put the messages of the next jobs into the object store, from which the hosts take them."""
        self._messages = ray.put(messages)

    def load(self, key: int, number: int, job: LoadJob) -> None:
        """Give the process of a key, which runs on the host of a generator's number, a job with the staged messages."""
        host = self._hosts[self._placed[number]]
        with self._changed:
            self._host_of[key] = host
            self._heard = deque(heard for heard in self._heard if heard.key != key)  # of no job that is awaited
        loading = host.loading[key] = host.actor.load.remote(key, job, self._messages)
        loading.future().add_done_callback(lambda done: self._check_load(host, key, done.exception()))

    def send(self, key: int, message: object) -> None:
        """Pass a message on to a process. Raises ChildError if its host is gone."""
        if (host := self._host_of.get(key)) is None:
            return
        if (loading := host.loading.pop(key, None)) is not None:
            host.get(loading, _START_S)  # calls of one actor can overtake each other
        host.get(host.actor.send.remote(key, message))

    def collect(self, after: int, timeout_s: float) -> tuple[Heard, ...]:
        """The messages of all processes after the one of this number, which pytest has; waits for the first one."""
        with self._changed:
            while self._heard and self._heard[0].number <= after:
                self._heard.popleft()
            self._changed.wait_for(lambda: self._heard, timeout_s)
            return tuple(self._heard)

    def why_stopped(self, key: int) -> str:
        """Who is stopped on the node of a process, and how; empty if nothing is."""
        host = self._host_of.get(key)
        if host is None or host.is_lost:
            return ""
        try:
            found: str = host.get(host.actor.why_stopped.remote(key))
        except ChildError as error:  # its process is gone, or stopped: earlier news than the end of a call that waits
            self._lose(host, error)
            return ""
        return f"{found} on node {host.ip}" if found else ""

    def close_channel(self, key: int) -> None:
        """Ask a process to end, without waiting for it."""
        if (host := self._host_of.get(key)) is not None and not host.is_lost:
            host.actor.close_channel.remote(key)

    def stop(self, key: int) -> None:
        """End a process, and wait until it is gone."""
        with self._changed:
            host = self._host_of.pop(key, None)
        if host is not None and not host.is_lost:
            host.loading.pop(key, None)
            host.get(host.actor.stop.remote(key))

    def ceilings_rps(self, transport: Transport, generators: int) -> tuple[float, ...]:
        """Requests per second of each generator against a server that does nothing; measured once a machine."""
        self.open_hosts(generators)
        hosts = [self._hosts[node] for node in self._placed[:generators]]
        missing = {host.machine: host for host in hosts if (host.machine, transport) not in self._ceilings}
        asked = [(host, host.actor.ceiling_rps.remote(transport)) for host in missing.values()]
        for host, answer in asked:
            self._ceilings[host.machine, transport] = host.get(answer, _CEILING_S)
        return tuple(self._ceilings[host.machine, transport] for host in hosts)

    def library_overhead_ns(self) -> float:
        """Time that a client library adds to the median request on the node of the first generator."""
        self.open_hosts(1)
        host = self._hosts[self._placed[0]]
        found: float = host.get(host.actor.library_overhead_ns.remote(), _CEILING_S)
        return found

    def _listen(self, host: _Host) -> None:
        """Take what the processes of a host send, until the host is gone."""
        while not host.is_lost:
            try:
                heard = ray.get(host.actor.receive.remote(_LISTEN_S), timeout=_LISTEN_S + _START_S)
            except RayError as error:
                self._lose(host, error)
                return
            for key, message in heard:
                self._hear(host, key, with_raw_columns(message))

    def _check_load(self, host: _Host, key: int, error: BaseException | None) -> None:
        """A job that a host did not take ends its load; the loss of a host is found by the thread that listens."""
        if error is not None and not isinstance(error, RayActorError):
            self._hear(host, key, Ended(f"node {host.ip} took no job: {error}"))

    def _hear(self, host: _Host, key: int, message: object) -> None:
        with self._changed:
            if self._host_of.get(key) is not host:
                return
            self._count += 1
            self._heard.append(Heard(self._count, key, message))
            self._changed.notify_all()

    def _lose(self, host: _Host, error: Exception) -> None:
        host.is_lost = True
        what = "no longer answers" if host.node in _alive() else "is gone"
        for key in [key for key, its in list(self._host_of.items()) if its is host]:
            self._hear(
                host,
                key,
                Ended(f"node {host.ip} of the Ray cluster {what} ({type(error.__cause__ or error).__name__})"),
            )


def _alive() -> dict[str, Any]:
    """Ray's facts of each node that is alive, by its id; none if the cluster itself does not answer."""
    try:
        return {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
    except RayError:
        return {}


def _facts_of(node: Mapping[str, Any]) -> NodeFacts:
    """What the placement has to know of a node."""
    return NodeFacts(
        node_id=node["NodeID"],
        ip=node["NodeManagerAddress"],
        cores=node["Resources"].get("CPU", 0.0),
        is_head=is_head(node),
    )


@dataclass(eq=False)
class _Host:
    """One actor."""

    node: str
    ip: str
    actor: Any
    machine: str = ""
    allowed_connections: int | None = None
    clock: ClockOffset | None = None
    compared_s: float = 0.0
    # answers of the jobs that were given to its processes, by key, until they are awaited
    loading: dict[int, Any] = field(default_factory=dict)
    is_lost: bool = False

    def get(self, answer: Any, timeout_s: float = _ANSWER_S) -> Any:
        """The value of an answer of the actor."""
        try:
            return ray.get(answer, timeout=timeout_s)
        except RayTaskError as error:
            if isinstance(error.cause, MlpatternsError):
                raise error.cause from None
            raise
        except GetTimeoutError:
            raise ChildError(f"node {self.ip} of the Ray cluster does not answer for {timeout_s:.0f} s") from None
        except RayError as error:
            self.is_lost = self.is_lost or isinstance(error, RayActorError)
            raise ChildError(f"node {self.ip} of the Ray cluster keeps no load generator: {error}") from error

    def await_start(self, facts: Any) -> None:
        """Wait until the actor runs."""
        self.machine, self.allowed_connections = self.get(facts, _START_S)

    def compare_clocks(self) -> None:
        """Measure how far its clock is ahead, unless that is known since a minute."""
        if self.clock is not None and time.monotonic() - self.compared_s < CLOCK_AGE_S:
            return
        self.clock = measured_offset(lambda: (self.machine, self.get(self.actor.now_ns.remote())))
        self.compared_s = time.monotonic()

    @property
    def facts(self) -> HostFacts:
        """What pytest knows of it."""
        assert self.clock is not None
        return HostFacts(self.ip, self.machine, self.clock, self.allowed_connections)


hosts: _Hosts = _Hosts()  # The hosts of this driver, which calls its methods by name
