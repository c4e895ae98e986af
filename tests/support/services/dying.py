"""A server that goes wrong under load: ``python dying.py FAULT PORT AFTER [once]``.

It answers each POST after 2 ms, until AFTER seconds after its second one (the first tells that it is ready), or until
the POST with this number, where AFTER is ``#208``; from then on, or ``once``, it has its fault:

``hangs``      never answers the request
``crowded``    likewise, but from the moment on at which seven requests wait at a time
``blocks``     stops its only thread, so that it answers nothing
``stops``      stops itself with SIGSTOP
``rests``      likewise, and goes on 0.4 s later
``killed``     ends itself with SIGKILL
``exits``      prints why, and ends with exit code 3
``closes``     closes the connection
``late``       answers after 0.7 s
``trickles``   sends a byte of the answer every tenth of a second, without end
``too-long``   sends less than it announces
``continues``  sends 100 Continue without end
``chunks``     sends chunks without end
``headers``    sends headers without end
"""

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
import time

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
BODY = b'{"predictions": [11]}'
GOOD = HEAD + b"content-length: 21\r\n\r\n" + BODY
LONG = HEAD + b"content-length: 2000\r\n\r\n"
ENDLESS = {
    "trickles": (LONG, b" "),
    "continues": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "chunks": (HEAD + b"transfer-encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "headers": (HEAD, b"a: b\r\n"),
}
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class Server:
    """All connections of one server."""

    def __init__(self, fault: str, after: str, *, once: bool) -> None:
        self._fault = fault
        by_number = after.startswith("#")
        self._number = int(after[1:]) if by_number else 2
        self._after_s = 0.0 if by_number else float(after)
        self._once = once
        self._posts = 0
        self._due = float("inf")
        self._waiting = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection until it ends."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if found := LENGTH.search(head):
                    await reader.readexactly(int(found[1]))
                if head.startswith(b"POST"):
                    await self._work(writer)
                writer.write(GOOD)
                await writer.drain()
        except (EOFError, OSError):
            writer.close()

    async def _work(self, writer: asyncio.StreamWriter) -> None:
        self._posts += 1
        self._waiting += 1
        if self._fault == "crowded" and self._waiting == 7:
            self._due = 0.0
        if self._posts == self._number and self._fault != "crowded":
            self._due = time.monotonic() + self._after_s
        if time.monotonic() >= self._due:
            if self._once:
                self._due = float("inf")
            await self._fail(writer)
        await asyncio.sleep(0.002)
        self._waiting -= 1

    async def _fail(self, writer: asyncio.StreamWriter) -> None:
        if self._fault in FATAL:
            FATAL[self._fault]()
        elif self._fault == "late":
            await asyncio.sleep(0.7)
        elif self._fault == "closes":
            raise EOFError
        elif self._fault in ENDLESS:
            head, piece = ENDLESS[self._fault]
            writer.write(head)
            while True:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.1)
        else:
            if self._fault == "too-long":
                writer.write(LONG)
            await asyncio.Event().wait()


def _stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _rest() -> None:
    subprocess.Popen(["/bin/sh", "-c", f"sleep 0.4; kill -CONT {os.getpid()}"])
    _stop()


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _exit() -> None:
    sys.stdout.write("going down: licence expired\n")
    sys.stdout.flush()
    os._exit(3)


def _block() -> None:
    threading.Event().wait()


FATAL = {"blocks": _block, "stops": _stop, "rests": _rest, "killed": _kill, "exits": _exit}


async def main() -> None:
    """Serve until a signal comes."""
    fault, port, after, *more = sys.argv[1:]
    server = Server(fault, after, once="once" in more)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", int(port))
    await listening.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
