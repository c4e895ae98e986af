"""Our HTTP server as the ASGI application of an ingress deployment: mounted under the prefix of its application."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    _Message = MutableMapping[str, Any]
    _Receive = Callable[[], Awaitable[_Message]]
    _Send = Callable[[_Message], Awaitable[None]]

__all__ = ["MountedApp"]


class MountedApp:
    """Answers what Ray Serve asks of an ASGI application, and leaves requests to our server.

    The paths that our server knows begin after the prefix, which Ray Serve has in ``root_path`` and leaves in ``path``.
    Messages travel to the proxy pickled.

    Args:
        app: our server (ASGI).
    """

    def __init__(self, app: Callable[[_Message, _Receive, _Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Answer one request, or the begin and end of the application's life (ASGI)."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))

        async def send_pickled(message: _Message) -> None:
            body = message.get("body")
            if body is not None and type(body) is not bytes:  # a view of a tensor, which cannot be pickled
                message = {**message, "body": bytes(body)}
            await send(message)

        await self._app({**scope, "path": path}, receive, send_pickled)


async def _live(receive: _Receive, send: _Send) -> None:
    while True:
        phase = (await receive())["type"].removeprefix("lifespan.")
        await send({"type": f"lifespan.{phase}.complete"})
        if phase == "shutdown":
            return
