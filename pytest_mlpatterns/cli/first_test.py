"""The text of a first perf test. Pure."""

from __future__ import annotations

import json
import posixpath
from pprint import pformat

from pytest_mlpatterns.cli.subject import InputKind, SampleInputs, Subject, SubjectKind

__all__ = ["first_test"]

_COUNT = 16
"""Number of inputs that are made up."""
_WIDTH = 88
"""Length of a line in the file that is written: ruff's and black's default."""
_GUESS = "Made up, and perhaps of a wrong shape: replace them by inputs as your users send them."
_MADE_UP = "Made up: replace them by inputs as your users send them."
_FILES = frozenset(
    {SubjectKind.JOBLIB, SubjectKind.PICKLE, SubjectKind.ONNX, SubjectKind.TORCHSCRIPT, SubjectKind.EXPORTED}
)
_STANDARD = frozenset({"json", "pathlib", "pickle", "random"})
_IMPORTS = {
    "App": "from pytest_mlpatterns import App",
    "Url": "from pytest_mlpatterns import Url",
    "numpy": "import numpy as np",
    "pathlib": "from pathlib import Path",
}
"""Import lines of other forms than ``import NAME``."""
_BODY = """    perf.assert_rtm_below("1s")  # write the limit of your service; pytest --perf-help has more
"""


def first_test(subject: Subject, folder: str = "") -> str:
    """The text of a test file.

    Args:
        folder: of the test file, relative to the directory that file names are relative to.
    """
    imports, parts = {"pytest"}, []
    if subject.kind in _FILES:
        imports.add("pathlib")
        parts += [f"FILE = {_path(subject.name, folder)}", _model_class(subject, imports)]
        parts.append(_fixture("perf_model", "return Model"))
    elif subject.kind is SubjectKind.MODEL:
        parts.append(_fixture("perf_model", f"return {_quoted(subject.name)}"))
    else:
        parts.append(_fixture("perf_target", f"return {_target(subject)}"))
    parts.append(_fixture("perf_payload", _payload(subject, folder, imports)))
    marker = "concurrency=4"
    if subject.kind in (SubjectKind.APP, SubjectKind.URL) and subject.inputs.kind is not InputKind.GET:
        path = f'"path": {_quoted(subject.path)}, ' if subject.kind is SubjectKind.APP else ""
        parts.append(f'def as_clients_send_it(body):\n    return {{{path}"json": body}}')
        marker += ", request=as_clients_send_it"
    parts.append(f"@pytest.mark.perf({marker})\ndef test_{_name(subject)}(perf):\n{_BODY}".rstrip())
    what = posixpath.basename(subject.name) if subject.kind in _FILES else subject.name
    head = f'"""How fast {what} answers, and whether it gets slower."""\n\n{_import_lines(imports)}\n'
    first, rest = (f"{parts[0]}\n\n\n", parts[1:]) if parts[0].startswith("FILE") else ("\n", parts)
    return f"{head}\n{first}" + "\n\n\n".join(rest) + "\n"


def _import_lines(names: set[str]) -> str:
    """Import lines as tools sort them: of the standard library, then of other packages."""
    blocks = [
        [_IMPORTS.get(name, f"import {name}") for name in names if (name in _STANDARD) is own] for own in (True, False)
    ]
    ordered = [sorted(block, key=lambda line: (line.startswith("from"), line)) for block in blocks if block]
    return "\n\n".join("\n".join(block) for block in ordered)


def _fixture(name: str, body: str) -> str:
    lines = "\n".join(f"    {line}" if line else "" for line in body.splitlines())
    return f"@pytest.fixture\ndef {name}():\n{lines}"


def _path(name: str, folder: str) -> str:
    """An expression for a file, relative to the test file."""
    if name.startswith("/"):
        return f"Path({_quoted(name)})"
    parts = posixpath.relpath(name, folder or ".").split("/")
    up = parts.count("..")
    base = f"Path(__file__).parents[{up}]" if up else "Path(__file__).parent"
    return " / ".join([base, *map(_quoted, parts[up:])])


def _model_class(subject: Subject, imports: set[str]) -> str:
    load, call = {
        SubjectKind.JOBLIB: _of_estimator,
        SubjectKind.PICKLE: _of_estimator,
        SubjectKind.ONNX: _of_onnx,
        SubjectKind.TORCHSCRIPT: _of_torch,
        SubjectKind.EXPORTED: _of_torch,
    }[subject.kind](subject, imports)
    return "\n".join(
        [
            "class Model:",
            '    """Built once in every process that serves it."""',
            "",
            "    def __init__(self):",
            f"        self.model = {load}",
            "",
            "    def __call__(self, batch):",
            *(f"        {line}" for line in call),
        ]
    )


def _of_estimator(subject: Subject, imports: set[str]) -> tuple[str, list[str]]:
    method = f".{subject.method}" if subject.method else ""
    batch = "batch"
    if subject.inputs.kind is InputKind.RECORD:
        imports.add("pandas")
        batch = "pandas.DataFrame(batch)"
    call = [f"return self.model{method}({batch})"]
    imports.add(subject.kind.value)
    if subject.kind is SubjectKind.JOBLIB:
        return "joblib.load(FILE)", call
    return "pickle.loads(FILE.read_bytes())", call


def _of_onnx(_: Subject, imports: set[str]) -> tuple[str, list[str]]:
    imports |= {"numpy", "onnxruntime"}
    return 'onnxruntime.InferenceSession(FILE, providers=["CPUExecutionProvider"])', [
        "name = self.model.get_inputs()[0].name",
        "return self.model.run(None, {name: np.asarray(batch, dtype=np.float32)})[0]",
    ]


def _of_torch(subject: Subject, imports: set[str]) -> tuple[str, list[str]]:
    imports |= {"numpy", "torch"}
    is_exported = subject.kind is SubjectKind.EXPORTED
    return "torch.export.load(FILE).module()" if is_exported else "torch.jit.load(FILE).eval()", [
        "with torch.inference_mode():",
        "    return self.model(torch.from_numpy(np.asarray(batch, dtype=np.float32))).numpy()",
    ]


def _target(subject: Subject) -> str:
    return f"{'App' if subject.kind is SubjectKind.APP else 'Url'}({_quoted(subject.name)})"


def _payload(subject: Subject, folder: str, imports: set[str]) -> str:
    inputs = subject.inputs
    if subject.kind in (SubjectKind.APP, SubjectKind.URL):
        imports.add("App" if subject.kind is SubjectKind.APP else "Url")
    comment = f"# {_GUESS if inputs.is_guess else _MADE_UP}\n"
    if inputs.kind is InputKind.FILE:
        imports.add("pathlib")
        path = _path(inputs.file, folder)
        if inputs.file.endswith(".jsonl"):
            return f"return {path}"
        imports.add("json")
        return f"file = {path}\nreturn json.loads(file.read_text())"
    return comment + _made_up(inputs, subject.path, imports)


def _made_up(inputs: SampleInputs, path: str, imports: set[str]) -> str:
    match inputs.kind:
        case InputKind.ARRAY:
            imports.add("random")
            row = f"[numbers.random() for _ in range({inputs.width})]"
            return f"numbers = random.Random(0)\nreturn [{row} for _ in range({_COUNT})]"
        case InputKind.RECORD:
            imports.add("random")
            names = pformat(list(inputs.names), width=_WIDTH - 14, compact=True).replace("\n", "\n    ")
            row = "{name: numbers.random() for name in columns}"
            return f"numbers = random.Random(0)\ncolumns = {names}\nreturn [{row} for _ in range({_COUNT})]"
        case InputKind.TEXT:
            return 'return ["a good day", "rain, and no end of it"]'
        case InputKind.GET:
            imports.add("httpx")
            return f'return [httpx.Request("GET", {_quoted(path or "/")})]'
    return "return [[1.0, 2.0, 3.0]]"


def _name(subject: Subject) -> str:
    return {SubjectKind.APP: "app", SubjectKind.URL: "service"}.get(subject.kind, "model")


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
