"""A server started for a test from the user's own application or command: when it is ready, or why not.

Ready means that it answers where the target says so, and (where an input is known) has answered one real request. Its
early end is told at once, with what it printed last; so is a server that listens elsewhere, or to everybody. This
module must not know load.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from pytest_mlpatterns.errors import DeploymentError, LeftoverWarning, OpenPortWarning, missing_extra
from pytest_mlpatterns.records.addressing import Balance
from pytest_mlpatterns.records.telemetry import PatternStats
from pytest_mlpatterns.serving.deployment import Deployment
from pytest_mlpatterns.serving.external import asgi_server as asgi
from pytest_mlpatterns.serving.external.attach import attach
from pytest_mlpatterns.serving.external.programs import SOCKET, Program, SupervisedPrograms, describe_killed
from pytest_mlpatterns.serving.external.scraper import scraper_of
from pytest_mlpatterns.serving.targets import App, Command, Url, figures_told_by
from pytest_mlpatterns.system.import_redirect import map_path
from pytest_mlpatterns.units import format_duration, parse_duration
from pytest_mlpatterns.wire.grpc_call import model_in
from pytest_mlpatterns.workload.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import httpx

    from pytest_mlpatterns.serving.engine import StartOptions
    from pytest_mlpatterns.serving.targets import Target

__all__ = ["deploy_target"]

_ASK_TIMEOUT_S = 2.0
_POLL_S = 0.02
_TRIES = 3
_NOT_YET = (502, 503, 504)
_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - what is told, not what is done
_UVICORN = ("{python}", "-P", "-c", "from pytest_mlpatterns.serving.external.asgi_server import main; main()", SOCKET)
_GRANIAN = (
    *("{python}", "-m", "granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", "{port}"),
    *("--log-level", "warning", "--no-access-log", "--factory", "pytest_mlpatterns.serving.external.asgi_server:load"),
)


def deploy_target(target: Target, startup: StartOptions) -> Deployment:
    """Attach to a service that runs, or start one and wait until it is ready.

    Raises:
        DeploymentError: nobody answers there, or with an error; or the server does not start, dies, or is not ready in
            time. Nothing that was started is left running.
    """
    if isinstance(target, Url):
        return attach(target, startup)
    if isinstance(target, App) and startup.wire.protocol == "grpc":
        raise DeploymentError(f"{target} is asked over HTTP, expected a wire of REST instead of {startup.wire}")
    for _ in range(_TRIES - 1):
        with contextlib.suppress(_PortTakenError):
            return _Start(target, startup).deployment()
    return _Start(target, startup).deployment()


class _PortTakenError(DeploymentError):
    """Somebody else took a port between our finding it free and the server's opening it."""


class _Start:
    """One start of a server.

    Args:
        target: what is started.
        startup: the time limit, a first request, where logs go, and for which tree.

    Raises:
        DeploymentError: a program cannot be started at all.
    """

    def __init__(self, target: App | Command, startup: StartOptions) -> None:
        self._target = target
        self._startup = startup
        self._deadline_ns = time.perf_counter_ns() + startup.timeout_ns
        self._kept = SupervisedPrograms(
            _app_programs(target, startup) if isinstance(target, App) else [_command_program(target, startup)],
            startup.directory,
            shares_socket=isinstance(target, App) and (target.server, target.balance) == ("uvicorn", "shared-socket"),
            stop_ns=parse_duration(target.stop),
            timeout_ns=startup.timeout_ns,
        )
        self._ports = list(dict.fromkeys(ports["port"] for ports in self._kept.ports))
        self._asked = self._ports
        if startup.wire.protocol == "grpc" and "grpc_port" in self._kept.ports[0]:
            self._asked = [self._kept.ports[0]["grpc_port"]]

    def deployment(self) -> Deployment:
        """The deployment, once it is ready.

        Raises:
            DeploymentError: it is not; everything is ended.
        """
        target = self._target
        endpoint = Endpoint(
            addresses=tuple(("127.0.0.1", port) for port in self._asked),
            path=target.path,
            model_name=model_in(target.path) or target.path.rpartition("/")[2],
            balance=Balance(target.balance) if isinstance(target, App) else Balance.ROUND_ROBIN,
            wire=self._startup.wire,
        )
        deployment = Deployment(endpoint, _ServerProcesses(self._kept, str(target)), builder=self._startup.builder)
        try:
            for number in range(len(self._ports)):
                self._await_ready(deployment, number)
            self._check_openness()
            if (source := figures_told_by(target)) is not None:
                origins = [f"http://127.0.0.1:{port}" for port in self._ports]
                deployment.scraper = scraper_of(source, origins, self._kept.ports[0])
                deployment.scraper.start(told=self._startup.payload is not None)
        except BaseException:
            deployment.close()
            raise
        return deployment

    def _await_ready(self, deployment: Deployment, number: int) -> None:
        """Ask until the server says that it is ready, and then for one real answer."""
        import httpx

        client, ready = deployment.client_of(number), self._target.ready
        if self._asked != self._ports:  # it is asked over gRPC, and tells over HTTP whether it is ready
            health: contextlib.AbstractContextManager[httpx.Client] = httpx.Client(
                base_url=f"http://127.0.0.1:{self._ports[number]}", trust_env=False
            )
        else:
            health = contextlib.nullcontext(client)
        with health as asking:
            self._ask(
                lambda timeout_s: asking.get(ready or "/", timeout=timeout_s),
                lambda response: ready is None or response.is_success,
                f"GET {ready or '/'}",
            )
        if self._startup.payload is None:
            return
        request = self._startup.payload.first(deployment.path)
        asked = f"{request['method']} {request['url']}"
        response = self._ask(
            lambda timeout_s: deployment.ask(client, request, timeout_s),
            lambda response: response.status_code not in _NOT_YET,
            asked,
            patient=True,
        )
        if deployment.cold_start_ns is None:
            deployment.cold_start_ns = time.perf_counter_ns() - self._kept.started_ns
        if not response.is_success:
            where = f'; name the path that takes inputs: {type(self._target).__name__}(..., path="/predict")'
            raise DeploymentError(
                f"{self._target} answered {response.status_code} to its first request, {asked}: {response.text[:2000]}"
                f"{where if response.status_code in (404, 405) and self._target.path == '/' else ''}{self._printed()}"
            )

    def _ask(
        self,
        ask: Callable[[float], httpx.Response],
        is_final: Callable[[httpx.Response], bool],
        asked: str,
        *,
        patient: bool = False,
    ) -> httpx.Response:
        """Ask again and again, until there is a final answer, the server has ended, or the time is over."""
        import httpx

        heard = "nobody answers"
        while (left_s := (self._deadline_ns - time.perf_counter_ns()) / 1e9) > 0:
            try:
                response = ask(left_s if patient else min(left_s, _ASK_TIMEOUT_S))
                if is_final(response):
                    return response
                heard = f"it answers {response.status_code}"
            except httpx.TransportError as error:
                heard = f"nobody answers ({type(error).__name__}: {error})"
            self._check_running(_POLL_S)
        raise DeploymentError(
            f"{self._target} is not ready after {format_duration(self._startup.timeout_ns)}, the start-up time limit: "
            f'to {asked} {heard}; raise it with perf(startup_timeout="5min") or --perf-startup-timeout{self._printed()}'
        )

    def _check_running(self, wait_s: float) -> None:
        """Wait so long for the server's end.

        Raises:
            _PortTakenError: it has ended, and somebody else listens on its port.
            DeploymentError: it has ended.
        """
        try:
            self._kept.check(wait_s)
        except DeploymentError as error:
            if taken := [one for one in _listeners() if one.laddr.port in self._ports]:
                who = "somebody else" if taken[0].pid is None else f"process {taken[0].pid}"
                raise _PortTakenError(
                    f"{self._target}: {who} took port {taken[0].laddr.port} before the server could open it; run the "
                    f"test again\n{error}"
                ) from None
            raise DeploymentError(f"{self._target}: {error}") from None

    def _check_openness(self) -> None:
        """Warn where the server listens to more than this machine, as some do unless told otherwise."""
        family = set(self._kept.family())
        ours = (one for one in _listeners() if one.pid in family and one.laddr.port in self._ports)
        if address := next((one.laddr.ip for one in ours if one.laddr.ip in _EVERYWHERE), None):
            warnings.warn(
                f"{self._target} listens on all interfaces ({address}), expected 127.0.0.1; give it the option that "
                "says so, such as --host 127.0.0.1",
                OpenPortWarning,
                stacklevel=2,
            )

    def _printed(self) -> str:
        tail = self._kept.log_tail()
        return f"\nIt printed last:\n{tail}" if tail else ""


class _ServerProcesses:
    """Supervised programs as the processes of a deployment; a warning at the end names those that had to be killed."""

    def __init__(self, kept: SupervisedPrograms, name: str) -> None:
        self._kept = kept
        self._name = name

    @property
    def pids(self) -> tuple[int, ...]:
        """The programs' processes; their children are found below them."""
        return self._kept.pids

    def check(self, wait_s: float = 0.0) -> None:
        """Raise where one has ended, at the latest after waiting so long for that."""
        try:
            self._kept.check(wait_s)
        except DeploymentError as error:
            raise DeploymentError(f"{self._name}: {error}") from None

    def stats(self) -> PatternStats:
        """Return empty statistics, if the programs still run.

        Raises:
            DeploymentError: a program has ended.
        """
        self.check()
        return PatternStats()

    def log_tail(self) -> str:
        """Last lines of the programs' output."""
        return self._kept.log_tail()

    def stop(self) -> None:
        """End them with all that they started."""
        stopped = self._kept.stop()
        if stopped.killed:
            warnings.warn(
                f"{self._name} left processes that lived on after SIGTERM and were killed: {describe_killed(stopped)}",
                LeftoverWarning,
                stacklevel=2,
            )


def _command_program(target: Command, startup: StartOptions) -> Program:
    words: Sequence[str] = target.words
    if startup.trees is not None:  # what leads into the present tree leads to the same place in the other
        there = [os.path.isabs(word) and os.path.exists(word) for word in words]
        words = [map_path(word, *startup.trees) if found else word for word, found in zip(words, there, strict=True)]
    return _program(target, words, target.env, _directory(target, startup), startup)


def _app_programs(target: App, startup: StartOptions) -> list[Program]:
    cwd = _directory(target, startup)
    import_path = [str(cwd), *sys.path]
    described = asgi.description_of(target.app, factory=target.factory, import_path=import_path, trees=startup.trees)
    env = {**target.env, asgi.VARIABLE: described}
    if target.server == "uvicorn":
        return [_program(target, _UVICORN, env, cwd, startup) for _ in range(target.workers)]
    if importlib.util.find_spec("granian") is None:
        raise DeploymentError(missing_extra(str(target), "granian", "granian"))
    if target.balance == "shared-socket":
        return [_program(target, [*_GRANIAN, "--workers", str(target.workers)], env, cwd, startup)]
    return [_program(target, _GRANIAN, env, cwd, startup) for _ in range(target.workers)]


def _directory(target: App | Command, startup: StartOptions) -> Path:
    cwd = startup.root / (target.cwd or "")
    if startup.trees is not None:
        cwd = Path(map_path(str(cwd), *startup.trees))
    if not cwd.is_dir():
        raise DeploymentError(f"{target}: {cwd} does not exist, expected the directory to start it in; see cwd=")
    return cwd


def _program(
    target: App | Command, words: Sequence[str], env: Mapping[str, str], cwd: Path, startup: StartOptions
) -> Program:
    env = dict(env)
    if startup.trees is not None and "PYTHONPATH" in env:
        given = [map_path(entry, *startup.trees) for entry in env["PYTHONPATH"].split(os.pathsep)]
        env["PYTHONPATH"] = os.pathsep.join([*given, *filter(None, [os.environ.get("PYTHONPATH")])])
    commands = [str(Path(sys.executable).parent), *filter(None, [os.environ.get("PATH")])]  # as if it were activated
    env.setdefault("PATH", os.pathsep.join(commands))
    log = startup.directory / f"server-{time.perf_counter_ns():x}.log"
    return Program(tuple(word.replace("{python}", sys.executable) for word in words), env, cwd, log)


def _listeners() -> list[Any]:
    """Every listening TCP socket of this machine with its process, where the system tells."""
    try:
        return [one for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
    except (psutil.Error, OSError):  # macOS tells it to root alone
        return []
