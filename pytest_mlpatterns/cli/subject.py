"""What a first test measures, and the inputs that it sends: values."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

__all__ = ["InputKind", "SampleInputs", "Subject", "SubjectKind"]


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
    JSON = "json"
    FILE = "file"
    GET = "get"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class SampleInputs:
    """Inputs that a first test sends.

    Attributes:
        kind: what one input is.
        shape: of one array, without the dimension of the batch.
        dtype: numpy's name of the type of its elements.
        names: the columns of a record of numbers.
        value: an example, if an input is JSON; the file's name, if a file holds the inputs.
        is_guess: whether another shape or other values may be needed.
    """

    kind: InputKind = InputKind.UNKNOWN
    shape: tuple[int, ...] = ()
    dtype: str = "float32"
    names: tuple[str, ...] = ()
    value: Any = None
    is_guess: bool = False


@dataclass(frozen=True, slots=True)
class Subject:
    """What a first test measures.

    Attributes:
        kind: how it is loaded or reached.
        name: a file, an import string or an address.
        inputs: what it is sent.
        method: of an estimator, such as ``predict``; empty if the object itself is called.
        tensors: the inputs of an ONNX model with several, by name; and the one of others.
        one_by_one: whether a call takes a batch of one.
        path: of the requests to an application.
        is_local: whether its module is found in the current directory only.
    """

    kind: SubjectKind
    name: str
    inputs: SampleInputs = field(default_factory=SampleInputs)
    method: str = ""
    tensors: tuple[tuple[str, SampleInputs], ...] = ()
    one_by_one: bool = False
    path: str = ""
    is_local: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Subject:
        """The inverse of :meth:`to_json`."""
        tensors = tuple((name, _inputs_of(inputs)) for name, inputs in data["tensors"])
        given = {**data, "kind": SubjectKind(data["kind"]), "inputs": _inputs_of(data["inputs"]), "tensors": tensors}
        return cls(**given)


def _inputs_of(data: dict[str, Any]) -> SampleInputs:
    lists = {"shape": tuple(data["shape"]), "names": tuple(data["names"])}
    return SampleInputs(**{**data, **lists, "kind": InputKind(data["kind"])})
