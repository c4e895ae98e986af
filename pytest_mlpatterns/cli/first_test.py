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
        subject: what it measures.
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
    elif _is_binary(subject):
        marker += ', wire="rest+binary"'
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


def _of_onnx(subject: Subject, imports: set[str]) -> tuple[str, list[str]]:
    imports |= {"numpy", "onnxruntime"}
    batch = "[item]" if subject.one_by_one else "batch"
    several = len(subject.tensors) > 1
    feeds = []
    for name, inputs in subject.tensors:
        kind = "object" if inputs.kind is InputKind.TEXT else f"np.{inputs.dtype}"
        rows = f"[one[{_quoted(name)}] for one in {batch}]" if several else batch
        feeds.append(f"{_quoted(name)}: np.asarray({rows}, dtype={kind}),")
    load = 'onnxruntime.InferenceSession(FILE, providers=["CPUExecutionProvider"])'
    if subject.one_by_one:
        return load, [
            "return [self.answer(item) for item in batch]",
            "",
            "def answer(self, item):",
            *(f"    {line}" for line in _run_of(feeds, "[0][0]")),
        ]
    return load, _run_of(feeds, "[0]")


def _run_of(feeds: list[str], picked: str) -> list[str]:
    if len(feeds) == 1:
        return [f"return self.model.run(None, {{{feeds[0].rstrip(',')}}}){picked}"]
    return ["feeds = {", *(f"    {feed}" for feed in feeds), "}", f"return self.model.run(None, feeds){picked}"]


def _of_torch(subject: Subject, imports: set[str]) -> tuple[str, list[str]]:
    imports |= {"numpy", "torch"}
    load = "torch.jit.load(FILE).eval()"
    if subject.kind is SubjectKind.EXPORTED:
        load = "torch.export.load(FILE).module()"
    dtype = subject.inputs.dtype
    if subject.one_by_one:
        lines = [
            f"rows = torch.from_numpy(np.asarray(batch, dtype=np.{dtype}))",
            "return [self.model(row[None])[0].numpy() for row in rows]",
        ]
    else:
        lines = [f"return self.model(torch.from_numpy(np.asarray(batch, dtype=np.{dtype}))).numpy()"]
    return load, ["with torch.inference_mode():", *(f"    {line}" for line in lines)]


def _target(subject: Subject) -> str:
    return f"{'App' if subject.kind is SubjectKind.APP else 'Url'}({_quoted(subject.name)})"


def _payload(subject: Subject, folder: str, imports: set[str]) -> str:
    inputs = subject.inputs
    if subject.kind in (SubjectKind.APP, SubjectKind.URL):
        imports.add("App" if subject.kind is SubjectKind.APP else "Url")
    comment = f"# {_GUESS if inputs.is_guess else _MADE_UP}\n"
    if inputs.kind is InputKind.FILE:
        imports.add("pathlib")
        path = _path(str(inputs.value), folder)
        if str(inputs.value).endswith(".jsonl"):
            return f"return {path}"
        imports.add("json")
        return f"file = {path}\nreturn json.loads(file.read_text())"
    if len(subject.tensors) > 1:
        imports.add("numpy")
        rows = [f"    {_quoted(name)}: {_array_of(one)}," for name, one in subject.tensors]
        lines = ["random = np.random.default_rng(0)", "return [", "    {", *(f"    {row}" for row in rows), "    }"]
        return comment + "\n".join([*lines, f"    for _ in range({_COUNT})", "]"])
    return comment + _made_up(inputs, subject.path, imports)


def _made_up(inputs: SampleInputs, path: str, imports: set[str]) -> str:
    match inputs.kind:
        case InputKind.ARRAY:
            return _made_up_arrays(inputs, imports)
        case InputKind.RECORD:
            imports.add("random")
            names = pformat(list(inputs.names), width=_WIDTH - 14, compact=True).replace("\n", "\n    ")
            row = "{name: numbers.random() for name in columns}"
            return f"numbers = random.Random(0)\ncolumns = {names}\nreturn [{row} for _ in range({_COUNT})]"
        case InputKind.TEXT:
            return 'return ["a good day", "rain, and no end of it"]'
        case InputKind.JSON:
            return f"return {pformat([inputs.value], width=_WIDTH - 8, sort_dicts=False)}"
        case InputKind.GET:
            imports.add("httpx")
            return f'return [httpx.Request("GET", {_quoted(path or "/")})]'
    return "return [[1.0, 2.0, 3.0]]"


def _made_up_arrays(inputs: SampleInputs, imports: set[str]) -> str:
    if not _is_plain_row(inputs):
        imports.add("numpy")
        return f"random = np.random.default_rng(0)\nreturn [{_array_of(inputs)} for _ in range({_COUNT})]"
    imports.add("random")
    number = "numbers.random()" if inputs.dtype.startswith("float") else "numbers.randint(0, 1)"
    row = f"[{number} for _ in range({inputs.shape[0]})]" if inputs.shape else number
    return f"numbers = random.Random(0)\nreturn [{row} for _ in range({_COUNT})]"


def _array_of(inputs: SampleInputs) -> str:
    if inputs.kind is InputKind.TEXT:
        return '"a good day"'
    size = f"({', '.join(map(str, inputs.shape))}{',' if len(inputs.shape) == 1 else ''})"
    if inputs.dtype in ("float32", "float64"):
        dtype = ', dtype="float32"' if inputs.dtype == "float32" else ""
        return f"random.random({size}{dtype})"
    return f'random.integers(0, 2, {size}).astype("{inputs.dtype}")'


def _is_plain_row(inputs: SampleInputs) -> bool:
    """Whether an input is one number or one row of them, which a list of Python holds well."""
    return len(inputs.shape) <= 1 and inputs.dtype != "bool"


def _is_binary(subject: Subject) -> bool:
    """Whether the inputs are arrays that are better sent as bytes than as JSON."""
    one_array = subject.inputs.kind is InputKind.ARRAY and not _is_plain_row(subject.inputs)
    return subject.kind in _FILES and one_array and len(subject.tensors) <= 1


def _name(subject: Subject) -> str:
    return {SubjectKind.APP: "app", SubjectKind.URL: "service"}.get(subject.kind, "model")


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
