"""The terminal of a run: colours by pytest, ASCII where the stream has no more, at any width; as golden files."""

import io
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from _pytest._io import TerminalWriter
from _pytest.config import create_terminal_writer
from support.each_row import each_row
from support.golden import check_golden, everything
from support.nightly import rarer
from support.project import APART, Project

from pytest_mlpatterns.plugin.terminal import Terminal, shows_unicode
from pytest_mlpatterns.reports.text.summary_table import summary_lines
from pytest_mlpatterns.reports.text.terminal_text import Span, Style, line


def written(width: int, *, colour: bool, ascii_only: bool) -> str:
    """A summary as it reaches a terminal."""
    stream = io.StringIO()
    writer = TerminalWriter(stream)
    writer.hasmarkup, writer.fullwidth = colour, width
    screen = Terminal(SimpleNamespace(get_terminal_writer=lambda: writer), ascii_only=ascii_only)  # type: ignore[arg-type]
    assert screen.width == width
    screen.write(summary_lines(everything(), screen.width, spell=screen.spell))
    return stream.getvalue()


@each_row("width", [80, 140])
@each_row("colour", [False, True])
@each_row("ascii_only", [False, True])
def test_a_summary_reaches_every_kind_of_terminal(width: int, colour: bool, ascii_only: bool) -> None:
    text = written(width, colour=colour, ascii_only=ascii_only)
    kind = f"{'ascii' if ascii_only else 'unicode'}{'-colour' if colour else ''}"
    check_golden(f"screen-{width}-{kind}.txt", text.replace("\x1b", "^["))
    assert text.isascii() is ascii_only
    assert ("\x1b" in text) is colour
    assert re.compile(r"\x1b\[[\d;]*m").sub("", text) == written(width, colour=False, ascii_only=ascii_only)


@each_row(
    ("option", "environment", "colour"),
    ("auto", {}, False),
    ("yes", {}, True),
    ("yes", {"NO_COLOR": "1"}, True),
    ("auto", {"FORCE_COLOR": "1"}, True),
    ("auto", {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
)
def test_colours_are_there_when_pytest_has_them(
    monkeypatch: pytest.MonkeyPatch, option: str, environment: dict[str, str], colour: bool
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "PY_COLORS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    options: Any = SimpleNamespace(option=SimpleNamespace(color=option, code_highlight="yes"))
    stream = io.StringIO()
    writer = create_terminal_writer(options, stream)
    screen = Terminal(SimpleNamespace(get_terminal_writer=lambda: writer), ascii_only=False)  # type: ignore[arg-type]
    screen.write(summary_lines(everything(), 140))
    assert ("\x1b[31m\x1b[1m✗ FAIL\x1b[0m" in stream.getvalue()) is colour
    assert ("\x1b" in stream.getvalue()) is colour


@each_row(
    ("encoding", "shows"),
    *(("utf-8", True), ("UTF8", True), ("ascii", False), ("latin-1", False), ("cp1252", False), ("", False)),
    *((None, False), ("no such encoding", False)),
)
def test_a_stream_has_our_signs_or_not(encoding: str | None, shows: bool) -> None:
    assert shows_unicode(encoding) is shows


def test_the_stream_is_asked_where_nobody_says_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    for encoding in ("ascii", "utf-8"):
        monkeypatch.setattr(sys, "__stdout__", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
        assert Terminal(SimpleNamespace()).ascii_only is (encoding == "ascii")  # type: ignore[arg-type]
    monkeypatch.setattr(sys, "__stdout__", None)
    assert Terminal(SimpleNamespace()).ascii_only  # type: ignore[arg-type]


def test_every_style_can_be_written() -> None:
    stream = io.StringIO()
    writer = TerminalWriter(stream)
    screen = Terminal(SimpleNamespace(get_terminal_writer=lambda: writer), ascii_only=True)  # type: ignore[arg-type]
    screen.write([tuple(Span(style.value, style) for style in Style), (), line("→")])
    assert stream.getvalue() == "".join(style.value for style in Style) + "\n\n->\n"


@pytest.mark.processes
def test_a_test_that_fails_by_its_own_assertion_shows_what_was_measured(tmp_path: Path) -> None:
    body = """
    def test_fails(perf):
        assert perf.metrics.rtm_ns.value < 1

    def test_passes(perf):
        perf.assert_rtm_below("60s")
    """
    run = Project().with_tests(body).run(tmp_path, "-rP", *APART)
    assert run.out.count("perf measurement, stdout of call") == 1, "what -rP and PyCharm show of a test that passed"
    said = run.failure("test_fails")
    assert "perf measurement" in said
    for label in ("measured  1 launch", "metrics   median latency ", "latency   now "):
        assert f"\n  {label}" in said


PROJECT = Project().with_tests(
    """
    def test_fails(perf):
        perf.assert_rtm_below("1ns")

    def test_is_open(perf):
        perf.assert_error_rate_below(0.0001)
    """
)


@pytest.mark.processes
def test_a_stream_without_unicode_gets_ascii_throughout(tmp_path: Path) -> None:
    run = PROJECT.run(tmp_path, "--color=yes", *APART, environment={"PYTHONIOENCODING": "ascii"})
    assert run.outcomes == {"failed": 1, "passed": 1, "warnings": 1}
    assert run.out.isascii()
    assert "\\u" not in run.out
    assert re.search(r"LimitFailure: median latency \S+ [um]s .+ is not below 1\.00 ns", run.out)
    assert "InconclusiveWarning" in run.out
    assert "\x1b[31m\x1b[1mx FAIL\x1b[0m" in run.out


@pytest.mark.processes
def test_v_adds_what_the_load_was(tmp_path: Path) -> None:
    short = PROJECT.run(tmp_path, "-k", "fails").section("performance")
    verbose = PROJECT.run(tmp_path, "-k", "fails", "-v").section("performance")
    for label in ("latency   p50 ", "generator ", "warm-up   fixed time: "):
        assert f"\n  {label}" in verbose
        assert f"\n  {label}" not in short


@pytest.mark.processes
@pytest.mark.parametrize("style", ["line", "native", *rarer("short", "long")])
def test_a_failure_begins_with_its_figures_whatever_the_traceback(tmp_path: Path, style: str) -> None:
    out = PROJECT.run(tmp_path, "-k", "fails", f"--tb={style}").out
    assert re.search(r"LimitFailure: median latency \S+ [µm]s( \(.+\))? is not below 1\.00 ns\n", out)
    assert re.search(r"FAILED test_perf\.py::test_fails - .*LimitFailure: median latency \S+ [µm]s", out)
