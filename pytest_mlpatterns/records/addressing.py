"""How a deployment is addressed, and what comes back while it is under load: values for several packages."""

from enum import StrEnum
from math import inf

from msgspec import Struct


class Balance(StrEnum):
    """How requests are balanced over the replicas of a service.

    ``SHARED_SOCKET``: all replicas accept from one socket, and the kernel chooses; a client sees one address.
    """

    ROUND_ROBIN = "round-robin"
    LEAST_OUTSTANDING = "least-outstanding"
    SHARED_SOCKET = "shared-socket"


class Balancer:
    """Chooses the replica of each request: the next in turn, or of those with the fewest requests in flight the next.

    ``replicas``: number of replicas, at least 1. ``balance``: the rule; every other one than ``LEAST_OUTSTANDING``
    takes each replica in turn. ``in_flight``: number of requests in flight at each replica, in their order; the caller
    counts them.
    """

    __slots__ = ("_last", "_least_outstanding", "in_flight", "removed")

    def __init__(self, replicas: int, balance: Balance) -> None:
        self.in_flight: list[int] = [0] * replicas
        self.removed: set[int] = set()
        self._least_outstanding = balance is Balance.LEAST_OUTSTANDING
        self._last = -1

    def choose(self) -> int:
        """The place of the replica for the next request."""
        in_flight, count, removed = self.in_flight, len(self.in_flight), self.removed
        place = (self._last + 1) % count
        most: float = inf
        if self._least_outstanding:
            most = min(in_flight if not removed else (one for at, one in enumerate(in_flight) if at not in removed))
        while in_flight[place] > most or place in removed:
            place = (place + 1) % count
        self._last = place
        return place


class Remote(Struct, frozen=True):
    """A server that is driven through a client library."""

    origin: str  # ``scheme://host:port``
    http2: bool  # whether HTTP/2 is used instead of HTTP/1.1
    # certificate of an authority to trust besides the system's; None for these alone
    ca_pem: bytes | None = None


class Answer(Struct, frozen=True):
    """A stored response: index of its request, its body, and its head (status line, headers)."""

    request: int
    body: bytes
    head: bytes = b""


class Progress(Struct, frozen=True):
    """Progress of a running load, for the live line: medians of the last requests, of TTFT if they stream."""

    elapsed_ns: int
    completed: int
    median_ns: int | None
    median_ttft_ns: int | None = None
