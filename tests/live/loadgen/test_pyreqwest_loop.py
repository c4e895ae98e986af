"""https and HTTP/2 targets, driven through the client library, against a real server."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
import trustme
from msgspec.structs import replace
from support import SERVICES
from support.services.jobs import MS, a_job

from pytest_mlpatterns import Url
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.loadgen.ceiling import measure_ceiling, measure_library_overhead
from pytest_mlpatterns.loadgen.columns import samples_of
from pytest_mlpatterns.loadgen.generator import Generator
from pytest_mlpatterns.loadgen.messages import Transport
from pytest_mlpatterns.loadgen.pyreqwest_loop import PyreqwestLoop
from pytest_mlpatterns.measurement.launch import LaunchRunner
from pytest_mlpatterns.records.addressing import Remote
from pytest_mlpatterns.records.launch import Launch
from pytest_mlpatterns.serving.external.attach import attach
from pytest_mlpatterns.serving.model import StartOptions
from pytest_mlpatterns.workload.payload import read_payload
from pytest_mlpatterns.workload.plan import LoadPlan
from pytest_mlpatterns.workload.schedule import ClosedLoop, ConstantRate, Schedule

pytestmark = pytest.mark.processes

INPUTS = [[1, 2], [3, 4], [5, 6]]


@contextmanager
def server(*certificate: Path) -> Iterator[int]:
    """The real server, on a port of its own."""
    command = [sys.executable, str(SERVICES / "secure.py"), *map(str, certificate)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()
            process.wait(20)


@pytest.fixture
def certificates(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Files of an authority, and of a server's certificate and key signed by it."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    paths = tmp_path / "ca.pem", tmp_path / "cert.pem", tmp_path / "key.pem"
    authority.cert_pem.write_to_path(str(paths[0]))
    issued.cert_chain_pems[0].write_to_path(str(paths[1]))
    issued.private_key_pem.write_to_path(str(paths[2]))
    return paths


def measure(target: Url, tmp_path: Path, schedule: Schedule, timeout_ns: int = 10 * 10**9) -> Launch:
    """One short launch, every answer's content checked."""
    payload = read_payload(INPUTS)
    checked = []

    def check(inputs: object, outputs: object) -> None:
        checked.append((list(inputs), list(outputs)))  # type: ignore[call-overload]

    plan = LoadPlan(
        payload, schedule, duration_ns=400_000_000, warmup_ns=100_000_000, timeout_ns=timeout_ns, check=check
    )
    generator = Generator(tmp_path / "generator.log")
    bench = LaunchRunner(
        lambda: attach(target, StartOptions(20 * 10**9, payload, tmp_path)), plan, generator, on_progress=lambda _: None
    )
    try:
        launch = bench.measure()
    finally:
        bench.close()
        generator.close()
    ((inputs, outputs),) = checked
    assert inputs
    assert outputs == [sum(one) for one in inputs]
    return launch


@pytest.mark.covered_processes
@pytest.mark.parametrize("http2", [False, True])
@pytest.mark.parametrize("schedule", [ClosedLoop(3), ConstantRate(100)], ids=str)
def test_https_is_driven_with_either_http_and_every_answer_is_right(
    tmp_path: Path, certificates: tuple[Path, Path, Path], schedule: Schedule, http2: bool
) -> None:
    ca, cert, key = certificates
    with server(cert, key) as port:
        target = Url(f"https://127.0.0.1:{port}/predict", http2=http2, ca=ca)
        launch = measure(target, tmp_path, schedule)
    metrics = Metrics((launch,))
    assert metrics.requests > 0
    assert metrics.failures == {}
    assert launch.generator.ceiling_rps is None


def test_http2_without_encryption_is_driven_by_prior_knowledge(tmp_path: Path) -> None:
    with server() as port, httpx.Client(trust_env=False) as client:
        answer = client.post(f"http://127.0.0.1:{port}/predict", json={"instances": [[1, 2]]})
        assert answer.headers["x-http-version"] == "1.1"
        launch = measure(Url(f"http://127.0.0.1:{port}/predict", http2=True), tmp_path, ClosedLoop(2))
    assert Metrics((launch,)).failures == {}


@pytest.mark.parametrize(
    ("scheme", "http2", "path"),
    [("https", False, "/stream"), ("https", True, "/stream"), ("http", True, "/stream"), ("http", True, "/lines")],
)
@pytest.mark.covered_processes
def test_every_chunk_of_a_stream_is_counted_over_encryption_and_over_http2(
    certificates: tuple[Path, Path, Path], scheme: str, http2: bool, path: str
) -> None:
    ca, cert, key = certificates
    lengths = [7, 1, 30]
    messages = read_payload([list(range(length)) for length in lengths]).messages("127.0.0.1", 1, path)
    with server(*([cert, key] if scheme == "https" else [])) as port:
        remote = Remote(f"{scheme}://127.0.0.1:{port}", http2=http2, ca_pem=ca.read_bytes())
        job = a_job([("127.0.0.1", port)], ClosedLoop(3), stream=True, messages=tuple(messages), duration_ns=200 * MS)
        job = replace(job, endpoint=replace(job.endpoint, remote=remote))
        samples = samples_of(PyreqwestLoop(job, lambda _event: None).run())
    assert set(samples.outcome.tolist()) == {200}
    stream = samples.stream
    assert stream is not None
    assert stream.chunk_count.tolist() == np.array(lengths)[samples.request].tolist()
    ends = np.cumsum(stream.chunk_count)
    assert (samples.sent_ns <= stream.first_byte_ns).all()
    assert (stream.chunk_ns[ends - stream.chunk_count] >= stream.first_byte_ns).all()
    assert (stream.chunk_ns[ends - 1] <= samples.done_ns).all()


def test_the_overhead_of_the_library_is_measured_beside_the_ceiling(tmp_path: Path) -> None:
    with closing(Generator(tmp_path / "generator.log")) as generator:
        measure_ceiling(generator, tmp_path)
        measure_library_overhead(generator, tmp_path)
    assert generator.ceilings_rps[Transport.HTTP1] > 0
    assert generator.library_overhead_ns is not None
