"""Loads a model or an application in a process of its own: what it is, and how many numbers an estimator takes.

Loading runs code of the user's and imports large packages; both stay out of the process of the command line.
"""

import importlib.util
import inspect
import pkgutil
import sys
from pathlib import Path

from pytest_mlpatterns.cli.subject import InputKind, SampleInputs, Subject, SubjectKind, requested
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.system.child import Channel
from pytest_mlpatterns.wording import did_you_mean

_METHODS = ("predict", "transform", "score_samples")  # Methods by which an estimator predicts, the usual one first


def probe(kind: SubjectKind | None, name: str, path: str = "") -> Subject:
    """Load what a test is to measure.

    ``kind``: how; None for an import string that is a model or an application. The files of ONNX and Torch need none of
    this. ``path``: the path of an application that takes the requests; empty if any may. Raises Exception: any error of
    loading it.
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


def answer(kind: SubjectKind | None, name: str, path: str) -> Subject | str:
    """What :func:`probe` finds, or the reason why not."""
    try:
        return probe(kind, name, path)
    except SettingError as error:
        return str(error)
    except Exception as error:  # any error of the user's code
        return f"{name} cannot be loaded: {type(error).__name__}: {error}"


def main() -> None:
    """Answer the one question of the parent."""
    channel = Channel()
    question = channel.receive()
    channel.listen(lambda _: None, lambda: None)
    channel.send(answer(*question))
