"""A real server of no package of ours, with the bad habits that it is asked for: ``python behaving.py PORT HABIT…``.

It answers ``POST`` of ``{"instances": […]}`` with the sum of each and its pid, ``GET /health``, and ``GET /metrics``
with a text that counts the posts. Habits:

``ignore-term``        SIGTERM does not end it
``orphans=FILE``       two children that ignore SIGTERM, one in a session of its own; their pids are in FILE
``dies-loading``       prints why, and exits with 1 before it listens
``dies-at=N``          exits with 4 at the Nth post
``healthy-once=FILE``  /health answers 503 until FILE exists
``never-ready``        /health answers 503
``deaf``               runs, but listens nowhere
``everywhere``         listens on all interfaces
``status=N``           posts are answered with N
``busy=N``             the first N posts are answered with 503
``fails=N``            the first N posts are answered with 500
"""

import json
import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HABITS = dict(word.partition("=")[::2] for word in sys.argv[2:])
METRICS = """\
# TYPE rows histogram
rows_bucket{{le="1"}} {0}
rows_bucket{{le="2"}} {0}
rows_bucket{{le="+Inf"}} {0}
rows_sum {0}
rows_count {0}
# TYPE waiting gauge
waiting 3
"""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body leave in one piece
    posts = 0

    def do_GET(self) -> None:
        if self.path == "/metrics":
            self.answer(200, METRICS.format(Handler.posts).encode(), "text/plain; version=0.0.4")
        elif self.path != "/health":
            self.answer(404, b"not found")
        elif "never-ready" in HABITS or ("healthy-once" in HABITS and not Path(HABITS["healthy-once"]).exists()):
            self.answer(503, b"loading")
        else:
            self.answer(200, b"healthy")

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        Handler.posts += 1
        if Handler.posts == int(HABITS.get("dies-at", -1)):
            sys.stderr.write("out of memory\n")
            sys.stderr.flush()
            os._exit(4)
        if Handler.posts <= int(HABITS.get("busy", 0)):
            self.answer(503, b"busy")
            return
        if Handler.posts <= int(HABITS.get("fails", 0)):
            self.answer(500, b"no luck")
            return
        predictions = [sum(numbers) for numbers in asked["instances"]]
        body = json.dumps({"predictions": predictions, "pid": os.getpid()}).encode()
        self.answer(int(HABITS.get("status", 200)), body, "application/json")

    def answer(self, status: int, body: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def main() -> None:
    if "dies-loading" in HABITS:
        sys.exit("there is no such model")  # what is printed; the code is 1
    if "ignore-term" in HABITS:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "orphans" in HABITS:
        code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"
        command = [sys.executable, "-S", "-c", code]
        children = [
            subprocess.Popen(command, start_new_session=apart, stdout=subprocess.PIPE) for apart in (False, True)
        ]
        for child in children:
            child.stdout.readline()  # type: ignore[union-attr]  # they ignore it from now on
        Path(HABITS["orphans"]).write_text(" ".join(str(child.pid) for child in children))
    if "deaf" in HABITS:
        threading.Event().wait()
    host = "0.0.0.0" if "everywhere" in HABITS else "127.0.0.1"
    ThreadingHTTPServer((host, int(sys.argv[1])), Handler).serve_forever()


if __name__ == "__main__":
    main()
