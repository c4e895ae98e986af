"""A server of plain sockets with one fault: ``python faulty.py FAULT PORT [FROM]``.

``GET /health`` is answered with 200. ``POST`` is answered well before the post number FROM, 2 by default, so that a
server starts and then fails under load; from there on the fault decides. :data:`FAULTS` has those that happen to an
answer, :data:`STARTS` those that happen before the server listens, and :data:`HEALTHS` those of the ready path.
"""

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

BODY = b'{"predictions": [1]}'
TIMES = 10**9
"""More often than any test asks."""


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def answer(body: bytes = BODY, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", "content-type: application/json", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def raw(*lines: str, body: bytes = BODY) -> bytes:
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Closed(Exception):
    """The connection is to be closed."""


class Connection:
    """One connection, and how many posts the server has had."""

    posts = 0
    is_open = True
    lock = threading.Lock()
    listener: socket.socket

    def __init__(self, plug: socket.socket) -> None:
        self.plug = plug
        self.rest = b""

    def send(self, data: bytes) -> None:
        self.plug.sendall(data)

    def bytewise(self, data: bytes) -> None:
        for byte in data:
            self.plug.sendall(bytes((byte,)))

    def reset(self) -> None:
        self.plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise Closed

    def requests(self):
        while True:
            while b"\r\n\r\n" not in self.rest:
                self.fill()
            head, self.rest = self.rest.split(b"\r\n\r\n", 1)
            lines = head.lower().split(b"\r\n")
            length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
            while len(self.rest) < length:
                self.fill()
            self.rest = self.rest[length:]
            yield head

    def fill(self) -> None:
        data = self.plug.recv(1 << 20)
        if not data:
            raise Closed
        self.rest += data


def closing(data: bytes):
    def act(connection: Connection) -> None:
        connection.send(data)
        raise Closed

    return act


def sending(data: bytes):
    return lambda connection: connection.send(data)


def dying(how, after: int = 4, last_words: str = ""):
    """End the process at the answer with this number, counted from the first fault."""
    left = [after]

    def act(connection: Connection) -> None:
        connection.send(answer())
        left[0] -= 1
        if left[0] <= 0:
            if last_words:
                say(last_words)
            how()

    return act


def every(number: int, fault):
    """A fault at every answer of this number, counted over all connections."""

    def act(connection: Connection) -> None:
        (fault if Connection.posts % number == 0 else sending(answer()))(connection)

    return act


def by_signal(number: int):
    def act() -> None:
        os.kill(os.getpid(), number)
        time.sleep(60)

    return act


def stop_listening(connection: Connection) -> None:
    """Refuse every further connection, and live on."""
    Connection.is_open = False
    Connection.listener.shutdown(socket.SHUT_RDWR)
    raise Closed


def status(text: str, *headers: str, body: bytes = b"refused"):
    return sending(answer(body, text, *headers))


def chunked(*parts: str) -> bytes:
    return raw("HTTP/1.1 200 OK", "transfer-encoding: chunked", body="".join(parts).encode())


TEXT = BODY.decode()
SIZE = f"content-length: {len(BODY)}"
FAULTS = {
    # answers that are right, if odd
    "good": sending(answer()),
    "bytewise": lambda connection: connection.bytewise(answer()),
    "chunks": sending(chunked(f"{len(BODY):x};name=value\r\n{TEXT}\r\n", "0\r\ntrailer: 1\r\n\r\n")),
    "continue": sending(raw("HTTP/1.1 100 Continue", body=b"") + answer()),
    "hints": sending(raw("HTTP/1.1 103 Early Hints", "link: </a>", body=b"") * 3 + answer()),
    "http10": closing(raw("HTTP/1.0 200 OK", SIZE)),
    "http10-no-length": closing(raw("HTTP/1.0 200 OK", "content-type: application/json")),
    "http10-keep": sending(raw("HTTP/1.0 200 OK", SIZE, "connection: keep-alive")),
    "connection-close": closing(answer(BODY, "200 OK", "connection: close")),
    "until-close": closing(raw("HTTP/1.1 200 OK", "content-type: application/json")),
    "no-content": sending(raw("HTTP/1.1 204 No Content", body=b"")),
    "created": sending(answer(BODY, "201 Created")),
    "twice": sending(answer() * 2),
    "length-too-short": sending(raw("HTTP/1.1 200 OK", "content-length: 5")),
    "no-reason": sending(raw("HTTP/1.1 200", SIZE)),
    "upper-case": sending(raw("HTTP/1.1 200 OK", SIZE.upper())),
    "many-headers": sending(answer(BODY, "200 OK", *(f"x-{number}: {number}" for number in range(60)))),
    "latin-1-header": sending(answer().replace(b"\r\n\r\n", b"\r\nx-name: \xe9\r\n\r\n", 1)),
    "empty-body": sending(answer(b"")),
    "long-body": sending(answer(b"[" + b"1," * 200_000 + b"1]")),
    # connections that end
    "close": closing(b""),
    "close-in-head": closing(b"HTTP/1.1 200 O"),
    "close-in-body": closing(raw("HTTP/1.1 200 OK", "content-length: 500")),
    "close-in-chunk": closing(chunked("ff\r\nabc")),
    "close-in-chunk-size": closing(chunked("f")),
    "reset": lambda connection: connection.reset(),
    "reset-in-body": lambda connection: (
        connection.send(raw("HTTP/1.1 200 OK", "content-length: 500")),
        connection.reset(),
    ),
    "keep-alive-closed": closing(answer(BODY, "200 OK", "connection: keep-alive", "keep-alive: timeout=60")),
    "stops-listening": stop_listening,
    # answers that are wrong
    "two-lengths": sending(raw("HTTP/1.1 200 OK", SIZE, "content-length: 7")),
    "length-negative": sending(raw("HTTP/1.1 200 OK", "content-length: -5")),
    "length-enormous": sending(raw("HTTP/1.1 200 OK", f"content-length: {10**30}")),
    "length-text": sending(raw("HTTP/1.1 200 OK", "content-length: many")),
    "length-and-chunks": sending(raw("HTTP/1.1 200 OK", SIZE, "transfer-encoding: chunked")),
    "garbage": sending(bytes(range(256)) * 4),
    "zeros": sending(bytes(1000)),
    "http09": closing(BODY),
    "ssh": sending(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "tls": sending(bytes.fromhex("15030100020228")),
    "smtp": sending(b"220 mail.example.org ESMTP ready\r\n"),
    "bad-chunk": sending(chunked("xyz\r\nabc\r\n0\r\n\r\n")),
    "negative-chunk": sending(chunked("-5\r\nabcde\r\n0\r\n\r\n")),
    "upgrade": sending(raw("HTTP/1.1 101 Switching Protocols", "upgrade: websocket", "connection: upgrade", body=b"")),
    "http3": sending(raw("HTTP/3.0 200 OK", SIZE)),
    "status-text": sending(raw("HTTP/1.1 fine OK", SIZE)),
    "header-without-colon": sending(raw("HTTP/1.1 200 OK", "this is no header", SIZE)),
    "http2-preface": sending(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    # answers that say no
    **{str(code): status(f"{code} Status") for code in (*range(400, 600), 999)},
    **{str(code): status(f"{code} Status", "location: /elsewhere") for code in range(300, 400)},
    "304": sending(raw("HTTP/1.1 304 Not Modified", body=b"")),
    "sometimes-503": every(5, status("503 Service Unavailable")),
    "sometimes-close": every(5, closing(b"")),
    "sometimes-garbage": every(5, closing(b"\x00\x01garbage\r\n\r\n")),
    "not-json": sending(answer(b"<html>fine</html>")),
    "other-json": sending(answer(b'{"result": 1}')),
    "nan": sending(answer(b'{"predictions": [NaN]}')),
    "not-utf8": sending(answer(b'{"predictions": ["\xff\xfe"]}')),
    "bad-gzip": sending(answer(b"\x1f\x8bnot gzip", "200 OK", "content-encoding: gzip")),
    # a process that ends
    "exits-3": dying(lambda: os._exit(3), last_words="going down: licence expired"),
    "exits-0": dying(lambda: os._exit(0)),
    "exits-silently": dying(lambda: os._exit(7)),
    "segfaults": dying(by_signal(signal.SIGSEGV)),
    "aborts": dying(by_signal(signal.SIGABRT), last_words="terminate called after throwing"),
    "killed": dying(by_signal(signal.SIGKILL)),
    "terminated": dying(by_signal(signal.SIGTERM)),
    "hung-up": dying(by_signal(signal.SIGHUP)),
    "bus-error": dying(by_signal(signal.SIGBUS)),
    "out-of-files": dying(lambda: os._exit(24), last_words="OSError: [Errno 24] Too many open files"),
    # what is printed
    "prints-much": lambda connection: (say("x" * 10_000), connection.send(answer())),
}


def leave(code: int, words: str = ""):
    def act(_port: int) -> None:
        if words:
            say(words)
        os._exit(code)

    return act


def raises(_port: int) -> None:
    raise RuntimeError("the weights do not fit")


def hides(code: str, **options: object) -> None:
    quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    subprocess.Popen([sys.executable, "-S", "-c", code], **quiet, **options)


SLEEPS = "import time; time.sleep(600)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


def double_fork(_port: int) -> None:
    hides(f"import os\nif os.fork(): os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)\n{SLEEPS}")


def port_taken(port: int, times: int) -> None:
    """Another process has taken the port, the first times that the server starts."""
    tries = Path("tries")
    tried = len(tries.read_text()) if tries.exists() else 0
    if tried < times:
        tries.write_text("x" * (tried + 1))
        listening = "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); "
        code = listening + "open('taken' + sys.argv[1], 'w').close(); time.sleep(600)"
        quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        subprocess.Popen([sys.executable, "-S", "-c", code, str(port)], **quiet)
        while not Path(f"taken{port}").exists():
            time.sleep(0.01)
        say("OSError: [Errno 98] Address already in use")
        os._exit(1)


def close_outputs(_port: int) -> None:
    os.close(1)
    os.close(2)


STARTS = {
    "never-listens": lambda _port: (say("reading weights"), time.sleep(600)),
    "exits-early": leave(0, "nothing to do"),
    "exits-early-silently": leave(7),
    "raises-early": raises,
    "segfaults-early": lambda _port: by_signal(signal.SIGSEGV)(),
    "killed-early": lambda _port: by_signal(signal.SIGKILL)(),
    "one-endless-line": leave(1, "x" * 1_000_000),
    "binary-words": lambda _port: (os.write(1, b"\xff\xfe\x00 broken \x80"), os._exit(1)),
    "prints-100-mb": lambda _port: [os.write(1, b"x" * 999_999 + b"\n") for _ in range(100)],
    "closes-outputs": close_outputs,
    "reads-stdin": lambda _port: sys.stdin.read(),
    "no-directory": lambda _port: (os.mkdir("gone"), os.chdir("gone"), os.rmdir("../gone")),
    "ignores-term": lambda _port: signal.signal(signal.SIGTERM, signal.SIG_IGN),
    "own-session": lambda _port: hides(SLEEPS, start_new_session=True),
    "own-group": lambda _port: hides(SLEEPS, process_group=0),
    "deaf-child": lambda _port: hides(DEAF),
    "deaf-session": lambda _port: hides(DEAF, start_new_session=True),
    "double-fork": double_fork,
    "port-taken": lambda port: port_taken(port, 1),
    "port-taken-always": lambda port: port_taken(port, TIMES),
    "slow-start": lambda _port: time.sleep(0.7),
}
HEALTHS = {
    "health-503": sending(answer(b"loading", "503 Service Unavailable")),
    "health-404": sending(answer(b"not here", "404 Not Found")),
    "health-500": sending(answer(b"no GPU", "500 Internal Server Error")),
    "health-redirects": sending(answer(b"", "302 Found", "location: /health")),
    "health-garbage": sending(b"\x00\x01\x02garbage\r\n\r\n"),
    "health-closes": closing(b""),
    "health-ssh": closing(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "health-hangs": lambda _connection: time.sleep(600),
    "health-resets": lambda connection: connection.reset(),
    "health-bad-gzip": sending(answer(b"\x1f\x8bnot gzip", "200 OK", "content-encoding: gzip")),
    "health-two-lengths": sending(raw("HTTP/1.1 200 OK", SIZE, "content-length: 7")),
}


def serve(plug: socket.socket, fault: str, first: int) -> None:
    connection = Connection(plug)
    with contextlib.suppress(Closed, OSError), plug:
        for head in connection.requests():
            if head.startswith(b"POST"):
                with Connection.lock:
                    Connection.posts += 1
                    is_faulty = Connection.posts >= first
                FAULTS.get(fault, FAULTS["good"])(connection) if is_faulty else connection.send(answer())
            else:
                HEALTHS.get(fault, FAULTS["good"])(connection)


def serve_http2(port: int, fault: str) -> None:
    """Take connections of HTTP/2, and do with each what the fault says."""
    listener = socket.create_server(("127.0.0.1", port))
    while True:
        plug, _ = listener.accept()
        with contextlib.suppress(Closed, OSError), plug:
            HTTP2[fault](plug)


def http2_frame(kind: int, stream: int, payload: bytes = b"", length: int | None = None) -> bytes:
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes((kind, 0)) + stream.to_bytes(4, "big") + payload


def after_request(*frames: bytes):
    """Greet, wait for the head of a request, send frames, and wait for the client's end."""

    def act(plug: socket.socket) -> None:
        plug.sendall(http2_frame(4, 0))
        seen = b""
        while b"\x01\x04\x00\x00\x00\x01" not in seen:  # HEADERS of stream 1
            if not (data := plug.recv(1 << 16)):
                return
            seen += data
        for frame in frames:
            plug.sendall(frame)
        while plug.recv(1 << 16):
            pass

    return act


def at_once(data: bytes):
    return lambda plug: plug.sendall(data)


HTTP2 = {
    "h2-closes": at_once(b""),
    "h2-garbage": at_once(bytes(range(256)) * 4),
    "h2-http1": at_once(answer(b"this is HTTP/1", "400 Bad Request")),
    "h2-ssh": at_once(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "h2-goaway": after_request(http2_frame(7, 0, bytes(8))),
    "h2-refused": after_request(http2_frame(3, 1, (7).to_bytes(4, "big"))),
    "h2-internal-error": after_request(http2_frame(3, 1, (2).to_bytes(4, "big"))),
    "h2-enormous-frame": after_request(http2_frame(0, 1, b"x" * 100, length=(1 << 24) - 1)),
    "h2-no-window": after_request(http2_frame(8, 0, bytes(4))),
    "h2-bad-headers": after_request(http2_frame(1, 1, b"\xff" * 20)),
    "h2-wrong-stream": after_request(http2_frame(0, 2, b"data")),
    "h2-hangs": after_request(),
}


def main(fault: str, port: str, first: str = "2", grpc_port: str = "") -> None:
    if fault not in FAULTS | STARTS | HEALTHS | HTTP2 | {
        "never-accepts": None,
        "slow-accept": None,
        "everywhere": None,
    }:
        raise SystemExit(f"{fault} is no fault")
    say("started")
    STARTS.get(fault, lambda _port: None)(int(port))
    if grpc_port:
        threading.Thread(target=serve_http2, args=(int(grpc_port), fault), daemon=True).start()
    listener = Connection.listener = socket.create_server(
        ("0.0.0.0" if fault == "everywhere" else "127.0.0.1", int(port)), backlog=64
    )
    if fault == "never-accepts":
        time.sleep(600)
    while True:
        try:
            plug, _ = listener.accept()
        except OSError:
            if Connection.is_open:
                raise
            listener.close()
            time.sleep(600)
        if fault == "slow-accept":
            time.sleep(0.05)
        plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=serve, args=(plug, fault, int(first)), daemon=True).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
