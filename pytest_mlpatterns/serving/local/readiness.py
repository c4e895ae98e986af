"""When a local deployment is ready: its models are built, and it has answered one real inference."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.errors import ChildError, DeploymentError, ModelLoadError
from pytest_mlpatterns.serving.local.messages import LoadFailed, Ready
from pytest_mlpatterns.serving.stream_failure import stream_failure
from pytest_mlpatterns.units import format_duration
from pytest_mlpatterns.workload.request_builder import text_of

if TYPE_CHECKING:
    from pytest_mlpatterns.serving.deployment import Deployment
    from pytest_mlpatterns.serving.engine import StartOptions
    from pytest_mlpatterns.serving.local.supervised_worker import SupervisedWorker

__all__ = ["await_loaded", "await_ready", "load_of", "too_slow_to_load"]


def await_loaded(worker: SupervisedWorker, model: str, started_ns: int, *, options: StartOptions) -> None:
    """Wait until a process has built its model and accepts connections.

    Raises:
        ModelLoadError: it could not be built; with its traceback.
        DeploymentError: it was not built in time.
    """
    try:
        load_of(worker, model, _left_s(started_ns, options), options=options)
    except TimeoutError:
        raise too_slow_to_load(worker, model, options) from None


def load_of(worker: SupervisedWorker, model: str, wait_s: float, *, options: StartOptions) -> None:
    """Return when a process has built its model and accepts connections.

    Raises:
        TimeoutError: it has not after ``wait_s`` seconds.
        ModelLoadError: the model could not be built; with its traceback.
    """
    name = _name(worker, model)
    try:
        message: Any = worker.child.receive(wait_s)
    except ChildError as error:
        raise ModelLoadError(f"{name} ended its process while loading: {error}") from error
    if isinstance(message, LoadFailed) and message.reason:
        role = name.removesuffix(f" {model}")
        raise ModelLoadError(f"{role} {message.reason}{_where_modules_are(message.reason, options)}")
    if isinstance(message, LoadFailed):
        raise ModelLoadError(f"{name} failed to load:\n{message.traceback}")
    assert isinstance(message, Ready)


def too_slow_to_load(worker: SupervisedWorker, model: str, options: StartOptions) -> DeploymentError:
    """The error of a process that has not built its model in time."""
    return DeploymentError(_too_slow(_name(worker, model), "still loading", options, log=worker.child.log_tail()))


def _name(worker: SupervisedWorker, model: str) -> str:
    return f"perf_model {model}" if worker.role in ("service", "replica", "worker") else worker.role


def _where_modules_are(reason: str, options: StartOptions) -> str:
    if not reason.endswith(" on sys.path"):
        return ""
    advice = "correct the name, or add the directory of the module with pythonpath = in the ini file"
    return f" (rootdir {options.root}); {advice}"


def await_ready(deployment: Deployment, model: str, started_ns: int, *, options: StartOptions) -> None:
    """Wait until each server of a deployment answers its health check and one inference, if an input is known.

    Raises:
        ModelLoadError: the first inference failed; with its traceback.
        DeploymentError: a process ended, or was not ready in time.
    """
    import httpx

    for number in range(len(deployment.addresses)):
        client = deployment.client_of(number)
        try:
            client.get("/v2/health/ready", timeout=_left_s(started_ns, options)).raise_for_status()
            if options.payload is None:
                continue
            request = deployment.request_of(options.payload)
            response = deployment.ask(client, request, _left_s(started_ns, options))
        except httpx.TimeoutException:
            text = _too_slow(
                f"perf_model {model}", "not done with its first inference", options, log=deployment.log_tail()
            )
            raise DeploymentError(text) from None
        except httpx.HTTPError as error:
            raise DeploymentError(f"perf_model {model}: {error}{deployment.reason_of_failure()}") from error
        if deployment.cold_start_ns is None:
            deployment.cold_start_ns = time.perf_counter_ns() - started_ns
        failure = stream_failure(response, options.wire)
        if failure or not response.is_success:
            tracebacks = "\n".join(deployment.stats().tracebacks)
            raise ModelLoadError(
                f"perf_model {model} failed on its first inference, of perf_payload item 0: "
                f"{response.status_code} {failure or text_of(response)[:2000]}\n{tracebacks}".rstrip()
            )


def _left_s(started_ns: int, options: StartOptions) -> float:
    return max(0.001, (started_ns + options.timeout_ns - time.perf_counter_ns()) / 1e9)


def _too_slow(name: str, state: str, options: StartOptions, *, log: str) -> str:
    text = (
        f"{name} is {state} after {format_duration(options.timeout_ns)}, the start-up time limit; "
        'raise it with perf(startup_timeout="5min") or --perf-startup-timeout'
    )
    return f"{text}\nIt printed last:\n{log}" if log else text
