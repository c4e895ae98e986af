"""Address of a deployment: where its servers listen, and how they are asked."""

from msgspec import Struct
from msgspec.structs import force_setattr

from pytest_mlpatterns.records.addressing import Balance, Remote
from pytest_mlpatterns.wire.grpc_call import model_in
from pytest_mlpatterns.wire.invocations import INVOCATIONS
from pytest_mlpatterns.wire.stream_request import AUTO, StreamSetting
from pytest_mlpatterns.wire.wire import REST_JSON, Wire

CLIENT_ACCEPTS = "gzip, deflate"
"""What clients accept: as httpx without further packages, so that a result does not depend on what is installed."""


class Endpoint(Struct, frozen=True):
    """Where a deployment takes inference requests, and how a client sends them."""

    addresses: tuple[tuple[str, int], ...]  # ``(host, port)`` of each server; at least one
    path: str = "/"
    # name of the model in the path; for a service that the user runs, the last part of the path, or over the wire
    # ``openai`` the first model that it lists, empty until that is known
    model_name: str = ""
    host: str = ""  # name in the ``host`` header; the first address's host if empty
    balance: Balance = Balance.ROUND_ROBIN
    wire: Wire = REST_JSON
    # the server answers 202, and the client polls the address in ``Location`` until the result is there
    polled: bool = False
    # a target that needs a client library (https or HTTP/2). The load then goes to its origin, and ``addresses``,
    # ``balance`` and ``polled`` are ignored
    remote: Remote | None = None
    # what stands before every path of the server, such as ``/application``; ``path`` does not contain it
    prefix: str = ""
    stream: StreamSetting = AUTO
    accepts: str = ""  # ``accept-encoding`` of requests that name none; empty for a server of this package

    def __post_init__(self) -> None:
        if not self.host and self.addresses:
            force_setattr(self, "host", self.addresses[0][0])

    @property
    def port(self) -> int:
        """Port of the first address."""
        return self.addresses[0][1]

    @property
    def url(self) -> str:
        """Base URL of the first server, with the prefix and without a path."""
        return self.remote.origin if self.remote else base_url(self.host, self.port) + self.prefix

    @property
    def urls(self) -> tuple[str, ...]:
        """Base URL of each server."""
        return (self.url, *(base_url(host, port) + self.prefix for host, port in self.addresses[1:]))


def model_of(wire: Wire, path: str) -> str:
    """Name of the model in the path of a target; empty if the wire names it in the body."""
    return "" if wire.protocol == "openai" else model_in(path) or path.rpartition("/")[2]


def path_at(wire: Wire, path: str) -> str:
    """Path of the requests to a target; ``/invocations`` if the wire is so and the target names no path."""
    return INVOCATIONS if wire.protocol == "invocations" and path == "/" else path


def base_url(host: str, port: int) -> str:
    """``http://host:port``, with an IPv6 address in brackets."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
