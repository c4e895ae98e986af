"""Loads a model or an application in a process of its own, and finds out what inputs it takes.

Loading runs code of the user's and imports large packages; both stay out of the process of the command line.
"""

from __future__ import annotations

import importlib.util
import json
import pkgutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.cli.subject import InputKind, SampleInputs, Subject, SubjectKind
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.wording import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["ExampleRequest", "example_request", "probe"]


_METHODS = ("predict", "transform", "score_samples")
_FREE_LENGTH = 8
"""Length of a dimension that the model leaves open."""
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}


def probe(kind: SubjectKind | None, name: str, path: str = "") -> Subject:
    """Load what a test is to measure.

    Args:
        kind: how; None for an import string that is a model or an application.
        name: a file, or an import string.
        path: the path of an application that takes the requests; empty if any may.

    Raises:
        SettingError: it is not what its name promises.
        Exception: any error of loading it.
    """
    match kind:
        case SubjectKind.JOBLIB | SubjectKind.PICKLE:
            return _estimator(name)
        case SubjectKind.ONNX:
            return _onnx(name)
        case SubjectKind.TORCHSCRIPT | SubjectKind.EXPORTED:
            return _torch(name, kind)
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
    return SampleInputs(is_guess=True) if width is None else SampleInputs(InputKind.ARRAY, (int(width),), "float64")


def _onnx(name: str) -> Subject:
    import onnxruntime

    session = onnxruntime.InferenceSession(name, providers=["CPUExecutionProvider"])
    tensors = tuple((one.name, _tensor(one.type, one.shape[1:])) for one in session.get_inputs())
    batch = session.get_inputs()[0].shape[:1]
    if batch and isinstance(batch[0], int) and batch[0] > 1:
        raise SettingError(
            f"{name} takes batches of exactly {batch[0]}, expected any number or one; export it with a free first "
            "dimension"
        )
    return Subject(SubjectKind.ONNX, name, tensors[0][1], tensors=tensors, one_by_one=batch == [1])


def _tensor(kind: str, shape: Iterable[object]) -> SampleInputs:
    if kind == "tensor(string)":
        return SampleInputs(InputKind.TEXT)
    sizes = tuple(size if isinstance(size, int) else _FREE_LENGTH for size in shape)
    return SampleInputs(InputKind.ARRAY, sizes, _DTYPES.get(kind, "float32"))


def _torch(name: str, kind: SubjectKind) -> Subject:
    import torch

    if kind is SubjectKind.EXPORTED:
        program = torch.export.load(name)
        example = program.example_inputs
        tensor = next(iter(example[0]), None) if example else None
        inputs = SampleInputs(is_guess=True) if tensor is None else _like(tensor)
        return Subject(kind, name, inputs, one_by_one=tensor is not None and len(tensor) == 1)
    try:
        model = torch.jit.load(name, map_location="cpu")
    except RuntimeError as error:
        raise SettingError(
            f"{name} is not TorchScript, expected a whole model; save it so: torch.jit.script(model).save({name!r}), "
            "or write new package.module:Model, a class that loads these weights"
        ) from error
    return Subject(SubjectKind.TORCHSCRIPT, name, _inputs_of_layers(model.parameters()))


def _like(tensor: Any) -> SampleInputs:
    return SampleInputs(InputKind.ARRAY, tuple(map(int, tensor.shape[1:])), str(tensor.dtype).removeprefix("torch."))


def _inputs_of_layers(parameters: Iterable[Any]) -> SampleInputs:
    """What the first layer with weights takes, if it is dense or a convolution of images."""
    for weights in parameters:
        shape = tuple(map(int, weights.shape))
        if len(shape) == 2:
            return SampleInputs(InputKind.ARRAY, (shape[1],), is_guess=True)
        if len(shape) == 4:
            return SampleInputs(InputKind.ARRAY, (shape[1], 224, 224), is_guess=True)
    return SampleInputs(is_guess=True)


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
    if kind is SubjectKind.APP or hasattr(found, "openapi") or hasattr(found, "asgi"):
        return replace(_application(found, name, path), is_local=is_local)
    if not callable(found):
        raise SettingError(f"{name} is {type(found).__name__}, expected a model: a function or a class")
    return Subject(SubjectKind.MODEL, name, SampleInputs(is_guess=True), is_local=is_local)


def _application(app: Any, name: str, path: str) -> Subject:
    describe = getattr(app, "openapi", None)
    document = describe() if callable(describe) else {}
    return with_example(Subject(SubjectKind.APP, name), document, path)


def with_example(subject: Subject, document: Any, path: str) -> Subject:
    """The subject with a request that its OpenAPI description shows.

    Args:
        subject: an application or an address.
        document: the description; empty if there is none.
        path: the path that takes the requests; empty if any may.
    """
    request = example_request(document, path) if isinstance(document, dict) else None
    if request is None:
        kind = InputKind.UNKNOWN if path else InputKind.GET
        return replace(subject, inputs=SampleInputs(kind, is_guess=True), path=path or "/")
    kind = InputKind.JSON if request.is_post else InputKind.GET
    return replace(subject, inputs=SampleInputs(kind, value=request.body, is_guess=True), path=request.path)


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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))


_DEEPEST = 8
"""Deepest example, since schemas may contain themselves."""
_BY_TYPE: Mapping[str, object] = {"string": "text", "integer": 1, "number": 1.0, "boolean": True, "null": None}
_BY_FORMAT: Mapping[str, object] = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "uri": "http://127.0.0.1/",
    "email": "someone@example.com",
}


@dataclass(frozen=True, slots=True)
class ExampleRequest:
    """A path, and a body in JSON; the method is POST, or GET if there is no body."""

    path: str
    body: object = None
    is_post: bool = True


def example_request(document: Mapping[str, Any], path: str = "") -> ExampleRequest | None:
    """A request that a service takes.

    Args:
        document: the parsed ``openapi.json``.
        path: the path that is wanted; empty for the first that takes JSON by POST, else the first without parameters
            that answers GET.

    Returns:
        None if there is none.
    """
    paths = document.get("paths")
    if not isinstance(paths, dict):
        return None
    wanted = {name: operations for name, operations in paths.items() if path in ("", name) and "{" not in name}
    for name, operations in wanted.items():
        schema = _schema_of(operations.get("post"))
        if schema is not None:
            return ExampleRequest(name, _example(schema, document, depth=0))
    for name, operations in wanted.items():
        if isinstance(operations.get("get"), dict):
            return ExampleRequest(name, is_post=False)
    return None


def _schema_of(operation: object) -> Mapping[str, Any] | None:
    """The schema of the body in JSON of an operation."""
    found = operation
    for key in ("requestBody", "content", "application/json", "schema"):
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else None


def _example(schema: Mapping[str, Any], document: Mapping[str, Any], *, depth: int) -> object:
    """A value that the schema allows, as far as its types say; its own example if it has one."""
    schema = _resolved(schema, document)
    given = [schema[key] for key in ("example", "default", "const") if key in schema]
    given += [schema[key][0] for key in ("examples", "enum") if isinstance(schema.get(key), list) and schema[key]]
    choices = [
        schema[key][0] for key in ("anyOf", "oneOf", "allOf") if isinstance(schema.get(key), list) and schema[key]
    ]
    if given or depth > _DEEPEST:
        return given[0] if given else None
    if choices:
        return _example(choices[0], document, depth=depth + 1)
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind == "array":
        return [_example(schema.get("items", {}), document, depth=depth + 1)] * max(int(schema.get("minItems", 1)), 1)
    if kind == "object" or "properties" in schema:
        properties: Mapping[str, Any] = schema.get("properties", {})
        required = schema.get("required", properties)
        return {name: _example(properties[name], document, depth=depth + 1) for name in properties if name in required}
    return _plain_value(schema, str(kind))


def _plain_value(schema: Mapping[str, Any], kind: str) -> object:
    least = schema.get("minimum", schema.get("exclusiveMinimum"))
    if kind in ("integer", "number") and isinstance(least, int | float):
        return least + 1
    return _BY_FORMAT.get(str(schema.get("format")), _BY_TYPE.get(kind, 1.0))


def _resolved(schema: Mapping[str, Any], document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema that a reference names; another schema as it is."""
    for _ in range(_DEEPEST):
        reference = schema.get("$ref")
        if not isinstance(reference, str) or not reference.startswith("#/"):
            break
        found: Any = document
        for part in reference[2:].split("/"):
            found = found.get(part, {}) if isinstance(found, dict) else {}
        schema = found
    return schema
