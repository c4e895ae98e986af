"""A client of an ASGI application that sees each message as it is sent, and may go away in the middle."""

import asyncio
from collections.abc import Callable, MutableMapping
from typing import Any, Self

import orjson

from support.scenarios import PATIENCE_S


class Call:
    """One request, as an asynchronous context; the application has returned. A body is sent as JSON or bytes."""

    def __init__(
        self,
        app: Callable[..., Any],
        path: str,
        body: Any,
        *,
        method: str = "POST",
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self._app = app
        self._scope = {"type": "http", "method": method, "path": path, "headers": list(headers), "query_string": b""}
        self._body = body if isinstance(body, bytes) else orjson.dumps(body)
        self._is_sent = False
        self._gone = asyncio.Event()
        self._parts: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.wait_for(self._task, PATIENCE_S)

    def leave(self) -> None:
        """Close the connection."""
        self._gone.set()

    async def part(self) -> bytes | None:
        """The next part of the body; None at its end."""
        return await asyncio.wait_for(self._parts.get(), PATIENCE_S)

    async def whole(self) -> bytes:
        """The rest of the body."""
        parts = []
        while (part := await self.part()) is not None:
            parts.append(part)
        return b"".join(parts)

    async def _run(self) -> None:
        try:
            await self._app(self._scope, self._receive, self._send)
        finally:
            self._parts.put_nowait(None)

    async def _receive(self) -> MutableMapping[str, Any]:
        if not self._is_sent:
            self._is_sent = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        elif message["body"]:
            self._parts.put_nowait(message["body"])
