"""A service that the user runs: attach to its address, check that it answers, and leave it running at the end."""

from __future__ import annotations

import contextlib
import importlib.util
import ssl
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.errors import DeploymentError, missing_extra
from pytest_mlpatterns.records.addressing import Remote
from pytest_mlpatterns.records.setup import merged_facts
from pytest_mlpatterns.serving.deployment import Deployment
from pytest_mlpatterns.serving.external.scraper import scraper_of
from pytest_mlpatterns.serving.failed_request import error_text, stream_failure
from pytest_mlpatterns.serving.processes import ForeignProcesses
from pytest_mlpatterns.serving.readiness import set_up
from pytest_mlpatterns.serving.targets import App, Command, Url, prometheus_of
from pytest_mlpatterns.system.files import read_text
from pytest_mlpatterns.wire.stream_request import read_stream
from pytest_mlpatterns.wording import listed
from pytest_mlpatterns.workload.endpoint import CLIENT_ACCEPTS, Endpoint, model_of, path_at

if TYPE_CHECKING:
    import httpx

    from pytest_mlpatterns.serving.model import StartOptions

_CONNECT_TIMEOUT_S = 5.0  # Time limit of one attempt to connect, in seconds
FIRST_TRIES = 3
"""Tries of the first request: a service that fails a few is measured, and its failures count."""
_LEAST_S = 0.1  # Time for the first request if the search for an address has taken all
_DESCRIPTION = "/openapi.json"
_DESCRIPTION_TIMEOUT_S = 2.0  # Time limit for the description of a service, in seconds: it is for a message only
_MOST_SHOWN = 5  # Most paths of a description that a message names
_METHODS = ("post", "put", "patch")  # Methods of requests that carry an input
NO_SUCH_PATH = (404, 405)  # Statuses of a path or method that a service does not have
_OTHER_FORM = (400, 415, 422)  # Statuses of a body that a service does not expect


def attach(target: Url, options: StartOptions) -> Deployment:
    """Attach to a running service. If there is a payload, the first request must succeed."""
    import httpx

    from pytest_mlpatterns.serving.bounded_client import EndlessAnswerError, describe_error
    from pytest_mlpatterns.system.environment_facts import process_facts

    deadline = time.monotonic() + options.timeout_ns / 1e9
    endpoint = Endpoint(
        addresses=(_resolve(target, deadline),),
        path=path_at(options.wire, target.path),
        model_name=model_of(options.wire, target.path),
        host=target.host,
        wire=options.wire,
        remote=_remote(target, needs_library=options.wire.protocol != "client"),
        stream=read_stream(target.stream, "Url"),
        accepts=CLIENT_ACCEPTS,
    )
    pids = () if target.pid is None else (target.pid,)
    processes = ForeignProcesses(pids, on_facts=lambda: merged_facts(map(process_facts, pids)))
    deployment = Deployment(endpoint, processes, builder=options.builder)
    try:
        deadline += set_up(deployment, 0, target, options=options) / 1e9
        if options.payload is not None:
            _check_first_answer(deployment, target, options, deadline=deadline)
        if (names := prometheus_of(target)) is not None:
            scraper = scraper_of(names, [target.origin])
            deployment.read_metrics_with(scraper, require_known=options.payload is not None)
    except httpx.HTTPError as error:
        deployment.close()
        hint = "" if isinstance(error, EndlessAnswerError) else "; is the service running?"
        raise DeploymentError(f"{target}: {describe_error(error)}{hint}", subject=target) from error
    except DeploymentError:
        deployment.close()
        raise
    return deployment


def _check_first_answer(deployment: Deployment, target: Url, options: StartOptions, *, deadline: float) -> None:
    assert options.payload is not None
    request = deployment.request_of(options.payload)
    for _ in range(FIRST_TRIES):
        response = deployment.ask(deployment.client, request, max(deadline - time.monotonic(), _LEAST_S))
        if not response.is_server_error:
            break
    if not response.is_success:
        advice = advice_on_request(response, target, options, client=deployment.client)
        said = f"{target} answered {response.status_code}: {error_text(response)[:2000]}{advice}"
        raise DeploymentError(said, subject=target)
    if failure := stream_failure(response, options.wire, request["content"], stream=deployment.endpoint.stream):
        raise DeploymentError(f"{target} answered {response.status_code}, and {failure}", subject=target)


def _remote(target: Url, *, needs_library: bool) -> Remote | None:
    """Address for the client library that https and HTTP/2 need; None for plain HTTP/1.1."""
    if not target.is_https and not target.http2:
        return None
    if needs_library and importlib.util.find_spec("pyreqwest") is None:
        raise DeploymentError(missing_extra(f"{target} (https or HTTP/2)", "pyreqwest", "https"), subject=target)
    return Remote(target.origin, target.http2, None if target.ca is None else _certificate_in(Path(target.ca)))


def _certificate_in(file: Path) -> bytes:
    try:
        text = read_text(file)
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        raise DeploymentError(f"Url(ca={str(file)!r}) has no certificate in PEM: {error}; name another file") from None
    return text.encode()


def _resolve(target: Url, deadline: float) -> tuple[str, int]:
    """The first address of the host that accepts a connection; the first of all if none does."""
    import socket

    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except OSError as error:
        said = f"{target}: the host {target.host!r} is not known: {error}; check the spelling"
        raise DeploymentError(said, subject=target) from error
    addresses = [(str(entry[4][0]), target.port) for entry in found]
    for address in addresses:
        timeout_s = min(_CONNECT_TIMEOUT_S, deadline - time.monotonic())
        if timeout_s <= 0:
            break
        with contextlib.suppress(OSError), socket.create_connection(address, timeout_s):
            return address
    return addresses[0]


def advice_on_request(
    response: httpx.Response, target: App | Command | Url, options: StartOptions, *, client: httpx.Client
) -> str:
    """The end of a message about a response that is not a success; empty unless path or form may be the reason."""
    if response.status_code in _OTHER_FORM:
        return _advice_on_form(options)
    if response.status_code not in NO_SUCH_PATH:
        return ""
    known = _paths_of(client)
    shown = [f"{method.upper()} {path}" for path, methods in known.items() for method in methods]
    has = f"; the service has {listed(shown[:_MOST_SHOWN])} (its {_DESCRIPTION[1:]})" if shown else ""
    if options.builder is not None:
        return f"{has}; correct the path that request= returns"
    if options.payload is not None and not options.payload.bodies:
        return f"{has}; correct the path of the requests in perf_payload"
    path = next(iter(known), "/predict")
    if type(target).__name__ == "Url":
        return f"{has}; name the path that takes inputs in the address"
    return f'{has}; name the path that takes inputs: {type(target).__name__}(..., path="{path}")'


def _advice_on_form(options: StartOptions) -> str:
    if options.builder is not None:
        return "; correct what request= returns"
    if not options.payload or not options.payload.bodies:
        return ""
    return (
        f"; each input of perf_payload was sent in the form of the wire {str(options.wire)!r}; if the service "
        "expects another one, name it: @pytest.mark.perf(request=lambda item: {'json': item})"
    )


def _paths_of(client: httpx.Client) -> dict[str, list[str]]:
    """The methods that take a body, by path; empty if the service does not describe itself."""
    import httpx

    from pytest_mlpatterns.serving.bounded_client import get_page

    try:
        response = get_page(client, _DESCRIPTION, _DESCRIPTION_TIMEOUT_S)
        described: Any = response.json() if response.is_success else {}
        return {
            path: methods
            for path, operations in described.get("paths", {}).items()
            if (methods := [name for name in _METHODS if name in operations])
        }
    except (httpx.HTTPError, ValueError, AttributeError, TypeError, RecursionError):  # no answer, or of another form
        return {}
