"""The monitors of all nodes, as the driver asks them: one actor on each node, which ends with the driver."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import ray
from ray.exceptions import ActorUnschedulableError, GetTimeoutError, RayActorError

from pytest_mlpatterns.engines.ray.cluster import ClockOffset
from pytest_mlpatterns.engines.ray.link import Hello, LinkAddress, LinkClient, own_output
from pytest_mlpatterns.engines.ray.messages import NodeReading, ReplicaJob, ReplicaStats
from pytest_mlpatterns.engines.ray.node_monitor import NodeMonitor, monitor_name
from pytest_mlpatterns.engines.ray.remote.cluster import CLOCK_AGE_S, NAMESPACE, is_head, measured_offset, on_node

_GONE = (RayActorError, ActorUnschedulableError, GetTimeoutError)
"""What a call to a monitor raises whose node is gone or does not answer."""
_REFRESH_S = 1.0  # Shortest time between two looks for new nodes
_ANSWER_TIMEOUT_S = 20.0
"""Time limit for the answer of a node: longer than its replicas have to answer, and than a busy machine stalls."""
_RETRY_S = 0.5
"""Time after which a node is asked again whose monitor was unavailable: Ray calls it so while it reconnects."""


class _Monitors:
    """The monitors of the driver's run, by the identity of their nodes.

    A driver that joined a run asks its monitors, too. ``run`` and ``app`` name it and one of its applications.
    """

    def __init__(self) -> None:
        self._actors: dict[str, Any] = {}
        self._begun: dict[str, dict[int, dict[str, Any]]] = {}
        self._offsets: dict[str, ClockOffset] = {}
        self._offsets_at_s = 0.0
        self._refreshed_s = 0.0
        self._changing = threading.RLock()

    def open_monitors(self, run: str) -> None:
        """Start a monitor on each node that is new, and leave out nodes that are gone."""
        with self._changing:
            if self._refreshed_s and time.monotonic() - self._refreshed_s < _REFRESH_S:
                return
            alive = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
            for node in [node for node in self._actors if node not in alive]:
                del self._actors[node]
            for node, facts in alive.items():
                if node not in self._actors:
                    self._actors[node] = self._start(run, node, facts)
            self._refreshed_s = time.monotonic()

    def read(self, run: str, app: str) -> tuple[NodeReading, ...]:
        """What an application uses on each node, with its replicas' statistics; nodes that do not answer are absent."""
        self.open_monitors(run)
        return tuple(self._ask(lambda monitor: monitor.read.remote(app)).values())

    def log_tail(self, _run: str, app: str) -> str:
        """The last lines that each replica of an application printed."""
        texts = self._ask(lambda monitor: monitor.log_tail.remote(app))
        return "\n".join(filter(None, texts.values()))

    def _ask(self, question: Callable[[Any], Any]) -> dict[str, Any]:
        """The answers of all nodes to one question; a node that is unavailable is asked again once."""
        with self._changing:
            actors = dict(self._actors)
        answers = _answers({node: question(actor) for node, actor in actors.items()})
        if missing := [node for node in actors if node not in answers]:
            time.sleep(_RETRY_S)
            answers |= _answers({node: question(actors[node]) for node in missing})
        return answers

    def begin_read(self, _run: str, app: str, *how: int) -> None:
        """Ask each node what an application uses now, without waiting for the answer: :meth:`collect` returns it.

        ``how``: the number of the reading, and whether it has the threads.
        """
        number, threads = how
        with self._changing:
            self._begun.setdefault(app, {})[number] = {
                node: actor.read.remote(app, ask=False, threads=bool(threads)) for node, actor in self._actors.items()
            }

    def collect(self, _run: str, app: str) -> dict[int, tuple[NodeReading, ...]]:
        """The readings that were begun since the last call, by number; nodes that did not answer are absent."""
        with self._changing:
            begun = self._begun.pop(app, {})
        return {number: tuple(_answers(asked).values()) for number, asked in begun.items()}

    def forget(self, _run: str, app: str) -> None:
        """Forget an application that is deleted."""
        with self._changing:
            self._begun.pop(app, None)
            for actor in self._actors.values():
                actor.forget.remote(app)

    def offsets(self, _run: str) -> dict[str, ClockOffset]:
        """How far the clock of each node is ahead of this machine's; measured again after a minute."""
        with self._changing:
            is_old = time.monotonic() - self._offsets_at_s > CLOCK_AGE_S
            known = {} if is_old else {node: self._offsets[node] for node in self._actors if node in self._offsets}
            for node, actor in self._actors.items():
                if node not in known:
                    with contextlib.suppress(*_GONE):
                        known[node] = measured_offset(partial(_clock_of, actor))
            self._offsets = known
            self._offsets_at_s = time.monotonic() if is_old else self._offsets_at_s
            return dict(known)

    def _start(self, run: str, node: str, facts: Mapping[str, Any]) -> Any:
        context = ray.get_runtime_context()
        session = context.get_session_name() if is_head(facts) else ""
        name = monitor_name(run, node)
        monitor = on_node(NodeMonitor, node, name=name, namespace=NAMESPACE, get_if_exists=True, max_concurrency=8)
        actor = monitor.remote(node, facts["NodeManagerAddress"], session=session)
        if node == context.get_node_id():
            for pid in (os.getpid(), os.getppid()):  # the driver and pytest
                actor.watch.remote(pid)
        return actor


def _answers(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The answers that came in time, by node."""
    answers: dict[str, Any] = {}
    if asked:
        ray.wait(list(asked.values()), num_returns=len(asked), timeout=_ANSWER_TIMEOUT_S)
    for node, answer in asked.items():
        with contextlib.suppress(*_GONE):
            answers[node] = ray.get(answer, timeout=0)
    return answers


def _clock_of(actor: Any) -> tuple[str, int]:
    """The machine of a monitor, and the present on its clock."""
    found: tuple[str, int] = ray.get(actor.clock.remote(), timeout=_ANSWER_TIMEOUT_S)
    return found


monitors: _Monitors = _Monitors()  # The monitors of this driver, which calls its methods by name
_LINK_PATIENCE_S = 30.0
"""Time in which a replica finds the monitor of its node, which starts with the first deployment there."""
_LINK_POLL_S = 0.1  # Time between two of its tries


def linked(job: ReplicaJob, replica: str) -> LinkClient:
    """The link of a replica, by its identity in Ray Serve. It blocks, so an event loop makes it in a thread.

    Raises RuntimeError: the node has no monitor after half a minute.
    """
    known = ReplicaStats(job.deployment, job.role, job.position, replica, os.getpid())
    application = job.application
    return LinkClient(_monitor_address(application.run), Hello(application.app, known, own_output()))


def _monitor_address(run: str) -> LinkAddress:
    name = monitor_name(run, ray.get_runtime_context().get_node_id())
    deadline = time.monotonic() + _LINK_PATIENCE_S
    while True:
        try:
            monitor = ray.get_actor(name, namespace=NAMESPACE)
            address: LinkAddress = ray.get(monitor.link.remote(), timeout=_LINK_PATIENCE_S)
            return address
        except ValueError:  # it starts beside the application
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"node {ray.util.get_node_ip_address()} has no monitor {name} after {_LINK_PATIENCE_S:.0f} s"
                ) from None
        time.sleep(_LINK_POLL_S)
