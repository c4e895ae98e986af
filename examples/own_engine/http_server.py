"""The process of the engine: it gets a packed model, answers with its port, and serves until pytest ends."""

import json
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from pytest_mlpatterns.system.child import Channel
from pytest_mlpatterns.system.import_redirect import install


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections
    wbufsize = -1  # sends an answer as a whole
    disable_nagle_algorithm = True

    def do_GET(self):
        self.answer(200, {"ready": True})

    def do_POST(self):
        inputs = json.loads(self.rfile.read(int(self.headers["content-length"])))["instances"]
        try:
            self.answer(200, {"predictions": self.server.model(inputs)})
        except Exception as error:
            traceback.print_exc()
            self.answer(500, {"error": f"the model raised {type(error).__name__}: {error}"})

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Print no line for each request."""


def main():
    channel = Channel()
    source, trees = channel.receive()
    if trees is not None:
        install(*trees)  # the code of another revision, with --perf-against
    try:
        model = source.load()
    except Exception:
        channel.send(traceback.format_exc())
        return
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.model = True, model
    channel.send(server.server_port)
    channel.listen(print, server.shutdown)
    server.serve_forever()
