"""The function of ``perf(during=...)``: the deployment that it has in its hands, and its run beside the load.

It runs once in each launch, in a thread of the test's process, and begins when the measured window opens. Its waits end
with the window, so that a function which only waits ends with it too; one that does something else has a moment more,
and then fails the test. An error in it ends the load and is raised as it is. This module must not know limits, nor what
the steps did to the requests.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL, Signals
from typing import TYPE_CHECKING, Any

import psutil
from msgspec.structs import replace

from pytest_mlpatterns.errors import DeploymentError, InvalidResultError, SettingError
from pytest_mlpatterns.fields import unrun_answer, unrun_function, whole_number
from pytest_mlpatterns.patterns.pattern import name_of
from pytest_mlpatterns.records.addressing import Balance
from pytest_mlpatterns.records.capacity import DuringStep
from pytest_mlpatterns.records.samples import Window
from pytest_mlpatterns.units import SECOND_NS, format_duration, parse_duration
from pytest_mlpatterns.wording import listed, shown

if TYPE_CHECKING:
    import httpx

    from pytest_mlpatterns.loadgen.generator import Generator
    from pytest_mlpatterns.serving.deployment import Deployment
    from pytest_mlpatterns.serving.processes import Scaler

    Function = Callable[["During"], object]


_LONGEST_NAME = 80  # Most characters of the name of a step: charts and summaries have it
_MOST_REPLICAS = 64  # Most replicas that a test may ask for, as of ``Replicated``


@dataclass(frozen=True, slots=True)
class ServiceProcess:
    """A process of the deployment."""

    role: str  #: what it does, such as ``replica`` or ``gateway``; ``server`` for a service of the user's own
    pid: int  #: its process id
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
            words = f"during.wait_until({name_of(moment)})"
            if why := unrun_function(moment):
                raise SettingError(f"{words} {why}")
            found = self._run.wait_for(moment, limit_ns, f"{words} has not become true")
            if why := unrun_answer(found):
                raise SettingError(f"{words} {why}")
            return found
        at_ns = parse_duration(moment, name="during.wait_until(...)")
        words = f"during.wait_until({shown(moment)})"
        if at_ns >= self._run.length_ns:
            raise SettingError(
                f"{words} beside a load of {format_duration(self._run.length_ns)}, expected a time before its end; "
                'lengthen the window: perf(duration="10s")'
            )
        self._run.wait_until_ns(at_ns, words)
        return None


_GRACE_S = 5.0
"""Time that the function may take beyond the end of the load, in seconds: for the answer to a request, no step."""
_ABANDONED_S = 1.0  # The same after an interrupt
_ALONE_S = 60.0  # Time that the function may take without a load, in seconds: a replica may start meanwhile
_POLL_S = 0.01  # Interval at which a condition is asked for, in seconds; steps take longer


def call_beside(function: Function, during: During) -> object:
    """Call the user's function; the frame of this call separates its traceback from ours."""
    return function(during)


class DuringRun:
    """One run of the function, beside the load of one launch.

    ``generator``: sends the load; None if there is none, and then the function waits for no time. ``clock``:
    nanoseconds, as the samples have them.
    """

    def __init__(
        self,
        function: Function,
        deployment: Deployment,
        generator: Generator | None,
        *,
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self.length_ns: int = 0
        self.has_meddled: bool = False
        self._function = function
        self._deployment = deployment
        self._generator = generator
        self._clock = clock
        self._opened_ns = 0
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self._steps: list[DuringStep] = []
        self._open_steps: set[int] = set()
        self._noting = threading.Lock()
        self._telling = threading.Lock()
        self._error: BaseException | None = None
        self._has_ended_load = False
        self._addresses = list(deployment.addresses)

    @property
    def elapsed_ns(self) -> int:
        """Time since the window opened."""
        return self._clock() - self._opened_ns

    def open(self, opened_ns: int, length_ns: int) -> None:
        """Begin; called when the window opens. Further calls do nothing."""
        if self._thread is None:
            self._opened_ns, self.length_ns = opened_ns, length_ns
            self._thread = threading.Thread(target=self._run, name=f"during={name_of(self._function)}", daemon=True)
            self._thread.start()

    def poll(self) -> None:
        """End the load if the function has failed; called in the thread that runs the load."""
        if self._error is not None and self._generator is not None and not self._has_ended_load:
            self._has_ended_load = True
            with self._telling:
                self._generator.end_load()

    def finish(self, window: Window | None = None, *, grace_s: float = _GRACE_S) -> tuple[DuringStep, ...]:
        """End the waits of the function after the load, and wait for its end.

        ``window``: steps that it does not hold are left out, and others end with it; None to keep all. Raises
        BaseException: what the function raised.
        """
        self._await_end(grace_s)
        if self._thread is not None and self._thread.is_alive():
            raise InvalidResultError(
                f"during={name_of(self._function)} still runs {grace_s:g} s after the load{self._position()}; expected "
                'a function that ends with it: lengthen the window with perf(duration="10s"), or give its calls a '
                "time limit"
            )
        if self._error is not None:
            raise self._error
        return self._noted_steps(window)

    def join(self, longest_s: float) -> None:
        """Wait for the function to end by itself."""
        if self._thread is not None:
            self._thread.join(longest_s)

    def abandon(self) -> None:
        """End the waits of the function, and wait a moment for its end; its errors are dropped."""
        self._await_end(_ABANDONED_S)

    def excuse(self, pid: int) -> None:
        """The test ends this process of the deployment, so that its end is no error."""
        self.has_meddled = True
        self._deployment.processes.excuse(pid)

    @contextmanager
    def noted_step(self, name: str, words: str) -> Iterator[None]:
        """Note the begin and the end of a step; ``words`` names it in messages."""
        if self._generator is not None and (self._ended.is_set() or self.elapsed_ns >= self.length_ns):
            raise InvalidResultError(f"{words} began after the load, {self._load_text()}; lengthen duration=")
        with self._noting:
            place, now = len(self._steps), self._clock()
            self._steps.append(DuringStep(name, now, now))
            self._open_steps.add(place)
        try:
            yield
        finally:
            with self._noting:
                self._steps[place] = replace(self._steps[place], end_ns=self._clock())
                self._open_steps.discard(place)

    def wait_until_ns(self, at_ns: int, words: str) -> None:
        """Wait until a time since the window opened; ``words`` names the wait in messages."""
        if self._generator is None:
            return
        while (left_ns := min(at_ns, self.length_ns) - self.elapsed_ns) > 0:
            if self._ended.wait(left_ns / SECOND_NS):
                break
        if self.elapsed_ns < at_ns:
            raise InvalidResultError(f"{words} is beyond the end of the load, {self._load_text()}; lengthen duration=")

    def wait_for(self, condition: Callable[[], Any], limit_ns: int | None, words: str) -> Any:
        """Wait until a function returns something true, and return that.

        ``limit_ns``: the longest wait; None for the rest of the load. ``words``: begins the message if it does not,
        such as ``during.wait_until(is_ready) has not become true``.
        """
        began_ns = self._clock()
        while not (found := condition()):
            waited_ns = self._clock() - began_ns
            if limit_ns is not None and waited_ns >= limit_ns:
                raise InvalidResultError(f"{words} within {format_duration(limit_ns)}")
            if (self._generator is not None and self.elapsed_ns >= self.length_ns) or self._ended.wait(_POLL_S):
                raise InvalidResultError(f"{words} before the end of the load, {self._load_text()}; lengthen duration=")
        return found

    def scale(self, replicas: int) -> None:
        """Have this many running replicas, and balance the load over them; see :meth:`During.scale`."""
        scaler = self._scaler(replicas)
        if self._generator is None:
            return
        self.has_meddled = True
        for address in [one for one in self._addresses if scaler.has_ended(one)]:
            self._take_out(address)
        while sum(not scaler.has_ended(one) for one in self._addresses) > replicas:
            newest = self._addresses[-1]
            self._take_out(newest)
            scaler.remove(newest)
        self._add(scaler, replicas)

    def _add(self, scaler: Scaler, replicas: int) -> None:
        """Start what is missing, and balance over it when it is ready."""
        running = [one for one in self._addresses if not scaler.has_ended(one)]
        starting = [scaler.add() for _ in range(replicas - len(running))]
        for replica in starting:
            address = self.wait_for(replica.address, None, "during.scale(...): a new replica is not ready")
            with self._telling:
                assert self._generator is not None
                self._generator.add_address(address)
            self._addresses.append(address)
        for address in [one for one in self._addresses if scaler.has_ended(one)]:  # the last of all that ended
            self._take_out(address)

    def _take_out(self, address: tuple[str, int]) -> None:
        """Send no more requests to a replica; the last one that there is stays, since requests have to go somewhere."""
        if len(self._addresses) > 1:
            with self._telling:
                assert self._generator is not None
                self._generator.remove_address(address)
            self._addresses.remove(address)

    def _scaler(self, replicas: int) -> Scaler:
        """What adds and removes replicas."""
        scaler = self._deployment.scaler
        if scaler is None or self._deployment.endpoint.balance is Balance.SHARED_SOCKET:
            raise SettingError(
                f"during.scale({replicas}) of {self._deployment.url}, expected replicas that this package starts on "
                "this machine and that the load is balanced over, such as those of Replicated(2)"
            )
        return scaler

    def _run(self) -> None:
        during = During(self, self._deployment)
        try:
            if why := unrun_answer(call_beside(self._function, during)):
                raise SettingError(f"during={name_of(self._function)} {why}")
        except BaseException as error:  # of any kind: the thread that runs the test raises it
            self._error = error

    def _await_end(self, grace_s: float) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join(grace_s)

    def _noted_steps(self, window: Window | None) -> tuple[DuringStep, ...]:
        with self._noting:
            now = self._clock()
            steps = [
                replace(step, end_ns=now) if place in self._open_steps else step
                for place, step in enumerate(self._steps)
            ]
        if window is None:
            return tuple(steps)
        inside = [one for one in steps if one.begin_ns < window.end_ns]
        return tuple(replace(one, end_ns=min(one.end_ns, window.end_ns)) for one in inside)

    def _load_text(self) -> str:
        return f"which lasts {format_duration(self.length_ns)}"

    def _position(self) -> str:
        """Where the function is, as the middle of a message; empty if that is not known."""
        ident = None if self._thread is None else self._thread.ident
        frame = None if ident is None else sys._current_frames().get(ident)
        entries = [] if frame is None else traceback.extract_stack(frame)
        ours = [place for place, entry in enumerate(entries) if entry.name == call_beside.__name__]
        if not ours or ours[-1] + 1 >= len(entries):
            return ""
        entry = entries[ours[-1] + 1]
        return f", in line {entry.lineno} of {Path(entry.filename).name}: {entry.line}"


def run_alone(function: Function, deployment: Deployment, length_ns: int) -> None:
    """Run the function beside no load, as a smoke run does; it waits for no time.

    Raises BaseException: what the function raised.
    """
    run = DuringRun(function, deployment, None)
    run.open(time.perf_counter_ns(), length_ns)
    run.join(_ALONE_S)
    run.finish()
