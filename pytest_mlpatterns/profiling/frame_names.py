"""Names of functions in a profile: as their source has them, and for this package one for each layer.

A profiler knows the short name of a function (``predict``), the full path of its file and the line that runs. Here that
becomes the qualified name (``Digits.predict``), a path without the machine, and the line of the definition. Lambdas and
comprehensions belong to the function around them; a function inside another one goes by its own name.
"""

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from msgspec import Struct

from pytest_mlpatterns.profiling.py_spy import RawFrame
from pytest_mlpatterns.records.package_layers import LAYER_KINDS
from pytest_mlpatterns.records.profile import Frame, Owner

_PACKAGES = re.compile(r".*/(?:site|dist)-packages/")
_STANDARD = re.compile(r".*/(?:lib|lib64)/python3[.\d]*t?/|.*/Python\.framework/Versions/[^/]+/lib/python3[.\d]*/")
_MOST_BYTES = 400_000  # Longer files, most of them generated, are not parsed: their functions keep their short names


class _Definition(Struct, frozen=True):
    """A function in a file: its lines from the first decorator on, its names, and the line of ``def``."""

    first: int
    last: int
    name: str
    qualified: str
    line: int


class SourceNames:
    """Names the functions of one side of a comparison. ``top``: top directory of that tree, at or above ``root``."""

    def __init__(self, root: Path, top: Path | None = None) -> None:
        self._root = os.path.realpath(root)
        self._top = self._root if top is None else os.path.realpath(top)
        self._frames: dict[RawFrame, Frame] = {}
        self._definitions: dict[str, list[_Definition]] = {}
        self._texts: dict[str, list[str]] = {}
        self._files: dict[str, str] = {}

    def frame(self, raw: RawFrame) -> Frame:
        """The function of one level of a stack."""
        if (found := self._frames.get(raw)) is None:
            found = self._frames[raw] = self._named(raw)
        return found

    def line(self, frame: Frame, number: int) -> str:
        """The text of a line of a function's file, without white space around it; empty if it is not known."""
        text = self._text(self._files.get(frame.file, "")) if frame.owner == "project" else []
        return text[number - 1].strip() if 0 < number <= len(text) else ""

    def _named(self, raw: RawFrame) -> Frame:
        file, owner = self._placed(raw.file)
        if owner == "native" or raw.file.startswith("<"):
            return Frame(raw.name, file, owner=owner)
        self._files.setdefault(file, raw.file)
        if owner != "project" and (raw.qualified or raw.name == "<module>"):  # where a library defines it costs time
            return Frame(_without_locals(raw.qualified or raw.name), file, owner=owner)
        innermost = None
        for one in self._defined_in(raw.file):  # callers before the functions inside them
            if one.first <= raw.line <= one.last:
                innermost = one
        if innermost is None or (raw.name != innermost.name and not raw.name.startswith("<")):
            return Frame(_without_locals(raw.qualified or raw.name), file, owner=owner)
        return Frame(innermost.qualified, file, innermost.line, owner)

    def _placed(self, path: str) -> tuple[str, Owner]:
        """A path without the machine, and whose code it is."""
        if not path or path.startswith("<"):  # <string>, <frozen importlib._bootstrap>
            return path, "python" if path else "native"
        if (found := _PACKAGES.match(path)) is not None:
            return path[found.end() :], "library"
        if (found := _STANDARD.match(path)) is not None:
            return path[found.end() :], "python"
        if not os.path.isabs(path):  # compiled code names its source so
            return path, "native" if path.endswith((".c", ".cpp", ".pyx", ".rs")) else "project"
        real = os.path.realpath(path)
        if real == self._top or real.startswith(self._top.rstrip(os.sep) + os.sep):
            return os.path.relpath(real, self._root), "project"
        return os.path.join(*Path(real).parts[-2:]), "project"  # a project may import code of its own from anywhere

    def _defined_in(self, path: str) -> list[_Definition]:
        """The functions of a file; none if it cannot be read."""
        if (found := self._definitions.get(path)) is None:
            found = []
            text = "\n".join(self._text(path))
            if len(text) <= _MOST_BYTES:
                try:
                    found = [*_definitions(ast.parse(text), "")]
                except (SyntaxError, ValueError, RecursionError):  # of another Python, or no source at all
                    found = []
            self._definitions[path] = found
        return found

    def _text(self, path: str) -> list[str]:
        if (found := self._texts.get(path)) is None:
            try:
                found = Path(path).read_text(encoding="utf-8", errors="replace").split("\n")
            except (OSError, ValueError):
                found = []
            self._texts[path] = found
        return found


def _without_locals(qualified: str) -> str:
    """``build.<locals>.predict.<locals>.<lambda>`` is ``predict``."""
    parts = qualified.split(".<locals>.")
    while len(parts) > 1 and parts[-1].startswith("<"):
        parts.pop()
    return parts[-1]


def _definitions(node: ast.AST, prefix: str) -> Iterator[_Definition]:
    """The functions below a node, those outside before those inside; ``prefix`` ends in a dot."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([child.lineno, *(decorator.lineno for decorator in child.decorator_list)])
            last = child.end_lineno or child.lineno
            yield _Definition(first, last, child.name, f"{prefix}{child.name}", child.lineno)
            yield from _definitions(child, "")
        elif isinstance(child, ast.ClassDef):
            yield from _definitions(child, f"{prefix}{child.name}.")
        else:
            yield from _definitions(child, prefix)


MODEL = "model"  # Name of the boundary of a model, below which its own code runs
SERVER_LAYER = Frame.of_layer("HTTP server")
_PLACE_OF_MODEL = "serving/timed_model.py"
_OUR_PACKAGE = str(Path(__file__).resolve().parents[1]) + os.sep
_ELSEWHERE = re.compile(r".*/site-packages/pytest_mlpatterns/")
"""This package in a revision's environment."""

_WIRE = Frame.of_layer("wire")
_HALVES_OF_WIRE = {verb[:5]: Frame.of_layer("wire", verb) for verb in ("encode", "decode")}
"""By what the names of their functions have, such as ``encoded``."""
_BY_PATH = {
    "serving/http/model_caller.py": None,
    "serving/http/": SERVER_LAYER,
    "serving/grpc/": Frame.of_layer("gRPC server"),
    "wire/compression.py": Frame.of_layer("wire", "compression"),
    **{path: Frame.of_layer(name) for name, kind in LAYER_KINDS.items() for path in kind.paths},
}
_LAYERS_BY_PATH = sorted(_BY_PATH.items(), key=lambda item: -len(item[0]))
"""Layer by the beginning of a path in this package, the longest first; None only passes calls on."""


def is_ours(path: str) -> bool:
    """Whether a file belongs to this package."""
    return bool(_inside(path))


def is_of_model(raw: RawFrame) -> bool:
    """Whether a function is that around a model, below which the model's own code runs."""
    return _inside(raw.file) == _PLACE_OF_MODEL


def place_of(module: ModuleType) -> str:
    """The path of a module within this package."""
    return _inside(str(module.__file__))


def layer_of(raw: RawFrame) -> Frame | None:
    """The frame of the layer to which a function of this package belongs; None for one that only passes calls on."""
    if is_of_model(raw):
        return Frame(MODEL, owner="model")
    inside = _inside(raw.file)
    layer = next((layer for beginning, layer in _LAYERS_BY_PATH if inside.startswith(beginning)), None)
    if layer == _WIRE:
        return next((half for verb, half in _HALVES_OF_WIRE.items() if verb in raw.name), layer)
    return layer


def role_frame(role: str) -> Frame:
    """The root of the stacks of a process with this role."""
    return Frame(role, owner="process")


def _inside(path: str) -> str:
    """The path within this package; empty for the file of another."""
    if path.startswith(_OUR_PACKAGE):
        return path[len(_OUR_PACKAGE) :]
    found = _ELSEWHERE.match(path)
    return path[found.end() :] if found else ""
