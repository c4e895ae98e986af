"""One more replica of a local deployment, started while the others serve."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pytest_mlpatterns.serving.local.readiness import load_of
from pytest_mlpatterns.serving.readiness import too_slow_to_load

if TYPE_CHECKING:
    from pytest_mlpatterns.serving.engine import StartOptions
    from pytest_mlpatterns.serving.local.launcher import Launcher
    from pytest_mlpatterns.serving.local.supervised_worker import SupervisedWorker

__all__ = ["LocalScaler"]


class LocalScaler:
    """Adds replicas to one deployment; fulfils :class:`pytest_mlpatterns.serving.scale_out.Scaler`.

    Args:
        launcher: it started the deployment.
        model: name of the model, for messages.
        options: how the deployment was started.

    Attributes:
        timeout_ns: start-up time limit of a replica.
    """

    def __init__(self, launcher: Launcher, model: str, options: StartOptions) -> None:
        self.timeout_ns: int = options.timeout_ns
        self._launcher = launcher
        self._model = model
        self._options = options

    def add(self) -> LocalReplica:
        """Start one more replica, without waiting for it."""
        asked_ns, known = time.perf_counter_ns(), len(self._launcher.workers)
        address = self._launcher.start_another()
        return LocalReplica(address, self._launcher, known, asked_ns=asked_ns, model=self._model, options=self._options)


class LocalReplica:
    """A replica that was asked for: its processes, the outermost last.

    Args:
        address: ``(host, port)`` of its outermost process.
        launcher: it started the replica.
        known: number of processes of the deployment before.
        asked_ns: when it was asked for.
        model: name of the model.
        options: how it was started.
    """

    def __init__(
        self,
        address: tuple[str, int],
        launcher: Launcher,
        known: int,
        *,
        asked_ns: int,
        model: str,
        options: StartOptions,
    ) -> None:
        self.asked_ns = asked_ns
        self._address = address
        self._launcher = launcher
        self._workers: list[SupervisedWorker] = launcher.workers[known:]
        self._loading = list(self._workers)
        self._model = model
        self._options = options

    def address(self) -> tuple[str, int] | None:
        """The address once all its processes are ready; None until then."""
        while self._loading:
            worker = self._loading[0]
            try:
                load_of(worker, self._model, 0, options=self._options)
            except TimeoutError:
                if time.perf_counter_ns() > self.asked_ns + self._options.timeout_ns:
                    log = worker.child.log_tail()
                    raise too_slow_to_load(worker.role, self._model, log, options=self._options) from None
                return None
            self._loading.pop(0)
            if not self._loading:
                self._launcher.settle(self._workers)
        return self._address

    def requests(self) -> int:
        """Number of requests that its outermost process has received."""
        return self._workers[-1].stats().predict_requests
