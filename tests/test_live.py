"""The live line on a terminal: there while a test measures, gone at the end, absent where nobody watches."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import pexpect
import pytest
from project import Project, clean_environment, command

if TYPE_CHECKING:
    from pathlib import Path

SAVE = "\x1b7"
PROJECT = Project().with_tests(
    'def test_it(perf):\n    perf.assert_rtm_below("60s")\n',
    marker='pytest.mark.perf(duration="600ms", warmup="0s", launches=1)',
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
    for text in progress:
        assert re.fullmatch(r" test_it: launch 1, \d\.\d s, [\d,]+ requests(, RTM \S+ \S+)?", text)
    assert shown[-1] == ""
    assert "test_it: launch" not in re.sub(r"\x1b7[^\x1b]*\x1b\[K\x1b8", "", written)
    assert written.index(progress[-1]) < written.index("1 passed")


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [(("-q",), {}), ((), {"CI": "1"}), (("-p", "no:terminal"), {})],
    ids=["quiet", "CI", "no terminal reporter"],
)
def test_nothing_is_shown_where_it_would_disturb(
    tmp_path: Path, arguments: tuple[str, ...], environment: dict[str, str]
) -> None:
    assert SAVE not in _on_a_terminal(tmp_path, *arguments, **environment)


def test_nothing_is_shown_on_a_pipe(tmp_path: Path) -> None:
    run = PROJECT.run(tmp_path)
    assert run.outcomes == {"passed": 1}
    assert "\x1b" not in run.out + run.err
    assert "launch 1," not in run.out


def test_a_narrow_terminal_cuts_the_line(tmp_path: Path) -> None:
    written = _on_a_terminal(tmp_path, columns=45)
    shown = re.findall(r"\x1b7([^\x1b]+)\x1b\[K\x1b8", written)
    assert shown
    assert all(len("test_perf.py ") + len(text) < 45 for text in shown)


def test_output_of_a_test_that_is_not_captured_stays(tmp_path: Path) -> None:
    project = PROJECT.with_file("conftest.py", "def pytest_runtest_teardown(): print('and then')\n")
    project.write(tmp_path)
    assert "and then" in _on_a_terminal(tmp_path, "-s")
