"""Services whose instructions :mod:`instructions` counts: models for our patterns, and applications of their own.

``COUNTED_CHANGE`` in the environment makes the first model slower in one of several ways.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

CHANGE = os.environ.get("COUNTED_CHANGE", "")
CATALOGUE = [f"item{number}" for number in range(5000)]
LOG = logging.getLogger("counted")
LOG.addHandler(logging.FileHandler(os.devnull))
LOG.setLevel(logging.INFO)


def make_text_model() -> tuple[Any, Any]:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    texts = [f"word{n % 7} other{n % 5} thing{n % 3} and some more text number {n}" for n in range(200)]
    vectors = TfidfVectorizer().fit(texts)
    return vectors, LogisticRegression().fit(vectors.transform(texts), [n % 3 for n in range(200)])


class Texts:
    """TF-IDF and logistic regression of scikit-learn."""

    def __init__(self) -> None:
        self.vectors, self.model = make_text_model()

    def __call__(self, batch: list[str]) -> list[Any]:
        if CHANGE == "log":
            for text in batch:
                LOG.info("item %s", text)
        if CHANGE == "copy":
            for _ in range(4):
                self.model.coef_ = self.model.coef_.copy()
        if CHANGE == "lookup":
            assert "item4000" in CATALOGUE
        if " " in CHANGE:
            do_further(*CHANGE.split())
        return self.model.predict_proba(self.vectors.transform(batch)).tolist()  # type: ignore[no-any-return]


def do_further(kind: str, amount: str) -> None:
    """So many turns of a loop, or objects, or MiB that are allocated, and written or not."""
    import numpy as np

    number = int(amount)
    match kind:
        case "loop":
            for _ in range(number):
                sum(range(20))
        case "objects":
            [{"item": float(one)} for one in range(number)]
        case "empty":
            np.empty(number << 20, dtype=np.uint8)
        case "bytes":
            bytearray(number << 20)
        case "copy":
            np.full(number << 20, 1, dtype=np.uint8)


class Tokens:
    """A first stage: splits a text."""

    def __call__(self, batch: list[str]) -> list[str]:
        return [" ".join(sorted(text.split())) for text in batch]


class Vectors:
    """A product of matrices by numpy, and what is near."""

    def __init__(self) -> None:
        import numpy as np

        self.weights = np.random.default_rng(0).normal(size=(512, 512)).astype(np.float32)

    def __call__(self, batch: list[list[float]]) -> list[Any]:
        import numpy as np

        found = np.asarray(batch, dtype=np.float32) @ self.weights
        return np.argsort(found, axis=1)[:, :10].tolist()  # type: ignore[no-any-return]


class Onnx:
    """Two dense layers by onnxruntime, with one thread."""

    def __init__(self) -> None:
        import numpy as np
        import onnxruntime  # type: ignore[import-untyped]
        from onnx import TensorProto, helper, numpy_helper

        draw = np.random.default_rng(0)
        weights = [
            numpy_helper.from_array(draw.normal(size=shape).astype(np.float32), name)
            for name, shape in (("a", (512, 256)), ("b", (256, 10)))
        ]
        nodes = [
            helper.make_node("MatMul", ["x", "a"], ["h"]),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("MatMul", ["r", "b"], ["y"]),
        ]
        put = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 512])
        got = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 10])
        graph = helper.make_graph(nodes, "layers", [put], [got], weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("COUNTED_THREADS", "1"))
        self.session = onnxruntime.InferenceSession(model.SerializeToString(), options)

    def __call__(self, batch: list[list[float]]) -> list[Any]:
        import numpy as np

        return self.session.run(None, {"x": np.asarray(batch, dtype=np.float32)})[0].tolist()  # type: ignore[no-any-return]


class Threads:
    """Four threads of Python that share the work of each request."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(4)

    def __call__(self, batch: list[list[float]]) -> list[Any]:
        parts = [batch[0][start::4] for start in range(4)]
        return [sum(self.pool.map(lambda part: sum(one * one for one in part), parts))] * len(batch)


class Native:
    """A function of a library that was compiled for AVX-512, whatever the processor has."""

    def __init__(self) -> None:
        library = ctypes.CDLL(os.environ["COUNTED_LIBRARY"])
        self.sum = library.sum_of
        self.sum.restype = ctypes.c_float

    def __call__(self, batch: list[list[float]]) -> list[Any]:
        return [self.sum((ctypes.c_float * len(one))(*one), len(one)) for one in batch]


NATIVE = """
float sum_of(const float *values, int n) {
  float s = 0;
  for (int i = 0; i < n; i++) s += values[i] * values[i];
  return s;
}
"""


async def proxy(_scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
    """JSON in, JSON out, as an application without a framework does it."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return
        body, more = body + message.get("body", b""), message.get("more_body", False)
    given = json.loads(body)
    answer = json.dumps({"predictions": [{"of": one, "size": len(str(one))} for one in given["instances"]]}).encode()
    head = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": answer})


def ranking() -> Any:
    """The texts as an application without a framework."""
    model = Texts()

    async def answer(
        _scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        message = await receive()
        if message["type"] != "http.request":
            return
        found = json.dumps({"predictions": model(json.loads(message["body"] or b'{"instances": [""]}')["instances"])})
        head = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(found))]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": found.encode()})

    return answer


def validated() -> Any:
    """FastAPI with pydantic: the body is read and validated, the endpoint runs in a thread."""
    from fastapi import FastAPI
    from pydantic import BaseModel

    vectors, model = make_text_model()
    app = FastAPI()

    class Body(BaseModel):
        instances: list[str]

    class Answer(BaseModel):
        predictions: list[list[float]]

    def predict(body: Body) -> Answer:
        return Answer(predictions=model.predict_proba(vectors.transform(body.instances)).tolist())

    predict.__annotations__ = {"body": Body, "return": Answer}
    app.post("/")(predict)
    return app


def forked(port: int) -> None:
    """A server of the standard library whose workers are forked, as those of gunicorn."""
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            given = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"{}")
            answer = json.dumps({"predictions": [sum(one) for one in given.get("instances", [])]}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", port), Handler)
    for _ in range(2):
        if os.fork() == 0:
            server.serve_forever()
    for _ in range(2):
        os.wait()


if __name__ == "__main__":
    forked(int(sys.argv[1]))
