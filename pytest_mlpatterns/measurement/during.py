"""The deployment under load, as the function of ``perf(during=...)`` has it in its hands.

:class:`pytest_mlpatterns.measurement.during_run.DuringRun` runs the function. This module must not know limits, nor
what the steps did to the requests.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from signal import SIGKILL, Signals
from typing import TYPE_CHECKING, Any

import psutil

from pytest_mlpatterns.errors import DeploymentError, SettingError
from pytest_mlpatterns.fields import whole_number
from pytest_mlpatterns.patterns.pattern import name_of
from pytest_mlpatterns.units import SECOND_NS, format_duration, parse_duration
from pytest_mlpatterns.wording import listed, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx

    from pytest_mlpatterns.measurement.during_run import DuringRun
    from pytest_mlpatterns.serving.deployment import Deployment

__all__ = ["During", "ServiceProcess"]

_LONGEST_NAME = 80
"""Most characters of the name of a step: charts and summaries have it."""
_MOST_REPLICAS = 64
"""Most replicas that a test may ask for, as of ``Replicated``."""


@dataclass(frozen=True, slots=True)
class ServiceProcess:
    """A process of the deployment.

    Attributes:
        role: what it does, such as ``replica`` or ``gateway``; ``server`` for a service of the user's own.
        pid: its process id.
    """

    role: str
    pid: int
    _excuse: Callable[[int], None] = field(repr=False, compare=False)

    @property
    def is_running(self) -> bool:
        """Whether it runs."""
        try:
            return bool(psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False

    def kill(self, by: int = SIGKILL) -> None:
        """Send it a signal, SIGKILL unless another is given; its end is then no error of the deployment.

        Raises:
            DeploymentError: it does not run.
        """
        if not self.is_running:
            raise DeploymentError(
                f"{self.role}: process {self.pid} has ended already, expected one that runs to send "
                f"{Signals(by).name}; see during.processes"
            )
        self._excuse(self.pid)
        os.kill(self.pid, by)


class During:
    """The deployment under load, as the function of ``perf(during=...)`` gets it.

    Args:
        run: what runs the function.
        deployment: what is loaded.
    """

    def __init__(self, run: DuringRun, deployment: Deployment) -> None:
        self._run = run
        self._deployment = deployment

    def __repr__(self) -> str:
        return f"<during: {self.elapsed_s:.3f} s since the window opened, of {self._run.length_ns / SECOND_NS:g} s>"

    @property
    def elapsed_s(self) -> float:
        """Seconds since the measured window opened."""
        return self._run.elapsed_ns / SECOND_NS

    @property
    def url(self) -> str:
        """Base URL of the first server, without a path."""
        return self._deployment.url

    @property
    def client(self) -> httpx.Client:
        """An ``httpx.Client`` whose base URL is :attr:`url`: ``during.client.post("/reload")``."""
        return self._deployment.client

    def client_of(self, number: int) -> httpx.Client:
        """The client of one of several servers, from 1 on, such as of the workers of an ``App``."""
        found = f"during.client_of({shown(number)})"
        return self._deployment.client_of(
            whole_number(number, found, least=1, most=len(self._deployment.addresses)) - 1
        )

    def predict(self, value: Any) -> Any:
        """Send one input beside the load; its output is returned."""
        return self._deployment.predict(value)

    @property
    def processes(self) -> tuple[ServiceProcess, ...]:
        """The processes of the deployment that run, without children of these; empty if they are not known."""
        roles = self._deployment.roles
        usual = next((role for role in roles.values() if role != "gateway"), "server")
        found = (ServiceProcess(roles.get(pid, usual), pid, self._run.excuse) for pid in self._deployment.pids)
        return tuple(one for one in found if one.is_running)

    def kill(self, role: str | None = None, number: int = 1, *, by: int = SIGKILL) -> ServiceProcess:
        """Send a signal to a process of the deployment, SIGKILL unless another is given.

        Args:
            role: what it does, such as ``"replica"``; None for any.
            number: which of the running processes of this role, from 1 on.
            by: the signal.

        Returns:
            The process.

        Raises:
            SettingError: there is no such process, or the processes are not known.
        """
        running = self.processes
        if not running:
            raise SettingError(
                f"during.kill(...) of {self.url}, whose processes are not known or have all ended; expected a service "
                "that the test starts on this machine, or Url(..., pid=...)"
            )
        fitting = [one for one in running if role in (None, one.role)]
        if not fitting:
            roles = listed([shown(name) for name in dict.fromkeys(one.role for one in running)], "or")
            raise SettingError(f"during.kill({shown(role)}), expected the role of a process that runs: {roles}")
        found = f"during.kill({shown(role)}, {shown(number)})"
        chosen = fitting[whole_number(number, found, least=1, most=len(fitting)) - 1]
        chosen.kill(by)
        return chosen

    def scale(self, replicas: int) -> None:
        """Have this many replicas that run, all of the whole service, and balance the load over them.

        Replicas that are missing are started and loaded, which takes as long as their start. A replica that has ended
        gets no more requests. One too many gets no more requests, answers those that it has, and ends: the newest
        first.

        Raises:
            SettingError: the deployment has no replicas that the load is balanced over.
            DeploymentError: a replica did not start.
        """
        self._run.scale(whole_number(replicas, f"during.scale({shown(replicas)})", least=1, most=_MOST_REPLICAS))

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Name what happens inside: its begin and end are marked in the report, and assertions name it.

        Args:
            name: what happens; one name may have several steps.
        """
        if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > _LONGEST_NAME:
            raise SettingError(
                f"during.step({shown(name)}), expected a name of up to {_LONGEST_NAME} characters; write "
                'during.step("reload")'
            )
        with self._run.noted_step(name, f"during.step({shown(name)})"):
            yield

    def wait(self, length: object) -> None:
        """Wait for a time such as ``"300ms"`` from now on.

        Raises:
            InvalidResultError: the load ended before.
        """
        wait_ns = parse_duration(length, name="during.wait(...)")
        self._run.wait_until_ns(self._run.elapsed_ns + wait_ns, f"during.wait({shown(length)})")

    def wait_until(self, moment: object, *, timeout: object = None) -> Any:
        """Wait until a time such as ``"1s"`` since the window opened, or until a function returns something true.

        Args:
            moment: the time, or the function; it is called a hundred times a second.
            timeout: the longest wait for the function, such as ``"2s"``; None for the rest of the load.

        Returns:
            What the function returned; None for a time.

        Raises:
            InvalidResultError: the load or the longest wait ended before.
        """
        if callable(moment):
            limit_ns = None if timeout is None else parse_duration(timeout, name="during.wait_until(timeout=...)")
            return self._run.wait_for(moment, limit_ns, f"during.wait_until({name_of(moment)}) has not become true")
        at_ns = parse_duration(moment, name="during.wait_until(...)")
        words = f"during.wait_until({shown(moment)})"
        if at_ns >= self._run.length_ns:
            raise SettingError(
                f"{words} beside a load of {format_duration(self._run.length_ns)}, expected a time before its end; "
                'lengthen the window: perf(duration="10s")'
            )
        self._run.wait_until_ns(at_ns, words)
        return None
