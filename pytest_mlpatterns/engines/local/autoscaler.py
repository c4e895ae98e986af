"""Starts and ends the replicas of a process group as the gateway before it asks: the launcher's side of autoscaling.

The gateway decides and balances, see :mod:`pytest_mlpatterns.engines.local.scaled_upstream`. This module runs in the
process that started the deployment, in threads of its own: one for each replica that starts or ends.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

from pytest_mlpatterns.engines.local.messages import (
    EndReplica,
    ReplicaDied,
    ReplicaEnded,
    ReplicaFailed,
    ReplicaStarted,
)
from pytest_mlpatterns.engines.local.processes import MAX_REPLACEMENTS, await_loaded
from pytest_mlpatterns.errors import ChildError, DeploymentError, MlpatternsError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_mlpatterns.engines.local.messages import ReplicaNews, ReplicaWish
    from pytest_mlpatterns.engines.local.processes import SupervisedWorker
    from pytest_mlpatterns.serving.start_options import StartOptions

__all__ = ["Autoscaler", "ScaledReplica"]


class ScaledReplica:
    """A replica of a scaled group: its processes, the outermost last.

    Args:
        address: ``(host, port)`` of its outermost process.
    """

    def __init__(self, address: tuple[str, int], workers: Sequence[SupervisedWorker]) -> None:
        self.address = address
        self.workers = workers

    def await_loaded(self, model: str, options: StartOptions) -> None:
        """Wait until all its processes are ready.

        Raises:
            ModelLoadError: a model could not be built; with its traceback.
            DeploymentError: one was not ready in time.
        """
        started_ns = time.perf_counter_ns()
        for worker in self.workers:
            await_loaded(worker, model, started_ns, options=options)
        for worker in self.workers:
            worker.is_starting = False

    def end(self, *, keep_facts: bool = False) -> None:
        """End its processes, keep what they counted, and wait until they are gone."""
        for worker in self.workers:
            worker.retire(keep_facts=keep_facts)
        for worker in self.workers:
            worker.close_channel()
        for worker in self.workers:
            worker.end_retired()


class Autoscaler:
    """The replicas of one scaled group.

    Args:
        group: its number, which is in all messages about it.
        start: starts one replica, without waiting for it.
        settle: called with the processes of a replica when they are ready.
        model: name of the model, for messages.

    Attributes:
        died: number of replicas that died, each of which was replaced if the load still wanted it.
    """

    def __init__(
        self,
        group: int,
        start: Callable[[], ScaledReplica],
        settle: Callable[[Sequence[SupervisedWorker]], None],
        *,
        model: str,
        options: StartOptions,
    ) -> None:
        self.died: int = 0
        self._group = group
        self._start = start
        self._settle = settle
        self._model = model
        self._options = options
        self._gateway: SupervisedWorker | None = None
        self._lock = threading.RLock()
        self._replicas: dict[tuple[str, int], ScaledReplica] = {}
        self._threads: list[threading.Thread] = []
        self._closing = threading.Event()
        self._has_facts = False
        self._failure: MlpatternsError | None = None

    def start_first(self, number: int) -> tuple[tuple[str, int], ...]:
        """Start the replicas with which the group begins; the launcher waits for them.

        Returns:
            Their addresses.
        """
        for _ in range(number):
            replica = self._start()
            self._replicas[replica.address] = replica
        return tuple(self._replicas)

    def serve(self, gateway: SupervisedWorker) -> None:
        """Report to this gateway from now on, and notice replicas that die; the first replicas are ready."""
        with self._lock:
            if self._gateway is not None:
                return
            self._gateway = gateway
            for replica in self._replicas.values():
                for worker in replica.workers:
                    worker.is_starting = False
                self._watch(replica)

    def take(self, wish: ReplicaWish) -> None:
        """Do what the gateway asks for, without waiting."""
        if isinstance(wish, EndReplica):
            self._in_thread(lambda: self._end(wish.address))
            return
        for _ in range(wish.number):
            self._in_thread(self._bring)

    def check(self) -> None:
        """Check that replicas start and do not keep dying.

        Raises:
            ModelLoadError: one could not load its model; with its traceback.
            DeploymentError: one was not ready in time, or too many died.
        """
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Start no more replicas; those that run are the launcher's to end."""
        with self._lock:
            self._closing.set()

    def join(self) -> None:
        """Wait for the threads, after the processes have ended."""
        for thread in self._threads:
            thread.join()

    def _in_thread(self, run: Callable[[], None]) -> None:
        with self._lock:
            if self._closing.is_set():
                return
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            thread = threading.Thread(target=run, name=f"replica of {self._model}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _bring(self) -> None:
        """Start one replica, and report it when it is ready, or why it is not."""
        replica = None
        try:
            with self._lock:
                if self._closing.is_set():
                    return
                self.check()
                replica = self._start()
                self._replicas[replica.address] = replica
            replica.await_loaded(self._model, self._options)
        except (MlpatternsError, OSError) as error:
            self._fail(error, replica)
            return
        with self._lock:
            if self._closing.is_set():  # a process that the launcher ends now must not be replaced
                return
            self._settle(replica.workers)
        self._tell(ReplicaStarted(self._group, replica.address))
        self._watch(replica)

    def _fail(self, error: MlpatternsError | OSError, replica: ScaledReplica | None) -> None:
        """A replica did not start."""
        with self._lock:
            if self._closing.is_set():
                return
            if self._failure is None:
                self._failure = error if isinstance(error, MlpatternsError) else DeploymentError(str(error))
        if replica is not None:
            self._replicas.pop(replica.address, None)
            replica.end()
        self._tell(ReplicaFailed(self._group, str(error)))

    def _end(self, address: tuple[str, int]) -> None:
        """End a replica that has no requests."""
        with self._lock:
            replica = self._replicas.pop(address, None)
            keep_facts, self._has_facts = not self._has_facts, True
        if replica is not None:
            replica.end(keep_facts=keep_facts)
            self._tell(ReplicaEnded(self._group, address))

    def _watch(self, replica: ScaledReplica) -> None:
        for worker in replica.workers:
            worker.when_ended(lambda: self._note_death(replica))

    def _note_death(self, replica: ScaledReplica) -> None:
        """A process of a replica has ended, perhaps as it was asked to."""
        with self._lock:
            if self._closing.is_set() or self._replicas.pop(replica.address, None) is None:
                return
            self.died += 1
            if self.died > MAX_REPLACEMENTS and self._failure is None:
                role = replica.workers[-1].role
                self._failure = DeploymentError(
                    f"{self.died} processes of {role}s that follow the load died, expected at most {MAX_REPLACEMENTS}; "
                    f"the last one printed:\n{replica.workers[-1].child.log_tail()}"
                )
        self._tell(ReplicaDied(self._group, replica.address))
        self._in_thread(replica.end)

    def _tell(self, news: ReplicaNews) -> None:
        """Report to the gateway; one that has ended is reported elsewhere."""
        assert self._gateway is not None, "no gateway asks before it serves"
        with contextlib.suppress(ChildError):
            self._gateway.child.send(news)
