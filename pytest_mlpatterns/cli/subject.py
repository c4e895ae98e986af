"""What a first test measures, and the inputs that it sends: values.

Nothing is imported: an application is found in the text of its module.
"""

import ast
import os
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

from msgspec import Struct

from pytest_mlpatterns.records.codec import Record

_APPLICATIONS = frozenset({"FastAPI", "Starlette", "Litestar", "Quart", "BlackSheep", "get_asgi_application"})
"""Names that are called to make an ASGI application."""
_SKIPPED = frozenset({"node_modules", "site-packages", "__pycache__", "build", "dist", "docs"})
_DEPTH = 4  # Folders below the given one in which an application is looked for
_MOST_FILES = 5_000  # Most files that are looked at; larger trees take seconds
_MOST_BYTES = 1_000_000  # Longest module that is read


class SubjectKind(StrEnum):
    """How the subject is loaded or reached."""

    JOBLIB = "joblib"
    PICKLE = "pickle"
    ONNX = "onnx"
    TORCHSCRIPT = "torchscript"
    EXPORTED = "exported"
    MODEL = "model"
    APP = "app"
    URL = "url"


class InputKind(StrEnum):
    """What one input is."""

    ARRAY = "array"
    RECORD = "record"
    TEXT = "text"
    FILE = "file"
    GET = "get"
    UNKNOWN = "unknown"


class SampleInputs(Struct, frozen=True):
    """Inputs that a first test sends."""

    kind: InputKind = InputKind.UNKNOWN
    width: int = 0
    names: tuple[str, ...] = ()
    file: str = ""  # name of the file that holds the inputs; empty if none does
    is_guess: bool = False  # whether another shape or other values may be needed


class Subject(Record, frozen=True):
    """What a first test measures."""

    kind: SubjectKind
    name: str
    inputs: SampleInputs = SampleInputs()
    method: str = ""  # of an estimator, such as ``predict``; empty if the object itself is called
    path: str = ""
    is_local: bool = False  # whether its module is found in the current directory only


def requested(kind: SubjectKind, name: str, path: str, *, is_local: bool = False) -> Subject:
    """An application or an address with its requests: a GET of the top if ``path`` is empty, else bodies to it."""
    inputs = SampleInputs(InputKind.UNKNOWN if path else InputKind.GET, is_guess=True)
    return Subject(kind, name, inputs, path=path or "/", is_local=is_local)


MODEL_FILES = {
    ".joblib": SubjectKind.JOBLIB,
    ".pkl": SubjectKind.PICKLE,
    ".pickle": SubjectKind.PICKLE,
    ".onnx": SubjectKind.ONNX,
    ".pt": SubjectKind.TORCHSCRIPT,
    ".pth": SubjectKind.TORCHSCRIPT,
    ".pt2": SubjectKind.EXPORTED,
}
"""Kinds of model files by the ending of their name."""


class Candidate(Struct, frozen=True):
    """Something that a first test could measure: a file relative to the directory, or an import string."""

    kind: SubjectKind
    name: str


def find_candidates(directory: Path) -> tuple[Candidate, ...]:
    """The model files below a directory, then the applications; hidden and installed files are left out."""
    files = [file for file, _ in zip(_files(directory), range(_MOST_FILES), strict=False)]
    models = [
        Candidate(MODEL_FILES[file.suffix], file.relative_to(directory).as_posix())
        for file in files
        if file.suffix in MODEL_FILES and file.is_file()
    ]
    modules = (file for file in files if file.suffix == ".py" and not file.name.startswith("test_"))
    applications = [
        Candidate(SubjectKind.APP, f"{_module_name(file.relative_to(directory))}:{name}")
        for file in modules
        for name in _applications_in(file)
    ]
    return (*models, *applications)


def _files(directory: Path) -> Iterator[Path]:
    """The files of a directory, then of the directories below."""
    for top, directories, names in os.walk(directory):
        depth = len(Path(top).relative_to(directory).parts)
        directories[:] = sorted(
            name
            for name in directories
            if depth < _DEPTH
            and not name.startswith(".")
            and name not in _SKIPPED
            and not (Path(top) / name / "pyvenv.cfg").exists()
        )
        yield from (Path(top) / name for name in sorted(names))


def _module_name(file: Path) -> str:
    parts = file.with_suffix("").parts
    parts = parts[1:] if parts[0] == "src" and len(parts) > 1 else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def _applications_in(file: Path) -> list[str]:
    """The names that a module gives to applications that it makes."""
    try:
        if not file.is_file() or file.stat().st_size > _MOST_BYTES:
            return []
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, MemoryError, RecursionError):  # of another Python, no text, or nested
        return []
    found: dict[str, None] = {}
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(func=function)):
                pass
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.Call(func=function)):
                pass
            case _:
                continue
        called = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        if called in _APPLICATIONS:
            found[name] = None
    return list(found)
