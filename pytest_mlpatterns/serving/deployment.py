"""A running deployment: its endpoint, its processes, a client for functional requests, its statistics and its end.

The same for a deployment that this package starts and for a service that ran before. Functional requests go through
:attr:`Deployment.client`; load does not.
"""

from __future__ import annotations

import itertools
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.credentials import address_without_credentials
from pytest_mlpatterns.errors import DeploymentError
from pytest_mlpatterns.records.setup import EnvironmentFacts
from pytest_mlpatterns.records.telemetry import PatternStats
from pytest_mlpatterns.system.process_tree import Monitor, ResourceMonitor
from pytest_mlpatterns.wire import WireError, decode_answer, encode_request, path_of
from pytest_mlpatterns.wire.openai import model_path, with_model
from pytest_mlpatterns.wire.stream_request import described_answer, form_in
from pytest_mlpatterns.wording import marked
from pytest_mlpatterns.workload.own_client import ClientWire
from pytest_mlpatterns.workload.payload import Payload, arguments_of
from pytest_mlpatterns.workload.request_builder import RequestBuilder, answer_in, text_of

if TYPE_CHECKING:
    import httpx

    from pytest_mlpatterns.serving.external.scraper import Scraper
    from pytest_mlpatterns.serving.processes import Processes, Scaler
    from pytest_mlpatterns.system.cpu_share import CpuShare
    from pytest_mlpatterns.workload.endpoint import Endpoint

_CLIENT_TIMEOUT_S = 30.0  # Time limit of a functional request, in seconds
_EXIT_S = 0.5  # Wait for the exit of a process whose connection has just closed
_POLL_MARGIN_S = 1.5  # Added to the time-out of a poll, because the server holds it for up to a second
_LIST_TIMEOUT_S = 5.0  # Time limit for the list of models, in seconds


class Traits(Struct, frozen=True):
    """What is known of a deployment when it is made."""

    # the processor that it was given, and releases at its end; None if it may use all of the machine
    cpu_share: CpuShare | None = None
    scaler: Scaler | None = None  # adds replicas while it runs; None if its engine cannot
    cores: float | None = None  # number of cores that it may use; None for this machine's
    # makes a monitor of what it uses; None for one of its processes on this machine
    make_monitor: Callable[[], Monitor] | None = None
    # what each process of the deployment does, by its id, such as ``gateway``; as far as that is known
    roles: Mapping[int, str] = {}
    # time from its start to the first answer; None if none came yet, or it is not known
    cold_start_ns: int | None = None
    streams: bool = False
    # by which another process of the run sees it too, whose type its engine knows; None if only the process that
    # started it can
    shared: object = None


class Deployment:
    """A model that answers requests.

    Args:
        endpoint: where and how it is asked.
        traits: what else is known of it.
        builder: turns an input into a request, for services whose format is none of the wires.

    Attributes:
        cpu_share, scaler, cores, make_monitor, roles, shared: as in :class:`Traits`.
        cold_start_ns: time from its start to the first answer; None if it is not known.
        streams: whether it has answered a functional request, such as the first one, with a stream.
        answer_form: what its first answer looked like, in words; empty if none came, or it was a stream.
        scraper: reads the metrics of a third-party server; None if it has none.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        processes: Processes,
        traits: Traits | None = None,
        *,
        builder: RequestBuilder | None = None,
    ) -> None:
        self.endpoint: Endpoint = endpoint
        self.processes: Processes = processes
        traits = Traits() if traits is None else traits
        self.cpu_share: CpuShare | None = traits.cpu_share
        self.scaler: Scaler | None = traits.scaler
        self.cores: float | None = traits.cores
        self.make_monitor: Callable[[], Monitor] | None = traits.make_monitor
        self.roles: Mapping[int, str] = traits.roles
        self.shared: object = traits.shared
        self.cold_start_ns: int | None = traits.cold_start_ns
        self.streams: bool = traits.streams
        self.answer_form: str = ""
        self.scraper: Scraper | None = None
        self._builder = builder
        self._clients: list[httpx.Client] = []
        self._transport: httpx.BaseTransport | None = None
        self._next_server = itertools.count()

    @property
    def model_name(self) -> str:
        """Name of the model in the path."""
        return self.endpoint.model_name

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """``(host, port)`` of each server."""
        return self.endpoint.addresses

    @property
    def path(self) -> str:
        """Path that takes inference requests."""
        return self.endpoint.path

    @property
    def url(self) -> str:
        """Base URL of the first server, with the prefix and without a path."""
        return self.endpoint.url

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the deployment, without children of these processes."""
        return self.processes.pids

    @property
    def cpus(self) -> float | None:
        """Number of cores that it was given; None if it may use all of the machine."""
        return None if self.cpu_share is None else self.cpu_share.cpus

    @property
    def client(self) -> httpx.Client:
        """An ``httpx.Client`` whose base URL is :attr:`url`; closed with the deployment.

        Its time-out, 30 s unless a request has another, holds for a whole answer; ``timeout=None`` reads a stream.
        """
        return self.client_of(0)

    def monitor(self) -> Monitor:
        """A new monitor of what the deployment uses."""
        return ResourceMonitor(lambda: self.pids, self.cpus) if self.make_monitor is None else self.make_monitor()

    def note_first_answer(self, started_ns: int) -> None:
        """Take the time since the start as the cold start's, unless an answer came before."""
        if self.cold_start_ns is None:
            self.cold_start_ns = time.perf_counter_ns() - started_ns

    def read_metrics_with(self, scraper: Scraper, *, require_known: bool) -> None:
        """Read the metrics of its server from now on; arguments and errors as of :meth:`Scraper.start`."""
        self.scraper = scraper
        scraper.start(require_known=require_known)

    def client_of(self, number: int) -> httpx.Client:
        """The client of one server, numbered as in :attr:`addresses`."""
        import httpx

        if not self._clients:
            self._transport = transport_to(self.endpoint)
            self._clients = [
                httpx.Client(base_url=url, timeout=_CLIENT_TIMEOUT_S, trust_env=False, transport=self._transport)
                for url in self.endpoint.urls
            ]
        return self._clients[number]

    def drop_connections(self) -> None:
        """Close the connections of its clients over HTTP, which open others when they are used again."""
        if self._transport is not None and self.endpoint.wire.protocol != "grpc":
            self._transport.close()

    def messages(self, payload: Payload) -> tuple[bytes, ...]:
        """Complete requests for this deployment, one for each input."""
        model = self._model_for(payload)
        at = self.endpoint
        return payload.messages(at.host, at.port, at.path, model=model, prefix=at.prefix, accepts=at.accepts)

    def request_of(self, payload: Payload, number: int = 0) -> dict[str, Any]:
        """The request of an input as arguments of ``httpx.Client.request``."""
        return self._as_sent(payload.request(self.path, number, model=self._model_for(payload)))

    def _model_for(self, payload: Payload) -> str:
        """The name of the model, if requests need it: of our own, or the first that the server lists."""
        return self._model_name() if payload.needs_model else ""

    def _model_name(self) -> str:
        if not self.endpoint.model_name:
            self.endpoint = replace(self.endpoint, model_name=first_model(self.client, self.path))
        return self.endpoint.model_name

    def predict(self, value: Any) -> Any:
        """Send one input; successive calls go to the servers in turn.

        Returns:
            The output in the form that the wire decodes to, for a stream the list of its chunks; the whole response if
            ``request=`` built the request.

        Raises:
            DeploymentError: the wire cannot encode the input, the server is not reachable, its status is not 200, or
                its response cannot be decoded.
        """
        import httpx

        from pytest_mlpatterns.serving.bounded_client import describe_error

        client = self.client_of(next(self._next_server) % len(self.addresses))
        printed = self.processes.traceback_from_now()
        try:
            response = self.ask(client, self._request_for(value), _CLIENT_TIMEOUT_S)
        except WireError as error:
            raise DeploymentError(
                f"predict({type(value).__name__}) cannot be sent over {self.endpoint.wire}: {error}"
            ) from error
        except httpx.HTTPError as error:
            reason = self.reason_of_failure()
            raise DeploymentError(f"{client.base_url}: {describe_error(error)}{reason}") from error
        address = address_without_credentials(str(response.url))
        if response.status_code != httpx.codes.OK:
            reason = self.reason_of_failure()
            if response.is_server_error and not reason and (text := printed()):
                reason = f"\nThe service printed:\n{marked(text)}"
            raise DeploymentError(f"{address} answered {response.status_code}: {text_of(response)[:2000]}{reason}")
        try:
            return self.outputs_of(response)[0] if self._builder is None else answer_in(response)
        except (ValueError, IndexError) as error:
            raise DeploymentError(
                f"{address} returned a response that is not one prediction over {self.endpoint.wire}: {error}"
            ) from error

    def ask(self, client: httpx.Client, request: dict[str, Any], timeout_s: float) -> httpx.Response:
        """Send a request; if the endpoint is polled and answers 202, poll until the result is there.

        Raises:
            httpx.HTTPError: the server is not reachable, or the time limit has passed.
        """
        import httpx

        deadline = time.monotonic() + timeout_s
        response = client.request(**request, timeout=timeout_s)
        while self.endpoint.polled and response.status_code == httpx.codes.ACCEPTED:
            if (left_s := deadline - time.monotonic()) <= 0:
                raise httpx.ReadTimeout(f"no result after {timeout_s:g} s", request=response.request)
            response = client.get(response.headers["location"], timeout=left_s + _POLL_MARGIN_S)
        self._note_form(response)
        return response

    def _note_form(self, response: httpx.Response) -> None:
        """Note whether a functional answer is a stream, and of the first one that is none what it looks like."""
        if not response.is_success:
            return
        if form_in(response.headers, self.endpoint.wire, self.endpoint.stream) is not None:
            self.streams = True
        elif not self.answer_form:
            from pytest_mlpatterns.serving.bounded_client import PIECES, Pieces

            pieces: Pieces = response.extensions.get(PIECES, Pieces())
            size, spread_ns = len(response.content), round((pieces.last_s - pieces.first_s) * 1e9)
            self.answer_form = described_answer(
                response.headers, size, pieces=pieces.count, spread_ns=spread_ns, stream=self.endpoint.stream
            )

    def outputs_of(self, response: httpx.Response) -> Sequence[Any]:
        """The outputs in the response to a functional request.

        Raises:
            WireError: the response has not the form of the wire.
        """
        # httpx has decompressed the body already.
        headers = {name: value for name, value in response.headers.items() if name != "content-encoding"}
        return decode_answer(self.endpoint.wire, response.content, headers, path=self.path, stream=self.endpoint.stream)

    def stats(self) -> PatternStats:
        """Statistics of the deployment since its start.

        Raises:
            DeploymentError: a process has ended or does not answer, or the metrics cannot be read.
        """
        stats = self.processes.stats()
        return replace(stats, layers=stats.layers + self.scraper.layers()) if self.scraper else stats

    def facts(self) -> EnvironmentFacts:
        """The environment of its processes, as far as it is known; ask while no load runs, since they answer it."""
        return self.processes.facts()

    def log_tail(self) -> str:
        """Last lines of the processes' output."""
        return self.processes.log_tail()

    def reason_of_failure(self) -> str:
        """Why a request failed, as the end of a message, if a process of the deployment has ended; else empty."""
        try:
            self.processes.check(_EXIT_S)
            self.stats()
        except DeploymentError as error:
            return f"; {error}"
        return ""

    def close(self) -> None:
        """End all processes of the deployment and wait until they are gone. Safe to call twice."""
        for client in self._clients:
            client.close()
        self._clients.clear()
        if self.scraper is not None:
            self.scraper.close()
        self.processes.stop()
        if self.cpu_share is not None:
            self.cpu_share.release()

    def _request_for(self, value: Any) -> dict[str, Any]:
        """Arguments of ``httpx.Client.request`` for one input."""
        if self._builder is not None:
            return self._as_sent(arguments_of(self._builder(value)))
        path = path_of(self.endpoint.wire, value, self.path)
        body = encode_request(self.endpoint.wire, [value], path)
        content = body.joined()
        if self.endpoint.wire.protocol == "openai":
            content = with_model(content, self._model_name())
        return self._as_sent({"method": "POST", "url": path, "content": content, "headers": dict(body.headers)})

    def _as_sent(self, request: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a request, with the ``accept-encoding`` that the load has, too."""
        accepts = self.endpoint.accepts
        return {**request, "headers": {"accept-encoding": accepts, **request["headers"]}} if accepts else request


def transport_to(endpoint: Endpoint) -> httpx.BaseTransport:
    """The ``httpx`` transport of functional requests."""
    if endpoint.wire.protocol == "grpc":
        from pytest_mlpatterns.serving.grpc.functional_client import GrpcTransport

        return GrpcTransport()
    from pytest_mlpatterns.serving.bounded_client import BoundedTransport

    context = None
    if endpoint.remote is not None:  # a context reads files that the environment names
        context = ssl.create_default_context()
        if endpoint.remote.ca_pem is not None:
            context.load_verify_locations(cadata=endpoint.remote.ca_pem.decode())
    if isinstance(endpoint.wire, ClientWire):
        from pytest_mlpatterns.serving.client_transport import ClientTransport

        return ClientTransport(endpoint.wire, context)
    return BoundedTransport(context)


def first_model(client: httpx.Client, path: str) -> str:
    """The first model of the list beside the path of requests; empty if the server has no such list."""
    import httpx

    from pytest_mlpatterns.serving.bounded_client import get_page

    try:
        response = get_page(client, model_path(path), _LIST_TIMEOUT_S)
        name = response.json()["data"][0]["id"] if response.is_success else ""
    except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError, RecursionError):  # no answer, or another form
        return ""
    return name if isinstance(name, str) else ""
