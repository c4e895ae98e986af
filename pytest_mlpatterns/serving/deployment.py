"""A running deployment: where it listens, which processes it is, what it knows of itself, how it ends.

The same for what this package starts and for a service that ran before. Functional requests go through ``client``;
load does not.
"""

from __future__ import annotations

import itertools
import ssl
import time
from typing import TYPE_CHECKING, Any, Protocol

from pytest_mlpatterns.errors import DeploymentError
from pytest_mlpatterns.records.addressing import Balance
from pytest_mlpatterns.records.telemetry import PatternStats, merged_layers
from pytest_mlpatterns.wire import REST_JSON, Wire, WireError, decode_answer, encode_request
from pytest_mlpatterns.workload.payload import arguments_of
from pytest_mlpatterns.workload.request_builder import answer_in

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import httpx

    from pytest_mlpatterns.records.addressing import Remote
    from pytest_mlpatterns.serving.external.scraper import Scraper
    from pytest_mlpatterns.serving.local.supervised_worker import SupervisedWorker
    from pytest_mlpatterns.system.child import Child
    from pytest_mlpatterns.workload.payload import Payload
    from pytest_mlpatterns.workload.request_builder import RequestBuilder

__all__ = ["Backing", "Deployment"]

_CLIENT_TIMEOUT_S = 30.0
_DYING_S = 0.5


class Backing(Protocol):
    """Processes of another make that serve a deployment."""

    @property
    def pids(self) -> tuple[int, ...]:
        """Those whose trees they are."""
        ...

    def check(self, wait_s: float = 0.0) -> None:
        """Raise :class:`DeploymentError` where one has ended, at the latest after waiting so long for that."""

    def log_tail(self) -> str:
        """What they printed last."""
        ...

    def stop(self) -> None:
        """End them all. Safe to call twice."""


class Deployment:
    """A model that can be asked.

    Args:
        model_name: its name in the addresses; the path's last part for a service that ran before.
        addresses: ``(host, port)`` of every face.
        path: path that takes inference requests.
        balance: how load is spread over the addresses.
        members: our service processes, none for a service that ran before.
        helpers: other processes of ours, such as a store's server.
        roots: process ids of a service that ran before whose trees it is; empty where they are not known.
        backing: processes of another make that serve it.
        polled: requests are answered 202, and the result is fetched where ``Location`` says.
        on_close: ends what somebody else started, once.
        remote: how load is driven where our own connections cannot: https, HTTP/2.
        host: the name that requests are for, where it is not the first address.
        wire: how inputs and outputs travel.
        builder: makes a request of an input instead of the wire, as a service of another make takes it.

    Attributes:
        scraper: reads what a server of another make tells of itself, where it does.
    """

    def __init__(  # noqa: PLR0913 - the facts of a deployment, all by name
        self,
        *,
        model_name: str,
        addresses: Sequence[tuple[str, int]],
        path: str,
        balance: Balance = Balance.ROUND_ROBIN,
        members: Sequence[SupervisedWorker] = (),
        helpers: Sequence[Child] = (),
        roots: Sequence[int] = (),
        backing: Backing | None = None,
        polled: bool = False,
        on_close: Callable[[], None] | None = None,
        remote: Remote | None = None,
        host: str | None = None,
        wire: Wire = REST_JSON,
        builder: RequestBuilder | None = None,
    ) -> None:
        self.model_name = model_name
        self.addresses = tuple(addresses)
        self.path = path
        self.balance = balance
        self.remote = remote
        self.wire = wire
        self._builder = builder
        self.host = host or self.addresses[0][0]
        self.cold_start_ns: int | None = None
        self.polled = polled
        self._on_close = on_close
        self._members = tuple(members)
        self._helpers = tuple(helpers)
        self._roots = tuple(roots)
        self._backing = backing
        self.scraper: Scraper | None = None
        self._clients: list[httpx.Client] = []
        self._turns = itertools.count()

    @property
    def pids(self) -> tuple[int, ...]:
        """The deployment's own processes (their children are found when usage is measured)."""
        ours = [*(member.child for member in self._members), *self._helpers]
        theirs = () if self._backing is None else self._backing.pids
        return (*self._roots, *theirs, *(child.pid for child in ours))

    @property
    def url(self) -> str:
        """Base address of the first face, without a path."""
        return self.remote.origin if self.remote else _base_url(self.host, self.addresses[0][1])

    @property
    def client(self) -> httpx.Client:
        """An ``httpx.Client`` bound to :attr:`url`; closed with the deployment."""
        return self._client(0)

    def messages(self, payload: Payload) -> tuple[bytes, ...]:
        """Complete requests for this deployment, one for each input."""
        return payload.messages(self.host, self.addresses[0][1], self.path)

    def predict(self, value: Any) -> Any:
        """Ask for one input over HTTP, the faces taking turns.

        Returns:
            The output, as the wire gives it back; the whole answer where ``request=`` made the request.

        Raises:
            DeploymentError: the wire cannot hold the input, or the answer is another than 200 or not of its form.
        """
        import httpx

        client = self._client(next(self._turns) % len(self.addresses))
        try:
            response = self.ask(client, self._request_for(value), _CLIENT_TIMEOUT_S)
        except WireError as error:
            raise DeploymentError(
                f"predict({type(value).__name__}) cannot be sent over {self.wire}: {error}"
            ) from error
        except httpx.HTTPError as error:
            raise DeploymentError(f"{client.base_url}: {type(error).__name__}: {error}{self._epitaph()}") from error
        if response.status_code != httpx.codes.OK:
            raise DeploymentError(
                f"{response.url} answered {response.status_code}: {response.text[:2000]}{self._epitaph()}"
            )
        try:
            return self.outputs_of(response)[0] if self._builder is None else answer_in(response)
        except (ValueError, IndexError) as error:
            raise DeploymentError(f"{response.url} answered something else than one prediction: {error}") from error

    def _request_for(self, value: Any) -> dict[str, Any]:
        """What asks for one input, as arguments of ``httpx.Client.request``."""
        if self._builder is not None:
            return arguments_of(self._builder(value))
        body = encode_request(self.wire, [value], self.path)
        return {"method": "POST", "url": self.path, "content": body.joined(), "headers": dict(body.headers)}

    def outputs_of(self, response: httpx.Response) -> Sequence[Any]:
        """The outputs in an answer to a functional request.

        Raises:
            WireError: it is no such answer.
        """
        headers = {name: value for name, value in response.headers.items() if name != "content-encoding"}  # undone
        return decode_answer(self.wire, response.content, headers, self.path)

    def stats(self) -> PatternStats:
        """What the deployment knows of itself since its start.

        Raises:
            DeploymentError: one of its processes is gone or does not answer.
        """
        if self._backing is not None:
            self._backing.check()
        answers = [(member, member.stats()) for member in self._members]
        groups: dict[tuple[int, str], list[int]] = {}
        for member, answer in sorted(answers, key=lambda pair: pair[0].position):
            groups.setdefault((member.position, member.role), []).append(answer.predict_requests)
        several = next((counts for counts in groups.values() if len(counts) > 1), None)
        return PatternStats(
            replica_requests=tuple(several or next(iter(groups.values()), ())),
            tracebacks=tuple(dict.fromkeys(text for _, answer in answers for text in answer.tracebacks)),
            layers=merged_layers(layer for _, answer in answers for layer in answer.layers)
            + (self.scraper.layers() if self.scraper else ()),
            replaced=sum(member.replaced for member in self._members),
        )

    def ask(self, client: httpx.Client, request: dict[str, Any], timeout_s: float) -> httpx.Response:
        """Send a request and, where it is answered 202, ask for its result until it is there.

        Raises:
            httpx.HTTPError: nobody answers, or not in time.
        """
        import httpx

        deadline = time.monotonic() + timeout_s
        response = client.request(**request, timeout=timeout_s)
        while self.polled and response.status_code == httpx.codes.ACCEPTED:
            if (left := deadline - time.monotonic()) <= 0:
                raise httpx.ReadTimeout(f"no result after {timeout_s:g} s", request=response.request)
            response = client.get(response.headers["location"], timeout=left + 1.5)  # it answers once a second
        return response

    def log_tail(self) -> str:
        """What the processes printed last."""
        theirs = "" if self._backing is None else self._backing.log_tail()
        return "\n".join(filter(None, (theirs, *(member.child.log_tail() for member in self._members))))

    def close(self) -> None:
        """End every process of ours and wait until it is gone. Safe to call twice."""
        for client in self._clients:
            client.close()
        self._clients.clear()
        if self.scraper is not None:
            self.scraper.close()
        if self._backing is not None:
            self._backing.stop()
        for member in self._members:
            member.close_channel()
        for member in self._members:
            member.stop()
        for helper in self._helpers:
            helper.stop()
        if self._on_close is not None:
            end, self._on_close = self._on_close, None
            end()

    def _client(self, number: int) -> httpx.Client:
        import httpx

        if not self._clients:
            context = ssl.create_default_context()
            if self.remote is not None and self.remote.ca_pem is not None:
                context.load_verify_locations(cadata=self.remote.ca_pem.decode())
            urls = [self.url, *(_base_url(host, port) for host, port in self.addresses[1:])]
            self._clients = [
                httpx.Client(
                    base_url=url,
                    timeout=_CLIENT_TIMEOUT_S,
                    trust_env=False,
                    verify=context,
                    transport=_transport_of(self.wire),
                )
                for url in urls
            ]
        return self._clients[number]

    def _epitaph(self) -> str:
        """Why nobody answers, where the reason is that a process of ours died."""
        try:
            if self._backing is not None:
                self._backing.check(_DYING_S)  # a connection closes before the process is gone
            self.stats()
        except DeploymentError as error:
            return f"; {error}"
        return ""


def _base_url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _transport_of(wire: Wire) -> httpx.BaseTransport | None:
    """How an ``httpx.Client`` reaches who speaks this; None: as it does by itself."""
    if wire.protocol != "grpc":
        return None
    from pytest_mlpatterns.serving.grpc.client import GrpcTransport

    return GrpcTransport()
