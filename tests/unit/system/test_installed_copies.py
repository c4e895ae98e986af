"""A project that is imported from a copy in site-packages is found; one that is installed in place is not."""

import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest
from support.installed import installed_copy

from pytest_mlpatterns.system.installed_copies import copy_error, installed_copies

FILES = {"quill/__init__.py": "", "quill/model.py": ""}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of a project whose installed packages Python finds."""
    (tmp_path / "top" / "project").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(tmp_path / "site-packages"))
    return tmp_path / "top" / "project"


def found(project: Path) -> list[str]:
    site = project.parents[1] / "site-packages"
    return [copy.package for copy in installed_copies(project, project.parent, distributions(path=[str(site)]))]


@pytest.mark.parametrize("inside", [".", "..", "packages/quill"], ids=["root", "above", "below"])
def test_a_copy_of_the_root_directory_of_one_above_it_and_of_one_below_it_is_found(project: Path, inside: str) -> None:
    installed_copy(project.parents[1] / "site-packages", (project / inside).resolve(), FILES, name="quill")
    assert found(project) == ["quill"]


def test_a_neighbour_in_the_repository_counts_when_imported(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = installed_copy(project.parents[1] / "site-packages", project.parent / "other", FILES, name="quill")
    assert found(project) == []
    module = type(sys)("quill")
    module.__spec__ = next(iter(sys.meta_path[-1:])).find_spec("quill", [str(site)])
    monkeypatch.setitem(sys.modules, "quill", module)
    assert found(project) == ["quill"]


def test_what_this_process_can_import_is_looked_at_by_default(project: Path) -> None:
    site = project.parents[1] / "site-packages"
    (project / "pyproject.toml").write_text('[project]\nname = "Quill"\n', encoding="utf-8")
    installed_copy(site, None, FILES, name="quill")
    installed_copy(site, project, {"ink/__init__.py": ""}, name="ink")
    assert sorted(copy.package for copy in installed_copies(project, project.parent)) == ["ink", "quill"]


def test_a_copy_that_has_the_projects_name_and_directory_is_found_once(project: Path) -> None:
    (project / "pyproject.toml").write_text('[project]\nname = "quill"\n', encoding="utf-8")
    installed_copy(project.parents[1] / "site-packages", project, FILES, name="quill")
    assert [copy.package for copy in installed_copies(project, project.parent)] == ["quill"]


def test_what_is_installed_in_place_or_belongs_to_another_project_is_no_copy(project: Path) -> None:
    site = project.parents[1] / "site-packages"
    installed_copy(site, project, FILES, name="quill", editable=True)
    installed_copy(site, None, {"ink/__init__.py": ""}, name="ink")
    installed_copy(site, project.parents[1] / "elsewhere", {"pen/__init__.py": ""}, name="pen")
    assert found(project) == []


def test_a_copy_behind_the_projects_own_files_is_not_imported(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed_copy(project.parents[1] / "site-packages", project, FILES, name="quill")
    (project / "src" / "quill").mkdir(parents=True)
    (project / "src" / "quill" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(project / "src"))
    assert found(project) == []


def test_the_error_says_what_was_found_and_what_to_do(project: Path) -> None:
    site = installed_copy(project.parents[1] / "site-packages", project, FILES, name="quill")
    copies = installed_copies(project, project.parent, distributions(path=[str(site)]))
    assert str(copy_error(copies, project)) == (
        f"quill is imported from {site}, a copy of this project: both sides would run the same code; run "
        "pip install -e ., or set pythonpath = . in the ini file, or give --perf-against-env"
    )
