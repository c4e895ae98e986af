"""``python -m pytest_mlpatterns new``: a first test is written, run once, and the next step is named."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.project import clean_environment

from pytest_mlpatterns.cli import main, new_command
from pytest_mlpatterns.cli.subject import InputKind, SampleInputs, Subject, SubjectKind
from pytest_mlpatterns.system.orphans import with_ids

SUBJECT = Subject(SubjectKind.JOBLIB, "model.joblib", SampleInputs(InputKind.ARRAY, 2), "predict")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with a model that is not read."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.joblib").write_bytes(b"")
    monkeypatch.setattr(new_command, "_probed", lambda _candidate, _path: SUBJECT)
    return tmp_path


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The runs of pytest that are asked for; each passes."""
    found: list[list[str]] = []

    def run(arguments: Sequence[str], *, is_shown: bool) -> subprocess.CompletedProcess[str]:
        found.append([*arguments])
        return subprocess.CompletedProcess([], 0, "", "")

    monkeypatch.setattr(new_command, "_pytest", run)
    return found


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The answers of a person at the terminal, the first one first."""
    answers: list[str] = []

    def answer(_question: str) -> str:
        if not answers:
            raise EOFError
        return answers.pop(0)

    monkeypatch.setattr(new_command, "_is_asked", lambda: True)
    monkeypatch.setattr("builtins.input", answer)
    return answers


def test_only_model_is_taken_and_the_next_step_named(
    project: Path, runs: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new"]) == 0
    assert "joblib.load(FILE)" in (project / "test_perf.py").read_text(encoding="utf-8")
    assert runs == [["test_perf.py", "--perf-smoke", "-q"]]
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "found model.joblib"
    assert out[-1] == "next: measure it, and record its baseline: pytest test_perf.py --perf-baseline update"


def test_baseline_is_recorded_if_that_is_asked(
    project: Path, runs: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new", "model.joblib", "--record"]) == 0
    assert runs[1] == ["test_perf.py", "--perf-baseline", "update"]
    assert "next: nothing is recorded, for the reason above" in capsys.readouterr().out
    (project / "perf-baseline.json").write_text("test_two.py", encoding="utf-8")
    assert main(["new", "model.joblib", "--record", "-o", "test_two.py"]) == 0
    assert "next: commit test_two.py and perf-baseline.json." in capsys.readouterr().out


@pytest.mark.parametrize(("answer", "count"), [("", 2), ("y", 2), ("n", 1), (None, 1)])
def test_person_is_asked_whether_to_record(
    project: Path, runs: list[list[str]], person: list[str], answer: str | None, count: int
) -> None:
    person += [] if answer is None else [answer]
    assert main(["new"]) == 0
    assert len(runs) == count


def test_person_chooses_among_several(project: Path, runs: list[list[str]], person: list[str]) -> None:
    (project / "other.onnx").write_bytes(b"")
    person += ["2", "n"]
    assert main(["new", "--no-run"]) == 0
    assert not runs


def test_person_names_what_was_not_found(
    project: Path, runs: list[list[str]], person: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "model.joblib").unlink()
    person.append("shop.models:Ranker")
    assert main(["new", "--no-run"]) == 0
    assert "looking at shop.models:Ranker" in capsys.readouterr().out
    assert main(["new", "--no-run", "-o", "test_two.py"]) == 2
    assert "nothing is chosen" in capsys.readouterr().err


def test_test_goes_among_tests_unless_its_model_is_at_the_top(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "tests").mkdir()
    assert main(["new", "--no-run"]) == 0
    text = (project / "tests" / "test_perf.py").read_text(encoding="utf-8")
    assert 'Path(__file__).parents[1] / "model.joblib"' in text
    local = Subject(SubjectKind.MODEL, "shop:rank", is_local=True)
    monkeypatch.setattr(new_command, "_probed", lambda _candidate, _path: local)
    assert main(["new", "shop:rank", "--no-run"]) == 0
    assert (project / "test_perf.py").exists()


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [("inputs.json", "[[1, 2]]", "json.loads(file.read_text())"), ("inputs.jsonl", "[1]\n", 'parent / "inputs.jsonl"')],
)
def test_inputs_of_a_file_are_sent(project: Path, name: str, content: str, code: str) -> None:
    (project / name).write_text(content, encoding="utf-8")
    assert main(["new", "--payload", name, "--no-run"]) == 0
    assert code in (project / "test_perf.py").read_text(encoding="utf-8")


def test_failed_smoke_run_is_shown_and_its_likely_reason_named(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    guess = Subject(SubjectKind.MODEL, "shop:rank", SampleInputs(is_guess=True))
    monkeypatch.setattr(new_command, "_probed", lambda _candidate, _path: guess)
    failed = subprocess.CompletedProcess([], 1, "1 failed\n", "")
    monkeypatch.setattr(new_command, "_pytest", lambda _arguments, **_options: failed)
    assert main(["new"]) == 1
    out = capsys.readouterr().out
    assert "1 failed" in out
    assert "failed; perf_payload holds made-up inputs, which may be the reason.\nEdit test_perf.py, and run it" in out


def test_failed_measurement_is_the_exit_code(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = iter([0, 3])
    monkeypatch.setattr(
        new_command, "_pytest", lambda _arguments, **_options: subprocess.CompletedProcess([], next(codes), "", "")
    )
    assert main(["new", "--record"]) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gone.joblib"], "gone.joblib does not exist"),
        (["notes.txt"], "notes.txt, expected a model file that ends in .joblib, "),
        (["shop"], "shop, expected a model file (.joblib, "),
        (["shop:"], "shop:, expected"),
        (["model.joblib", "-o", "test_perf.py"], "test_perf.py exists; name another file to write: -o test_perf_2.py"),
        (["model.joblib", "-o", "no/test_perf.py"], "no/test_perf.py is in no, which does not exist"),
        (["model.joblib", "-o", "perf.py"], "perf.py, expected a name that pytest collects; write -o test_perf.py"),
        (["model.joblib", "-o", "test_a.py", "--payload", "inputs.csv"], "inputs.csv, expected a .json file"),
        (["model.joblib", "-o", "test_a.py", "--payload", "wrong.json"], "wrong.json is not JSON"),
        (
            ["model.joblib", "-o", "test_a.py", "--payload", "empty.json"],
            "--payload empty.json holds no list of inputs",
        ),
        (
            ["model.joblib", "-o", "test_a.py", "--payload", "object.json"],
            "--payload object.json holds no list of inputs",
        ),
        (
            ["model.joblib", "-o", "test_a.py", "--payload", "gone.json"],
            "--payload gone.json cannot be read: No such file",
        ),
        (["model.joblib", "-o", "shop"], "shop is a directory, expected a file to write: -o shop/test_perf.py"),
        *(
            ([address], f"{address}, expected an address with its scheme; write http://{address}")
            for address in ("localhost:8000", "127.0.0.1:8000/predict", "scorer:80", "[::1]:80", "localhost")
        ),
        (["app.py"], "app.py is a Python file, expected what in it is measured; write app:api\n"),
        (["./app.py"], "write app:api\n"),
        (["shop/rank.py"], "write shop.rank:NAME, of a model or an application in it\n"),
        (["app.py:api"], "app.py:api, expected a module without .py; write app:api\n"),
        (["absent.py"], "absent.py, expected a module without .py; write absent:NAME, of a model"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    project: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "shop").mkdir()
    files = {"notes.txt": "", "test_perf.py": "", "wrong.json": "{", "empty.json": "[]", "object.json": '{"x": 1}'}
    for name, text in {**files, "app.py": "api = FastAPI()\n", "shop/rank.py": "class Ranker: ...\n"}.items():
        (project / name).write_text(text, encoding="utf-8")
    assert main(["new", *arguments]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert len(said.splitlines()) == 1


def test_commands_name_files_with_spaces_as_a_shell_does(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "--no-run", "-o", "test_my model.py"]) == 0
    assert "pytest 'test_my model.py' --perf-smoke" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([], "there is no model file and no ASGI application here"),
        (["a.onnx", "b.pt"], "there are a.onnx and b.pt; name"),
    ],
)
def test_without_a_person_the_choice_is_an_error(
    project: Path, files: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "model.joblib").unlink()
    for name in files:
        (project / name).write_bytes(b"")
    assert main(["new"]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a.onnx", "a.pt", "a.pt2"])
def test_file_of_layers_is_loaded_by_the_test_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(b"")
    assert main(["new", name, "--no-run"]) == 0
    assert "Made up, and perhaps of a wrong shape" in (tmp_path / "test_perf.py").read_text(encoding="utf-8")


@pytest.mark.processes
def test_probe_that_dies_or_refuses_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dies.py").write_text("import os\nos._exit(9)\n", encoding="utf-8")
    assert main(["new", "dies:model"]) == 2
    told = capsys.readouterr().err
    assert "dies:model ended the process that loaded it: process " in told
    assert "ended with exit code 9" in told
    assert main(["new", "no_such_module_at_all:model"]) == 2
    assert "there is no module no_such_module_at_all here" in capsys.readouterr().err


@pytest.mark.processes
def test_process_that_a_model_leaves_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    program = "import subprocess, sys, pathlib\ndef model(batch): return batch\n"
    apart = "start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL"
    sleeper = f'subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], {apart})'
    (tmp_path / "leaves.py").write_text(f'{program}pathlib.Path("pid").write_text(str({sleeper}.pid))\n', "utf-8")
    assert main(["new", "leaves:model", "--no-run"]) == 0
    assert not with_ids([int((tmp_path / "pid").read_text(encoding="utf-8"))])


@pytest.mark.processes
def test_first_test_of_a_model_in_the_project_passes(tmp_path: Path) -> None:
    (tmp_path / "ranking.py").write_text("def rank(batch):\n    return [sum(row) for row in batch]\n", encoding="utf-8")
    command = [sys.executable, "-m", "pytest_mlpatterns", "new", "ranking:rank"]
    done = subprocess.run(
        command, cwd=tmp_path, env=clean_environment(), capture_output=True, encoding="utf-8", check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "smoke run: one request was answered" in done.stdout


def test_pytest_runs_without_the_current_directory_on_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def run(command: list[str], **options: Any) -> None:
        seen.update(options, command=command)

    monkeypatch.setattr(subprocess, "run", run)
    new_command._pytest(["-q"], is_shown=True)
    assert seen["command"][1:] == ["-P", "-m", "pytest", "-q"]
    assert seen["capture_output"] is False


def test_the_path_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", "http://127.0.0.1:1", "--path", "nope", "--no-run"]) == 0
    assert 'Url("http://127.0.0.1:1/nope")' in (tmp_path / "test_perf.py").read_text(encoding="utf-8")
    assert main(["new", "http://127.0.0.1:1", "--path", "ä b", "-o", "test_two.py", "--no-run"]) == 2
    assert "expected a path of printable ASCII; quote it" in capsys.readouterr().err


def test_a_link_that_leads_nowhere_is_there(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "test_perf.py").symlink_to("elsewhere/test_perf.py")
    (project / "elsewhere").mkdir()
    assert main(["new"]) == 2
    assert "test_perf.py exists; name another file to write" in capsys.readouterr().err
    assert list((project / "elsewhere").iterdir()) == []
