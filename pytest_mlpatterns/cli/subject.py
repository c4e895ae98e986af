"""What a first test measures, and the inputs that it sends: values.

Nothing is imported: an application is found in the text of its module.

Loads a model or an application in a process of its own: what it is, and how many numbers an estimator takes.

Loading runs code of the user's and imports large packages; both stay out of the process of the command line.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import os
import pkgutil
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.records.codec import Record
from pytest_mlpatterns.wording import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator

_METHODS = ("predict", "transform", "score_samples")  # Methods by which an estimator predicts, the usual one first


def probe(kind: SubjectKind | None, name: str, path: str = "") -> Subject:
    """Load what a test is to measure.

    Args:
        kind: how; None for an import string that is a model or an application. The files of ONNX and Torch need none
            of this.
        path: the path of an application that takes the requests; empty if any may.

    Raises:
        Exception: any error of loading it.
    """
    if kind in (SubjectKind.JOBLIB, SubjectKind.PICKLE):
        return _estimator(name)
    return _imported(kind, name, path)


def _estimator(name: str) -> Subject:
    try:
        import joblib

        kind, model = SubjectKind.JOBLIB, joblib.load(name)
    except ModuleNotFoundError as error:
        if error.name != "joblib" or name.endswith(".joblib"):
            raise
        import pickle

        with open(name, "rb") as file:
            kind, model = SubjectKind.PICKLE, pickle.load(file)  # noqa: S301 - the user's own model
    method = next((one for one in _METHODS if callable(getattr(model, one, None))), "")
    if not method and not callable(model):
        raise SettingError(f"{name} holds a {type(model).__name__}, expected a model with predict, or a function")
    return Subject(kind, name, _inputs_of_estimator(model), method)


def _inputs_of_estimator(model: object) -> SampleInputs:
    """The inputs of an estimator of scikit-learn, or of one that looks like it."""
    names = getattr(model, "feature_names_in_", None)
    if names is not None:
        return SampleInputs(InputKind.RECORD, names=tuple(map(str, names)), is_guess=True)
    steps = getattr(model, "steps", None)
    first = steps[0][1] if isinstance(steps, list) and steps else model
    if hasattr(first, "build_analyzer"):
        return SampleInputs(InputKind.TEXT)
    width = getattr(model, "n_features_in_", None)
    return SampleInputs(is_guess=True) if width is None else SampleInputs(InputKind.ARRAY, int(width))


def _imported(kind: SubjectKind | None, name: str, path: str) -> Subject:
    module = name.partition(":")[0].partition(".")[0]
    is_local = importlib.util.find_spec(module) is None
    if is_local:
        sys.path[:0] = [str(Path.cwd()), str(Path.cwd() / "src")]
    try:
        found = pkgutil.resolve_name(name)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise SettingError(
            f"{name}: there is no module {module} here or among the installed ones; install the project: "
            "pip install -e ."
        ) from None
    except AttributeError as error:
        hint = did_you_mean(str(error.name), dir(error.obj))
        raise SettingError(f"{name}: {error}; {hint}".rstrip("; ")) from None
    if kind is SubjectKind.APP or _is_application(found):
        return requested(SubjectKind.APP, name, path, is_local=is_local)
    if not callable(found):
        raise SettingError(f"{name} is {type(found).__name__}, expected a model: a function or a class")
    return Subject(SubjectKind.MODEL, name, SampleInputs(is_guess=True), is_local=is_local)


def _is_application(found: object) -> bool:
    """Whether an object is an ASGI application: one of a known framework, or what takes scope, receive and send."""
    if hasattr(found, "openapi") or hasattr(found, "asgi"):
        return True
    try:
        names = [*inspect.signature(found).parameters] if callable(found) else []
    except (TypeError, ValueError):  # of a callable that is written in C
        return False
    return names == ["scope", "receive", "send"]


def main(arguments: list[str]) -> int:
    """Probe what the arguments name, and write it, or the reason why not, to a file as JSON."""
    target, kind, name, path = arguments
    try:
        found = {"subject": probe(SubjectKind(kind) if kind else None, name, path).to_json()}
    except SettingError as error:
        found = {"error": {"text": str(error)}}
    except Exception as error:  # any error of the user's code
        found = {"error": {"text": f"{name} cannot be loaded: {type(error).__name__}: {error}"}}
    Path(target).write_text(json.dumps(found, default=str), encoding="utf-8")
    return 0


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
    """An application or an address with its requests: a GET of the top, or bodies to the path that is named.

    ``path``: the path that takes the requests; empty if none is named.
    """
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
        if file.suffix in MODEL_FILES
    ]
    modules = (file for file in files if file.suffix == ".py" and not file.name.startswith("test_"))
    applications = [
        Candidate(SubjectKind.APP, f"{_module_name(file.relative_to(directory))}:{name}")
        for file in modules
        for name in _applications_in(file)
    ]
    return (*models, *applications)


def _files(directory: Path) -> Iterator[Path]:
    """The files of a directory, then those of the directories below."""
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
        if file.stat().st_size > _MOST_BYTES:
            return []
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):  # of another Python, or no text
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
