"""``python -m pytest_mlpatterns new``: writes a first perf test into a project, runs it, and names the next step.

The test runs in a pytest of its own, as the user will run it.
"""

import argparse
import contextlib
import json
import os
import posixpath
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from pprint import pformat
from urllib.parse import urlsplit

from msgspec import structs

from pytest_mlpatterns.cli.output import Commands, add_command, require_other, write_file
from pytest_mlpatterns.cli.subject import (
    MODEL_FILES,
    Candidate,
    InputKind,
    SampleInputs,
    Subject,
    SubjectKind,
    find_candidates,
    requested,
)
from pytest_mlpatterns.errors import ChildError, SettingError
from pytest_mlpatterns.records.json_text import parsed
from pytest_mlpatterns.system.files import read_text
from pytest_mlpatterns.wording import listed, named, visible

_COUNT = 16  # Number of inputs that are made up
_WIDTH = 88  # Length of a line in the file that is written: ruff's and black's default
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
    """The text of a test file in ``folder``, relative to the directory that file names are relative to."""
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


_WHAT = (
    "a model file (.joblib, .pkl, .onnx, .pt, .pt2), a model or an ASGI application as package.module:name, or the "
    "address of a service"
)
_PROBE_S = 300  # Time limit for loading a model, in seconds
_UNREAD = frozenset({SubjectKind.ONNX, SubjectKind.TORCHSCRIPT, SubjectKind.EXPORTED})
"""Model files that are loaded by the test alone."""
_ADDRESS = re.compile(r"(localhost|\d+\.\d+\.\d+\.\d+|\[[0-9A-Fa-f:]+\]|[\w.-]+:\d+(?=/|$))(:\d+)?(/.*)?$")
"""An address without ``http://``: a host that is one, or any name with a port."""
_FAILED_RUN = 1  # Exit code if the file was written and its test failed


def add_new_command(commands: Commands) -> None:
    """Add the command to the command line."""
    command = add_command(commands, "new", "write a first perf test, and run it once")
    command.add_argument("what", metavar="WHAT", nargs="?", help=f"{_WHAT} (default: what is found here)")
    command.add_argument(
        "--payload", metavar="FILE", help="inputs: a .json file with a list, or a .jsonl file with one a line"
    )
    command.add_argument("--path", metavar="PATH", default="", help="path of an application that takes the requests")
    command.add_argument(
        "-o", "--output", metavar="FILE", help="test file to write (default: test_perf.py, in tests if there is one)"
    )
    command.add_argument(
        "--record", action="store_true", help="then measure the test, and record its baseline, without asking"
    )
    command.add_argument("--no-run", action="store_true", help="write the test only")
    command.set_defaults(run=run_new)


def run_new(options: argparse.Namespace) -> int:
    """Run the command, and return the exit code."""
    directory = Path.cwd()
    candidate = _read_subject(options.what) if options.what else _chosen(find_candidates(directory))
    require_other("-o", options.output)
    if options.output is not None:
        _require_new(Path(options.output))
    _say(f"looking at {candidate.name} …")
    subject = _probed(candidate, options.path)
    if options.payload is not None:
        subject = structs.replace(subject, inputs=_inputs_in(options.payload))
    file = Path(options.output) if options.output is not None else _default_file(subject, directory)
    _require_new(file)
    folder = Path(os.path.relpath(file.parent, directory)).as_posix()
    text = first_test(subject, "" if folder == "." else folder)
    write_file(str(file), text)
    _say(f"{file} is written.")
    if options.no_run:
        _say(f"next: send one request: {_command(file)} --perf-smoke")
        return 0
    return _first_runs(file, subject, record=options.record)


def _first_runs(file: Path, subject: Subject, *, record: bool) -> int:
    """Run the test in smoke mode; then measure it, or name the command that does."""
    done = _pytest([str(file), "--perf-smoke", "-q"], is_shown=False)
    if done.returncode:
        sys.stdout.write(visible(done.stdout + done.stderr))
        guess = "; perf_payload holds made-up inputs, which may be the reason" if subject.inputs.is_guess else ""
        _say(f"\nThe smoke run, one request, failed{guess}.")
        _say(f"Edit {file}, and run it again: {_command(file)} --perf-smoke")
        return _FAILED_RUN
    _say("smoke run: one request was answered, and nothing is judged yet.")
    measure = f"{_command(file)} --perf-baseline update"
    if not record and not _is_wanted():
        _say(f"next: measure it, and record its baseline: {measure}")
        return 0
    _say(f"\n$ {measure}")
    sys.stdout.flush()
    if code := _pytest([str(file), "--perf-baseline", "update"], is_shown=True).returncode:
        return code
    if not _is_recorded(file):
        _say(f"\nnext: nothing is recorded, for the reason above; measure again: {measure}")
        return 0
    _say(
        f"\nnext: commit {file} and perf-baseline.json. From now on pytest compares each run with it, and fails if "
        "the model gets slower."
    )
    return 0


def _command(file: Path) -> str:
    """The command that runs a test file, as a shell reads it."""
    return f"pytest {shlex.quote(str(file))}"


def _is_recorded(file: Path) -> bool:
    """Whether a baseline file of this project, which lies in pytest's root directory, knows the tests of a file."""
    here = Path.cwd()
    found = [folder / "perf-baseline.json" for folder in (here, *here.parents)]
    return any(file.name in read_text(one) for one in found if one.is_file())


def _read_subject(text: str) -> Candidate:
    """What the command line names."""
    if text.startswith(("http://", "https://")):
        return Candidate(SubjectKind.URL, text)
    if _ADDRESS.match(text):
        raise SettingError(f"{named(text)}, expected an address with its scheme; write http://{text}")
    kind = MODEL_FILES.get(Path(text).suffix)
    if kind is not None or Path(text).is_file():
        if kind is None and Path(text).suffix == ".py":
            raise SettingError(f"{named(text)} is a Python file, expected what in it is measured; {_object_in(text)}")
        if kind is None:
            raise SettingError(f"{named(text)}, expected a model file that ends in {listed([*MODEL_FILES], 'or')}")
        if not Path(text).is_file():
            raise SettingError(f"{named(text)} does not exist; name a model file")
        return Candidate(kind, Path(text).as_posix())
    module, colon, name = text.partition(":")
    if module.endswith(".py"):
        raise SettingError(f"{named(text)}, expected a module without .py; {_object_in(module, name)}")
    if not colon or not name or "/" in module:
        raise SettingError(f"{named(text)}, expected {_WHAT}")
    return Candidate(SubjectKind.MODEL, text)


def _object_in(file: str, name: str = "") -> str:
    """What to write for an object of a Python file, by what the project has."""
    here, path = Path.cwd(), Path(os.path.abspath(file))
    below = path.relative_to(here) if path.is_relative_to(here) else Path(path.name)
    module = ".".join(below.with_suffix("").parts)
    known = [one.name for one in find_candidates(here) if one.name.partition(":")[0] == module]
    names = [f"{module}:{name}"] if name else known or [f"{module}:NAME"]
    return f"write {listed(names, 'or')}" + ("" if name or known else ", of a model or an application in it")


def _chosen(found: Sequence[Candidate]) -> Candidate:
    """The only candidate, or the one that the user chooses."""
    names = [candidate.name for candidate in found]
    if len(found) == 1:
        _say(f"found {names[0]}")
        return found[0]
    if not _is_asked():
        command = "python -m pytest_mlpatterns new"
        if not found:
            raise SettingError("there is no model file and no ASGI application here; name a model file")
        raise SettingError(f"there are {listed(names)}; name one: {command} {names[0]}")
    for number, name in enumerate(names, 1):
        _say(f"{number:>3}  {name}")
    question = "Which one? Its number, or another file, package.module:name or address: "
    if not found:
        question = "What is measured? A model file, package.module:name or an address: "
    answer = _answer(question)
    if answer.isdecimal() and 1 <= int(answer) <= len(found):
        return found[int(answer) - 1]
    return _read_subject(answer)


def _probed(candidate: Candidate, path: str) -> Subject:
    """The subject with the inputs that it takes."""
    if candidate.kind is SubjectKind.URL:
        return _of_address(candidate.name, path)
    if candidate.kind in _UNREAD:
        return Subject(candidate.kind, candidate.name, SampleInputs(is_guess=True))
    from pytest_mlpatterns.system.child import Child
    from pytest_mlpatterns.system.scratch_directory import ScratchDirectory

    with contextlib.ExitStack() as ends:
        scratch = ScratchDirectory()
        ends.callback(scratch.remove)
        child = Child("pytest_mlpatterns.cli.subject_probe", log=scratch.path / "probe.log")
        ends.callback(child.stop)
        try:
            child.send((None if candidate.kind is SubjectKind.MODEL else candidate.kind, candidate.name, path))
            found: Subject | str = child.receive(_PROBE_S)
        except TimeoutError:
            raise SettingError(
                f"{candidate.name} takes over {_PROBE_S} s to load, expected less; write its test by hand, as in "
                "docs/tutorial/quickstart.md"
            ) from None
        except ChildError as error:
            raise SettingError(f"{candidate.name} ended the process that loaded it: {error}") from None
    if isinstance(found, str):
        raise SettingError(found)
    return found


def _of_address(url: str, path: str) -> Subject:
    """A service that runs, with requests to the path of its address if it has one."""
    from pytest_mlpatterns.serving.targets import Url

    target = Url(url)
    given = path or (target.path if urlsplit(url).path not in ("", "/") else "")
    given = given if given.startswith("/") or not given else f"/{given}"
    whole = Url(f"{target.origin}{given or '/'}")
    return requested(SubjectKind.URL, whole.url, given)


def _inputs_in(file: str) -> SampleInputs:
    """The inputs in a file of the user's."""
    path = Path(file)
    if path.suffix not in (".json", ".jsonl"):
        raise SettingError(f"--payload {named(file)}, expected a .json file with a list, or a .jsonl file")
    try:
        text = read_text(path)
        found = parsed(text) if path.suffix == ".json" else None
    except ValueError as error:
        raise SettingError(f"--payload {named(file)} is not JSON: {error}") from None
    except OSError as error:
        raise SettingError(
            f"--payload {named(file)} cannot be read: {error.strerror or error}; name a .json or .jsonl file of inputs"
        ) from None
    if path.suffix == ".json" and not (isinstance(found, list) and found):
        raise SettingError(f"--payload {named(file)} holds no list of inputs; write [[5.1, 3.5], [4.9, 3.0]]")
    return SampleInputs(InputKind.FILE, file=path.as_posix())


def _default_file(subject: Subject, directory: Path) -> Path:
    """``test_perf.py`` among the tests of the project; at its top if the test can import the model only there."""
    is_at_top = subject.kind is SubjectKind.MODEL and subject.is_local
    return Path("test_perf.py" if is_at_top or not (directory / "tests").is_dir() else "tests/test_perf.py")


def _require_new(file: Path) -> None:
    if file.is_dir():
        raise SettingError(f"{file} is a directory, expected a file to write: -o {file / 'test_perf.py'}")
    if os.path.lexists(file):  # also as a link that leads nowhere
        raise SettingError(f"{file} exists; name another file to write: -o {file.with_stem(f'{file.stem}_2')}")
    if not file.parent.is_dir():
        raise SettingError(f"{file} is in {file.parent}, which does not exist; name a file in a directory that exists")
    if not file.name.startswith("test_") or file.suffix != ".py":
        raise SettingError(f"{file}, expected a name that pytest collects; write -o {file.with_name('test_perf.py')}")


def _pytest(arguments: Sequence[str], *, is_shown: bool) -> subprocess.CompletedProcess[str]:
    """Run pytest as its command does, which does not add the current directory to the import path."""
    command = [sys.executable, "-P", "-m", "pytest", *arguments]
    return subprocess.run(command, capture_output=not is_shown, encoding="utf-8", errors="replace", check=False)


def _is_asked() -> bool:
    """Whether a person answers questions."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()


def _answer(question: str) -> str:
    try:
        answer = input(question).strip()
    except EOFError:
        answer = ""
    if not answer:
        raise SettingError(f"nothing is chosen; name {_WHAT}")
    return answer


def _is_wanted() -> bool:
    """Whether a person wants the new test to be measured; without one, no."""
    if not _is_asked():
        return False
    try:
        return input("Measure it now, and record its baseline? [Y/n] ").strip().lower() in ("", "y", "yes")
    except EOFError:
        return False


def _say(text: str) -> None:
    sys.stdout.write(visible(text) + "\n")
