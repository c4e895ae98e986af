"""Services that do the same work for each request: an ASGI application, and a server whose workers are forked."""

import json
import os
import sys
from collections.abc import Awaitable, Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

STEPS = 4_000


def answer() -> bytes:
    """An answer that took some work."""
    total = 0
    for number in range(STEPS):
        total += number & 3
    return json.dumps({"predictions": [total]}).encode()


async def app(scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
    """The application."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    body = answer()
    head = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": body})


class Handler(BaseHTTPRequestHandler):
    """What a forked worker does."""

    def do_GET(self) -> None:
        """Answer a question for readiness."""
        self.do_POST()

    def do_POST(self) -> None:
        """Answer a request."""
        self.rfile.read(int(self.headers.get("content-length", 0)))
        body = answer()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


if __name__ == "__main__":
    server = HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    if os.fork() == 0:
        server.serve_forever()
    server.socket.close()
    os.wait()
