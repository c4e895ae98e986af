"""A real HTTP server of no package of ours: answers ``{"instances": [...]}`` with the sum of each, until it is killed.

It listens on a port of 127.0.0.1 that it prints.
"""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Sums(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body leave in one piece

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        body = json.dumps({"predictions": [sum(numbers) for numbers in asked["instances"]]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Sums)
    os.write(1, b"%d\n" % server.server_address[1])
    server.serve_forever()


if __name__ == "__main__":
    main()
