"""A function beside a load: when it begins, what it may do, how its steps are noted, and how it ends."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from support.each_row import each_row
from support.synthetic import MS, S

from pytest_mlpatterns.errors import DeploymentError, InvalidResultError, SettingError
from pytest_mlpatterns.measurement.answer_check import cut_to_function
from pytest_mlpatterns.measurement.during import During, DuringRun, run_alone
from pytest_mlpatterns.records.addressing import Balance
from pytest_mlpatterns.records.samples import Window

FIRST, SECOND, THIRD = (("127.0.0.1", port) for port in (1, 2, 3))


class Replicas:
    """The replicas of a deployment, and a load generator that is told about them."""

    def __init__(self, *addresses: tuple[str, int]) -> None:
        self.ended: set[tuple[str, int]] = set()
        self.events: list[str] = []
        self.waits = 2
        self._next = len(addresses)

    def has_ended(self, address: tuple[str, int]) -> bool:
        return address in self.ended

    def remove(self, address: tuple[str, int]) -> None:
        self.ended.add(address)
        self.events.append(f"end {address[1]}")

    def add(self) -> Any:
        self._next += 1
        address, readings = ("127.0.0.1", self._next), iter([None] * self.waits)
        self.events.append(f"start {address[1]}")
        return SimpleNamespace(address=lambda: next(readings, address))

    def add_address(self, address: tuple[str, int]) -> None:
        self.events.append(f"balance over {address[1]}")

    def remove_address(self, address: tuple[str, int]) -> None:
        self.events.append(f"leave out {address[1]}")

    def end_load(self) -> None:
        self.events.append("end the load")


class Processes:
    def __init__(self) -> None:
        self.excused: list[int] = []

    def excuse(self, pid: int) -> None:
        self.excused.append(pid)


def deployment(*addresses: tuple[str, int], **given: Any) -> Any:
    usual = {
        "addresses": addresses,
        "endpoint": SimpleNamespace(balance=Balance.ROUND_ROBIN),
        "pids": (),
        "roles": {},
        "scaler": None,
        "processes": Processes(),
        "url": "http://127.0.0.1:1",
        "client_of": lambda number: f"client {number}",
        "client": "client 0",
        "predict": lambda value: [value],
    }
    return SimpleNamespace(**(usual | given))


def run_of(
    function: Callable[[During], object], of: Any = None, replicas: Any = None, length_ns: int = 5 * S
) -> DuringRun:
    """A run whose window has just opened."""
    run = DuringRun(function, of or deployment(FIRST), replicas or Replicas(FIRST))
    run.open(time.perf_counter_ns(), length_ns)
    return run


def ended_run(*how: Any, **options: Any) -> DuringRun:
    run = run_of(*how, **options)
    run.join(10.0)
    return run


class TestSteps:
    def test_begin_and_end_are_those_of_the_clock_of_the_samples(self) -> None:
        before = time.perf_counter_ns()

        def function(during: During) -> None:
            with during.step("reload"):
                during.wait("1ms")

        (step,) = ended_run(function).finish()
        assert step.name == "reload"
        assert before <= step.begin_ns <= step.end_ns - MS
        assert step.end_ns <= time.perf_counter_ns()

    def test_a_step_that_raises_ends_then(self) -> None:
        def function(during: During) -> None:
            for _ in range(2):
                try:
                    with during.step("kill"):
                        raise KeyError
                except KeyError:
                    pass

        assert [step.name for step in ended_run(function).finish()] == ["kill", "kill"]

    def test_one_of_a_thread_that_outlives_the_function_ends_with_the_load(self) -> None:
        begun, over = threading.Event(), threading.Event()

        def function(during: During) -> None:
            def beside() -> None:
                with during.step("beside"):
                    begun.set()
                    over.wait(10)

            threading.Thread(target=beside).start()
            begun.wait(10)

        (step,) = ended_run(function).finish()
        over.set()
        assert step.end_ns > step.begin_ns

    def test_those_beyond_the_window_are_cut(self) -> None:
        def function(during: During) -> None:
            with during.step("first"):
                pass
            with during.step("second"):
                pass

        run = ended_run(function)
        first, second = run.finish()
        middle = second.begin_ns
        (kept,) = run.finish(Window(0, middle))
        assert kept == first
        cut = run.finish(Window(0, middle + 1))[1]
        assert (cut.begin_ns, cut.end_ns) == (middle, middle + 1)

    @each_row("name", ["", " ", 5, "a\nb", "x" * 81])
    def test_a_name_that_no_chart_could_show_is_refused(self, name: Any) -> None:
        def function(during: During) -> None:
            with during.step(name):
                raise AssertionError

        run = ended_run(function)
        with pytest.raises(SettingError, match=r"expected a name of up to 80 characters"):
            run.finish()

    def test_one_after_the_load_is_refused(self) -> None:
        def function(during: During) -> None:
            with during.step("late"):
                raise AssertionError

        run = ended_run(function, length_ns=0)
        with pytest.raises(InvalidResultError, match=r"'late'.* began after the load, which lasts 0 ns"):
            run.finish()


class TestWaits:
    def test_a_time_counts_since_the_window_opened(self) -> None:
        seen: list[float] = []

        def function(during: During) -> None:
            during.wait_until("20ms")
            seen.append(during.elapsed_s)

        ended_run(function).finish()
        assert seen[0] >= 0.020

    def test_a_function_is_asked_until_it_returns_something_true(self) -> None:
        answers = iter([0, None, "ready"])
        seen: list[object] = []
        ended_run(lambda during: seen.append(during.wait_until(lambda: next(answers)))).finish()
        assert seen == ["ready"]

    def test_one_that_takes_too_long_fails(self) -> None:
        def never() -> bool:
            return False

        run = ended_run(lambda during: during.wait_until(never, timeout="10ms"))
        with pytest.raises(InvalidResultError, match=r"wait_until\(never\) has not become true within 10.0 ms"):
            run.finish()

    def test_a_function_that_does_nothing_when_it_is_asked_is_refused(self) -> None:
        async def ready() -> bool:
            raise AssertionError

        def later() -> object:
            return ready()

        for condition, kind in ((ready, "is ready, an async function"), (later, "returned an unfinished coroutine")):
            run = ended_run(lambda during, condition=condition: during.wait_until(condition))  # type: ignore[misc]
            with pytest.raises(SettingError, match=rf"during.wait_until\(\S+\) {kind}"):
                run.finish()

    def test_all_of_them_end_with_the_load(self) -> None:
        run = run_of(lambda during: during.wait_until(bool))
        with pytest.raises(InvalidResultError, match=r"true before the end of the load, which lasts 5.00 s; lengthen"):
            run.finish()
        run = run_of(lambda during: during.wait("4s"))
        with pytest.raises(InvalidResultError, match=r"during.wait\('4s'\) is beyond the end of the load"):
            run.finish()

    def test_a_moment_beyond_the_window_is_refused_at_once(self) -> None:
        run = ended_run(lambda during: during.wait_until("6s"))
        with pytest.raises(SettingError, match=r"wait_until\('6s'\) beside a load of 5.00 s, expected a time before"):
            run.finish()


class TestEnds:
    def test_an_error_ends_the_load_and_has_the_traceback_of_the_function(self) -> None:
        replicas = Replicas(FIRST)

        def function(_during: During) -> None:
            raise ValueError("no")

        run = ended_run(function, replicas=replicas)
        run.poll()
        run.poll()
        assert replicas.events == ["end the load"]
        with pytest.raises(ValueError, match="no") as raised:
            run.finish()
        error = raised.value
        assert cut_to_function(error)
        assert error.__traceback__.tb_frame.f_code is function.__code__

    def test_work_that_it_returns_instead_of_doing_it_is_an_error(self) -> None:
        async def restart(during: During) -> None:
            during.kill()

        def function(during: During) -> object:
            return restart(during)

        run = ended_run(function)
        with pytest.raises(
            SettingError, match=r"during=function returned an unfinished coroutine, expected a function"
        ):
            run.finish()

    def test_one_that_does_not_end_is_named_with_its_line(self) -> None:
        hold = threading.Event()

        def stuck(_during: During) -> None:
            hold.wait()

        run = run_of(stuck)
        with pytest.raises(
            InvalidResultError, match=r"during=stuck still runs 0.05 s after the load, in line \d+ of test_d"
        ):
            run.finish(grace_s=0.05)
        run.abandon()
        hold.set()

    def test_a_load_without_a_window_has_no_steps(self) -> None:
        run = DuringRun(lambda _during: None, deployment(FIRST), Replicas(FIRST))  # type: ignore[arg-type]
        assert run.finish(Window(0, 1)) == ()
        run.join(0)

    def test_it_begins_once(self) -> None:
        calls: list[int] = []
        run = run_of(lambda _during: calls.append(1))
        run.open(0, 1)
        run.join(10.0)
        run.finish()
        assert calls == [1]


class TestWithoutLoad:
    def test_no_time_is_waited_for(self) -> None:
        def function(during: During) -> None:
            during.wait_until("3s")
            with during.step("reload"):
                during.wait("1h")
            during.scale(3)

        began = time.perf_counter()
        run_alone(function, deployment(FIRST, scaler=Replicas(FIRST)), 4 * S)
        assert time.perf_counter() - began < 1800

    def test_an_error_is_raised(self) -> None:
        with pytest.raises(ZeroDivisionError):
            run_alone(lambda _during: 1 / 0, deployment(FIRST), 4 * S)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


class TestProcesses:
    @pytest.mark.processes
    def test_one_is_killed_by_its_role_and_its_end_is_no_error(self, child: subprocess.Popen[bytes]) -> None:
        of = deployment(FIRST, pids=(os.getpid(), child.pid), roles={os.getpid(): "gateway", child.pid: "replica"})
        seen: list[Any] = []

        def function(during: During) -> None:
            seen.append(during.processes)
            seen.append(during.kill("replica"))
            during.wait_until(lambda: not seen[1].is_running)
            seen.append(during.processes)

        run = ended_run(function, of)
        run.finish()
        assert [(one.role, one.pid) for one in seen[0]] == [("gateway", os.getpid()), ("replica", child.pid)]
        assert seen[1].pid == child.pid
        assert child.wait() == -signal.SIGKILL
        assert of.processes.excused == [child.pid]
        assert run.has_meddled
        assert [one.role for one in seen[2]] == ["gateway"]
        with pytest.raises(DeploymentError, match=r"replica: process \d+ has ended already, .* send SIGKILL"):
            seen[1].kill()

    @each_row(
        ("role", "number", "found"),
        (None, 1, os.getppid()),
        (None, 2, os.getpid()),
        ("replica", 1, os.getpid()),
        ("worker", 1, "expected the role of a process that runs: 'gateway' or 'replica'"),
        ("replica", 2, r"kill\('replica', 2\), expected .*1"),
        (None, "first", r"kill\(None, 'first'\)"),
    )
    def test_one_is_chosen_by_role_and_number(self, role: Any, number: Any, found: int | str) -> None:
        """Signal 0 asks only whether a process may be sent one."""
        of = deployment(FIRST, pids=(os.getppid(), os.getpid()), roles={os.getppid(): "gateway", 1: "replica"})
        chosen: list[int] = []
        run = ended_run(lambda during: chosen.append(during.kill(role, number, by=0).pid), of)
        if isinstance(found, int):
            run.finish()
            assert chosen == of.processes.excused == [found]
            return
        with pytest.raises(SettingError, match=found):
            run.finish()

    def test_unknown_processes_are_not_killed(self) -> None:
        run = ended_run(lambda during: during.kill())
        with pytest.raises(SettingError, match=r"whose processes are not known or have all ended; expected .*pid="):
            run.finish()


class TestScale:
    def scaled(self, replicas: Replicas, *numbers: int, addresses: tuple[Any, ...] = (FIRST, SECOND)) -> list[str]:
        def function(during: During) -> None:
            for number in numbers:
                during.scale(number)

        ended_run(function, deployment(*addresses, scaler=replicas), replicas).finish()
        return replicas.events

    def test_the_newest_ends_after_it_gets_no_more_requests(self) -> None:
        assert self.scaled(Replicas(FIRST, SECOND), 1) == ["leave out 2", "end 2"]

    def test_further_ones_get_requests_when_they_are_ready(self) -> None:
        events = self.scaled(Replicas(FIRST, SECOND), 4)
        assert events == ["start 3", "start 4", "balance over 3", "balance over 4"]

    def test_one_that_was_killed_is_left_out_and_replaced(self) -> None:
        replicas = Replicas(FIRST, SECOND)
        replicas.ended.add(FIRST)
        assert self.scaled(replicas, 1, 2) == ["leave out 1", "start 3", "balance over 3"]

    def test_the_last_one_is_left_out_when_another_has_taken_its_place(self) -> None:
        replicas = Replicas(FIRST)
        replicas.ended.add(FIRST)
        assert self.scaled(replicas, 1, addresses=(FIRST,)) == ["start 2", "balance over 2", "leave out 1"]

    @pytest.mark.parametrize("number", [0, 65, "two", True])
    def test_another_number_is_refused(self, number: Any) -> None:
        with pytest.raises(SettingError, match="expected a whole number from 1 to 64"):
            self.scaled(Replicas(FIRST), number)

    @pytest.mark.parametrize(
        "of",
        [
            deployment(FIRST),
            deployment(FIRST, scaler=Replicas(FIRST), endpoint=SimpleNamespace(balance=Balance.SHARED_SOCKET)),
        ],
    )
    def test_a_service_without_balanced_replicas_of_ours_is_refused(self, of: Any) -> None:
        run = ended_run(lambda during: during.scale(2), of)
        with pytest.raises(
            SettingError, match=r"during.scale\(2\) of http://127.0.0.1:1, expected replicas that this pa"
        ):
            run.finish()


def test_the_service_is_asked_through_the_object() -> None:
    seen: list[object] = []

    def function(during: During) -> None:
        seen.extend([during.url, during.client, during.client_of(2), during.predict(5), repr(during)])

    ended_run(function, deployment(FIRST, SECOND)).finish()
    assert seen[:4] == ["http://127.0.0.1:1", "client 0", "client 1", [5]]
    assert str(seen[4]).endswith("since the window opened, of 5 s>")


@pytest.mark.parametrize("number", [0, 2, "1"])
def test_a_client_that_does_not_exist_is_refused(number: Any) -> None:
    run = ended_run(lambda during: during.client_of(number))
    with pytest.raises(SettingError, match=r"during.client_of"):
        run.finish()
