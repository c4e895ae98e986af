"""Answers that do not end, or hardly: as scripts for a ``ScriptedServer``, and as a server of its own.

``python endless.py PORT PATH=NAME…`` answers requests to each PATH with the answer of that name, from the Nth request
on if it is ``NAME@N``; every other ``GET`` with ``ok``, and every other ``POST`` with a prediction. Those that dribble
send a byte now and then.
"""

import gzip
import json
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from support.services.scripted import Request, ScriptedServer, Send, Silence, Step, answer

_HEAD = b"HTTP/1.1 200 OK\r\n"
_PAUSE_S = 0.1


def _repeat(start: bytes, part: bytes, pause_s: float = 0.0) -> Callable[[], Iterator[Step]]:
    """A script that sends the start, and then the part again and again."""

    def steps() -> Iterator[Step]:
        yield Send(start)
        while True:
            if pause_s:
                time.sleep(pause_s)  # not a wait: this server is slow
            yield Send(part)

    return steps


def _once(data: bytes) -> Callable[[], Iterator[Step]]:
    return lambda: iter([Send(data)])


def _bomb() -> Iterator[Step]:
    """An endless body that decompresses to a thousand times its size."""
    yield Send(_HEAD + b"content-encoding: gzip\r\n\r\n")
    packer = zlib.compressobj(wbits=31)
    while True:
        yield Send(packer.compress(bytes(2**20)) + packer.flush(zlib.Z_SYNC_FLUSH))


ANSWERS: dict[str, Callable[[], Iterator[Step]]] = {
    "body-dribbles": _repeat(_HEAD + b"\r\n", b"x", _PAUSE_S),
    "head-dribbles": _repeat(_HEAD + b"x-slow: ", b"x", _PAUSE_S),
    "length-dribbles": _repeat(_HEAD + b"content-length: 1000000\r\n\r\n", b"x", _PAUSE_S),
    "chunk-size-dribbles": _repeat(_HEAD + b"transfer-encoding: chunked\r\n\r\n", b"0", _PAUSE_S),
    "events": _repeat(
        _HEAD + b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n", b"3\r\n:\n\n\r\n", _PAUSE_S
    ),
    "drips-fast": _repeat(_HEAD + b"\r\n", b"x"),
    "interim-fast": _repeat(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "floods": _repeat(_HEAD + b"\r\n", bytes(2**16)),
    "two-gigabytes": _repeat(_HEAD + b"content-length: 2147483648\r\n\r\n", bytes(2**16)),
    "metrics-flood": _repeat(_HEAD + b"content-type: text/plain\r\n\r\n", b'a_total{b="c"} 1\n' * 4096),
    "head-floods": _repeat(_HEAD, b"x-many: 1\r\n" * 4096),
    "wide-header": _once(answer(b"ok", 200, b"x-wide: " + bytes([120]) * 10**6)),
    "many-headers": _once(answer(b"ok", 200, *[b"x-%d: 1" % number for number in range(50_000)])),
    "bomb": _bomb,
    "bomb-of-20-mib": _once(answer(gzip.compress(bytes(20 * 2**20)), 200, b"content-encoding: gzip")),
    "20-mib": _once(answer(b'{"predictions": ["%s"]}' % (b"x" * 20 * 2**20))),
    "bucket-without-le": _once(
        answer(b"# TYPE mosec_service_batch_size histogram\nmosec_service_batch_size_bucket 3\n")
    ),
    "overflow": _once(answer(b"# TYPE mosec_service_remaining_task gauge\nmosec_service_remaining_task 1e308\n")),
    "404": _once(answer(b"no such path", 404)),
    "hangs": lambda: iter([Silence()]),
}


def script(by_path: dict[str, str]) -> Callable[[Request], Iterator[Step]]:
    """Answer requests to these paths with the answers of these names, all others as a service that is well."""
    seen: Counter[str] = Counter()

    def steps(request: Request) -> Iterator[Step]:
        method, path, _ = request.head.decode("latin-1").split(" ", 2)
        seen[path] += 1
        name, _, first = by_path.get(path, "").partition("@")
        if name and seen[path] >= int(first or 1):
            return ANSWERS[name]()
        outputs = [0 for _ in json.loads(request.body)["instances"]] if method == "POST" else None
        return iter([Send(answer(b"ok" if outputs is None else json.dumps({"predictions": outputs}).encode()))])

    return steps


if __name__ == "__main__":
    answers = dict(argument.split("=") for argument in sys.argv[2:])
    with ScriptedServer(script(answers), port=int(sys.argv[1])):
        threading.Event().wait()
