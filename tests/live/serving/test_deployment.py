"""A running deployment: functional requests, what it knows of itself, the death of its processes, its end."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import psutil
import pytest
from support.services.deploy import deployed, make_start_options
from support.services.processes import our_children, survivors
from support.services.scripted import Close, ScriptedServer, Send, Step, answer, refused_port

from pytest_mlpatterns import Deployment, DeploymentError, Replicated, Url
from pytest_mlpatterns.measurement.load_source import apart_from
from pytest_mlpatterns.serving.external import attach as attach_module
from pytest_mlpatterns.serving.external.attach import attach
from pytest_mlpatterns.serving.processes import ForeignProcesses
from pytest_mlpatterns.workload.endpoint import Endpoint

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("no_process_is_left")]

HERE = sys.modules[__name__]
GENERATOR: Any = "none is asked without cpus="


def double(batch: list[Any]) -> list[Any]:
    return [2 * value for value in batch]


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    with deployed(double, tmp_path, by_value=[HERE]) as deployment:
        yield deployment


@contextmanager
def scripted(*steps: Step) -> Iterator[Deployment]:
    """A deployment whose server does this with every request."""
    with (
        ScriptedServer(lambda _: steps) as server,
        closing(
            Deployment(Endpoint((server.address,), "/v1/models/m:predict?api_key=s3cr3t&n=2", "m"), ForeignProcesses())
        ) as deployment,
    ):
        yield deployment


def test_a_server_of_one_thread_is_free_of_functional_requests_once_the_load_begins() -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = "127.0.0.1", server.server_port
        with closing(Deployment(Endpoint((address,), "/", ""), ForeignProcesses())) as deployment:
            deployment.client.get("/")
            with apart_from(deployment, GENERATOR, 1):
                assert httpx.get(deployment.url, timeout=30, trust_env=False).status_code == 200
            assert deployment.client.get("/").status_code == 200
        server.shutdown()


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    assert survivors([pid], 30) == set()


@pytest.mark.covered_processes
class TestAsking:
    def test_a_deployment_has_address_name_and_client_and_counts_inferences(self, deployment: Deployment) -> None:
        ((host, port),) = deployment.addresses
        assert deployment.url == f"http://{host}:{port}"
        assert deployment.model_name == "double"
        assert deployment.path == "/v1/models/double:predict"
        (pid,) = deployment.pids
        assert psutil.Process(pid).ppid() == os.getpid()
        before = deployment.stats()
        response = deployment.client.post(deployment.path, json={"instances": [1, 2]})
        assert response.json() == {"predictions": [2, 4]}
        assert deployment.client.get("/v2/health/ready").status_code == 200
        assert deployment.client is deployment.client
        for value in range(2):
            deployment.predict(value)
        assert before.replica_requests == (0,)
        assert deployment.stats().replica_requests == (3,)
        assert deployment.stats().since(before).replica_requests == (3,)

    def test_variables_that_are_meant_for_other_programs_are_ignored(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SSLKEYLOGFILE", "/no/such/directory/keys")  # of a context of ssl
        monkeypatch.setenv("WEB_CONCURRENCY", "auto")  # of uvicorn's command line
        with deployed(double, tmp_path, by_value=[HERE]) as deployment:
            assert deployment.predict(1) == 2

    def test_proxies_of_the_environment_are_ignored(
        self, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{refused_port()}")
        assert deployment.predict(1) == 2

    @pytest.mark.parametrize(
        ("sent", "words"),
        [
            (answer(b"overloaded", 503), "m:predict?api_key=***&n=2 answered 503: overloaded"),
            (answer(b"x" * 5000, 500), "answered 500: xxx"),
            (
                answer(b"hello"),
                "m:predict?api_key=***&n=2 returned a response that is not one prediction over rest+json",
            ),
            (answer(b'{"predictions": []}'), "returned a response that is not one prediction over rest+json"),
            (answer(b'{"predictions": {"a": 1}}'), "returned a response that is not one prediction over rest+json"),
            (answer(b'{"outputs": [1]}'), "returned a response that is not one prediction over rest+json"),
            (b"garbage\r\n\r\n", "RemoteProtocolError"),
        ],
        ids=["status", "long", "no-json", "empty", "object", "other", "garbage"],
    )
    def test_a_response_without_prediction_is_an_error_that_shows_no_credential(self, sent: bytes, words: str) -> None:
        with scripted(Send(sent), Close()) as deployment, pytest.raises(DeploymentError) as caught:
            deployment.predict(1)
        assert words in str(caught.value)
        assert f"127.0.0.1:{deployment.addresses[0][1]}" in str(caught.value)
        assert "s3cr3t" not in str(caught.value)
        assert len(str(caught.value)) < 3000

    def test_an_unreachable_server_is_an_error_with_the_address(self) -> None:
        port = refused_port()
        deployment = Deployment(Endpoint((("127.0.0.1", port),)), ForeignProcesses())
        with pytest.raises(DeploymentError, match=f"127.0.0.1:{port}.*ConnectError"):
            deployment.predict(1)
        deployment.close()

    def test_an_ipv6_address_stands_in_brackets(self) -> None:
        deployment = Deployment(Endpoint((("::1", 80),)), ForeignProcesses())
        assert deployment.url == "http://[::1]:80"
        assert deployment.client.base_url == httpx.URL("http://[::1]:80")
        deployment.close()


@pytest.mark.covered_processes
class TestKnowing:
    def test_a_foreign_service_has_no_statistics(self) -> None:
        with scripted(Send(answer())) as deployment:
            assert deployment.stats().replica_requests == ()
            assert deployment.pids == ()
            assert deployment.log_tail() == ""


class TestDying:
    def test_asking_a_killed_process_and_its_statistics_say_which_and_how(self, deployment: Deployment) -> None:
        assert deployment.predict(1) == 2
        (pid,) = deployment.pids
        kill(pid)
        for ask in (lambda: deployment.predict(1), deployment.stats):
            with pytest.raises(DeploymentError, match=f"service: process {pid} ended with signal SIGKILL"):
                ask()


class TestEnding:
    @pytest.mark.covered_processes
    @pytest.mark.parametrize("balance", ["round-robin", "shared-socket"])
    def test_close_leaves_no_process_or_listener_and_is_safe_to_call_twice(self, balance: str, tmp_path: Path) -> None:
        before = our_children()
        with deployed(double, tmp_path, Replicated(2, balance=balance), by_value=[HERE]) as deployment:
            assert deployment.predict(1) == 2
            assert our_children() - before == set(deployment.pids)
            deployment.close()
            assert our_children() == before
            for address in deployment.addresses:
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection(address, 5)

    def test_close_ends_a_process_that_is_at_work(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("pytest_mlpatterns.system.child._GRACE_S", -0.9)

        def work(batch: list[Any]) -> list[Any]:
            sys.stderr.write("working\n")
            sys.stderr.flush()
            while True:
                pass

        with deployed(work, tmp_path, by_value=[HERE]) as deployment:
            with pytest.raises(httpx.ReadTimeout):
                deployment.client.post(deployment.path, json={"instances": [1]}, timeout=0.3)
            pids = deployment.pids
        assert survivors(pids, 0) == set()


class TestAttaching:
    def test_a_service_that_runs_is_used_and_left_alone(self, tmp_path: Path) -> None:
        with deployed(double, tmp_path, by_value=[HERE]) as service:
            target = Url(service.url + service.path, pid=service.pids[0])
            attached = attach(target, make_start_options(tmp_path, [3]))
            assert service.stats().replica_requests == (1,)
            assert attached.pids == service.pids
            assert attached.addresses == service.addresses
            assert attached.predict(4) == 8
            assert attached.facts()["kernel"] == service.facts()["kernel"]
            attached.close()
            attached.close()
            assert service.predict(5) == 10

    def test_without_a_payload_and_a_pid_nothing_is_asked_and_nothing_is_known(self, tmp_path: Path) -> None:
        with ScriptedServer() as server:
            attached = attach(Url("http://{}:{}/predict".format(*server.address)), make_start_options(tmp_path))
            attached.close()
        assert attached.pids == ()
        assert server.requests == []

    def test_an_unreachable_service_is_an_error_with_a_hint(self, tmp_path: Path) -> None:
        url = f"http://127.0.0.1:{refused_port()}/predict"
        with pytest.raises(DeploymentError, match=r"is the service running\?") as caught:
            attach(Url(url), make_start_options(tmp_path, [1]))
        assert url in str(caught.value)

    @pytest.mark.parametrize(
        ("host", "step", "expected"),
        [
            ("127.0.0.1", Send(answer(b"no such model", 404)), "answered 404: no such model"),
            ("127.0.0.1", Close(), r"is the service running\?"),
            ("no-such-host.invalid", Close(), r"the host 'no-such-host\.invalid' is not known"),
        ],
    )
    def test_an_error_of_the_service_is_told_without_the_credentials_of_its_address(
        self, tmp_path: Path, host: str, step: Step, expected: str
    ) -> None:
        with (
            ScriptedServer(lambda _: [step]) as server,
            pytest.raises(DeploymentError, match=rf"\?api_key=\*\*\*.*{expected}") as caught,
        ):
            attach(Url(f"http://{host}:{server.address[1]}/p?api_key=s3cr3t"), make_start_options(tmp_path, [1]))
        assert "s3cr3t" not in str(caught.value)

    def test_the_host_header_is_the_name_that_the_user_wrote(self, tmp_path: Path) -> None:
        with ScriptedServer(lambda _: [Send(answer(b'{"predictions": [1]}'))]) as server:
            port = server.address[1]
            attached = attach(Url(f"http://localhost:{port}/predict"), make_start_options(tmp_path, [1]))
            attached.predict(1)
            attached.close()
        assert [f"host: localhost:{port}\r\n".encode() in request.head.lower() for request in server.requests] == [
            True,
            True,
        ]

    def test_a_name_with_several_addresses_tries_each(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """As ``localhost`` is ``::1`` first on many machines, where a service listens on 127.0.0.1 alone."""
        original = socket.getaddrinfo

        def two_addresses(host: Any, port: Any, *args: Any, **kwargs: Any) -> list[Any]:
            if host not in ("localhost", b"localhost"):
                return original(host, port, *args, **kwargs)
            return [
                (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("::1", int(port), 0, 0)),
                (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", int(port))),
            ]

        monkeypatch.setattr(socket, "getaddrinfo", two_addresses)
        with ScriptedServer(lambda _: [Send(answer(b'{"predictions": [1]}'))]) as server:
            attached = attach(Url(f"http://localhost:{server.address[1]}/predict"), make_start_options(tmp_path, [1]))
            assert attached.predict(1) == 1
            attached.close()
        assert attached.addresses == (server.address,)

    @pytest.mark.parametrize(
        "content",
        [b"hello", b"\xff\xfe", b"-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----\n"],
        ids=["text", "bytes", "half"],
    )
    def test_a_file_without_a_certificate_is_named(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "ca.pem").write_bytes(content)
        with pytest.raises(DeploymentError, match=r"ca\.pem'\) has no certificate in PEM: .*; name another file$"):
            attach(Url("https://127.0.0.1:9/p", ca=tmp_path / "ca.pem"), make_start_options(tmp_path))

    def test_the_search_for_an_address_ends_in_time(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        found = [
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (f"127.0.0.{n}", 9)) for n in range(1, 99)
        ]
        tried: list[float] = []

        def connect(_address: tuple[str, int], timeout: float) -> None:
            tried.append(timeout)
            now[0] += timeout
            raise TimeoutError

        now = [0.0]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_named: found)
        monkeypatch.setattr(socket, "create_connection", connect)
        monkeypatch.setattr(attach_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
        attached = attach(Url("http://many:9/predict"), make_start_options(tmp_path, timeout="12s"))
        attached.close()
        assert tried == [5.0, 5.0, 2.0]
        assert attached.addresses == (("127.0.0.1", 9),)
