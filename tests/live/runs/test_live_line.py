"""The live line on a terminal: there while a test measures, gone at the end, absent where nobody watches."""

import re
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pexpect
import pytest
from support.project import Project, clean_environment, command
from support.synthetic import MS, S

from pytest_mlpatterns.judging.budget import Forecast
from pytest_mlpatterns.plugin.terminal import LiveLine
from pytest_mlpatterns.records.addressing import Progress

pytestmark = pytest.mark.processes

PROJECT = Project().with_tests(
    'def test_it(perf):\n    perf.assert_rtm_below("60s")\n',
    marker='pytest.mark.perf(duration="2s", warmup="0s", launches=1)',
)


def _on_a_terminal(directory: Path, *arguments: str, columns: int = 120, **environment: str) -> str:
    """What a run writes to a pseudo-terminal."""
    PROJECT.write(directory)
    program, *rest = command(*arguments)
    kept = {name: value for name, value in clean_environment().items() if name != "COLUMNS"}
    child = pexpect.spawn(
        program,
        rest,
        cwd=str(directory),
        env={**kept, "TERM": "xterm", "NO_COLOR": "1", **environment},
        dimensions=(40, columns),
        encoding="utf-8",
        timeout=60,
    )
    try:
        child.expect(pexpect.EOF)
    finally:
        child.close()
    assert child.exitstatus == 0, child.before
    sys.stdout.write(repr(child.before))
    return str(child.before)


def test_a_terminal_shows_the_progress_and_it_is_gone_at_the_end(tmp_path: Path) -> None:
    written = _on_a_terminal(tmp_path)
    shown = re.findall(r"\x1b7([^\x1b]*)\x1b\[K\x1b8", written)
    progress = [text for text in shown if text]
    assert progress
    starting, *measuring = progress
    assert re.fullmatch(r" test_it ·{16} starting, about \d s left", starting)
    assert measuring
    for text in measuring:
        figures = r"\d+ s(, median \S+ \S+)?, [\d,]+ requests"
        assert re.fullmatch(rf" test_it █*·* {figures}(, about \d+ s left)?", text)
    assert shown[-1] == ""
    assert "test_it █" not in re.sub(r"\x1b7[^\x1b]*\x1b\[K\x1b8", "", written)
    assert written.index(progress[-1]) < written.index("1 passed")


def test_nothing_is_shown_on_a_pipe(tmp_path: Path) -> None:
    run = PROJECT.run(tmp_path)
    assert run.outcomes == {"passed": 1}
    assert "\x1b" not in run.out + run.err
    assert "left" not in run.out


def test_output_of_a_test_that_is_not_captured_stays(tmp_path: Path) -> None:
    project = PROJECT.with_file("conftest.py", "def pytest_runtest_teardown(): print('and then')\n")
    project.write(tmp_path)
    assert "and then" in _on_a_terminal(tmp_path, "-s")


def test_the_line_speaks_ascii_where_the_stream_has_no_more_and_is_cut_where_it_is_narrow(tmp_path: Path) -> None:
    written = _on_a_terminal(tmp_path, columns=45, PYTHONIOENCODING="ascii")
    shown = re.findall(r"\x1b7([^\x1b]+)\x1b\[K\x1b8", written)
    assert shown[0].startswith(" test_it ----------------")
    assert all(len("test_perf.py ") + len(text) < 45 for text in shown)
    assert written.isascii()


class Config:
    """What the line asks of pytest's configuration, in a process that has no terminal."""

    def __init__(self, *, verbosity: int = 0, has_reporter: bool = True) -> None:
        self.verbosity = verbosity
        self.pluginmanager = SimpleNamespace(hasplugin=lambda _name: has_reporter, getplugin=lambda _name: None)

    def get_verbosity(self) -> int:
        return self.verbosity

    def get_terminal_writer(self) -> object:
        return SimpleNamespace(width_of_current_line=0)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Standard output is a terminal of 120 columns; called, what was written there."""
    monkeypatch.setattr(sys, "__stdout__", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("CI", raising=False)
    return lambda: capsys.readouterr().out


def test_the_time_left_is_that_of_the_tests_before(terminal: Callable[[], str]) -> None:
    now = [0]
    line = LiveLine(Config(), str, now_ns=lambda: now[0])  # type: ignore[arg-type]
    line.tests = 3
    line.begin("t.py::test_a", 3 * S)
    now[0] += 10 * S
    line.end()
    line.begin("t.py::test_b", 3 * S)
    now[0] += 4 * S
    line.show(Progress(S, 100, MS))
    line.show(Progress(2 * S, 150, MS))
    line.show(Progress(S, 30, MS))  # the next launch
    line.end()
    shown = re.findall(r"\x1b7([^\x1b]*)\x1b\[K\x1b8", terminal())
    assert shown == [
        " test_a 1/3 ················ starting, about 15 s left",
        "",
        " test_b 2/3 █████··········· starting, about 20 s left",
        " test_b 2/3 ███████········· 4 s, median 1.00 ms, 100 requests, about 16 s left",
        " test_b 2/3 ███████········· 4 s, median 1.00 ms, 150 requests, about 16 s left",
        " test_b 2/3 ███████········· 4 s, median 1.00 ms, 180 requests, about 16 s left",
        "",
    ]


@pytest.mark.parametrize(
    ("config", "environment", "is_shown"),
    [
        (Config(), {}, True),
        (Config(verbosity=-1), {}, False),
        (Config(), {"CI": "1"}, False),
        (Config(has_reporter=False), {}, False),
    ],
    ids=["terminal", "quiet", "CI", "no terminal reporter"],
)
def test_nothing_is_shown_where_it_would_disturb(
    terminal: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
    config: Config,
    environment: dict[str, str],
    *,
    is_shown: bool,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    line = LiveLine(config, str)  # type: ignore[arg-type]
    line.begin("t.py::test_a", 3 * S)
    line.show(Progress(S, 100, MS))
    line.end()
    assert bool(terminal()) is is_shown


def test_a_note_stays_on_the_terminal_until_its_test_ends(terminal: Callable[[], str]) -> None:
    now = [0]
    line = LiveLine(Config(), str, now_ns=lambda: now[0])  # type: ignore[arg-type]
    line.begin("a", S)
    line.note("p99 latency needs 115 s")
    line.show(Progress(S, 100, MS))
    line.show(Progress(S, 101, MS))
    now[0] = S
    line.end()
    line.begin("b", S)
    line.show(Progress(S, 1, MS))
    assert terminal().count("requests, p99 latency needs 115 s") == 2


def test_the_end_of_a_test_that_never_began_writes_nothing(terminal: Callable[[], str]) -> None:
    LiveLine(Config(), str).end()  # type: ignore[arg-type]
    assert terminal() == ""


def on_a_pipe(verbosity: int, now_ns: Callable[[], int], *, silent: bool = False) -> LiveLine:
    """A line that prints what it writes."""
    config = Config(verbosity=verbosity)
    plugins = {"terminalreporter": SimpleNamespace(ensure_newline=lambda: None, write_line=print)}
    config.pluginmanager = SimpleNamespace(hasplugin=lambda _name: True, getplugin=plugins.get)
    return LiveLine(config, str, now_ns, silent=silent)  # type: ignore[arg-type]


@pytest.mark.parametrize("verbosity", [1, 0, -1])
def test_a_pipe_gets_a_plain_line_for_each_minute_of_a_test(capsys: pytest.CaptureFixture[str], verbosity: int) -> None:
    now = [0]
    line = on_a_pipe(verbosity, lambda: now[0])
    line.tests = 2
    line.begin("t.py::test_a", 3 * S)
    line.note("at 4.0 answers a second p99 latency needs 115 s")
    for seconds in (4, 59, 61, 62, 119):
        now[0] = seconds * S
        line.show(Progress(S, 100, MS))
    line.foresee(Forecast(3, 90 * S, 180 * S, ("pair", "pairs"), beyond_ns=60 * S))
    now[0] = 122 * S
    line.show(Progress(S, 100, MS))
    line.search("counting the instructions of the working tree, up to 60 s")
    for seconds in (130, 190):
        now[0] = seconds * S
        line.show(Progress(S, 100, MS))  # of a load beside it
    line.search("searching for the cause, 12 s left")
    line.end()
    line.begin("t.py::test_b", 3 * S)
    now[0] += 59 * S
    line.show(Progress(S, 100, MS))
    line.end()
    test = "measuring t.py::test_a (1 of 2) for"
    assert capsys.readouterr().out.splitlines() == [
        f"{test} 61 s, about 5 s left; at 4.0 answers a second p99 latency needs 115 s",
        f"{test} 122 s, about 3 min left: 3 pairs of 90 s in any case, beyond its budget of 60 s",
        f"{test} 190 s: searching for the cause, 12 s left",
    ]


def test_a_plain_line_comes_without_load(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a start, or while instructions are counted."""
    monkeypatch.setattr("pytest_mlpatterns.plugin.terminal._PLAIN_EVERY_NS", 1)
    line, written = on_a_pipe(0, time.monotonic_ns), ""
    line.begin("t.py::test_a", 3 * S)
    while not written:
        threading.Event().wait(0.05)
        written = capsys.readouterr().out
    line.end()
    assert re.fullmatch(r"measuring t\.py::test_a for \d s, about \d s left\n", written)
    assert "ticks" not in {thread.name for thread in threading.enumerate()}


def test_a_worker_of_a_distributed_run_writes_the_line_below_what_the_controller_has_written(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    soon = "from pytest_mlpatterns.plugin import terminal\n\nterminal._PLAIN_EVERY_NS = 1_000_000_000\n"
    run = PROJECT.with_file("conftest.py", soon).run(tmp_path, "-n", "1")
    assert run.outcomes == {"passed": 1}
    assert re.search(r"^measuring test_perf\.py::test_it for \d+ s, about \d+ s left$", capfd.readouterr().err, re.M)


@pytest.mark.parametrize(("verbosity", "silent"), [(-2, False), (0, True)], ids=["-qq", "run by another pytest"])
def test_no_plain_line_is_written_where_it_would_disturb(
    capsys: pytest.CaptureFixture[str], verbosity: int, *, silent: bool
) -> None:
    now = [0]
    line = on_a_pipe(verbosity, lambda: now[0], silent=silent)
    line.begin("t.py::test_a", 3 * S)
    now[0] = 999 * S
    line.show(Progress(S, 100, MS))
    line.end()
    assert capsys.readouterr().out == ""
