"""Interrupts without a process: what they wait for, what they may cut, and whose handler stays."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.each_row import each_row
from support.project import Project

from pytest_mlpatterns.cli import main
from pytest_mlpatterns.errors import DeploymentError
from pytest_mlpatterns.plugin.interrupts import InterruptHooks, ends_with_summary, follows_an_interrupt, written_first
from pytest_mlpatterns.plugin.session import PerfSession

ENDING = (signal.SIGTERM, signal.SIGHUP)
"""What ends a run as Ctrl-C does."""


@pytest.fixture(autouse=True)
def _handlers_are_restored() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *ENDING)}
    for number in ENDING:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Session:
    """As much of a session as the end of one needs."""

    def __init__(self) -> None:
        self.exitstatus: int = pytest.ExitCode.OK
        self.config = self.hook = self
        self.interrupted = 0

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        assert excinfo.type is KeyboardInterrupt
        self.interrupted += 1


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_interrupts_until_the_run_is_done(number: signal.Signals) -> None:
    hooks = InterruptHooks(writes_results=True)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)
    written: list[str] = []
    reporter: Any = SimpleNamespace(write_line=lambda text, **_: written.append(text))
    hooks.pytest_terminal_summary(reporter)
    hooks.pytest_unconfigure()
    assert [signal.getsignal(one) for one in ENDING] == [signal.SIG_DFL] * 2
    assert written == [f"{number.name} ended this run; its results are those measured until then"]


@pytest.mark.parametrize("number", ENDING)
def test_a_process_that_writes_no_results_ends_by_the_signal(number: signal.Signals) -> None:
    InterruptHooks(writes_results=False)
    assert signal.getsignal(number) is signal.SIG_DFL


@pytest.mark.parametrize("number", ENDING)
def test_the_handler_of_a_project_stays(number: signal.Signals) -> None:
    seen: list[int] = []
    signal.signal(number, lambda number, _frame: seen.append(number))
    hooks = InterruptHooks(writes_results=True)
    os.kill(os.getpid(), number)
    hooks.pytest_unconfigure()
    os.kill(os.getpid(), number)
    assert seen == [number] * 2


def test_a_signal_that_is_ignored_stays_so_and_the_other_interrupts() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    hooks = InterruptHooks(writes_results=True)
    os.kill(os.getpid(), signal.SIGHUP)
    with written_first():
        os.kill(os.getpid(), signal.SIGHUP)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
    hooks.pytest_unconfigure()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@pytest.mark.processes
@pytest.mark.parametrize("number", ENDING)
def test_a_signal_ends_a_forked_child_whenever_it_comes(number: signal.Signals) -> None:
    InterruptHooks(writes_results=True)
    for _ in range(20):
        child = os.fork()
        while not child:
            signal.pause()
        os.kill(child, number)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -number


@pytest.mark.parametrize("number", [signal.SIGINT, *ENDING])
def test_what_is_written_is_written_to_its_end_and_then_interrupted(number: signal.Signals) -> None:
    InterruptHooks(writes_results=True)
    written = False

    def write() -> None:
        nonlocal written
        with written_first():
            os.kill(os.getpid(), number)
            written = True

    with pytest.raises(KeyboardInterrupt):
        write()
    assert written


def test_what_is_written_without_an_interrupt_leaves_the_handlers_as_they_were() -> None:
    before = signal.getsignal(signal.SIGINT)
    with written_first():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


@each_row(("exitstatus", "hooks"), [(pytest.ExitCode.OK, 1), (pytest.ExitCode.INTERRUPTED, 0)])
def test_an_interrupt_at_the_end_of_a_session_lets_pytest_print_its_summary(exitstatus: int, hooks: int) -> None:
    session = Session()
    with ends_with_summary(session, exitstatus):  # type: ignore[arg-type]
        raise KeyboardInterrupt
    assert session.exitstatus == pytest.ExitCode.INTERRUPTED
    assert session.interrupted == hooks


def raised(error: BaseException, *, before: BaseException | None) -> BaseException:
    """An error as it is raised while another one is handled."""
    try:
        try:
            if before is not None:
                raise before
        finally:
            raise error
    except type(error) as found:
        return found


@each_row(
    ("error", "before", "follows"),
    (DeploymentError("ended"), KeyboardInterrupt(), True),
    (DeploymentError("ended"), raised(OSError(), before=KeyboardInterrupt()), True),
    (DeploymentError("ended"), OSError(), False),
    (DeploymentError("ended"), None, False),
    (RuntimeError("of the test"), KeyboardInterrupt(), False),
)
def test_only_our_errors_follow_an_interrupt(error: BaseException, before: BaseException | None, follows: bool) -> None:
    assert follows_an_interrupt(raised(error, before=before)) is follows


@pytest.mark.processes
def test_an_error_that_follows_an_interrupt_does_not_replace_it(tmp_path: Path) -> None:
    tests = """
    from pytest_mlpatterns import DeploymentError

    def test_interrupted(perf):
        try:
            raise KeyboardInterrupt
        finally:
            raise DeploymentError("its worker ended")

    def test_never(perf):
        pass
    """
    run = Project().with_tests(tests).run(tmp_path, "--perf-smoke")
    assert run.exit_code == pytest.ExitCode.INTERRUPTED
    assert run.outcomes == {}
    assert re.search(r"^!+ KeyboardInterrupt !+$", run.out, re.MULTILINE)


@pytest.mark.processes
@pytest.mark.parametrize("how", ["raise KeyboardInterrupt", "pytest.exit('enough')"])
def test_an_interrupted_test_is_interrupted_in_each_report(tmp_path: Path, how: str) -> None:
    tests = f"""
    def test_it(perf):
        perf.assert_rtm_below("60s")
        {how}
    """
    variables = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")}
    arguments = ("--perf-json=r.json", "--perf-html=r.html")
    run = Project().with_tests(tests).run(tmp_path, *arguments, environment=variables)
    assert run.table == {"test_it": "interrupted"}
    assert "performance: 1 interrupted; the run was not completed\n" in run.out
    (result,) = run.json("r.json")["results"]
    assert (result["outcome"], result["kind"], result["interrupted"]) == ("interrupted", "interrupted", True)
    assert "### Performance: 1 interrupted\n" in (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert '<span class="state interrupted">1 interrupted</span>' in (tmp_path / "r.html").read_text(encoding="utf-8")
    assert main(["verdict", str(tmp_path / "r.json")]) == 3


def test_an_interrupt_while_processes_end_leaves_the_rest_of_the_session_to_pytest() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    named: list[object] = []
    hook = SimpleNamespace(pytest_keyboard_interrupt=lambda excinfo: named.append(excinfo.type))
    session: Any = SimpleNamespace(exitstatus=0, config=SimpleNamespace(hook=hook))
    ended: Any = SimpleNamespace(
        _is_worker=False,
        _collection=SimpleNamespace(failed=[]),
        _controller=SimpleNamespace(is_cut=False, selected=lambda: None),
        _output=SimpleNamespace(close=lambda exitstatus, **_: exitstatus),
        _driver=SimpleNamespace(close=interrupted),
    )
    end = PerfSession.pytest_sessionfinish(ended, session, 0)
    next(end)
    assert next(end, "over") == "over"
    assert (session.exitstatus, named) == (pytest.ExitCode.INTERRUPTED, [KeyboardInterrupt])
