"""Which path of a server says that it is ready, and which answer there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.wire.invocations import PING

if TYPE_CHECKING:
    import httpx

    from pytest_mlpatterns.wire import Wire

__all__ = ["is_ready", "ready_path"]

_NO_SUCH_PATH = (404, 405)


def ready_path(ready: str | None, wire: Wire) -> str:
    """The path to ask: the one that the target names, else that of the wire.

    Args:
        ready: as the target names it.
        wire: of the requests.
    """
    return ready or (PING if wire.protocol == "invocations" else "/")


def is_ready(response: httpx.Response, ready: str | None, wire: Wire) -> bool:
    """Whether an answer of this path says that the server is ready; arguments as of :func:`ready_path`.

    Of a path that the target does not name, any answer does; but ``/ping`` answers 2xx only then, where it exists.
    """
    if ready is None and (wire.protocol != "invocations" or response.status_code in _NO_SUCH_PATH):
        return True
    return response.is_success
