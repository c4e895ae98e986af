"""The local engine: starts a model's processes under a topology, waits until they are ready, or says why not.

Ready means that every process accepts, answers its health check, and (where an input is known) has answered one real
inference. Every process listens on 127.0.0.1, on a port that the system chose.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.children import Child
from pytest_mlpatterns.errors import ChildError, DeploymentError, ModelLoadError
from pytest_mlpatterns.load.job import Balance, Remote
from pytest_mlpatterns.patterns.base import Spread
from pytest_mlpatterns.serve.deployment import Deployment
from pytest_mlpatterns.serve.worker import Listening, LoadFailed, WorkerJob, listening_socket
from pytest_mlpatterns.units import format_duration

if TYPE_CHECKING:
    import socket

    from pytest_mlpatterns.load.payload import Payload
    from pytest_mlpatterns.patterns.base import Topology
    from pytest_mlpatterns.serve.model import ModelSource
    from pytest_mlpatterns.targets import Url

__all__ = ["MAX_BODY_BYTES", "Startup", "attach", "launch"]

MAX_BODY_BYTES = 64 * 2**20
"""Longest request body that our servers accept."""
_CONNECT_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Startup:
    """How a deployment is started: the time limit, a first request (None: health alone), where its logs go."""

    timeout_ns: int
    payload: Payload | None
    directory: Path


def launch(source: ModelSource, topology: Topology, startup: Startup) -> Deployment:
    """Start a model and wait until it is ready.

    Raises:
        ModelLoadError: the model could not be built or failed on its first inference; with its traceback.
        DeploymentError: a process died, or was not ready in time.
    """
    started_ns = time.perf_counter_ns()
    name = re.sub(r"\W+", "", source.name.rpartition(".")[2].rpartition(":")[2]) or "model"
    shared = listening_socket() if topology.spread is Spread.SHARED_SOCKET else None
    workers: list[Child] = []
    try:
        for number in range(topology.replicas):
            workers.append(_start(source, name, number, shared, startup))  # noqa: PERF401 - those started are stopped
        ports = [_await_listening(worker, source.name, started_ns, startup) for worker in workers]
    except BaseException:
        for worker in workers:
            worker.stop()
        raise
    finally:
        if shared is not None:
            shared.close()
    least = topology.spread is Spread.LEAST_OUTSTANDING
    deployment = Deployment(
        model_name=name,
        addresses=[("127.0.0.1", port) for port in dict.fromkeys(ports)],
        path=f"/v1/models/{name}:predict",
        balance=Balance.LEAST_OUTSTANDING if least else Balance.ROUND_ROBIN,
        workers=workers,
        roots=[worker.pid for worker in workers],
    )
    try:
        _await_ready(deployment, source.name, started_ns, startup)
    except BaseException:
        deployment.close()
        raise
    return deployment


def attach(target: Url, startup: Startup) -> Deployment:
    """Use a service that runs already, after one request has shown that it answers.

    Raises:
        DeploymentError: nobody answers there, or with an error.
    """
    import httpx

    deployment = Deployment(
        model_name=target.path.rpartition("/")[2],
        addresses=[_resolve(target)],
        host=target.host,
        path=target.path,
        roots=[] if target.pid is None else [target.pid],
        remote=_remote(target),
    )
    try:
        if startup.payload is not None:
            request = startup.payload.first(target.path)
            response = deployment.client.request(**request, timeout=startup.timeout_ns / 1e9)
            if not response.is_success:
                raise DeploymentError(f"{target.url} answered {response.status_code}: {response.text[:2000]}")
    except httpx.HTTPError as error:
        deployment.close()
        raise DeploymentError(f"{target.url}: {type(error).__name__}: {error}; does the service run?") from error
    except DeploymentError:
        deployment.close()
        raise
    return deployment


def _start(source: ModelSource, name: str, number: int, shared: socket.socket | None, startup: Startup) -> Child:
    descriptors = [] if shared is None else [shared.fileno()]
    log = startup.directory / f"{name}-{number}-{time.monotonic_ns()}.log"
    worker = Child("pytest_mlpatterns.serve.worker", log=log, pass_fds=descriptors)
    worker.send(
        WorkerJob(
            model=source,
            name=name,
            import_path=tuple(sys.path),
            max_body_bytes=MAX_BODY_BYTES,
            socket_fd=descriptors[0] if descriptors else None,
        )
    )
    return worker


def _await_listening(worker: Child, model: str, started_ns: int, startup: Startup) -> int:
    try:
        message: Any = worker.receive(_left_s(started_ns, startup))
    except TimeoutError:
        raise DeploymentError(_too_slow(model, "still loading", startup, worker.log_tail())) from None
    except ChildError as error:
        raise ModelLoadError(f"perf_model {model} ended its process while loading: {error}") from error
    if isinstance(message, LoadFailed):
        raise ModelLoadError(f"perf_model {model} failed to load:\n{message.traceback}")
    assert isinstance(message, Listening)
    return message.port


def _await_ready(deployment: Deployment, model: str, started_ns: int, startup: Startup) -> None:
    import httpx

    for number in range(len(deployment.addresses)):
        client = deployment._client(number)
        try:
            client.get("/v2/health/ready", timeout=_left_s(started_ns, startup)).raise_for_status()
            if startup.payload is None:
                continue
            request = startup.payload.first(deployment.path)
            response = client.request(**request, timeout=_left_s(started_ns, startup))
        except httpx.TimeoutException:
            text = _too_slow(model, "not done with its first inference", startup, deployment.log_tail())
            raise DeploymentError(text) from None
        except httpx.HTTPError as error:
            raise DeploymentError(f"perf_model {model}: {error}{deployment._epitaph()}") from error
        if deployment.cold_start_ns is None:
            deployment.cold_start_ns = time.perf_counter_ns() - started_ns
        if not response.is_success:
            tracebacks = "\n".join(deployment.stats().tracebacks)
            raise ModelLoadError(
                f"perf_model {model} failed on its first inference, of perf_payload item 0: "
                f"{response.status_code} {response.text[:2000]}\n{tracebacks}".rstrip()
            )


def _left_s(started_ns: int, startup: Startup) -> float:
    return max(0.001, (started_ns + startup.timeout_ns - time.perf_counter_ns()) / 1e9)


def _too_slow(model: str, state: str, startup: Startup, log: str) -> str:
    text = (
        f"perf_model {model} is {state} after {format_duration(startup.timeout_ns)}, the start-up time limit; "
        'raise it with perf(startup_timeout="5min") or --perf-startup-timeout'
    )
    return f"{text}\nIt printed last:\n{log}" if log else text


def _remote(target: Url) -> Remote | None:
    """How load reaches a target that needs a client library; None where our own connections serve."""
    if not target.is_https and not target.http2:
        return None
    if importlib.util.find_spec("pyreqwest") is None:
        raise DeploymentError(
            f"{target.url} needs a client library for https and HTTP/2, which is not installed; "
            "install it: pip install 'pytest-mlpatterns[https]'"
        )
    return Remote(target.origin, target.http2, None if target.ca is None else Path(target.ca).read_bytes())


def _resolve(target: Url) -> tuple[str, int]:
    """The first of the name's addresses at which somebody accepts; the first at all where nobody does."""
    import socket

    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise DeploymentError(f"{target.url}: the host {target.host!r} is not known: {error}") from error
    addresses = [(str(entry[4][0]), target.port) for entry in found]
    for address in addresses:
        with contextlib.suppress(OSError), socket.create_connection(address, timeout=_CONNECT_TIMEOUT_S):
            return address
    return addresses[0]
