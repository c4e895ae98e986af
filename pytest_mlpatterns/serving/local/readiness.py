"""When the processes of a local deployment have built their models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.errors import ChildError
from pytest_mlpatterns.serving.process_messages import LoadFailed, Ready
from pytest_mlpatterns.serving.readiness import ended_while_loading, failed_to_load, left_s, too_slow_to_load

if TYPE_CHECKING:
    from pytest_mlpatterns.serving.engine import StartOptions
    from pytest_mlpatterns.serving.local.supervised_worker import SupervisedWorker

__all__ = ["await_loaded", "load_of"]


def await_loaded(worker: SupervisedWorker, model: str, started_ns: int, *, options: StartOptions) -> None:
    """Wait until a process has built its model and accepts connections.

    Raises:
        ModelLoadError: it could not be built; with its traceback.
        DeploymentError: it was not built in time.
    """
    try:
        load_of(worker, model, left_s(started_ns, options), options=options)
    except TimeoutError:
        raise too_slow_to_load(worker.role, model, worker.child.log_tail(), options=options) from None


def load_of(worker: SupervisedWorker, model: str, wait_s: float, *, options: StartOptions) -> None:
    """Return when a process has built its model and accepts connections.

    Raises:
        TimeoutError: it has not after ``wait_s`` seconds.
        ModelLoadError: the model could not be built; with its traceback.
    """
    try:
        message: Any = worker.child.receive(wait_s)
    except ChildError as error:
        raise ended_while_loading(worker.role, model, str(error)) from error
    if isinstance(message, LoadFailed):
        raise failed_to_load(message, worker.role, model, options=options)
    assert isinstance(message, Ready)
