"""Load generator processes as the parent sees them, and where they come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from pytest_mlpatterns.loadgen.ceiling import check_connections
from pytest_mlpatterns.loadgen.messages import LoadJob, Transport
from pytest_mlpatterns.system.child import Child
from pytest_mlpatterns.system.process_limits import allowed_connections
from pytest_mlpatterns.system.process_tree import describe_stopped


class GeneratorProcess(Protocol):
    """One load generator process. Times in its messages are on the clock of the parent."""

    @property
    def pid(self) -> int | None:
        """Its id on this machine; None if it runs on another node."""
        ...

    @property
    def name(self) -> str:
        """What messages call it: ``process 4711``, or ``process 4711 on node 10.0.0.3``."""
        ...

    @property
    def node(self) -> str:
        """The node of the cluster that it runs on; empty on this machine."""
        ...

    @property
    def clock_error_ns(self) -> int:
        """Largest error of times that were converted to the parent's clock; 0 on this machine."""
        ...

    def send(self, message: object) -> None:
        """Send a value. Raises ChildError if the process has ended."""
        ...

    def receive(self, timeout_s: float) -> Any:
        """The next value. Raises TimeoutError if none came in time, and ChildError if the process has ended."""
        ...

    def why_stopped(self) -> str:
        """``process 4711 (python) is stopped (SIGSTOP)`` if it is; else empty."""
        ...

    def close_channel(self) -> None:
        """Ask it to end, without waiting for it."""
        ...

    def stop(self) -> object:
        """End it, and wait until it is gone."""
        ...


class GeneratorPool(Protocol):
    """Where generator processes come from.

    Attributes:
        stop_timeout_s: longest time without a message after a load was interrupted.
    """

    stop_timeout_s: float

    def begin(self, processes: int) -> None:
        """Begin what a number of processes needs before the first load, without waiting for it."""
        ...

    def prepare(self, job: LoadJob, processes: int) -> None:
        """Get ready for a load of a number of processes.

        Raises:
            SettingError: it cannot be sent from there.
            ChildError: the nodes cannot be reached.
        """
        ...

    def start(self, number: int, log: Path) -> GeneratorProcess:
        """Start the process of this number; ``log`` takes its output if it runs on this machine."""
        ...

    def opening_delay_ns(self, processes: int) -> int:
        """How long before its window opens a load is given the time at which it does."""
        ...

    def ceilings_rps(self, transport: Transport, processes: int) -> tuple[float, ...]:
        """Requests per second that each process reaches against a server that does nothing; measured once a node.

        Empty where the processes themselves are to measure it.
        """
        ...

    def library_overhead_ns(self) -> float | None:
        """What a client library adds to the median request there; None where the processes are to measure it."""
        ...


class LocalProcess(Child):
    """A load generator process on this machine."""

    node = ""
    clock_error_ns = 0

    def __init__(self, log: Path) -> None:
        super().__init__("pytest_mlpatterns.loadgen.process", log=log)

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"process {self.pid}"

    def why_stopped(self) -> str:
        """Who is stopped, and how; empty if it runs."""
        return describe_stopped([self.pid])


class LocalPool:
    """Processes on this machine."""

    stop_timeout_s: float = 2.0

    def begin(self, processes: int) -> None:
        """Nothing: processes start at once."""

    def prepare(self, job: LoadJob, processes: int) -> None:
        """Check that the system allows the connections."""
        check_connections(job, processes, allowed_connections())

    def start(self, number: int, log: Path) -> LocalProcess:
        """Start a process."""
        return LocalProcess(log)

    def opening_delay_ns(self, processes: int) -> int:
        """A tenth of a second, in which the message arrives."""
        return 100_000_000

    def ceilings_rps(self, transport: Transport, processes: int) -> tuple[float, ...]:
        """Empty: the processes measure it."""
        return ()

    def library_overhead_ns(self) -> float | None:
        """None: the processes measure it."""
        return None
