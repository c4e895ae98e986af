"""An environment of a revision is built once, by one run at a time, and an installer that fails is quoted."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.installed import wheel
from support.repository import Repository

from pytest_mlpatterns.errors import DeploymentError
from pytest_mlpatterns.records.codec import plain
from pytest_mlpatterns.revision import environment
from pytest_mlpatterns.revision.commits import Revision
from pytest_mlpatterns.revision.environment import RevisionEnvironment, project_paths, revision_environment
from pytest_mlpatterns.revision.worktree import Worktree
from pytest_mlpatterns.system.owned_files import owned_directory

BUILT = RevisionEnvironment(Path(sys.executable), ("src",), "requirements.txt")


@pytest.fixture
def worktree(tmp_path: Path) -> Worktree:
    """A revision that asks for a package that is not there."""
    repository = Repository.made(tmp_path / "top")
    repository.commit({"requirements.txt": "./nowhere\n"})
    revision = Revision("0" * 40, "main", "", "0000000")
    return Worktree(revision, repository.top, repository.top, repository.top, ())


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """An empty cache."""
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def build(worktree: Worktree, cache: Path) -> RevisionEnvironment:
    with revision_environment(worktree, cache, lambda _: None) as found:
        return found


def remove_unused(cache: Path) -> None:
    with owned_directory(cache) as directory:
        environment._remove_unused(directory)


@pytest.mark.processes
def test_an_installer_that_fails_is_quoted_and_tried_again(worktree: Worktree, cache: Path) -> None:
    for _ in range(2):
        with pytest.raises(DeploymentError) as caught:
            build(worktree, cache)
        text = str(caught.value)
        assert "could not build the environment of main (0000000): it ended with exit code " in text
        assert "nowhere" in text.partition("it printed last:\n")[2]


@pytest.mark.processes
def test_without_uv_the_message_says_how_to_install_it(
    worktree: Worktree, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    wanted = "expected uv on PATH or beside .*, to build the environment of main \\(0000000\\); run pip install uv$"
    said: list[str] = []
    with (
        pytest.raises(DeploymentError, match=f"^--perf-against-env: no uv is installed, {wanted}"),
        revision_environment(worktree, cache, said.append),
    ):
        pass
    assert said == []


@pytest.mark.processes
def test_a_slow_installer_is_ended(worktree: Worktree, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_TIMEOUT_S", 0.0)
    with pytest.raises(DeploymentError, match="it took longer than 0 minutes"):
        build(worktree, cache)


@pytest.mark.processes
def test_a_lock_of_uv_is_exported_installed(worktree: Worktree, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program stands in for uv and notes how it is called."""
    (worktree.directory / "uv.lock").touch()
    (worktree.directory / "Pipfile.lock").touch()
    log = stand_in_for_uv(cache, monkeypatch)
    found = build(worktree, cache)
    assert found.contents == "uv.lock (Pipfile.lock is not read)"
    assert found.project_paths == ()
    calls = log.read_text(encoding="utf-8").splitlines()
    assert [call.split()[0] for call in calls] == ["export", "venv", "pip"]
    assert calls[0].split()[-1] == calls[2].split()[-1].removeprefix("-r")


UV = """
import subprocess
import sys

with open({log!r}, "a") as log:
    print(*sys.argv[1:], file=log)
if sys.argv[1] == "venv":
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", sys.argv[-1]], check=True)
"""


def stand_in_for_uv(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let a program stand in for uv; returns the file in which it notes how it is called."""
    uv, log = cache.parent / "uv", cache.parent / "log"
    uv.write_text(f"#!{sys.executable}\n{UV.format(log=str(log))}", encoding="utf-8")
    uv.chmod(0o700)
    monkeypatch.setattr(shutil, "which", lambda *_, **__: str(uv))
    return log


@pytest.mark.processes
def test_a_lock_of_poetry_gives_the_versions_of_what_the_project_asks_for(
    worktree: Worktree, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (worktree.directory / "requirements.txt").unlink()
    (worktree.directory / "pyproject.toml").write_text("[build-system]\n[project]\nname = 'a'\n", encoding="utf-8")
    lock = '[[package]]\nname = "ink"\nversion = "1.2"\n'
    (worktree.directory / "poetry.lock").write_text(lock, encoding="utf-8")
    log = stand_in_for_uv(cache, monkeypatch)
    assert build(worktree, cache).contents == "poetry.lock and the project"
    constraints, project = log.read_text(encoding="utf-8").splitlines()[-1].split()[-2:]
    assert Path(constraints.removeprefix("-c")).read_text(encoding="utf-8") == "ink==1.2\n"
    assert project == "-e."


NO_PACKAGE = """
[project]
name = "shop"
version = "0"
requires-python = ">=3.11"
dependencies = ["features<2"]
[tool.uv]
no-index = true
find-links = ["wheels"]
"""
LOCKED = """
version = 1
requires-python = ">=3.11"
[[package]]
name = "features"
version = "1.0"
source = { registry = "wheels" }
wheels = [{ path = "features-1.0-py3-none-any.whl" }]
[[package]]
name = "shop"
version = "0"
source = { virtual = "." }
dependencies = [{ name = "features" }]
"""
PYLOCK = """
lock-version = "1.0"
created-by = "a test"
[[packages]]
name = "features"
version = "1.0"
wheels = [{ path = "wheels/features-1.0-py3-none-any.whl", hashes = { sha256 = "HASH" } }]
"""


@pytest.mark.processes
@pytest.mark.parametrize(
    ("files", "contents"),
    [
        ({"pyproject.toml": NO_PACKAGE}, "pyproject.toml"),
        (
            {"requirements.txt": "--no-index\n--find-links wheels\nfeatures==1.0\n", "pyproject.toml": NO_PACKAGE},
            "requirements.txt and pyproject.toml",
        ),
        ({"uv.lock": LOCKED, "pyproject.toml": NO_PACKAGE}, "uv.lock"),
        ({"pylock.toml": PYLOCK, "pyproject.toml": NO_PACKAGE}, "pylock.toml"),
    ],
)
def test_a_project_that_is_no_package_has_the_packages_that_its_files_name(
    worktree: Worktree, cache: Path, files: dict[str, str], contents: str
) -> None:
    built = wheel(worktree.directory / "wheels", "features", "1.0", {"features.py": "VERSION = '1.0'\n"})
    wheel(worktree.directory / "wheels", "features", "2.0", {"features.py": "VERSION = '2.0'\n"})
    (worktree.directory / "requirements.txt").unlink()
    found_hash = hashlib.sha256(built.read_bytes()).hexdigest()
    for name, text in {**files, "shop.py": "", "more.py": ""}.items():
        (worktree.directory / name).write_text(text.replace("HASH", found_hash), encoding="utf-8")
    found = build(worktree, cache)
    assert found.contents == contents
    command = [str(found.python), "-c", "import features; print(features.VERSION)"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "1.0\n"


@pytest.mark.processes
def test_a_revision_without_dependencies_has_no_environment(worktree: Worktree, cache: Path) -> None:
    (worktree.directory / "requirements.txt").unlink()
    with pytest.raises(DeploymentError, match=r"has no pyproject.toml, setup.py or requirements.txt, expected one"):
        build(worktree, cache)


@pytest.mark.processes
def test_concurrent_runs_build_one_environment_which_is_kept(
    worktree: Worktree, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second run comes while the first one builds."""
    builds: list[Path] = []
    begun, may_end = threading.Event(), threading.Event()

    def slow(_: object, folder: Path) -> RevisionEnvironment:
        begun.set()
        assert may_end.wait(30)
        folder.mkdir()
        builds.append(folder)
        return BUILT

    monkeypatch.setattr(environment._Installer, "build", slow)
    found: list[RevisionEnvironment] = []
    runs = [threading.Thread(target=lambda: found.append(build(worktree, cache))) for _ in range(2)]
    for run in runs:
        run.start()
    assert begun.wait(30)
    may_end.set()
    for run in runs:
        run.join(30)
    assert found == [BUILT, BUILT]
    assert len(builds) == 1
    (builds[0] / "ready.json").write_text(json.dumps({**plain(BUILT), "python": "/gone/python"}), encoding="utf-8")
    assert build(worktree, cache) == BUILT  # one whose Python is gone is built again
    assert len(builds) == 2


@pytest.mark.processes
def test_what_no_run_used_for_a_month_is_removed_unless_a_run_uses_it(
    worktree: Worktree, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment._Installer, "build", lambda _, folder: (folder.mkdir(), BUILT)[1])
    (cache / "old").mkdir()
    (cache / "old.lock").touch()
    with revision_environment(worktree, cache, lambda _: None):
        (used,) = cache.glob("*/ready.json")
        for lock in cache.glob("*.lock"):
            os.utime(lock, (0, 0))
        remove_unused(cache)
        assert used.exists()
        assert not (cache / "old").exists()
    remove_unused(cache)
    assert not used.exists()


def test_folders_of_the_project_on_the_path_are_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finder = type("Finder", (), {"__module__": "editable_finder"})
    module = type(sys)("editable_finder")
    module.MAPPING = {"shop": str(tmp_path / "lib" / "shop"), "other": "/elsewhere/other"}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "editable_finder", module)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, finder])
    monkeypatch.setattr(sys, "path", ["/elsewhere", str(tmp_path), str(tmp_path / "src")])
    assert project_paths(str(tmp_path)) == [".", "src", "lib"]
