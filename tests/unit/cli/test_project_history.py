"""A key of a project is found where pytest would find it."""

import subprocess
import sys
from pathlib import Path

import pytest

from pytest_mlpatterns.cli.history_command import find_project
from pytest_mlpatterns.errors import SettingError

FILES = {
    "pytest.toml": '[pytest]\nperf_history = "{}"\n',
    ".pytest.toml": '[pytest]\nperf_history = "{}"\n',
    "pytest.ini": "[pytest]\nperf_history = {}\n",
    ".pytest.ini": "[pytest]\nperf_history = {}\n",
    "pyproject.toml": '[tool.pytest.ini_options]\nperf_history = "{}"\n',
    "tox.ini": "[pytest]\nperf_history = {}\n",
    "setup.cfg": "[tool:pytest]\nperf_history = {}\n",
}


def test_the_first_file_counts_as_for_pytest(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text.format(name), encoding="utf-8")
    for name in FILES:
        assert find_project(tmp_path).text("perf_history") == name
        (tmp_path / name).unlink()
    assert find_project(tmp_path).text("perf_history") == ""


def test_a_file_that_configures_no_pytest_is_passed_by(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text(FILES["pytest.ini"].format("above"), encoding="utf-8")
    inner = tmp_path / "inner"
    inner.mkdir()
    for name, text in (
        ("pyproject.toml", '[project]\nname = "x"\n'),
        ("tox.ini", "[tox]\n"),
        ("setup.cfg", "[metadata]\n"),
    ):
        (inner / name).write_text(text, encoding="utf-8")
    found = find_project(inner)
    assert (found.text("perf_history"), found.root) == ("above", tmp_path.resolve())
    (inner / "pytest.ini").write_text("", encoding="utf-8")
    assert find_project(inner).text("perf_history") == ""


def test_a_table_of_pytest_9_is_read(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.pytest]\nperf_history = "perf.jsonl"\n', encoding="utf-8")
    assert find_project(tmp_path).text("perf_history") == "perf.jsonl"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("pytest.ini", b"perf_history = x\n"),
        ("pytest.toml", b"[pytest\n"),
        ("setup.cfg", b"\xff"),
        ("tox.ini", b"[pytest]\nx = 1\nx = 2\n"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SettingError, match=rf"{name} cannot be read: .*; mend it, or name the history: --from PATH"):
        find_project(tmp_path)


def test_a_value_that_is_no_text_is_none(tmp_path: Path) -> None:
    (tmp_path / "pytest.toml").write_text("[pytest]\nperf_history = 7\n", encoding="utf-8")
    assert find_project(tmp_path).text("perf_history") == ""


@pytest.mark.processes
def test_pytest_itself_takes_the_same_file(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "tox.ini", "setup.cfg"):
        (tmp_path / name).write_text(FILES[name].format(name), encoding="utf-8")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "setup.cfg").write_text("[metadata]\n", encoding="utf-8")
    code = (
        "import pytest\n"
        "class Shown:\n"
        "    def pytest_sessionstart(self, session):\n"
        "        print('history', session.config.getini('perf_history'))\n"
        "pytest.main(['-q', '-p', 'no:cacheprovider'], plugins=[Shown()])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "sub", capture_output=True, text=True, check=False
    )
    assert f"history {find_project(tmp_path / 'sub').text('perf_history')}\n" in done.stdout
