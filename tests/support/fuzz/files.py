"""What is read from files and from a metrics endpoint: traces, payloads, Prometheus text."""

import itertools
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pytest_mlpatterns import Trace
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.revision.dependencies import locked_versions, named_dependencies, project_argument
from pytest_mlpatterns.serving.prometheus import Prometheus, read_prometheus
from pytest_mlpatterns.wire import GRPC, REST_JSON, Wire
from pytest_mlpatterns.workload.payload import read_payload
from pytest_mlpatterns.workload.request_builder import RequestBuilder
from support.fuzz import Area
from support.fuzz.hostile import octets, text, value

TRACES = (
    b"0.5\n1.25\n2\n",
    b'{"timestamp": 1.5}\n{"timestamp": 2.5, "x": [1]}\n',
    b"timestamp,size\n1,2\n3.5,4\n",
    b'timestamp\n"1"\n"2"\n3,4,5\n',
)
PAYLOADS = (b"[5.1, 3.5]\n[1, 2]\n", b'{"a": [1, 2], "b": "text"}\n', b'"text"\n\n1\nnull\n', b"1e308\n[[[1]]]\n")
REQUESTS = ("GET", "POST", "/predict?x=1", "text", "http://127.0.0.1:8000/x")
PROJECTS = {
    "pyproject.toml": b'[project]\nname = "x"\ndependencies = ["numpy>=1", "httpx"]\n[tool.uv]\nsources = {a = 1}\n',
    "poetry.lock": b'[[package]]\nname = "numpy"\nversion = "1.0"\n[[package]]\nname = "x"\nversion = "2"\n',
    "pylock.toml": b'[[packages]]\nname = "numpy"\nversion = "1.0"\n',
    "setup.cfg": b"[options]\ninstall_requires =\n  numpy\n[options.extras_require]\na = b\n",
    "requirements.txt": b"numpy>=1  # why\n-r other.txt\n",
}
METRICS = """\
# HELP mosec_service_batch_size size
# TYPE mosec_service_batch_size histogram
mosec_service_batch_size_bucket{le="1.0"} 3
mosec_service_batch_size_bucket{le="2.0"} 5
mosec_service_batch_size_bucket{le="+Inf"} 7
mosec_service_batch_size_sum 12.5
mosec_service_batch_size_count 7
# TYPE nv_inference_count counter
nv_inference_count{model="m"} 12
nv_inference_exec_count{model="m"} 4 1700000000000
# TYPE mosec_service_remaining_task gauge
mosec_service_remaining_task 3
# TYPE ray_serve_batch_wait_time_ms summary
ray_serve_batch_wait_time_ms_sum 1.5e3
ray_serve_batch_wait_time_ms_count 9
hits_total 5
misses_total{a="b",c="d"} 1
"""
_NAMES = Prometheus(cache_hits="hits_total", cache_misses="misses_total")
_WIRES = (REST_JSON, Wire("rest", "binary"), Wire("rest", "msgpack"), GRPC)
DIRECTORY = Path("/dev/shm" if os.path.isdir("/dev/shm") else tempfile.gettempdir())


def in_a_file(content: bytes, ending: str, read: Callable[[Path], object]) -> None:
    """Read bytes as a file."""
    with tempfile.NamedTemporaryFile(dir=DIRECTORY, suffix=ending) as file:
        file.write(content)
        file.flush()
        read(Path(file.name))


def a_trace(draw: random.Random) -> tuple[bytes, str, float]:
    return octets(draw, TRACES), draw.choice((".csv", ".jsonl", ".txt")), draw.choice((1.0, 2.0, 1e-9, 1e9))


def read_trace(case: tuple[bytes, str, float]) -> None:
    content, ending, speed = case

    def read(path: Path) -> None:
        trace = Trace(path, speed=speed)
        list(trace.arrivals())
        str(trace), trace.length_ns

    in_a_file(content, ending, read)


def a_payload(draw: random.Random) -> tuple[Any, Wire]:
    given = octets(draw, PAYLOADS) if draw.random() < 0.6 else value(draw, ("a", "b"))
    if callable(given):  # its exceptions are the user's own
        given = [given]
    return given, draw.choice(_WIRES)


def use_payload(case: tuple[Any, Wire]) -> None:
    given, wire = case

    def read(what: object) -> None:
        payload = read_payload(what, wire)
        payload.messages("127.0.0.1", 8000, "/v2/models/m/infer"), payload.order(), payload.request("/", 0)

    if isinstance(given, bytes):
        in_a_file(given, ".jsonl", read)
    else:
        read(given)


def a_request(draw: random.Random) -> tuple[Any, Wire]:
    """What a user's function ``request=`` returned."""
    names = draw.sample(("method", "path", "params", "headers", "cookies", "content", "data", "json"), 2)
    made: dict[str, Any] = {name: _finite(value(draw, REQUESTS)) for name in names}
    if "headers" in made and draw.random() < 0.7:
        made["headers"] = {text(draw, ("x-model", "accept")): text(draw, ("a", "application/json"))}
    return (value(draw, REQUESTS) if draw.random() < 0.05 else made), REST_JSON


def _finite(given: Any) -> Any:
    """No content without end, which is the user's own."""
    return list(itertools.islice(given, 3)) if isinstance(given, Iterator | range) else given


def use_request(case: tuple[Any, Wire]) -> None:
    made, wire = case
    payload = read_payload([1], wire, builder=RequestBuilder(lambda _: made, "/predict"))
    payload.messages("127.0.0.1", 8000, "/predict"), payload.request("/predict", 0)


def a_project(draw: random.Random) -> tuple[str, bytes]:
    name = draw.choice(list(PROJECTS))
    return name, octets(draw, (PROJECTS[name],))


def use_project(case: tuple[str, bytes]) -> None:
    name, content = case
    with tempfile.TemporaryDirectory(dir=DIRECTORY) as directory:
        Path(directory, name).write_bytes(content)
        project_argument(Path(directory))
        locked_versions(Path(directory))
        named_dependencies(Path(directory, name))


AREAS = (
    Area("requests", 10_000, a_request, use_request, (SettingError,)),
    Area("dependencies", 10_000, a_project, use_project, ()),
    Area("traces", 25_000, a_trace, read_trace, (SettingError,)),
    Area("payloads", 25_000, a_payload, use_payload, (SettingError,)),
)
METRICS_AREAS = (
    Area(
        "prometheus",
        20_000,
        lambda draw: text(draw, (METRICS, *METRICS.splitlines(keepends=True))),
        lambda case: read_prometheus(case, _NAMES),
        (ValueError,),
    ),
)
