"""When a deployment is ready, whichever engine started it: it has answered one real inference; and why it is not."""

from __future__ import annotations

import inspect
import time
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.errors import DeploymentError, ModelLoadError
from pytest_mlpatterns.serving.failed_request import stream_failure
from pytest_mlpatterns.serving.tracebacks import folded, user_traceback
from pytest_mlpatterns.units import format_duration
from pytest_mlpatterns.wire.kserve_v1 import decode_error
from pytest_mlpatterns.workload.request_builder import text_of

if TYPE_CHECKING:
    from pytest_mlpatterns.serving.deployment import Deployment
    from pytest_mlpatterns.serving.model import StartOptions
    from pytest_mlpatterns.serving.processes import LoadFailed, Unusable

_ROLES_OF_MODEL = frozenset({"service", "replica", "worker"})
"""Roles of processes that run ``perf_model``; the others are stages and members, which messages name instead."""


def failed_to_load(failure: LoadFailed, role: str, model: str, *, options: StartOptions) -> ModelLoadError:
    """The error of a process whose model could not be built."""
    is_model = role in _ROLES_OF_MODEL
    if (reason := failure.reason) is not None:
        said = f"{'' if is_model else f'{role} '}{reason}{_where_modules_are(reason, options)}"
        return ModelLoadError(said, subject=reason.name, of_model=is_model)
    return ModelLoadError(f"{_name(role, model)} failed to load:\n{failure.traceback}", **_naming(role, model))


def ended_while_loading(role: str, model: str, why: str) -> ModelLoadError:
    """The error of a process that ended before its model was built; ``why`` it did."""
    return ModelLoadError(f"{_name(role, model)} ended its process while loading: {why}", **_naming(role, model))


def too_slow_to_load(role: str, model: str, log: str, *, options: StartOptions) -> DeploymentError:
    """The error of a process that has not built its model in time; ``log`` has its last lines."""
    said = _too_slow(_name(role, model), "still loading", options, log=log)
    return DeploymentError(said, **_naming(role, model), retry=True)


def too_slow_to_answer(model: str, log: str, *, options: StartOptions) -> DeploymentError:
    """The error of a model whose first inference was not done in time; ``log`` has the last lines of its process."""
    said = _too_slow(model, "not done with its first inference", options, log=log)
    return DeploymentError(said, subject=model, of_model=True)


def _name(role: str, model: str) -> str:
    return model if role in _ROLES_OF_MODEL else role


def _naming(role: str, model: str) -> dict[str, Any]:
    """How an error names a process with which its message begins."""
    return {"subject": _name(role, model), "of_model": role in _ROLES_OF_MODEL}


def _where_modules_are(reason: Unusable, options: StartOptions) -> str:
    if not reason.is_absent:
        return ""
    advice = "correct the name, or add the directory of the module with pythonpath = in the ini file"
    return f" (rootdir {options.root}); {advice}"


def await_ready(deployment: Deployment, model: str, started_ns: int, *, options: StartOptions) -> None:
    """Wait until each server of a deployment answers its health check and one inference, if an input is known."""
    import httpx

    for number in range(len(deployment.addresses)):
        client = deployment.client_of(number)
        try:
            client.get("/v2/health/ready", timeout=left_s(started_ns, options)).raise_for_status()
            if options.payload is None:
                continue
            request = deployment.request_of(options.payload)
            response = deployment.ask(client, request, left_s(started_ns, options))
        except httpx.TimeoutException:
            raise too_slow_to_answer(model, deployment.log_tail(), options=options) from None
        except httpx.HTTPError as error:
            said = f"{model}: {error}{deployment.reason_of_failure()}"
            raise DeploymentError(said, subject=model, of_model=True) from error
        deployment.note_first_answer(started_ns)
        failure = stream_failure(response, options.wire, request["content"], stream=deployment.endpoint.stream)
        if failure or not response.is_success:
            tracebacks = "\n".join(deployment.stats().tracebacks)
            raise ModelLoadError(
                f"{model} failed on its first inference, of perf_payload item 0: "
                f"{response.status_code} {failure or decode_error(text_of(response).encode())[:2000]}\n"
                f"{tracebacks}".rstrip(),
                subject=model,
                of_model=True,
            )


def set_up(deployment: Deployment, number: int, subject: object, *, options: StartOptions) -> int:
    """Call the user's ``perf_setup`` with the client of one server, once that answers; the nanoseconds that it took."""
    began_ns = time.perf_counter_ns()
    if options.setup is not None:
        try:
            takes_ports = "ports" in inspect.signature(options.setup).parameters
            options.setup(deployment.client_of(number), **({"ports": options.ports} if takes_ports else {}))
        except Exception as error:  # any error of the user's code
            printed = f"\nIt printed last:\n{log}" if (log := deployment.log_tail()) else ""
            said = f"{subject}: perf_setup failed:\n{folded(user_traceback(error))}{printed}"
            raise DeploymentError(said, subject=subject, retry=False) from None
    return time.perf_counter_ns() - began_ns


def left_s(started_ns: int, options: StartOptions) -> float:
    """Seconds that are left of the start-up time limit, at least a millisecond."""
    return max(0.001, (started_ns + options.timeout_ns - time.perf_counter_ns()) / 1e9)


def _too_slow(name: str, state: str, options: StartOptions, *, log: str) -> str:
    text = (
        f"{name} is {state} after {format_duration(options.timeout_ns)}, the start-up time limit; "
        'raise it with perf(startup_timeout="5min") or --perf-startup-timeout'
    )
    return f"{text}\nIt printed last:\n{log}" if log else text
