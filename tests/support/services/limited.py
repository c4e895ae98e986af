"""A server with a limit: ``python limited.py FAULT PORT``. It answers one POST at a time, each after 5 ms.

Once more than twelve wait it has its fault, each time or, if that ends it, for good:

``crashes``   prints why, and ends with exit code 1
``segfaults`` ends itself with SIGSEGV
``hangs``     answers no POST any more
``freezes``   stops its only thread for two seconds
``refuses``   closes its port and all connections
``restarts``  likewise, and listens again after 1.5 s
``closes``    closes the connection
``fails``     answers 500
``rejects``   answers 503, from the fifth that waits on
``limits``    answers 429, likewise
``slows``     takes 0.4 % longer for each answer, from the first on
"""

import asyncio
import os
import re
import signal
import sys
import time

LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
BODY = b'{"predictions": [1]}'
STATUSES = {"rejects": b"503 Service Unavailable", "limits": b"429 Too Many Requests"}
MOST, FEW = 12, 4


class Server:
    """All connections of one server."""

    def __init__(self, fault: str, port: int) -> None:
        self._fault, self._port = fault, port
        self._waiting, self._takes_s, self._hangs = 0, 0.005, False
        self._turn = asyncio.Lock()
        self._open: set[asyncio.StreamWriter] = set()
        self._listener: asyncio.Server | None = None

    async def listen(self) -> None:
        """Accept connections."""
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self._port, backlog=200)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if found := LENGTH.search(head):
                    await reader.readexactly(int(found[1]))
                status = await self._work(writer) if head.startswith(b"POST") else b"200 OK"
                writer.write(b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n%b" % (status, len(BODY), BODY))
                await writer.drain()
        except (EOFError, OSError):
            pass  # the client has gone, or the connection was closed on purpose
        finally:
            self._open.discard(writer)
            writer.close()

    async def _work(self, writer: asyncio.StreamWriter) -> bytes:
        self._waiting += 1
        try:
            if self._waiting > MOST:
                self._go_wrong(writer)
                if self._fault == "fails":
                    return b"500 Internal Server Error"
            if self._waiting > FEW and self._fault in STATUSES:
                return STATUSES[self._fault]
            while self._hangs:
                await asyncio.sleep(1000)
            async with self._turn:
                await asyncio.sleep(self._takes_s)
                self._takes_s *= 1.004 if self._fault == "slows" else 1
            return b"200 OK"
        finally:
            self._waiting -= 1

    def _go_wrong(self, writer: asyncio.StreamWriter) -> None:
        if self._fault == "crashes":
            sys.stdout.write("out of memory: too many requests wait\n")
            sys.stdout.flush()
            os._exit(1)
        if self._fault == "segfaults":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self._fault in ("refuses", "restarts") and self._listener is not None:
            self._listener.close()
            self._listener = None
            for one in list(self._open):
                one.transport.abort()
            if self._fault == "restarts":
                loop = asyncio.get_running_loop()
                loop.call_later(1.5, lambda: loop.create_task(self.listen()))
        if self._fault == "closes":
            writer.transport.abort()
            raise ConnectionAbortedError
        self._hangs = self._hangs or self._fault == "hangs"
        if self._fault == "freezes":
            time.sleep(2)


async def main() -> None:
    """Serve until this process is ended."""
    await Server(sys.argv[1], int(sys.argv[2])).listen()
    await asyncio.Event().wait()


asyncio.run(main())
