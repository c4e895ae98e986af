"""Files from elsewhere: damaged, hostile, out of reach, or changed by two runs at once."""

import itertools
import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest
from support.damage import ENTRY, STRANGE, places
from support.each_row import each_row
from support.fault_run import FaultRun, run_fault, run_fault_here
from support.nightly import rarer
from support.project import QUICK, RECORD, Project
from support.synthetic import SETUP

from pytest_mlpatterns.baseline.file import FORMAT, VERSION, read_baselines, write_baselines
from pytest_mlpatterns.errors import BaselineFileError
from pytest_mlpatterns.records.baseline_entry import Entry
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.system.environment import environment
from pytest_mlpatterns.wording import HIDDEN

PLACES = len(list(places(ENTRY)))
CHANGES = list(itertools.product(range(PLACES), range(len(STRANGE))))[::5]
"""Each fifth of all places of an entry with all strange values."""
NEW = Entry(SETUP, {"rtm": (LaunchValue(4_120_000.0, 0.012),)}, {}, None, "2026-11-24")
PASSES = "def test_it(perf): perf.assert_rtm_below('60s')"


def file_text(**changes: object) -> str:
    """The text of a baseline file whose one entry has other members."""
    return json.dumps({"format": FORMAT, "version": VERSION, "tests": {"t.py::test": {"box": {**ENTRY, **changes}}}})


def metrics(value: object, error: object = 0.01) -> str:
    return file_text(metrics={"rtm": [[value, error]]})


# --- in this process -------------------------------------------------------------------------------------------------


@each_row(("place", "value"), CHANGES)
def test_a_changed_baseline_file_is_read_or_refused_in_one_line(tmp_path: Path, place: int, value: int) -> None:
    entry = json.loads(json.dumps(ENTRY))
    container, key = list(places(entry))[place]
    container[key] = STRANGE[value]
    path = tmp_path / "perf-baseline.json"
    path.write_text(before := file_text(**entry), encoding="utf-8")
    try:
        read_baselines(path)
    except BaselineFileError as error:
        message = str(error)
        assert "\n" not in message
        assert not HIDDEN & set(message)
        assert "restore it from version control" in message
        with pytest.raises(BaselineFileError):
            write_baselines(path, {"b": {"box": NEW}})
        assert path.read_text(encoding="utf-8") == before
    else:
        write_baselines(path, {"b": {"box": NEW}})
        assert set(read_baselines(path)) == {"t.py::test", "b"}
    assert os.listdir(tmp_path) == [path.name]


KILLED = """
import os, signal, sys
from pathlib import Path
from pytest_mlpatterns.baseline.file import read_baselines, write_baselines

path = Path(sys.argv[1])
setattr(os, sys.argv[2], lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
write_baselines(path, {"new": read_baselines(path)["t.py::test"]})
"""


@pytest.mark.processes
@pytest.mark.parametrize("step", ["replace", *rarer("fsync", "fchmod")])
def test_an_update_that_is_killed_leaves_the_old_file_and_the_next_removes_the_rest(tmp_path: Path, step: str) -> None:
    path = tmp_path / "perf-baseline.json"
    path.write_text(before := file_text(), encoding="utf-8")
    assert subprocess.run([sys.executable, "-c", KILLED, str(path), step], check=False).returncode == -9
    assert path.read_text(encoding="utf-8") == before
    assert len(os.listdir(tmp_path)) == 3  # its lock, and what it wrote
    write_baselines(path, {"b": {"box": NEW}})
    assert os.listdir(tmp_path) == [path.name]


# --- a baseline file that is read at the start -----------------------------------------------------------------------

REFUSED = {
    "lists in lists": (metrics(0).replace("[[0,", "[[" + "[" * 1000 + "]" * 1000 + ","), "nested too deeply"),
    "escape codes": (file_text(setup={"\x1b[2J": "x"}), ".setup lacks the member pattern"),
}
"""What else is damaged is refused in the same place: tests/unit/baseline/test_baseline_file.py has all of it."""


def assert_refused(run: FaultRun, words: str) -> None:
    """A usage error of one sentence."""
    run.assert_left_nothing()
    assert run.exit_code == pytest.ExitCode.USAGE_ERROR
    lines = [line for line in run.text.splitlines() if line.startswith("ERROR: ")]
    assert len(lines) == 1, run.text
    assert words in lines[0]
    assert "Traceback" not in run.text
    assert not HIDDEN & set(run.text)


@pytest.mark.processes
@pytest.mark.parametrize(("text", "words"), REFUSED.values(), ids=REFUSED)
def test_a_damaged_baseline_file_is_a_usage_error(tmp_path: Path, text: str, words: str) -> None:
    project = Project().with_tests(PASSES).with_file("perf-baseline.json", text)
    assert_refused(run_fault_here(project, tmp_path, "--perf-smoke"), words)


def pipe(path: Path) -> None:
    os.mkfifo(path)


# --- files that are written at the end -------------------------------------------------------------------------------


@pytest.mark.processes
@pytest.mark.parametrize("option", ["json", *rarer("html")])
def test_a_full_disk_at_the_end_loses_no_results(tmp_path: Path, option: str) -> None:
    other = {"html": "json", "json": "html"}[option]
    arguments = (*RECORD, f"--perf-{option}=/dev/full", f"--perf-{other}=other.txt")
    run = run_fault_here(Project().with_tests(PASSES), tmp_path, *arguments)
    run.assert_ended({"passed": 1}, "ERROR: /dev/full cannot be written: No space left on device; ", "✓ pass")
    assert run.exit_code == pytest.ExitCode.USAGE_ERROR
    assert (tmp_path / "project" / "other.txt").exists()
    assert read_baselines(tmp_path / "project" / "perf-baseline.json")


FULL = f"""
@{QUICK}
{PASSES}

def test_limit():
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
"""
GONE = f"""
@{QUICK}
{PASSES}

def test_removes():
    from pathlib import Path
    Path("place").rename("elsewhere")
"""


@pytest.mark.processes
@pytest.mark.parametrize(
    ("frame", "tests", "place", "words"),
    [
        (run_fault, FULL, "perf-baseline.json", "File too large"),
        (run_fault_here, GONE, "place/perf-baseline.json", "No such file or directory"),
    ],
    ids=["full", "gone"],
)
def test_a_baseline_that_cannot_be_written_stays_and_the_results_are_shown(
    tmp_path: Path, frame: Callable[..., FaultRun], *, tests: str, place: str, words: str
) -> None:
    before = file_text(disturbed=["much"] * 20_000)  # longer than a file may be
    project = Project().with_tests(tests, marker=None).with_file(place, before)
    run = frame(project, tmp_path, *RECORD, f"--perf-baseline-file={place}")
    run.assert_ended({"passed": 2}, f"cannot be written: {words}; it is unchanged", "✓ pass")
    assert run.exit_code == pytest.ExitCode.USAGE_ERROR
    (file,) = (tmp_path / "project").glob("*/perf-baseline.json" if "/" in place else place)
    assert file.read_text(encoding="utf-8") == before


@pytest.mark.processes
def test_an_unwritable_job_summary_is_a_warning(tmp_path: Path) -> None:
    pipe(summary := tmp_path / "summary")
    variables = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)}
    run = run_fault_here(Project().with_tests(PASSES), tmp_path, environment=variables)
    words = "(GITHUB_STEP_SUMMARY) cannot be written: No such device or address"
    run.assert_ended({"passed": 1}, "WARNING: the job summary ", words)
    assert run.exit_code == pytest.ExitCode.OK


# --- escape codes ----------------------------------------------------------------------------------------------------

PAINT = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202e"
PAINTER = r"""
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, text):
        body = text.encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(200, "# TYPE x counter\nx{a=\"PAINT\"} 1\n")

    def do_POST(self):
        if sys.argv[2] == "dies":
            print("PAINT", flush=True)
            import os
            os._exit(3)
        self.answer(404, "PAINT")

    def log_message(self, *_): pass

if sys.argv[2] == "never":
    print("PAINT", flush=True)
    sys.exit(7)
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
""".replace("PAINT", PAINT)
SERVER_TEST = """
import pytest
from pytest_mlpatterns import Command

@pytest.fixture
def perf_target():
    return Command("{{python}} painter.py {{port}} {how}", ready="/health", path="/p")

@pytest.mark.perf(payload=[1], duration="200ms", warmup="0s", launches=1)
def test_it(perf):
    perf.assert_rtm_below("60s")
"""
MODEL_TEST = """
import pytest

def model(batch):
    {body}

@pytest.mark.perf(model=model, payload=[1, 2], duration="200ms", warmup="0s", launches=1)
def test_it(perf):
    perf.assert_rtm_below("60s")
"""


def own(**changes: object) -> str:
    """A baseline file with an entry of this machine for the test, changed."""
    setup = {"pattern": "single", "load": "closed(1)", "wire": "rest+json", "payload": "sha256:0"}
    entry = {**ENTRY, "setup": setup, **changes}
    tests = {"test_it.py::test_it": {environment().machine: entry}}
    return json.dumps({"format": FORMAT, "version": VERSION, "tests": tests})


GOOD_MODEL = MODEL_TEST.format(body="return batch")
SOURCES = {
    "output of a server that dies": {"test_it.py": SERVER_TEST.format(how="dies"), "painter.py": PAINTER},
    "body of an error": {"test_it.py": SERVER_TEST.format(how="errs"), "painter.py": PAINTER},
    "exception of a model": {"test_it.py": MODEL_TEST.format(body=f"raise ValueError({PAINT!r})")},
    "test id of an entry": {
        "test_it.py": GOOD_MODEL,
        "perf-baseline.json": own().replace("test_it.py::test_it", json.dumps(f"gone.py::test{PAINT}")[1:-1]),
    },
    "set-up of an entry": {
        "test_it.py": GOOD_MODEL,
        "perf-baseline.json": own(setup={**ENTRY["setup"], "load": f"closed(1){PAINT}"}),
    },
    "machine of an entry": {
        "test_it.py": GOOD_MODEL,
        "perf-baseline.json": own().replace(json.dumps(environment().machine), json.dumps(f"box {PAINT}")),
    },
    "version of a server": {"test_it.py": GOOD_MODEL, "perf-baseline.json": own(versions={"uvicorn": PAINT})},
    "output of a server that ends": {"test_it.py": SERVER_TEST.format(how="never"), "painter.py": PAINTER},
    "output of a model": {"test_it.py": MODEL_TEST.format(body=f"print({PAINT!r}, flush=True); raise SystemExit(3)")},
}
FIRST = list(SOURCES.values())
USUAL = [*FIRST[:4], *rarer(*FIRST[4:])]


@pytest.mark.processes
@pytest.mark.parametrize("files", USUAL, ids=SOURCES)
def test_escape_codes_are_spelled_in_terminal_junit_and_job_summary(tmp_path: Path, files: dict[str, str]) -> None:
    project, summary = Project(), tmp_path / "summary.md"
    for name, text in files.items():
        project = project.with_file(name, text)
    variables = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)}
    arguments = ("--perf-startup-timeout=5s", "--junit-xml=junit.xml", "--perf-html=report.html", "-v")
    run = run_fault_here(project, tmp_path, *arguments, environment=variables)
    run.assert_left_nothing()
    written = [tmp_path / "project" / "junit.xml", tmp_path / "project" / "report.html", summary]
    for text in (run.text, *(file.read_text(encoding="utf-8") for file in written if file.exists())):
        assert not HIDDEN & set(text)
    assert "\\x1b[2J" in run.text
    assert "\\x9b31m\\u202e" in run.text
    assert ET.parse(written[0]).getroot().tag == "testsuites"
