"""What the commands write: never over what they read, in UTF-8, and without a fuss where nobody reads it."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from support.history_lines import history_line
from support.owners import declare_owner
from support.synthetic import ENVIRONMENT, result, verdict

from pytest_mlpatterns.baseline.file import baselines_text, read_baselines
from pytest_mlpatterns.cli import command_line, main
from pytest_mlpatterns.history.file import History
from pytest_mlpatterns.records.baseline_entry import Entry
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.setup import Setup
from pytest_mlpatterns.records.verdict import Outcome
from pytest_mlpatterns.reports.files.result_file import results_json

SETUP = Setup.from_json({"pattern": "single", "load": "closed(1)", "wire": "rest+json", "payload": "sha256:0"})
ENTRY = Entry(SETUP, {"rtm": (LaunchValue(1e6, 0.01),)}, {"numpy": "2.0.0"}, "1a2b3c4", "2026-11-01")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results of a test that failed, in the working directory."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "r.json"
    failed = result("test_a.py::test_ä", passed=False)
    path.write_text(results_json([failed], ENVIRONMENT, "2026-11-24", baseline={}), encoding="utf-8")
    return path


def run(*arguments: str, shell: str = "", environment: Mapping[str, str] | None = None) -> tuple[int, bytes, str]:
    """The exit code, what was printed, and what was said beside it; ``shell`` follows the command."""
    command = ["sh", "-c", f'"$@" {shell}', "sh", sys.executable, "-m", "pytest_mlpatterns", *arguments]
    done = subprocess.run(command, capture_output=True, env={**os.environ, **(environment or {})}, check=False)
    return done.returncode, done.stdout, done.stderr.decode()


@pytest.mark.parametrize("output", ["r.json", "./r.json", "link.json"])
@pytest.mark.parametrize("command", [["report"], ["summary"], ["export", "--format=openmetrics"]])
def test_the_results_are_not_overwritten(
    file: Path, command: list[str], output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (file.parent / "link.json").symlink_to(file)
    before = file.read_bytes()
    assert main([*command, "r.json", "-o", output]) == 2
    assert f"-o {output} is the file that is read, and would be lost; expected another one" in capsys.readouterr().err
    assert file.read_bytes() == before


@pytest.mark.parametrize("name", ["test_link.py", "d/test_new.py"])
@pytest.mark.parametrize(
    ("command", "option"),
    [
        (["report", "r.json"], "-o"),
        (["summary", "r.json"], "-o"),
        (["export", "r.json", "--format=openmetrics"], "-o"),
        (["accept", "r.json", "test_a.py::test_ä", "--reason=why"], "--file"),
        (["new", "https://box.example", "--no-run"], "-o"),
    ],
)
def test_nothing_is_written_through_a_link_of_another_user(
    file: Path,
    command: list[str],
    option: str,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Neither of a file nor of a directory."""
    failed = result("test_a.py::test_ä", passed=False, verdicts=(verdict(Outcome.FAIL, change=(0.47, 0.43, 0.51)),))
    file.write_text(results_json([failed], ENVIRONMENT, "2026-11-24", baseline={}), encoding="utf-8")
    (file.parent / "theirs").mkdir()
    (file.parent / "d").symlink_to("theirs")
    (file.parent / "test_link.py").symlink_to("theirs/test_new.py")
    declare_owner(monkeypatch, 4711)
    assert main([*command, option, name]) == 2
    said, link = capsys.readouterr().err, name.partition("/")[0]
    assert (
        f"{link} is a link of another user, of id 4711; name a" in said or f"{name} exists; name another file" in said
    )
    assert list((file.parent / "theirs").iterdir()) == []


@pytest.mark.parametrize("option", ["-o", "--html"])
def test_the_history_is_not_overwritten(tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "h.jsonl"
    History(path, path.name).append([history_line()])
    before = path.read_bytes()
    assert main(["history", "--from", str(path), option, str(path)]) == 2
    assert "is the file that is read" in capsys.readouterr().err
    assert path.read_bytes() == before


@pytest.mark.parametrize("command", [["report", "r.json"], ["new", "shop:rank", "--no-run"], ["history"]])
def test_an_empty_name_is_told_to_be_so(file: Path, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "-o", ""]) == 2
    assert "-o is '', expected the path of a file; if a variable of the shell" in capsys.readouterr().err


@pytest.mark.processes
def test_a_verdict_keeps_its_code_without_a_reader(file: Path) -> None:
    (file.parent / "calm.json").write_text(
        results_json([result()], ENVIRONMENT, "2026-11-24", baseline={}), encoding="utf-8"
    )
    for name, expected in (("r.json", 1), ("calm.json", 0)):
        for form in ("text", "json"):
            command = [sys.executable, "-m", "pytest_mlpatterns", "verdict", name, "--format", form]
            program = f"import os; r, w = os.pipe(); os.close(r); os.dup2(w, 1); os.execv({command[0]!r}, {command!r})"
            done = subprocess.run([sys.executable, "-c", program], stderr=subprocess.PIPE, check=False)
            assert (done.returncode, done.stderr) == (expected, b"")


@pytest.mark.processes
def test_other_commands_end_without_a_message_if_the_reader_has_gone(file: Path) -> None:
    for command in ("report", "summary"):
        _, _, said = run(command, "r.json", shell="| true")
        assert said == ""


@pytest.mark.processes
@pytest.mark.parametrize("command", [["verdict", "r.json"], ["report", "r.json"], ["history", "--from", "h.jsonl"]])
def test_a_closed_output_is_no_error(file: Path, command: list[str]) -> None:
    History(file.with_name("h.jsonl"), "h.jsonl").append([history_line()])
    code, _, said = run(*command, shell=">&-")
    assert "Traceback" not in said
    assert code == (1 if command[0] == "verdict" else 0)


def test_too_little_memory_is_one_line(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def read(_: str) -> None:
        raise MemoryError

    monkeypatch.setattr(command_line, "read_results_file", read)
    assert main(["summary", "r.json"]) == 2
    assert capsys.readouterr().err.startswith("ERROR: there is too little free memory; ")


@pytest.mark.processes
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_documents_are_written_in_utf_8(file: Path, encoding: str) -> None:
    for command, words in (("report", "<!doctype html>"), ("summary", "### Performance")):
        code, out, said = run(command, "r.json", environment={"PYTHONIOENCODING": encoding})
        assert (code, said) == (0, "")
        assert words in out.decode("utf-8")
        assert "ä" in out.decode("utf-8")


# --- parts of a merge -------------------------------------------------------------------------------------------------


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        (tmp_path / f"{name}.json").write_text(baselines_text({f"test_{name}": {"laptop": ENTRY}}), encoding="utf-8")
    (tmp_path / "empty.json").touch()
    return tmp_path


@pytest.mark.processes
def test_a_pipe_has_its_entries(parts: Path) -> None:
    program = f"{sys.executable} -m pytest_mlpatterns baseline merge <(cat a.json) b.json -o both.json"
    done = subprocess.run(["bash", "-c", program], capture_output=True, encoding="utf-8", check=False)
    assert (done.returncode, set(read_baselines(parts / "both.json"))) == (0, {"test_a", "test_b"})
    for content, words in (("true", "is a pipe that holds nothing"), ("echo 7", "is not a baseline file of pytest")):
        done = subprocess.run(
            ["bash", "-c", program.replace("cat a.json", content)], capture_output=True, encoding="utf-8", check=False
        )
        assert done.returncode == 2
        assert words in done.stderr
        assert "/dev/fd/" in done.stderr


def test_a_pipe_without_a_writer_is_waited_for_with_a_limit(
    parts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command_line, "_PIPE_S", 0.01)
    os.mkfifo("pipe")
    assert main(["baseline", "merge", "a.json", "pipe"]) == 2
    assert "pipe is a pipe that no program has written to its end in 0 s, " in capsys.readouterr().err
    os.close(os.open("pipe", os.O_WRONLY))  # ends the thread that waits


def test_only_what_both_held_before_may_be_empty(parts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    merge = ["baseline", "merge", "-o", "both.json"]
    assert main([*merge, "a.json", "b.json", "--base", "empty.json"]) == 0
    assert main([*merge, "a.json", os.devnull]) == 0
    capsys.readouterr()
    assert main([*merge, "a.json", "empty.json"]) == 2
    assert "empty.json is empty, expected a file that pytest --perf-baseline update wrote" in capsys.readouterr().err
