"""Which dependency files changed since a revision, and the key under which its environment is kept."""

from pathlib import Path

import pytest
from support.repository import Repository

from pytest_mlpatterns.revision.commits import Revision
from pytest_mlpatterns.revision.dependencies import (
    change_note,
    changed_files,
    dependency_key,
    locked_versions,
    project_argument,
)
from pytest_mlpatterns.revision.worktree import Worktree

PROJECT = '[project]\nname = "shop"\nversion = "{version}"\ndependencies = ["numpy{numpy}"]\n'


@pytest.fixture
def trees(tmp_path: Path) -> Worktree:
    """Two trees without files."""
    for name in ("here", "there"):
        (tmp_path / name / "ml").mkdir(parents=True)
    there = tmp_path / "there"
    return Worktree(Revision("0" * 40, "main", "", "0000000"), there, there / "ml", tmp_path / "here", ())


@pytest.mark.parametrize(
    ("name", "there", "here"),
    [
        ("requirements.txt", "numpy==1\n", "numpy==2\n"),
        ("ml/requirements/test.txt", "numpy==1\n", None),
        ("uv.lock", None, "x"),
        ("ml/pyproject.toml", PROJECT.format(version="1", numpy="<2"), PROJECT.format(version="1", numpy="")),
        ("pyproject.toml", "[dependency-groups]\ntest = ['a']\n", "[dependency-groups]\ntest = ['b']\n"),
        ("pyproject.toml", "[tool.poetry.dependencies]\na = '1'\n", "[tool.poetry.dependencies]\na = '2'\n"),
        ("setup.cfg", "[options]\ninstall_requires =\n  a\n", "[options]\ninstall_requires =\n  b\n"),
        ("setup.cfg", "[options.extras_require]\ntest = a\n", "[options.extras_require]\ntest = b\n"),
        ("setup.cfg", "no ini file", "neither"),
        ("setup.py", "setup()", "setup(name='a')"),
    ],
)
def test_a_changed_dependency_is_seen(trees: Worktree, name: str, there: str | None, here: str | None) -> None:
    for top, text in ((trees.root, there), (trees.present_root, here)):
        if text is not None:
            (top / name).parent.mkdir(exist_ok=True)
            (top / name).write_text(text, encoding="utf-8")
    assert changed_files(trees) == [name]
    assert change_note(trees) == (
        f"{name} changed since main; both sides ran with the packages installed here "
        "(--perf-against-env builds an environment for main)"
    )


@pytest.mark.parametrize(
    ("name", "there", "here"),
    [
        ("requirements.txt", "numpy\n", "# why\nnumpy  # fast\n\n"),
        ("pyproject.toml", PROJECT.format(version="1", numpy="<2"), PROJECT.format(version="2", numpy="<2")),
        ("pyproject.toml", "[tool.ruff]\n", "[tool.ruff]\nline-length = 99\n"),
        ("setup.cfg", "[metadata]\nname = a\n", "[metadata]\nname = b\n"),
        ("README.md", "a", "b"),
    ],
)
def test_what_is_no_dependency_may_change(trees: Worktree, name: str, there: str, here: str) -> None:
    (trees.root / name).write_text(there, encoding="utf-8")
    (trees.present_root / name).write_text(here, encoding="utf-8")
    assert changed_files(trees) == []
    assert change_note(trees) == ""


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("pyproject.toml", "[build-system]\n[project]\nname = 'a'\n", "-e."),
        ("pyproject.toml", "[project]\nname = 'a'\n[tool.uv]\npackage = true\n", "-e."),
        ("pyproject.toml", "[build-system]\n[project]\nname = 'a'\n[tool.uv]\npackage = false\n", "-rpyproject.toml"),
        ("pyproject.toml", "[project]\nname = 'a'\n", "-rpyproject.toml"),
        ("pyproject.toml", "[tool.ruff]\n", ""),
        ("pyproject.toml", "[", ""),
        ("setup.py", "", "-e."),
        ("setup.cfg", "[flake8]\n", ""),
        ("requirements.txt", "", ""),
    ],
)
def test_a_project_that_can_be_installed_is_known(tmp_path: Path, name: str, text: str, expected: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert project_argument(tmp_path) == expected
    assert project_argument(tmp_path, is_installed=True) == ("-rpyproject.toml" if "package = false" in text else "-e.")


@pytest.mark.parametrize(
    ("name", "table"), [("poetry.lock", "package"), ("pdm.lock", "package"), ("pylock.toml", "packages")]
)
def test_the_versions_of_a_lock_are_constraints(tmp_path: Path, name: str, table: str) -> None:
    packages = [("ink", "1.2"), ("pen", "1"), ("pen", "2"), ("quill", None)]
    (tmp_path / name).write_text(
        "".join(
            f'[[{table}]]\nname = "{package}"\n' + (f'version = "{version}"\n' if version else "")
            for package, version in packages
        ),
        encoding="utf-8",
    )
    assert locked_versions(tmp_path) == (name, ["ink==1.2"])


def test_a_directory_without_a_lock_has_no_versions(tmp_path: Path) -> None:
    assert locked_versions(tmp_path) is None


@pytest.mark.processes
def test_the_key_follows_dependency_files_and_local_packages_and_no_other_file(tmp_path: Path) -> None:
    repository = Repository.made(tmp_path / "top")
    revision = Revision("0" * 40, "main", "", "0000000")
    tree = Worktree(revision, repository.top, repository.top, repository.top, ())

    def key_after(files: dict[str, str], *facts: str) -> str:
        repository.commit(files)
        return dependency_key(tree, facts)

    first = key_after({"requirements.txt": "./libs/stemmer\n", "libs/stemmer/a.py": "", "model.py": ""})
    assert key_after({"model.py": "x = 1\n", "libs/other.py": ""}) == first
    keys = [
        first,
        key_after({}, "Python 3.99"),
        key_after({"libs/stemmer/a.py": "x = 1\n"}),
        key_after({"requirements.txt": "./libs/stemmer\nnumpy\n"}),
    ]
    assert len(set(keys)) == len(keys)


DYNAMIC = '[project]\nname = "x"\n[tool.setuptools.dynamic]\ndependencies = {file = ["deps.in"]}\n'


@pytest.mark.processes
@pytest.mark.parametrize(
    ("first", "text", "included"),
    [
        ("requirements.txt", "-r base.in\n", "base.in"),
        ("requirements.txt", "numpy\n-c limits/all.txt\n", "limits/all.txt"),
        ("pyproject.toml", DYNAMIC, "deps.in"),
        ("setup.cfg", "[options]\ninstall_requires = file: deps.in\n", "deps.in"),
    ],
)
def test_the_key_follows_files_that_another_one_includes(tmp_path: Path, first: str, text: str, included: str) -> None:
    repository = Repository.made(tmp_path / "top")
    tree = Worktree(Revision("0" * 40, "main", "", "0000000"), repository.top, repository.top, repository.top, ())
    keys = set()
    for version in ("2.2.0", "2.3.0"):
        repository.commit({first: text, included: f"numpy=={version}\n"})
        keys.add(dependency_key(tree, ()))
    assert len(keys) == 2


def test_a_changed_dependency_in_an_included_file_is_seen(trees: Worktree) -> None:
    for top, version in ((trees.root, 1), (trees.present_root, 2)):
        (top / "ml" / "requirements.txt").write_text("-r ../base.in\n")
        (top / "base.in").write_text(f"numpy=={version}  # why {version}\n")
    assert changed_files(trees) == ["base.in"]
