"""A real server that speaks https, with HTTP/1.1 and HTTP/2: hypercorn with a certificate made for the test.

Run as a script: ``secure.py CERT KEY``, or without them for HTTP/2 in clear text. It prints its port, answers predict
requests with the sum of each input, and streams one event for each number of the first input at ``/stream``, and one
JSON line at ``/lines``. It ends when its standard input closes.
"""

import asyncio
import json
import socket
import sys
from typing import Any

from hypercorn.asyncio import serve
from hypercorn.config import Config


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer {"instances": [...]} with their sums or as a stream, and say which HTTP it was in a header."""
    if scope["type"] != "http":
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    instances = json.loads(body)["instances"]
    version = (b"x-http-version", scope["http_version"].encode())
    kinds = {"/stream": (b"text/event-stream", b"data: %d\n\n"), "/lines": (b"application/x-ndjson", b"%d\n")}
    kind, form = kinds.get(scope["path"], (b"application/json", b""))
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind), version]})
    if form:
        for number in instances[0]:
            await send({"type": "http.response.body", "body": form % number, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    else:
        answer = json.dumps({"predictions": [sum(one) for one in instances]}).encode()
        await send({"type": "http.response.body", "body": answer})


async def main() -> None:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen()  # the port is told below: whoever connects before the server runs waits in the backlog
    port = listener.getsockname()[1]
    config = Config()
    config.keep_alive_max_requests = 10**9  # its default of 1,000 ends connections with requests under way
    config.bind = [f"fd://{listener.detach()}"]
    if len(sys.argv) == 3:
        config.certfile, config.keyfile = sys.argv[1:]
        config.alpn_protocols = ["h2", "http/1.1"]
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin, ended.set)
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await serve(app, config, shutdown_trigger=ended.wait)  # type: ignore[arg-type]


if __name__ == "__main__":
    asyncio.run(main())
