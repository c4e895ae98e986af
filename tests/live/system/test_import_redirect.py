"""Whose code is imported: mapped paths, and fresh interpreters in which every kind of editable install is turned."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.synthetic import PROPERTY

import pytest_mlpatterns
from pytest_mlpatterns.errors import DeploymentError
from pytest_mlpatterns.system.import_redirect import (
    Stray,
    is_environment,
    map_path,
    mapped_sys_path,
    modules_from,
    remap_editable_finders,
    wrong_tree,
)

PRESENT, REFERENCE = Path("/no/such/project"), Path("/no/such/worktree/project")

FINDER = """
import sys
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path

MAPPING = {mapping!r}
NAMESPACES = {namespaces!r}
PLACEHOLDER = "__editable__.pkg.__path_hook__"


class EditableFinder:
    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        if fullname in MAPPING:
            place = Path(MAPPING[fullname])
            for candidate in (place / "__init__.py", place.with_suffix(".py")):
                if candidate.exists():
                    return spec_from_file_location(fullname, candidate)


class NamespaceFinder:
    @classmethod
    def hook(cls, path):
        if path == PLACEHOLDER:
            return cls
        raise ImportError

    @classmethod
    def find_spec(cls, fullname, target=None):
        if fullname in NAMESPACES:
            spec = ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = NAMESPACES[fullname]
            return spec


def install():
    sys.meta_path.append(EditableFinder)
    sys.path_hooks.append(NamespaceFinder.hook)
    sys.path.append(PLACEHOLDER)
"""
"""The shape of what setuptools puts into site-packages for an editable install."""

FOREIGN = """
import sys
from importlib.util import spec_from_file_location


class Finder:
    def __init__(self, known):
        self.known = known

    def find_spec(self, fullname, path=None, target=None):
        if fullname in self.known:
            origin, *locations = self.known[fullname]
            return spec_from_file_location(fullname, origin, submodule_search_locations=locations or None)


sys.meta_path.insert(0, Finder({known!r}))
"""
"""The shape of what other build tools put there: a finder that knows its files itself."""


def test_paths_under_the_project_lead_to_the_same_place_in_the_worktree() -> None:
    table = {
        "/no/such/project": "/no/such/worktree/project",
        "/no/such/project/": "/no/such/worktree/project",
        "/no/such/project/src": "/no/such/worktree/project/src",
        "/no/such/project/./tests/../src": "/no/such/worktree/project/src",
        "/no/such/project-2/src": "/no/such/project-2/src",
        "/no/such": "/no/such",
        "/no/such/worktree/project/src": "/no/such/worktree/project/src",
        "/usr/lib/python3": "/usr/lib/python3",
        "/no/such/project/.venv/lib/python3/site-packages": "/no/such/project/.venv/lib/python3/site-packages",
        "/no/such/project/__pypackages__/3.11/lib": "/no/such/project/__pypackages__/3.11/lib",
        "__editable__.pkg-1.0.finder.__path_hook__": "__editable__.pkg-1.0.finder.__path_hook__",
    }
    assert mapped_sys_path(list(table), PRESENT, REFERENCE) == list(table.values())


@pytest.mark.parametrize("mark", ["pyvenv.cfg", "conda-meta/history"])
def test_an_environment_inside_the_project_stays(tmp_path: Path, mark: str) -> None:
    environment = tmp_path / "environment"
    (environment / mark).parent.mkdir(parents=True)
    (environment / mark).touch()
    assert is_environment(str(environment))
    assert not is_environment(str(tmp_path))
    for inside in ("", "lib/python3.11", "src/checked-out"):
        assert map_path(str(environment / inside), tmp_path, REFERENCE) == str(environment / inside)
    assert map_path(str(tmp_path / "src"), tmp_path, REFERENCE) == str(REFERENCE / "src")


def test_the_interpreters_own_files_stay_where_its_prefix_is_inside_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "python"))
    standard = str(tmp_path / "python" / "lib" / "python3.11")
    assert map_path(standard, tmp_path, REFERENCE) == standard


def test_a_project_whose_top_is_itself_an_environment_is_mapped(tmp_path: Path) -> None:
    (tmp_path / "pyvenv.cfg").touch()
    installed = str(tmp_path / "lib" / "python3.11" / "site-packages")
    assert mapped_sys_path([str(tmp_path / "src"), installed], tmp_path, REFERENCE) == [
        str(REFERENCE / "src"),
        installed,
    ]


def test_symbolic_links_are_followed_before_a_path_is_mapped(tmp_path: Path) -> None:
    present, outside = tmp_path / "present", tmp_path / "outside"
    (present / "src").mkdir(parents=True)
    outside.mkdir()
    (tmp_path / "link").symlink_to(present)
    (present / "libraries").symlink_to(outside)
    assert map_path(str(tmp_path / "link" / "src"), present, REFERENCE) == str(REFERENCE / "src")
    assert map_path(str(present / "src"), tmp_path / "link", REFERENCE) == str(REFERENCE / "src")
    assert map_path(str(present / "libraries"), present, REFERENCE) == str(present / "libraries")


def test_relative_entries_count_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "src").mkdir()
    monkeypatch.chdir(tmp_path / "src")
    assert map_path("", tmp_path, REFERENCE) == str(REFERENCE / "src")
    assert map_path("..", tmp_path, REFERENCE) == str(REFERENCE)
    assert map_path("missing", tmp_path, REFERENCE) == "missing"
    assert map_path("", tmp_path / "another", REFERENCE) == ""


PARTS = st.lists(st.sampled_from(["src", "pkg", "a", "worktree", "project"]), max_size=5)


@PROPERTY
@given(parts=PARTS, reference=st.sampled_from([REFERENCE, PRESENT / "worktree" / "project"]))
def test_a_mapped_path_is_in_the_reference_and_stays_there(parts: list[str], reference: Path) -> None:
    entry = PRESENT.joinpath(*parts)
    mapped = map_path(str(entry), PRESENT, reference)
    assert Path(mapped).is_relative_to(reference)
    assert map_path(mapped, PRESENT, reference) == mapped
    if not entry.is_relative_to(reference):
        assert Path(mapped).relative_to(reference) == entry.relative_to(PRESENT)


@PROPERTY
@given(parts=PARTS)
def test_a_path_outside_the_project_is_returned_as_it_was(parts: list[str]) -> None:
    entry = str(Path("/no/such/other").joinpath(*parts)) + "/"
    assert map_path(entry, PRESENT, REFERENCE) == entry


@dataclass(frozen=True)
class Trees:
    """Two trees of one project, and the site-packages of an environment in which it is installed in place."""

    present: Path
    reference: Path
    site: Path

    def run(self, program: str, **environment: str) -> Any:
        """What a fresh interpreter says about itself, as JSON: with the environment at hand, before and after.

        The program finds ``turn()``, which installs the reference tree, and ``said``, a dictionary that is printed.
        """
        head = f"""
        import json, os, site, sys
        from pathlib import Path
        site.addsitedir({str(self.site)!r})
        present, reference = Path({str(self.present)!r}), Path({str(self.reference)!r})
        from pytest_mlpatterns.system.import_redirect import install, modules_from
        turn = lambda: install(present, reference)
        said = {{}}
        """
        tail = 'said["strays"] = [stray.name for stray in modules_from(present, reference)]\nprint(json.dumps(said))'
        process = subprocess.run(
            [sys.executable, "-P", "-c", "\n".join([dedent(head), dedent(program), tail])],
            env={**os.environ, **environment},
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        assert process.returncode == 0, process.stderr
        return json.loads(process.stdout)


def write(top: Path, files: Mapping[str, str]) -> None:
    """Write files under a directory."""
    for name, content in files.items():
        file = top / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")


@pytest.fixture
def trees(tmp_path: Path) -> Trees:
    """A src layout with a package, a module and a part of a namespace; each side has a module of its own as well."""
    found = Trees(tmp_path / "project", tmp_path / "away" / "project", tmp_path / "env" / "site-packages")
    for top, where in ((found.present, "present"), (found.reference, "reference")):
        write(
            top / "src",
            {
                "pkg/__init__.py": f"WHERE = {where!r}",
                "pkg/deep/__init__.py": "",
                "pkg/deep/model.py": f"WHERE = {where!r}",
                f"pkg/only_{where}.py": "",
                "single.py": f"WHERE = {where!r}",
                "space/part/__init__.py": f"WHERE = {where!r}",
            },
        )
    write(found.site, {"space/another/__init__.py": "WHERE = 'installed'"})
    return found


def path_file(trees: Trees) -> None:
    write(trees.site, {"_pkg.pth": f"{trees.present / 'src'}\n"})


def setuptools_finder(trees: Trees) -> None:
    source = trees.present / "src"
    mapping = {name: str(source / name.replace(".", "/")) for name in ("pkg", "single", "space.part")}
    finder = FINDER.format(mapping=mapping, namespaces={"space": [str(source / "space"), str(trees.site / "space")]})
    write(
        trees.site,
        {"__editable___pkg_finder.py": finder, "_pkg.pth": "import __editable___pkg_finder as f; f.install()\n"},
    )


def foreign_finder(trees: Trees) -> None:
    source = trees.present / "src"
    known = {
        "pkg": (str(source / "pkg/__init__.py"), str(trees.site / "pkg")),
        "pkg.deep": (str(source / "pkg/deep/__init__.py"), str(source / "pkg/deep")),
        "single": (str(source / "single.py"),),
        "space.part": (str(source / "space/part/__init__.py"), str(source / "space/part")),
    }
    write(trees.site, {"_pkg_editable.py": FOREIGN.format(known=known), "_pkg.pth": "import _pkg_editable\n"})


def links(trees: Trees) -> None:
    for name in ("pkg", "single.py", "space/part"):
        (trees.site / name).symlink_to(trees.present / "src" / name)


WHERE = """
import pkg, pkg.deep.model, single, space.part, space.another
said["where"] = [module.WHERE for module in (pkg, pkg.deep.model, single, space.part, space.another)]
"""


@pytest.mark.processes
@pytest.mark.parametrize("installed", [path_file, setuptools_finder, foreign_finder, links])
def test_every_kind_of_install_in_place_is_turned_to_the_reference(trees: Trees, installed: Any) -> None:
    installed(trees)
    before = trees.run(WHERE)
    assert before["where"] == [*["present"] * 4, "installed"]
    assert set(before["strays"]) >= {"pkg", "pkg.deep.model", "single", "space.part"}
    after = trees.run(f'said["forgotten"] = turn()\nassert turn() == []\n{WHERE}\nimport pkg.only_reference')
    assert after == {"forgotten": [], "where": [*["reference"] * 4, "installed"], "strays": []}


@pytest.mark.processes
@pytest.mark.parametrize("installed", [path_file, setuptools_finder, foreign_finder, links])
def test_what_only_the_present_has_is_not_found(trees: Trees, installed: Any) -> None:
    installed(trees)
    (trees.reference / "src" / "single.py").unlink()
    said = trees.run(
        """
        turn()
        for name in ("single", "pkg.only_present"):
            try:
                __import__(name)
            except ModuleNotFoundError as error:
                said[name] = error.name
        """
    )
    assert said == {"single": "single", "pkg.only_present": "pkg.only_present", "strays": []}


@pytest.mark.processes
def test_a_path_in_the_environment_is_turned_too(trees: Trees) -> None:
    (trees.site / "space" / "part").symlink_to("nowhere")
    said = trees.run(f"turn()\n{WHERE}", PYTHONPATH=str(trees.present / "src"))
    assert said == {"where": [*["reference"] * 4, "installed"], "strays": []}


@pytest.mark.processes
@pytest.mark.parametrize("installed", [path_file, setuptools_finder])
def test_a_python_that_the_users_code_starts_follows(trees: Trees, installed: Any) -> None:
    installed(trees)
    said = trees.run(
        f"""
        turn()
        import subprocess
        program = 'import site; site.addsitedir("{trees.site}"); import pkg, single; print(pkg.WHERE, single.WHERE)'
        said["started"] = subprocess.check_output([sys.executable, "-P", "-c", program], encoding="utf-8").split()
        """,
        PYTHONPATH="",
    )
    assert said["started"] == ["reference", "reference"]


@pytest.mark.processes
def test_modules_that_were_imported_before_are_forgotten(trees: Trees) -> None:
    path_file(trees)
    said = trees.run(f'import pkg.deep\nsaid["forgotten"] = turn()\n{WHERE}')
    assert said["forgotten"] == ["pkg", "pkg.deep"]
    assert said["where"] == [*["reference"] * 4, "installed"]
    assert said["strays"] == []


@pytest.mark.processes
def test_a_path_of_the_present_that_is_added_later_is_turned_too(trees: Trees) -> None:
    path_file(trees)
    said = trees.run(
        f"""
        turn()
        import pkg
        sys.path.insert(0, {str(trees.present / "src")!r})
        import single
        """
    )
    assert said["strays"] == []


@pytest.mark.processes
def test_this_package_serves_both_sides_even_where_it_is_in_the_project(trees: Trees) -> None:
    own = Path(pytest_mlpatterns.__file__).resolve().parent
    write(trees.reference, {"pytest_mlpatterns/units.py": "raise AssertionError"})
    said = trees.run(
        f"""
        present = Path({str(own.parent)!r})
        sys.path.insert(0, str(present))
        turn()
        import pytest_mlpatterns.units
        said["file"] = pytest_mlpatterns.units.__file__
        said["path"] = [entry for entry in sys.path if entry == str(present)]
        said["started"] = os.environ.get("PYTHONPATH")
        """,
        PYTHONPATH="",
    )
    assert said == {"file": str(own / "units.py"), "path": [], "started": "", "strays": []}


def test_finders_that_have_no_table_of_packages_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("finder_module")
    module.MAPPING = {"pkg": "/no/such/project/src/pkg"}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "finder_module", module)
    finder = type("Finder", (), {"__module__": "finder_module", "find_spec": lambda *_: None})()
    nowhere = type("Finder", (), {"__module__": "no_such_module", "find_spec": lambda *_: None})()
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, finder, nowhere])
    assert remap_editable_finders(PRESENT, REFERENCE) == []
    module.NAMESPACES = {"space": ["/no/such/project/src/space", "/elsewhere"]}  # type: ignore[attr-defined]
    module.MAPPING |= {"space.part": "/no/such/project/src/space/part", "other": "/elsewhere"}
    assert remap_editable_finders(PRESENT, REFERENCE) == ["/no/such/worktree/project/src"]
    assert module.MAPPING == {
        "pkg": "/no/such/worktree/project/src/pkg",
        "space.part": "/no/such/worktree/project/src/space/part",
        "other": "/elsewhere",
    }
    assert module.NAMESPACES == {"space": ["/no/such/worktree/project/src/space", "/elsewhere"]}


def module(name: str, **attributes: object) -> ModuleType:
    """A module with these attributes."""
    made = ModuleType(name)
    vars(made).update(attributes)
    return made


def test_modules_of_the_present_tree_are_listed_with_their_files() -> None:
    def located(name: str, origin: str) -> ModuleSpec:
        spec = ModuleSpec(name, None, origin=origin)
        spec.has_location = True
        return spec

    modules = {
        "plain": module("plain", __file__="/no/such/project/plain.py"),
        "package": module("package", __path__=["/elsewhere", "/no/such/project/package"]),
        "spec_only": module("spec_only", __spec__=located("spec_only", "/no/such/project/spec_only.py")),
        "reference": module("reference", __file__="/no/such/worktree/project/plain.py"),
        "installed": module("installed", __file__="/no/such/project/.venv/lib/python3/site-packages/installed.py"),
        "elsewhere": module("elsewhere", __file__="/elsewhere/elsewhere.py"),
        "builtin": module("builtin", __spec__=ModuleSpec("builtin", None, origin="built-in")),
        "pytest_mlpatterns.ours": module("pytest_mlpatterns.ours", __file__="/no/such/project/ours.py"),
    }
    assert modules_from(PRESENT, REFERENCE, modules) == [
        Stray("plain", "/no/such/project/plain.py"),
        Stray("package", "/no/such/project/package"),
        Stray("spec_only", "/no/such/project/spec_only.py"),
    ]


def test_whatever_is_among_modules_is_survived_and_not_woken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Raising:
        def __iter__(self) -> Any:
            raise RuntimeError

        def __getattr__(self, name: str) -> Any:
            raise RuntimeError

    write(tmp_path, {"lazy.py": "raise AssertionError('woken')"})
    spec = importlib.util.spec_from_file_location("lazy", tmp_path / "lazy.py")
    assert spec.loader is not None
    spec.loader = importlib.util.LazyLoader(spec.loader)
    lazy = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "lazy", lazy)
    spec.loader.exec_module(lazy)
    modules: dict[str, Any] = {
        "nothing": None,
        "number": 1,
        "object": Raising(),
        "path": module("path", __path__=Raising()),
        "spec": module("spec", __spec__=Raising()),
        "file": module("file", __file__=3, __path__=[4, None]),
        "lazy": lazy,
    }
    assert modules_from(tmp_path, REFERENCE, modules) == [Stray("lazy", str(tmp_path / "lazy.py"))]


def test_the_error_names_the_module_its_file_and_where_it_should_have_been() -> None:
    strays = [Stray("pkg.model", "/no/such/project/src/pkg/model.py")]
    error = wrong_tree(strays, PRESENT, REFERENCE)
    assert isinstance(error, DeploymentError)
    assert str(error) == (
        "the reference side loaded pkg.model from the working tree, /no/such/project/src/pkg/model.py, expected "
        "/no/such/worktree/project/src/pkg/model.py: import it by its package's name, or find it from __file__, not "
        "by an absolute path"
    )
    more = [Stray(f"m{number}", "") for number in range(7)]
    assert "loaded pkg.model (and 2 more: m0, m1) from" in str(wrong_tree(strays + more[:2], PRESENT, REFERENCE))
    assert "(and 7 more: m0, m1, m2, m3, m4, …) from" in str(wrong_tree(strays + more, PRESENT, REFERENCE))


@pytest.mark.processes
def test_turning_imports_loads_no_package() -> None:
    """An application of the reference has loaded the same packages as one of the present."""
    code = "import sys, pytest_mlpatterns.system.import_redirect; print('msgspec' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
