"""Load generator processes on the nodes of a Ray cluster, which the Ray driver starts and passes messages to."""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psutil
from msgspec.structs import replace

from pytest_mlpatterns.engines.ray.cluster import SAME_CLOCK, ClockOffset
from pytest_mlpatterns.engines.ray.messages import Ended, Heard, HostFacts, Started
from pytest_mlpatterns.errors import ChildError, MlpatternsError, SettingError
from pytest_mlpatterns.loadgen.load_limits import check_connections, check_samples, require_fit
from pytest_mlpatterns.loadgen.messages import LoadJob, LoadResult, OpenWindow, Transport, WindowOpened
from pytest_mlpatterns.records.addressing import Progress
from pytest_mlpatterns.records.samples import Window
from pytest_mlpatterns.system.machine import machine_identity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from pytest_mlpatterns.engines.ray.session import RaySession
    from pytest_mlpatterns.workload.endpoint import Endpoint

_HOSTS = "pytest_mlpatterns.engines.ray.remote.generator_hosts"
_OPENING_NS = 100_000_000  # Least time from the order to open the window until it opens everywhere, in nanoseconds
_ROUND_TRIPS = 20  # Round trips to the farthest generator that this time has room for
_EACH_NS = 5_000_000  # In which the time of the opening is sent to one generator
_ANSWER_S = 60.0  # Time limit for an answer of a host, in seconds, on a busy cluster too
_START_S = 150.0  # Time limit for the start of all hosts, in seconds; Ray starts a process for each
_CEILINGS_S = 240.0  # Time limit for the measurement of all ceilings, in seconds; those of one node follow each other
_LOOK_S = 0.5  # Interval at which a host is asked whether a process is stopped, in seconds
_END_S = 15.0  # Time limit for the end of a process, in seconds
_INVALID = "this load is invalid, and the next one gets another generator"
"""What follows from the end of a generator on a node, for messages."""


class RayPool:
    """Processes on the nodes."""

    stop_timeout_s: float = 10.0

    def __init__(self, session: Callable[[], RaySession]) -> None:
        self._session = session
        self._keys = itertools.count()
        self._processes: dict[int, RayProcess] = {}
        self._taken = 0
        self._staged: object = None
        self._rows: dict[int, int] = {}
        self._free_bytes = 0
        self.facts: tuple[HostFacts, ...] = ()

    def begin(self, processes: int) -> None:
        """Begin to start the hosts that are missing."""
        if processes > len(self.facts):
            threading.Thread(target=self._open, args=(processes,), name="hosts", daemon=True).start()

    def prepare(self, job: LoadJob, processes: int) -> None:
        """Start the hosts that are missing, compare clocks, and check that the load can be sent from there."""
        self.facts = self.ask("open_hosts", processes, timeout_s=_START_S)
        limits = [facts.allowed_connections for facts in self.facts if facts.allowed_connections is not None]
        check_connections(job, processes, min(limits, default=None))
        _check_reachable(job.endpoint, self.facts)
        self._rows.clear()
        self._free_bytes = psutil.virtual_memory().available
        check_samples(job, self._free_bytes)

    def start(self, number: int, log: Path) -> RayProcess:
        """The process of a generator, which starts with its first job; its output stays on its node."""
        key = next(self._keys)
        process = self._processes[key] = RayProcess(self, key, number)
        return process

    def opening_delay_ns(self, processes: int) -> int:
        """Twenty round trips to the node that is farthest, at least a tenth of a second, and 5 ms for each process."""
        farthest_ns = max((2 * facts.clock.error_ns for facts in self.facts), default=0)
        return max(_OPENING_NS, _ROUND_TRIPS * farthest_ns) + _EACH_NS * processes

    def ceilings_rps(self, transport: Transport, processes: int) -> tuple[float, ...]:
        """Requests per second that each process reaches on its node against a server that does nothing."""
        found: tuple[float, ...] = self.ask("ceilings_rps", transport, processes, timeout_s=_CEILINGS_S)
        return found

    def library_overhead_ns(self) -> float | None:
        """What a client library adds to the median request on the node of the first generator."""
        found: float = self.ask("library_overhead_ns", timeout_s=_CEILINGS_S)
        return found

    def _open(self, processes: int) -> None:
        with contextlib.suppress(MlpatternsError):  # which the first load finds too
            self.ask("open_hosts", processes, timeout_s=_START_S)

    # --- for its processes --------------------------------------------------------------------------------------------

    def ask(self, function: str, *arguments: object, timeout_s: float = _ANSWER_S) -> Any:
        """Call a function of the driver's module."""
        try:
            return self._session().call(f"{_HOSTS}:{function}", *arguments, timeout_s=timeout_s)
        except TimeoutError:
            raise ChildError(f"the Ray driver does not answer for {timeout_s:.0f} s") from None

    def load(self, key: int, number: int, job: LoadJob) -> None:
        """Give a process a job; what all of them send goes to the cluster once."""
        if job.messages is not self._staged:
            self.ask("stage", job.messages)
            self._staged = job.messages
        self.ask("load", key, number, replace(job, messages=()))

    def collect(self, timeout_s: float) -> None:
        """Put the messages that have come into the inboxes of their processes; waits for the first one."""
        heard: Sequence[Heard] = self.ask("collect", self._taken, timeout_s, timeout_s=timeout_s + _ANSWER_S)
        for one in heard:
            if one.number > self._taken and (process := self._processes.get(one.key)) is not None:
                process.inbox.append(one.message)
            self._taken = max(self._taken, one.number)
        if any(isinstance(one.message, LoadResult) for one in heard):
            self.collect(0.0)  # which lets the cluster drop the recording

    def count(self, key: int, rows: int) -> None:
        """Note how many requests a process has recorded."""
        self._rows[key] = rows
        require_fit(sum(self._rows.values()), self._free_bytes)

    def forget(self, key: int) -> None:
        """Forget a process that has ended."""
        self._processes.pop(key, None)


def _check_reachable(endpoint: Endpoint, hosts: Iterable[HostFacts]) -> None:
    """Check that a service on a loopback address is loaded from its own machine."""
    loopback = next(filter(None, map(_loopback, _addresses_of(endpoint))), "")
    other = next((facts for facts in hosts if facts.machine != machine_identity()), None)
    if loopback and other is not None:
        raise SettingError(
            f'perf(generators_on="ray"): node {other.node} cannot reach {loopback}, where the service listens; '
            'choose generators_on="local", or serve it with engine="ray"'
        )


def _addresses_of(endpoint: Endpoint) -> Iterable[tuple[str, int]]:
    if endpoint.remote is None:
        return endpoint.addresses
    origin = urlsplit(endpoint.remote.origin)
    return ((origin.hostname or "", origin.port or 443),)


def _loopback(address: tuple[str, int]) -> str:
    """``host:port`` of an address that only its own machine reaches; empty for any other."""
    host, port = address
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = host == "localhost"
    return f"{host}:{port}" if is_loopback else ""


class RayProcess:
    """One process; it starts with its first job."""

    pid = None

    def __init__(self, pool: RayPool, key: int, number: int) -> None:
        self._pool = pool
        self._key = key
        self._number = number
        self._clock: ClockOffset = SAME_CLOCK
        self._remote_pid: int | None = None
        self._was_loaded = False
        self._looked_s = 0.0
        self.node: str = ""
        self.inbox: deque[object] = deque()

    @property
    def name(self) -> str:
        """What messages call it."""
        what = f"generator {self._number}" if self._remote_pid is None else f"process {self._remote_pid}"
        return f"{what} on node {self.node}"

    @property
    def clock_error_ns(self) -> int:
        """Largest error of its times on the clock of this process."""
        return self._clock.error_ns

    def send(self, message: object) -> None:
        """Send a value; a job goes to the node that the generator has now."""
        if isinstance(message, LoadJob):
            facts = self._pool.facts[self._number]
            self.node = facts.node
            self._clock = facts.clock
            self._was_loaded = True
            self.inbox.clear()
            self._pool.load(self._key, self._number, message)
        elif isinstance(message, OpenWindow):
            self._pool.ask("send", self._key, OpenWindow(self._clock.there(message.at_ns)))
        else:
            self._pool.ask("send", self._key, message)

    def receive(self, timeout_s: float) -> Any:
        """The next value, with its times on the clock of this process."""
        end_s = time.perf_counter() + timeout_s
        while True:
            while not self.inbox:
                if (left_s := end_s - time.perf_counter()) <= 0:
                    raise TimeoutError
                self._pool.collect(left_s)
            message = self.inbox.popleft()
            if isinstance(message, Ended):
                raise ChildError(f"the load generator ({self.name}) ended during its load: {message.why}: {_INVALID}")
            if not isinstance(message, Started):
                return self._here(message)
            self._remote_pid = message.pid

    def why_stopped(self) -> str:
        """Which process is stopped there, and how; looked at twice a second, and empty meanwhile."""
        if time.perf_counter() - self._looked_s < _LOOK_S:
            return ""
        found: str = self._pool.ask("why_stopped", self._key)
        self._looked_s = time.perf_counter()
        return found

    def close_channel(self) -> None:
        """Ask it to end, without waiting for it."""
        self._end("close_channel")

    def stop(self) -> None:
        """End it, and wait until it is gone; with a driver that is gone it has ended too."""
        self._end("stop")
        self._pool.forget(self._key)

    def _end(self, how: str) -> None:
        if self._was_loaded:
            with contextlib.suppress(MlpatternsError):
                self._pool.ask(how, self._key, timeout_s=_END_S)

    def _here(self, message: Any) -> Any:
        """A message with its times on the clock of this process."""
        here = self._clock.here
        if isinstance(message, Progress):
            self._pool.count(self._key, message.completed)
        if isinstance(message, WindowOpened):
            return WindowOpened(here(message.start_ns))
        if not isinstance(message, LoadResult):
            return message
        from pytest_mlpatterns.loadgen.columns import shifted_columns

        return replace(
            message,
            columns=shifted_columns(message.columns, here(0)),
            window=Window(here(message.window.start_ns), here(message.window.end_ns)),
        )
