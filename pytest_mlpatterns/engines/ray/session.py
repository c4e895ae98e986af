"""The Ray driver as its parent sees it, a child process that calls functions on a cluster; and the names of a run.

This process never imports Ray, which takes signals, adds threads and exit handlers, and knows one cluster per process.
The driver's lifeline turns every end of this process into an orderly end of our applications.

A run is ``mlpatterns-<seconds since 1970>-<8 hexadecimal digits>``. All its names begin so, and no others are ever
touched. A driver that joins a run has a longer name of its own within it.
"""

import contextlib
import itertools
import re
import secrets
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, InvalidStateError
from pathlib import Path
from typing import Any

from pytest_mlpatterns.engines.ray.cluster import ClusterFacts, describe
from pytest_mlpatterns.engines.ray.messages import Call, DriverFailed, DriverReady, Leave, Raised, RayJob, Returned
from pytest_mlpatterns.errors import ChildError, DeploymentError, MlpatternsError
from pytest_mlpatterns.records.launch import Noise
from pytest_mlpatterns.system.child import Child
from pytest_mlpatterns.system.import_redirect import Stray
from pytest_mlpatterns.wording import count

_RUN = re.compile(r"(mlpatterns-(\d{9,11})-[0-9a-f]{8})(?:-[0-9a-z-]+)?")
_FILES = ("pip", "uv", "conda")  # Fields that may be the path of a file, or something else


def new_run(now_s: float) -> str:
    """A name for a run that begins now, in seconds since 1970."""
    return f"mlpatterns-{int(now_s)}-{secrets.token_hex(4)}"


def part_of(run: str) -> str:
    """A name for a driver that joins a run."""
    return f"{run}-{secrets.token_hex(2)}"


def base_of(run: str) -> str:
    """The run that a driver belongs to, by its own name or by one of its applications'."""
    if (found := _RUN.fullmatch(run)) is None:
        raise ValueError(f"{run!r} is no name of a run")
    return found[1]


def belongs_to(name: str, run: str) -> bool:
    """Whether an application belongs to this run, or to this part of one."""
    return name.startswith(f"{run}-")


def age_of(run: str, now_s: float) -> float:
    """Seconds since a run began, by its name."""
    found = _RUN.fullmatch(run)
    return 0.0 if found is None else max(0.0, now_s - int(found[2]))


def applications_by_run(names: Iterable[str]) -> dict[str, list[str]]:
    """The names of applications that are ours, by the run that they belong to; all others are left out."""
    found: dict[str, list[str]] = {}
    for name in names:
        if (match := _RUN.fullmatch(name)) is not None and match[1] != name:
            found.setdefault(match[1], []).append(name)
    return found


def removed_note(run: str, applications: int, now_s: float) -> str:
    """The note on a killed run whose applications were removed."""
    age_s = age_of(run, now_s)
    value, unit = next(
        (age_s / size, unit)
        for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
        if age_s >= size or size == 1
    )
    what = count(applications, "application")
    verb = "was" if applications == 1 else "were"
    return f"{what} of a run that began {value:.0f} {unit} ago and was killed {verb} removed from the Ray cluster"


def brings_code(runtime_env: Mapping[str, Any]) -> bool:
    """Whether the nodes get code of the project by it."""
    return bool(runtime_env.get("working_dir") or runtime_env.get("py_modules"))


def with_absolute_paths(runtime_env: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """A runtime environment with absolute paths. ``root``: directory to which its paths are relative."""
    found = dict(runtime_env)
    if isinstance(directory := found.get("working_dir"), str):
        found["working_dir"] = _absolute(directory, root)
    if isinstance(modules := found.get("py_modules"), list | tuple):
        found["py_modules"] = [_absolute(one, root) if isinstance(one, str) else one for one in modules]
    for name in _FILES:
        if isinstance(file := found.get(name), str) and (root / file).is_file():
            found[name] = str(root / file)
    return found


def _absolute(path: str, root: Path) -> str:
    return path if "://" in path else str((root / path).resolve())


def not_sent(stray: Stray) -> DeploymentError:
    """The error for a module of the present tree on a machine to which the reference tree was not sent."""
    return DeploymentError(
        f"the reference side loaded {stray.name} from the working tree, {stray.file}, on a node without the code of "
        'the revision; send it with the replicas: perf_ray_runtime_env = {"working_dir": "."}'
    )


_DRIVER = "pytest_mlpatterns.engines.ray.driver"
_START_S = 60.0
"""Time for a cluster to start, or for every node to answer; what makes a cluster unusable is known much earlier."""
_LEAVE_S = 20.0  # Wait for a driver that removes its applications
_LISTEN_S = 5.0  # Time of one wait for a message of the driver, in seconds; the next wait follows
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_SERVE_LOG_TO_STDERR": "0", "RAY_DEDUP_LOGS": "0"}
_NO_PRESTART = {"RAY_enable_worker_prestart": "0", "RAY_prestart_worker_first_driver": "0"}
"""A node otherwise starts a process for each of its logical CPUs."""
_SOON = {"RAY_gcs_server_request_timeout_seconds": "12"}
"""How long a driver looks for a node on its machine, and waits for an answer of the cluster."""
_SHARES_HELD_PORT = {"SERVE_SOCKET_REUSE_PORT_ENABLED": "1"}
"""Ray Serve binds a port that the driver holds, which is its default."""
_LOOPBACK = "127.0.0.1"
_ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Ray otherwise replaces the loopback address by the machine's own (Linux), and listens on all interfaces."""
_NODES = "pytest_mlpatterns.engines.ray.remote.cluster:alive_nodes"


class RaySession:
    """One cluster in one session; starts on first use, by ``main()`` of a module; several threads may call it."""

    def __init__(self, job: RayJob, log: Path, driver: str = _DRIVER) -> None:
        self._job = job
        self._log = log
        self._driver = driver
        self._child: Child | None = None
        self._ready: Future[DriverReady] = Future()
        self._answers: dict[int, Future[Any]] = {}
        self._numbers = itertools.count(1)
        self._sending = threading.Lock()
        self._listener: threading.Thread | None = None
        self._ended: ChildError | None = None
        self._is_closed = False

    def begin(self) -> None:
        """Start the driver without waiting for it."""
        with self._sending:
            if self._child is not None or self._is_closed:
                return
            child = self._child = Child(self._driver, log=self._log, env=driver_environment(self._job))
            self._listener = threading.Thread(target=self._listen, args=(child,), name="Ray driver", daemon=True)
            self._listener.start()
            with contextlib.suppress(ChildError):  # the listener hears of it too
                child.send(self._job)

    @property
    def runtime_env(self) -> Mapping[str, Any]:
        """Ray's runtime environment of our processes on the nodes, as it was given: with relative paths."""
        return self._job.runtime_env

    @property
    def has_begun(self) -> bool:
        """Whether the driver was started."""
        return self._child is not None

    @property
    def cluster(self) -> ClusterFacts:
        """The cluster; waits until it is ready."""
        return self._await_ready().cluster

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of the connection; empty before there is one."""
        is_ready = self._ready.done() and self._ready.exception() is None
        return self._ready.result().notes if is_ready else ()

    def call(self, function: str, *arguments: object, timeout_s: float = 30.0) -> Any:
        """Call a function in the driver. ``function``: as :class:`Call` names it."""
        self._await_ready()
        assert self._child is not None
        number = next(self._numbers)
        answer = self._answers[number] = Future()
        try:
            if self._ended is not None:  # looked at after the answer is awaited, as the listener sets it before
                raise self._ended
            with self._sending:
                self._child.send(Call(number, function, arguments))
            return answer.result(timeout_s)
        except TimeoutError:
            raise TimeoutError(f"{function} gave no result within {timeout_s:g} s") from None
        finally:
            self._answers.pop(number, None)

    def log_tail(self) -> str:
        """Last lines of the driver's output."""
        return "" if self._child is None else self._child.log_tail()

    def close(self) -> None:
        """End the driver, our applications, and a cluster that it started. Safe to call twice."""
        with self._sending:
            was_closed, self._is_closed = self._is_closed, True
        _give(self._ready, error=DeploymentError("the Ray cluster of this run has been left already"))
        if self._child is None or was_closed:
            return
        if self._ready.exception() is None:
            with contextlib.suppress(ChildError), self._sending:
                self._child.send(Leave())
            if self._listener is not None:
                self._listener.join(_LEAVE_S)
        self._child.stop()

    def _await_ready(self) -> DriverReady:
        self.begin()
        try:
            return self._ready.result(_START_S)
        except TimeoutError:
            tail = self.log_tail()
            error = DeploymentError(f"{self._job.subject} within {_START_S:.0f}s; it printed last:\n{tail}")
            _give(self._ready, error=error)
            if self._ready.exception() is error and self._child is not None:
                self._child.stop()
            return self._ready.result()

    def _listen(self, child: Child) -> None:
        """Take the driver's messages until it ends; then every call that waits gets the reason."""
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    self._take(child.receive(_LISTEN_S))
        except ChildError as error:
            _give(self._ready, error=DeploymentError(f"{self._job.subject}: the Ray driver, {error}"))
            self._ended = ChildError(f"the Ray driver, {error}")
            for answer in [*self._answers.values()]:
                _give(answer, error=self._ended)

    def _take(self, message: object) -> None:
        if isinstance(message, DriverReady):
            _give(self._ready, message)
        elif isinstance(message, DriverFailed):
            _give(self._ready, error=message.error)
        elif isinstance(message, Returned | Raised) and (answer := self._answers.get(message.number)) is not None:
            if isinstance(message, Returned):
                _give(answer, message.value)
            else:
                _give(answer, error=message.error or ChildError(message.traceback))


def _give(answer: Future[Any], value: object = None, *, error: MlpatternsError | None = None) -> None:
    """Answer, unless there is an answer already."""
    with contextlib.suppress(InvalidStateError):
        if error is None:
            answer.set_result(value)
        else:
            answer.set_exception(error)


def driver_environment(job: RayJob) -> Mapping[str, str]:
    """The variables of a driver, beside this process's.

    A Ray of this run's own asks for a token that only this run knows; without one, Ray writes one into the home
    directory.
    """
    if job.address is not None:
        is_local = job.address.startswith(f"{_LOOPBACK}:")
        return {**_QUIET, **_SOON, **(_ON_LOOPBACK if is_local else {}), **job.environment}
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    return {**_QUIET, **_NO_PRESTART, **_ON_LOOPBACK, **_SHARES_HELD_PORT, **token, **job.environment}


class ClusterUse:
    """A cluster that takes part in a test, from now on."""

    def __init__(self, session: RaySession) -> None:
        self._session = session
        self.description: str = describe(session.cluster.nodes)
        self._before = self._nodes()

    def change(self) -> Noise | None:
        """What has changed since, with advice; None if nothing has, or if that is not known."""
        before, now = self._before, self._nodes()
        if before == now or not before or not now:
            return None
        lost, added = len(before - now), len(now - before)
        what = " and ".join(
            f"{verb} {count(number, 'node')}" for number, verb in ((lost, "lost"), (added, "gained")) if number
        )
        return Noise(f"the Ray cluster {what} while this was measured", "run it again when its nodes stay")

    def _nodes(self) -> frozenset[str]:
        """The nodes that are alive; empty if they are unknown, which a measurement reports."""
        if self._session.cluster.is_own:
            return frozenset()
        try:
            found: frozenset[str] = self._session.call(_NODES)
        except (ChildError, TimeoutError):
            return frozenset()
        return found
