"""Control characters from files, servers, models and test ids reach no terminal, log, JUnit report or job summary."""

import io
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from _pytest._io import TerminalWriter
from msgspec.structs import replace
from support.synthetic import ENVIRONMENT, changed, counterpart, make_setup, result

from pytest_mlpatterns.cli import main
from pytest_mlpatterns.errors import ChildError
from pytest_mlpatterns.plugin.terminal import Terminal
from pytest_mlpatterns.records.result import FailedTest
from pytest_mlpatterns.records.result_parts import Location
from pytest_mlpatterns.reports.files.ci_reports import annotation, job_summary, properties_of
from pytest_mlpatterns.reports.files.result_file import read_results, results_json
from pytest_mlpatterns.reports.text.summary_table import summary_lines
from pytest_mlpatterns.reports.text.terminal_text import line
from pytest_mlpatterns.wording import HIDDEN

PAINT = "\x1b[2J\x9b1m\u202e\x07"
RESULT = result(
    f"test_perf.py::test{PAINT}",
    passed=False,
    setup=make_setup(pattern=f"single{PAINT}", load=f"closed(1){PAINT}", wire=PAINT),
    baseline_note=f"baseline not comparable (machine: {PAINT})",
    notes=(f"the service printed {PAINT}",),
    reference=replace(counterpart(), name=PAINT),
)
FAILURE = FailedTest(RESULT.test, f"LimitFailure: {PAINT}", Location(f"test{PAINT}.py", 3))


def hidden_in(text: str) -> set[str]:
    return set(text) & HIDDEN


def make_terminal(stream: io.StringIO) -> Terminal:
    writer = TerminalWriter(stream)
    return Terminal(SimpleNamespace(get_terminal_writer=lambda: writer), ascii_only=False)  # type: ignore[arg-type]


def test_hidden_characters_reach_no_terminal_and_no_workflow_command() -> None:
    stream = io.StringIO()
    terminal = make_terminal(stream)
    terminal.write([*summary_lines([RESULT], 140, verbose=True)])
    terminal.write_commands([annotation(FAILURE)])
    assert not hidden_in(stream.getvalue())
    assert "\\x1b[2J\\x9b1m\\u202e\\x07" in stream.getvalue()


def test_text_from_elsewhere_commands_no_runner_and_annotations_do() -> None:
    stream = io.StringIO()
    terminal = make_terminal(stream)
    foreign = "::error file=a::b ##[error]c"
    terminal.write([line(foreign), *summary_lines([changed(RESULT, notes=(f"it printed\n{foreign}",))], 140)])
    assert not re.search(r"(?m)^\s*::|##\[", stream.getvalue())
    terminal.write_commands([annotation(replace(FAILURE, reason=f"LimitFailure: a\n{foreign}"))])
    last = stream.getvalue().splitlines()[-1]
    assert last.startswith("::error file=test")
    assert "%0A::error file=a::b" in last


def test_they_reach_no_traceback_however_the_errors_are_chained() -> None:
    error, first = ChildError(f"it printed {PAINT}", 5), ValueError(PAINT)
    error.__cause__, first.__context__ = first, error  # a circle ends too
    make_terminal(io.StringIO()).spell_error(error)
    assert not hidden_in(str(error.args) + str(first))
    assert error.args[1] == 5


def test_hidden_characters_reach_no_job_summary_and_no_junit_report() -> None:
    summary = job_summary([RESULT], [FAILURE], {f"group{PAINT}": PAINT}, notes=[PAINT])
    assert not hidden_in(summary)
    assert not hidden_in("".join(name + value for name, value in properties_of(RESULT)))


@pytest.mark.parametrize("command", [["report"], ["export", "--format=openmetrics"], ["rank", "rtm=1"]])
def test_hidden_characters_reach_no_output_of_the_command_line(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "results.json"
    text = results_json([RESULT], ENVIRONMENT, f"2026{PAINT}", baseline={}, commit=PAINT)
    assert not hidden_in(text), "a file is read in terminals too"
    assert read_results(text).results == (RESULT,)
    file.write_text(text, encoding="utf-8")
    named = command[0] == "export"  # its date is none, which the error names
    assert main([command[0], str(file), *command[1:]]) == (2 if named else 0)
    assert not hidden_in("".join(capsys.readouterr()))
    data = json.loads(text)
    data["date"] = [PAINT]
    data["results"][0][PAINT] = 5
    file.write_text(json.dumps(data), encoding="utf-8")
    assert main([command[0], str(file), *command[1:]]) == 2
    assert not hidden_in("".join(capsys.readouterr()))
