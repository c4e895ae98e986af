"""Each engine keeps to its room: no module outside of it names it, but for the reasons listed here."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import ROOT
from support.each_row import each_row

PACKAGE = ROOT / "pytest_mlpatterns"
NAME = re.compile(r"(?<![a-z])ray(?![a-z])|Ray(?![a-z])|(?<![A-Z])RAY(?![A-Z])")
"""The engine as a word of a sentence, or of a name in snake case, in camel case or in capitals."""
NAMING = {
    "config/arguments.py": "help: which engines a user may name",
    "plugin/options.py": "help: which engines a user may name",
    "records/package_layers.py": "metrics of Ray Serve, whoever runs it, as a service that exists already",
    "records/setup.py": "the word of baseline files for a cluster",
}
"""Modules that name Ray in code, and why. Docstrings may name it."""


def docstrings(tree: ast.AST) -> set[int]:
    """The strings that are statements of their own: of modules, classes, functions, attributes and constants."""
    return {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    }


def names_in(tree: ast.AST) -> Iterator[str]:
    """Every name and text of a module but its docstrings."""
    documentation = docstrings(tree)
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(text)) if id(node) not in documentation:
                yield text
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.alias(name=name):
                yield name
            case ast.keyword(arg=str(name)):
                yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.ImportFrom(module=str(name)):
                yield name


def naming(folder: Path, room: Path) -> set[str]:
    """The modules of a folder, outside of a room, that name Ray."""
    return {
        module.relative_to(folder).as_posix()
        for module in folder.rglob("*.py")
        if not module.is_relative_to(room)
        and NAME.search(text := module.read_text(encoding="utf-8"))  # to tell code from comments takes longer
        and any(map(NAME.search, names_in(ast.parse(text))))
    }


@each_row("name", ["ray", "on ray", "RayPool", "read_ray_job", "_RAY", "is_on_ray", "FromRay", "a.ray.b"])
def test_the_engine_is_recognised_in_any_spelling(name: str) -> None:
    assert NAME.search(name)


@each_row("name", ["array", "ndarray", "memray", "stray", "RAYON_NUM_THREADS", "_STRAY", "trays", "rays"])
def test_other_words_are_left_alone(name: str) -> None:
    assert not NAME.search(name)


@pytest.mark.simulation
def test_no_module_outside_of_its_room_names_ray() -> None:
    assert naming(PACKAGE, PACKAGE / "engines" / "ray") == set(NAMING)


def test_the_engines_of_the_package_are_registered_and_nothing_else_leads_to_them() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    registered = project["project"]["entry-points"]["pytest_mlpatterns.engines"]
    rooms = {folder.name for folder in (PACKAGE / "engines").iterdir() if (folder / "__init__.py").is_file()}
    assert set(registered) == rooms == {"local", "ray"}
    for name, value in registered.items():
        assert value.startswith(f"pytest_mlpatterns.engines.{name}.")
    contracts = {one["name"]: one for one in project["tool"]["importlinter"]["contracts"]}
    layers = contracts["nine layers, siblings independent"]["layers"]
    packages = set(re.findall(r"pytest_mlpatterns\.\w+", " ".join(layers[:-1]))) - {"pytest_mlpatterns.engines"}
    sources = set(contracts["only its entry point leads to the Ray engine"]["source_modules"])
    assert sources == packages | {"pytest_mlpatterns.engines.engine", "pytest_mlpatterns.engines.local"}
