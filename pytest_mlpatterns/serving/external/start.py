"""Starts a server from the user's application or command, and waits until it is ready.

Ready means that the server answers on its ready path, and has answered one real request if an input is known. If the
server exits early, its last output is reported at once; so is a wrong port, or a bind to all interfaces.

Why not mirakuru or pytest-xprocess, which also start a command and poll a URL: neither adopts orphans, so workers whose
parent has died stay behind; neither ends the server if pytest is killed (pytest-xprocess keeps servers for the next run
on purpose); and with both the user has to choose a port.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import itertools
import json
import os
import shlex
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from pytest_mlpatterns.errors import DeploymentError, LeftoverWarning, OpenPortWarning, missing_extra
from pytest_mlpatterns.records.addressing import Balance
from pytest_mlpatterns.records.setup import EnvironmentFacts, merged_facts
from pytest_mlpatterns.records.telemetry import PatternStats
from pytest_mlpatterns.serving.deployment import Deployment, Traits
from pytest_mlpatterns.serving.external import asgi_server as asgi
from pytest_mlpatterns.serving.external.attach import FIRST_TRIES, NO_SUCH_PATH, advice_on_request, attach
from pytest_mlpatterns.serving.external.programs import SOCKET, Program, SupervisedPrograms, listeners
from pytest_mlpatterns.serving.external.scraper import scraper_of
from pytest_mlpatterns.serving.failed_request import error_text, stream_failure
from pytest_mlpatterns.serving.model import StartOptions, ended_on_error, start_with_cpus
from pytest_mlpatterns.serving.processes import Processes
from pytest_mlpatterns.serving.readiness import set_up
from pytest_mlpatterns.serving.targets import App, Command, Target, Url, prometheus_of, with_ports
from pytest_mlpatterns.system.cpu_share import current_share
from pytest_mlpatterns.system.import_redirect import is_installed, map_path
from pytest_mlpatterns.system.installed_copies import InstalledCopy, copy_error
from pytest_mlpatterns.system.loaded_packages import logged_modules
from pytest_mlpatterns.system.orphans import describe_killed, guarded
from pytest_mlpatterns.units import SECOND_NS, format_duration, parse_duration
from pytest_mlpatterns.wire import Wire
from pytest_mlpatterns.wire.invocations import PING
from pytest_mlpatterns.wire.stream_request import read_stream
from pytest_mlpatterns.wording import listed
from pytest_mlpatterns.workload.endpoint import CLIENT_ACCEPTS, Endpoint, model_of, path_at

if TYPE_CHECKING:
    import httpx


_TELLING_S = 0.25  # A wait for an answer that is shorter, as the last one may be, shows nothing of the server
_POLL_S = 0.02  # Interval of requests to a server that starts, in seconds
_IN_USE = "address already in use"  # What a server prints that cannot bind its port
_ANSWER_S = 1.0  # Wait for a process that may have a port already
_NOT_YET = (502, 503, 504)  # Statuses of a server whose model is not loaded yet
_OTHER_PATH = "name a path that it has with ready=, or if it has this one later, "
_RAISE_LIMIT = 'raise the limit with perf(startup_timeout="5min") or --perf-startup-timeout'
_ALL_INTERFACES = ("0.0.0.0", "::")  # noqa: S104 - recognized here, not bound
_UVICORN = (
    *("{python}", "-c"),  # Python 3.10 has no -P
    "import sys; sys.path = [*filter(None, sys.path)]; "
    "from pytest_mlpatterns.serving.external.asgi_server import main; main()",
    SOCKET,
)
_GRANIAN = (
    *("{python}", "-m", "granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", "{port}"),
    *("--log-level", "warning", "--no-access-log", "--factory", "pytest_mlpatterns.serving.external.asgi_server:load"),
)


def deploy_target(target: Target, options: StartOptions) -> Deployment:
    """Attach to a running service, or start a server and wait until it is ready."""
    if target.stream is not None and options.wire.protocol in ("openai", "grpc"):
        raise DeploymentError(
            f"{target} has stream={target.stream!r}, but the wire {options.wire} gives the form of the answers; leave "
            "stream= out, or leave wire= out and make the requests with perf(request=...)",
            subject=target,
        )
    if isinstance(target, Url):
        return attach(target, options)
    if isinstance(target, App) and options.wire.protocol == "grpc":
        said = f"{target} takes requests over HTTP, but the wire is {options.wire}; choose a wire over REST"
        raise DeploymentError(said, subject=target)
    return _started(target, options)


def _started(target: App | Command, options: StartOptions) -> Deployment:
    """Start the companions of a target and then the target, which ends them after its own end."""
    for one in (*target.companions, target):
        python_of(one, options)  # before anything starts
    ports: dict[str, int] = {}
    companions: list[Deployment] = []
    alone = StartOptions(options.timeout_ns, None, options.directory, options.trees, root=options.root)
    try:
        for one in target.companions:
            companions.append(_started(one, replace(alone, ports=dict(ports))))
            if one.name:
                ports[one.name] = companions[-1].addresses[0][1]
        options = replace(options, ports={**options.ports, **ports})
        return start_with_cpus(options.cpus, lambda: _Start(target, options, companions).deployment())
    except BaseException as error:
        with contextlib.ExitStack() as closing:
            for companion in companions:
                closing.callback(companion.close)
        if isinstance(error, DeploymentError) and len(companions) < len(target.companions):
            said = f"{target}: its companion {error}"
            raise DeploymentError(said, subject=target, retry=error.retry) from None
        raise


class _Start:
    """One start of a server."""

    def __init__(self, target: App | Command, options: StartOptions, companions: Sequence[Deployment]) -> None:
        self._target = target
        self._options = options
        self._deadline_ns = time.perf_counter_ns() + options.timeout_ns
        fixed = _free_port(target)
        self._programs = SupervisedPrograms(
            programs_of(target, options),
            options.directory,
            shares_socket=isinstance(target, App) and (target.server, target.balance) == ("uvicorn", "shared-socket"),
            stop_ns=parse_duration(target.stop),
            timeout_ns=options.timeout_ns,
        )
        self._processes = _ServerProcesses(self._programs, str(target), options.directory, companions=companions)
        self._ports = fixed or list(dict.fromkeys(ports["port"] for ports in self._programs.ports))
        self._request_ports = self._ports
        if options.wire.protocol in ("grpc", "client") and "grpc_port" in self._programs.ports[0]:
            self._request_ports = [self._programs.ports[0]["grpc_port"]]

    def deployment(self) -> Deployment:
        """The deployment, after it has become ready."""
        target = self._target
        endpoint = Endpoint(
            addresses=tuple(("127.0.0.1", port) for port in self._request_ports),
            path=path_at(self._options.wire, target.path),
            model_name=model_of(self._options.wire, target.path),
            balance=Balance(target.balance) if isinstance(target, App) else Balance.ROUND_ROBIN,
            wire=self._options.wire,
            stream=read_stream(target.stream, type(target).__name__),
            accepts=CLIENT_ACCEPTS,
        )
        traits = Traits(current_share())
        deployment = Deployment(endpoint, self._processes, traits, builder=self._options.builder)
        with ended_on_error(deployment.close):
            for number in range(len(self._ports)):
                self._await_ready(deployment, number)
            self._check_openness()
            if (names := prometheus_of(target)) is not None:
                origins = [f"http://127.0.0.1:{port}" for port in self._ports]
                scraper = scraper_of(names, origins, self._programs.ports[0])
                deployment.read_metrics_with(scraper, require_known=self._options.payload is not None)
        return deployment

    def _await_ready(self, deployment: Deployment, number: int) -> None:
        """Wait until the ready path succeeds; set the server up, without counting that; then ask for an inference."""
        import httpx

        from pytest_mlpatterns.serving.bounded_client import BoundedTransport, get_page
        from pytest_mlpatterns.serving.client_transport import connected

        ready, wire = self._target.ready, self._options.wire
        path = ready_path(ready, wire)
        if self._request_ports != self._ports:  # requests go over gRPC, the ready path over HTTP
            health: contextlib.AbstractContextManager[httpx.Client] = httpx.Client(
                base_url=f"http://127.0.0.1:{self._ports[number]}", trust_env=False, transport=BoundedTransport()
            )
        else:
            health = contextlib.nullcontext(deployment.client_of(number))
        with health as health_client:
            connects = ready is None and wire.protocol == "client"  # a server that may not speak HTTP
            get = connected if connects else functools.partial(get_page, on_wait=self._check_running)
            self._ask(
                lambda timeout_s: get(health_client, path, timeout_s),
                lambda response: connects or is_ready(response, ready, wire),
                f"GET {path}",
            )
        set_up_ns = set_up(deployment, number, self._target, options=self._options)
        self._deadline_ns += set_up_ns
        if self._options.payload is not None:
            self._await_first_answer(deployment, number, self._programs.started_ns + set_up_ns)

    def _await_first_answer(self, deployment: Deployment, number: int, started_ns: int) -> None:
        from pytest_mlpatterns.serving.bounded_client import ON_WAIT

        assert self._options.payload is not None
        request = {**deployment.request_of(self._options.payload), "extensions": {ON_WAIT: self._check_running}}
        client = deployment.client_of(number)
        shown = f"{request['method']} {request['url']}"
        printed, sent = self._programs.traceback_from_now(), itertools.count(1)
        response = self._ask(
            lambda timeout_s: deployment.ask(client, request, timeout_s),
            lambda answer: (
                answer.status_code not in _NOT_YET and not (answer.is_server_error and next(sent) < FIRST_TRIES)
            ),
            shown,
        )
        deployment.note_first_answer(started_ns)
        failure = stream_failure(response, self._options.wire, request["content"], stream=deployment.endpoint.stream)
        if failure or not response.is_success:
            advice = advice_on_request(response, self._target, self._options, client=client)
            if response.is_server_error:
                with contextlib.suppress(DeploymentError):  # the server prints it after the answer
                    printed()
            raise DeploymentError(
                f"{self._target} answered {response.status_code} to its first request, {shown}: "
                f"{failure or error_text(response)[:2000]}{advice}{self._printed()}",
                subject=self._target,
            )

    def _ask(
        self,
        ask: Callable[[float], httpx.Response],
        is_final: Callable[[httpx.Response], bool],
        shown: str,
    ) -> httpx.Response:
        """Send a request until it has a final answer; ``ask`` sends it, with all the time that is left, in seconds.

        A server that takes one request after the other still works on one that was given up, so that the next waits
        behind it.
        """
        import httpx

        from pytest_mlpatterns.serving.bounded_client import EndlessAnswerError

        outcome, is_late = "", True  # late: it has answered nothing, so that it may have needed more time
        while (left_s := (self._deadline_ns - time.perf_counter_ns()) / 1e9) > 0:
            try:
                response = ask(left_s)
                if is_final(response):
                    return response
                is_late = False
                advice = f"{_OTHER_PATH}{_RAISE_LIMIT}" if response.status_code in NO_SUCH_PATH else _RAISE_LIMIT
                outcome = f"to {shown} the answer is {response.status_code}; {advice}"
            except EndlessAnswerError as error:
                if error.is_over_bound:
                    raise DeploymentError(f"{self._target}: {error}{self._printed()}", subject=self._target) from None
                is_late = False
                if not outcome or left_s > _TELLING_S:
                    outcome = str(error)
            except httpx.RequestError as error:  # also a body that does not match its Content-Encoding
                if not outcome or left_s > _TELLING_S or not isinstance(error, httpx.TimeoutException):
                    outcome = f"to {shown} there is no answer ({type(error).__name__}: {error}); {_RAISE_LIMIT}"
            self._check_running()
        elsewhere = self._listens_elsewhere()
        raise DeploymentError(
            f"{self._target} is not ready after {format_duration(self._options.timeout_ns)}, the start-up time limit: "
            f"{elsewhere or outcome or f'to {shown} there is no answer; {_RAISE_LIMIT}'}{self._printed()}",
            subject=self._target,
            retry=(is_late and not elsewhere) or None,
        )

    def _listens_elsewhere(self) -> str:
        """Where the server listens instead, and what to do; empty if it listens nowhere, or where it is asked."""
        found = self._programs.addresses()
        if not found or any(at.port in self._ports and at.ip in (*_ALL_INTERFACES, "127.0.0.1") for at in found):
            return ""
        shown = listed(sorted({f"[{at.ip}]:{at.port}" if ":" in at.ip else f"{at.ip}:{at.port}" for at in found}))
        return f"it listens on {shown}, expected 127.0.0.1:{self._ports[0]}; give it this address, and {{port}}"

    def _check_running(self) -> None:
        """Check that the server runs; wait a moment for its end."""
        try:
            self._programs.check(_POLL_S)
        except DeploymentError as error:
            owner = _owner_of(self._ports, besides=self._programs.family())
            said = f"{owner} took it before the server could open it\n" if owner else ""
            is_taken = bool(owner) or _IN_USE in str(error).lower()  # the next start has another port
            said = f"{self._target}: {said}{error}"
            raise DeploymentError(said, subject=self._target, retry=is_taken or None) from None
        self._processes.check_companions()

    def _check_openness(self) -> None:
        """Warn if the server listens on all interfaces, which is the default of some servers."""
        ours = (at.ip for at in self._programs.addresses() if at.port in self._ports)
        if address := next((ip for ip in ours if ip in _ALL_INTERFACES), None):
            warnings.warn(
                f"{self._target} listens on all interfaces ({address}), expected 127.0.0.1; add its option for the "
                "address, such as --host 127.0.0.1",
                OpenPortWarning,
                stacklevel=2,
            )

    def _printed(self) -> str:
        tail = self._processes.log_tail()
        return f"\nIt printed last:\n{tail}" if tail else ""


class _ServerProcesses(Processes):
    """Supervised programs as the processes of a deployment; a warning at the end names those that had to be killed."""

    def __init__(
        self, programs: SupervisedPrograms, name: str, directory: Path, *, companions: Sequence[Deployment]
    ) -> None:
        self._programs = programs
        self._name = name
        self._directory = directory
        self._companions = companions

    def __str__(self) -> str:
        return self._name

    @property
    def pids(self) -> tuple[int, ...]:
        """The programs, without the children of these processes."""
        return self._programs.pids

    def check(self, wait_s: float = 0.0) -> None:
        """Check that all programs run; wait up to ``wait_s`` for one to end."""
        try:
            self._programs.check(_POLL_S)
        except DeploymentError as error:
            raise DeploymentError(f"{self._name}: {error}", subject=self._name) from None
        self.check_companions()

    def check_companions(self) -> None:
        """Check that all companions run."""
        for companion in self._companions:
            try:
                companion.processes.check()
            except DeploymentError as error:
                raise DeploymentError(f"{self._name}: its companion {error}", subject=self._name) from None

    def stats(self) -> PatternStats:
        """Return empty statistics, if the programs still run."""
        self.check()
        return PatternStats()

    def excuse(self, pid: int) -> None:
        """The program with this process may end from now on."""
        self._programs.excuse(pid)

    def facts(self) -> EnvironmentFacts:
        """The environment of the programs, as it is seen from outside."""
        from pytest_mlpatterns.system.environment_facts import process_facts

        logged = {pid: logged_modules(self._directory, pid) for pid in self._programs.family()}
        others = None if not any(logged.values()) else ()  # the parents of workers load nothing to serve
        return merged_facts(process_facts(pid, others if one is None else one) for pid, one in logged.items())

    def log_tail(self) -> str:
        """Last lines of the programs' output, and of their companions'."""
        beside = [(one.processes, one.log_tail()) for one in self._companions]
        printed = [f"its companion {processes} printed last:\n{tail}" for processes, tail in beside if tail]
        return "\n".join(filter(None, (self._programs.log_tail(), *printed)))

    def traceback_from_now(self) -> Callable[[], str]:
        """A function that returns the traceback that a program printed since this call."""
        return self._programs.traceback_from_now()

    def stop(self) -> None:
        """End the programs and all processes that they started, then their companions; warn about those killed."""
        with contextlib.ExitStack() as closing:
            for companion in self._companions:
                closing.callback(companion.close)
            stopped = self._programs.stop()
        if stopped.killed:
            warnings.warn(
                f"{self._name}: processes that did not end after SIGTERM were killed: "
                f"{describe_killed(stopped.killed)}",
                LeftoverWarning,
                stacklevel=2,
            )


def _free_port(target: App | Command) -> list[int]:
    """The port that a target opens wherever it runs, if it does; no process may have it yet, which would answer."""
    if not isinstance(target, Command) or target.port is None:
        return []
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", target.port), _ANSWER_S):
        owner = _owner_of([target.port]) or f"another process on port {target.port}"
        said = f"{target}: {owner} has it already; end that process, or write {{port}} in place of port="
        raise DeploymentError(said, subject=target, retry=False)
    return [target.port]


def _owner_of(ports: Sequence[int], *, besides: Sequence[int] = ()) -> str:
    """The process that listens on one of these ports, in words; empty if none does but ``besides``."""
    for listener in listeners():
        if listener.laddr.port in ports and listener.pid not in besides:
            owner = "another process" if listener.pid is None else f"process {listener.pid}"
            return f"{owner} on port {listener.laddr.port}"
    return ""


def ready_path(ready: str | None, wire: Wire) -> str:
    """The path to ask: the one that the target names, else the wire's."""
    return ready or (PING if wire.protocol == "invocations" else "/")


def is_ready(response: httpx.Response, ready: str | None, wire: Wire) -> bool:
    """Whether an answer of this path shows that the server is ready; arguments as of :func:`ready_path`.

    Without ``ready=`` any answer counts, except that an existing ``/ping`` must answer 2xx.
    """
    if ready is None and (wire.protocol != "invocations" or response.status_code in NO_SUCH_PATH):
        return True
    return response.is_success


def programs_of(target: App | Command, options: StartOptions) -> list[Program]:
    """The programs to start for a target."""
    return _app_programs(target, options) if isinstance(target, App) else [_command_program(target, options)]


def _command_program(target: Command, options: StartOptions) -> Program:
    words: Sequence[str] = target.words
    if options.trees is not None:  # paths into the user's tree become paths into the worktree
        exists = [os.path.isabs(word) and os.path.exists(word) for word in words]
        words = [map_path(word, *options.trees) if found else word for word, found in zip(words, exists, strict=True)]
    return _program(target, words, target.env, cwd=_directory(target, options), options=options)


def _app_programs(target: App, options: StartOptions) -> list[Program]:
    cwd, is_ours = _directory(target, options), target.python is None
    described = asgi.description_of(
        target.app,
        factory=target.factory,
        import_path=[str(cwd), *(path for path in sys.path if is_ours or not is_installed(path))],
        trees=options.trees,
        profiled=options.profiled,
        whole=is_ours,
    )
    env = {**target.env, asgi.VARIABLE: described, asgi.DIRECTORY: str(options.directory)}
    if not is_ours:
        given = target.env.get("PYTHONPATH", os.environ.get("PYTHONPATH"))
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [_this_package(options.directory), given]))
        _require_server(target, options)
    if target.server == "uvicorn":
        return [_program(target, _UVICORN, env, cwd=cwd, options=options) for _ in range(target.workers)]
    if is_ours and importlib.util.find_spec("granian") is None:
        raise DeploymentError(missing_extra(str(target), "granian", "granian"), subject=target)
    stop_s = max(1, parse_duration(target.stop) // (2 * SECOND_NS))  # a worker that was just forked drops SIGTERM
    words = [*_GRANIAN, "--workers-kill-timeout", str(stop_s)]
    if target.balance == "shared-socket":
        return [_program(target, [*words, "--workers", str(target.workers)], env, cwd=cwd, options=options)]
    return [_program(target, words, env, cwd=cwd, options=options) for _ in range(target.workers)]


def _directory(target: App | Command, options: StartOptions) -> Path:
    cwd = options.root / (target.cwd or "")
    if options.trees is not None:
        cwd = Path(map_path(str(cwd), *options.trees))
    if not cwd.is_dir():
        said = f"{target}: {cwd} does not exist, expected the working directory; correct cwd="
        raise DeploymentError(said, subject=target)
    return cwd


def _program(
    target: App | Command, words: Sequence[str], env: Mapping[str, str], *, cwd: Path, options: StartOptions
) -> Program:
    env, python = dict(env), python_of(target, options)
    if options.trees is not None and ("PYTHONPATH" in env or target.python is not None):
        given = [map_path(entry, *options.trees) for entry in env.get("PYTHONPATH", "").split(os.pathsep)]
        is_ours = target.python is None
        inherited = os.environ.get("PYTHONPATH") if is_ours else _redirected(target, options, cwd)
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [*given, inherited]))
    commands = [os.path.dirname(python), *filter(None, [os.environ.get("PATH")])]  # as in an activated environment
    env.setdefault("PATH", os.pathsep.join(commands))
    log = options.directory / f"server-{time.perf_counter_ns():x}.log"
    words = tuple(with_ports(word.replace("{python}", python), target, options.ports) for word in words)
    env = {name: with_ports(text, target, options.ports) for name, text in env.items()}
    return Program(words, env, cwd, log, profiled=options.profiled, under=options.under)


def python_of(target: App | Command, options: StartOptions) -> str:
    """The Python of the environment that serves a target: pytest's, or another one of the user's tree."""
    if target.python is None:
        return sys.executable
    path = os.path.abspath(options.root / Path(target.python).expanduser())
    if options.trees is not None:  # a revision has no environment of its own
        path = map_path(path, *options.trees[::-1])
    if os.path.isfile(path) and os.access(path, os.X_OK):
        return path
    found = "is a directory" if os.path.isdir(path) else "cannot be run" if os.path.exists(path) else "does not exist"
    raise DeploymentError(
        f"{target}: python={str(target.python)!r}, but {path} {found}, expected the Python of the environment that "
        'serves it, relative to pytest\'s root directory; write python=".venv-server/bin/python"',
        subject=target,
    )


def _this_package(directory: Path) -> str:
    """A folder for ``PYTHONPATH`` with this package alone, and not with what is installed beside it."""
    folder = directory / "site-packages"
    folder.mkdir(exist_ok=True)
    with contextlib.suppress(FileExistsError):
        (folder / "pytest_mlpatterns").symlink_to(Path(asgi.__file__).parents[2])
    return str(folder)


def _require_server(target: App, options: StartOptions) -> None:
    """Refuse an environment that cannot serve an application."""
    code = "import sys, importlib.util; print(importlib.util.find_spec(sys.argv[1]) is not None)"
    if _asked(target, options, code, target.server, lasts=lambda found: found == "True") != "True":
        python = python_of(target, options)
        raise DeploymentError(
            f"{target}: {python} has no {target.server}, expected it to serve the application; install it: "
            f"{shlex.join([python, '-m', 'pip', 'install', target.server])}",
            subject=target,
        )


def _redirected(target: App | Command, options: StartOptions, cwd: Path) -> str:
    """``PYTHONPATH`` by which another environment loads its editable projects from the tree of the revision.

    Raises SettingError: it imports the project from a copy, beside which no revision can be served.
    """
    top, other = options.trees or (options.root, options.root)
    root = map_path(str(options.root), other, top)
    code = (_REDIRECT, str(cwd), root, str(top), str(other))
    redirected, copies = json.loads(_asked(target, options, *code, lasts=lambda found: not json.loads(found)[1]))
    if copies:
        found = [InstalledCopy(package, Path(folder), Path(source)) for package, folder, source in copies]
        raise copy_error(found, Path(root), python_of(target, options))
    return str(redirected)


_REDIRECT = """
import json, os, pathlib, sys
from pytest_mlpatterns.system.import_redirect import install
from pytest_mlpatterns.system.installed_copies import installed_copies
_, cwd, *paths = sys.argv
root, top, other = map(pathlib.Path, paths)
sys.path.insert(0, cwd)
copies = [[str(part) for part in one] for one in installed_copies(root, top)]
del sys.path[0]
install(top, other)
print(json.dumps([os.environ["PYTHONPATH"], copies]))
"""
"""What the other environment runs: most programs find what lies in the working directory before any copy."""


_answers: dict[tuple[object, ...], str] = {}  # Of other environments, which hardly change during a run


def _asked(target: App | Command, options: StartOptions, *code: str, lasts: Callable[[str], bool]) -> str:
    """What a line of code prints, with its arguments, that the other environment runs beside this package."""
    python, given = python_of(target, options), os.environ.get("PYTHONPATH")
    question = (python, os.lstat(python).st_mtime_ns, given, *code)
    if (known := _answers.get(question)) is not None:
        return known
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [_this_package(options.directory), given]))}
    with guarded([python, "-c", *code], env=env, cwd=options.directory) as process:
        try:
            printed, messages = map(os.fsdecode, process.communicate(b"", options.timeout_ns / 1e9))
        except subprocess.TimeoutExpired:
            said = f"{target}: {python} has not answered after {format_duration(options.timeout_ns)}, expected a Python"
            raise DeploymentError(said, subject=target) from None
    if process.returncode:
        printed = f"{printed}{messages}".strip()[-300:]
        raise DeploymentError(
            f"{target}: {python} is no Python that runs; it printed {printed or 'nothing'}", subject=target
        )
    printed = printed.strip()
    if lasts(printed):
        _answers[question] = printed
    return printed
