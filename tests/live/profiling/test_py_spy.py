"""py-spy as a child process: what it sees, and every way in which it can fail, each ends with nothing left running."""

import contextlib
import os
import subprocess
import sys
import textwrap
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from packaging.requirements import Requirement
from support.services.py_spy import patient_py_spy

from pytest_mlpatterns.errors import MissingExtraError, ProfilerError
from pytest_mlpatterns.profiling import py_spy
from pytest_mlpatterns.profiling.py_spy import PySpy, PySpyRecording, find_py_spy
from pytest_mlpatterns.system.process_limits import tracer_permission

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[3]
SPINS = """
def deep():
    while True:
        sum(range(1000))
print("spins", flush=True)
deep()
"""
BEGINS = "print('py-spy> Sampling process 100 times a second.', flush=True)"
WAITS = "signal.sigwait({signal.SIGINT})"
HANGS = "while True: signal.pause()"
INTERRUPTIBLE = "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})"
"""From here on an interrupt is kept until :data:`WAITS`, however early it comes."""


@pytest.fixture(autouse=True)
def _nothing_stays() -> Iterator[None]:
    yield
    assert not [child for child in psutil.Process().children() if "py-spy" in _command_line(child)]


def _command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it has ended
        return ""


@pytest.fixture
def spinning() -> Iterator[int]:
    command = [sys.executable, "-c", SPINS]
    permit = tracer_permission()
    with subprocess.Popen(command, stdout=subprocess.PIPE, preexec_fn=permit) as process:  # noqa: PLW1509 - one call
        process.stdout.readline()
        yield process.pid
        process.kill()


def scripted(directory: Path, *lines: str, **limits: float) -> PySpy:
    """A py-spy that does what these lines do; ``out`` is the file for what it saw."""
    body = "\n".join(lines)
    program = f"""\
        #!{sys.executable}
        import os, signal, sys
        if sys.argv[1] == "--version":
            print("py-spy 9.9")
            raise SystemExit
        out = sys.argv[-1]
        """
    executable = directory / "py-spy"
    executable.write_text(textwrap.dedent(program) + body + "\n", encoding="utf-8")
    executable.chmod(0o755)
    return PySpy(str(executable), directory, **{"start_s": 30.0, "stop_s": 30.0, **limits})


def await_looks(recording: PySpyRecording, spinning: int) -> None:
    """Wait until it has looked some times, before each of which it sleeps, and until the process has worked."""
    profiler, process = psutil.Process(recording._process.pid), psutil.Process(spinning)
    looks, worked_s = profiler.num_ctx_switches().voluntary + 30, sum(process.cpu_times()[:2]) + 0.02
    while profiler.num_ctx_switches().voluntary < looks or sum(process.cpu_times()[:2]) < worked_s:
        assert recording._process.poll() is None
        time.sleep(0.01)


def test_py_spy_sees_what_a_process_does(spinning: int, tmp_path: Path) -> None:
    profiler = patient_py_spy(tmp_path)
    assert profiler.name.startswith("py-spy 0.")
    recording = profiler.start(spinning, 200)
    recording.await_start()
    await_looks(recording, spinning)
    recording.request_stop()
    found = recording.stop()
    looks = sum(found.counts.values())
    inside = sum(count for stack, count in found.counts.items() if any(frame.name == "deep" for frame in stack.frames))
    assert inside >= looks / 2
    assert {stack.thread for stack in found.counts} == {spinning}
    assert found.pid == spinning
    assert found.duration_ns > 0
    assert [*tmp_path.iterdir()] == []
    if Path("/proc/thread-self/schedstat").exists():
        assert found.threads[spinning].cpu_ns > 0


def test_a_process_that_is_gone_is_named(tmp_path: Path) -> None:
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    recording = patient_py_spy(tmp_path).start(int(gone.stdout), 100)
    with pytest.raises(ProfilerError, match=f"py-spy cannot read process {int(gone.stdout)}: "):
        recording.await_start()
    recording.abandon()


def test_a_recording_ends_with_what_it_wrote(tmp_path: Path) -> None:
    write = "open(out, 'w').write('thread (7): MainThread;f (/a.py:1) 3'); print('Samples: 3 Errors: 2', flush=True)"
    recording = scripted(tmp_path, INTERRUPTIBLE, BEGINS, WAITS, write).start(os.getpid(), 100)
    recording.await_start()
    found = recording.stop()
    assert ([*found.counts.values()], found.lost) == ([3], 2)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("Permission Denied: Try running again with elevated permissions", ["Permission Denied", "SYS_PTRACE"]),
        ("Error: Failed to find python version from target process", ["Failed to find python version"]),
        ("", ["it printed nothing"]),
    ],
)
def test_a_refusal_says_why_and_what_permits_it(tmp_path: Path, said: str, words: list[str]) -> None:
    recording = scripted(tmp_path, f"print({said!r}); raise SystemExit(1)").start(1, 100)
    with pytest.raises(ProfilerError) as refused:
        recording.await_start()
    assert all(word in str(refused.value) for word in words)
    assert ("SYS_PTRACE" in str(refused.value)) == ("SYS_PTRACE" in words)
    recording.abandon()


def test_its_reason_is_not_lost_in_its_own_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUST_BACKTRACE", "full")
    monkeypatch.setenv("RUST_LIB_BACKTRACE", "1")
    says = "print('Error: Permission denied (os error 13)', flush=True)"
    stack = "if {os.environ['RUST_BACKTRACE'], os.environ['RUST_LIB_BACKTRACE']} != {'0'}: print('4: a\\n5: b\\n6: c')"
    recording = scripted(tmp_path, says, stack).start(1, 100)
    with pytest.raises(ProfilerError, match=r"cannot read process 1: Error: Permission denied .*SYS_PTRACE"):
        recording.await_start()
    recording.abandon()


WRAPS = """\
import subprocess
child = subprocess.Popen([sys.executable, "-c", {child!r}], stdout={stdout}, stderr={stdout})
open({pids!r}, "w").write(str(child.pid))
"""
SLEEPS = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM}); signal.pause()"


@pytest.mark.parametrize("end", ["child.wait()", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_what_a_wrapper_started_ends_with_it(tmp_path: Path, end: str) -> None:
    pids = tmp_path / "pids"
    wraps = WRAPS.format(child=SLEEPS, stdout="None", pids=str(pids))
    recording = scripted(tmp_path, wraps, BEGINS, end).start(os.getpid(), 100)
    recording.await_start()
    child = psutil.Process(int(pids.read_text()))
    recording.abandon()
    child.wait(30)
    recording.abandon()


def test_what_a_wrapper_started_to_name_its_version_ends_too(tmp_path: Path) -> None:
    pids, executable = tmp_path / "pids", tmp_path / "py-spy"
    wraps = WRAPS.format(child=SLEEPS, stdout="subprocess.DEVNULL", pids=str(pids))
    executable.write_text(f"#!{sys.executable}\nimport sys\n{wraps}print('py-spy 9.9')\n")
    executable.chmod(0o755)
    assert PySpy(str(executable), tmp_path).name == "py-spy 9.9"
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(int(pids.read_text())).wait(30)


def test_one_that_does_not_name_its_version_ends_in_time(tmp_path: Path) -> None:
    executable = tmp_path / "py-spy"
    executable.write_text("#!/bin/sh\nsleep 60 &\nwait\n")
    executable.chmod(0o755)
    with pytest.raises(ProfilerError, match=r"py-spy --version did not answer within 0\.2 s"):
        PySpy(str(executable), tmp_path, version_s=0.2)


def test_one_that_does_not_begin_is_ended(tmp_path: Path) -> None:
    recording = scripted(tmp_path, HANGS, start_s=0.0).start(1, 100)
    with pytest.raises(ProfilerError, match="py-spy did not begin within 0 s: it printed nothing"):
        recording.await_start()
    recording.abandon()
    recording.abandon()


@pytest.mark.parametrize(
    ("at_the_end", "limits", "words"),
    [
        ("pass", {}, "ended early: py-spy> Sampling"),
        ("open(out, 'w').write('f (a.py:1) 2')", {}, "wrote what cannot be read: a stack that does not begin"),
        (HANGS, {"stop_s": 0.2}, "did not end within 0.2 s"),
    ],
    ids=["wrote-nothing", "garbage", "hangs"],
)
def test_a_bad_end_is_an_error(tmp_path: Path, at_the_end: str, limits: dict[str, float], words: str) -> None:
    recording = scripted(tmp_path, INTERRUPTIBLE, BEGINS, WAITS, at_the_end, **limits).start(1, 100)
    recording.await_start()
    with pytest.raises(ProfilerError, match=words):
        recording.stop()


def test_one_that_dies_meanwhile_is_an_error(tmp_path: Path) -> None:
    recording = scripted(tmp_path, BEGINS, "os.kill(os.getpid(), signal.SIGKILL)").start(os.getpid(), 100)
    recording.await_start()
    recording._process.wait()
    with pytest.raises(ProfilerError, match="ended early"):
        recording.stop()


def test_without_it_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingExtraError, match=r"naming functions needs the package py-spy, .*: pip install py-spy$"):
        find_py_spy("naming functions", tmp_path)


WHEELS = [("linux", "x86_64"), ("linux", "aarch64"), ("linux", "i686"), ("linux", "armv7l"), ("darwin", "arm64")]


@pytest.mark.parametrize(
    ("system", "processor", "python", "is_needed"),
    [
        *((*where, "cpython", True) for where in [*WHEELS, ("darwin", "x86_64")]),
        *((*where, "cpython", False) for where in [("linux", "riscv64"), ("linux", "ppc64le"), ("win32", "AMD64")]),
        ("linux", "x86_64", "pypy", False),
    ],
)
def test_py_spy_comes_with_the_package_where_it_has_wheels(
    system: str, processor: str, python: str, is_needed: bool
) -> None:
    lines = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    (needed,) = (one for one in map(Requirement, lines) if one.name == "py-spy")
    assert needed.marker is not None
    environment = {"sys_platform": system, "platform_machine": processor, "implementation_name": python}
    assert needed.marker.evaluate(environment) is is_needed


def test_a_system_that_forbids_it_is_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(py_spy, "why_not_traceable", lambda: "only root may")
    with pytest.raises(ProfilerError, match="py-spy cannot read other processes: only root may"):
        find_py_spy("this test", tmp_path)


def test_one_that_cannot_be_started_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProfilerError, match="cannot be started"):
        PySpy(str(tmp_path / "none"), tmp_path)
    profiler = scripted(tmp_path)
    (tmp_path / "py-spy").unlink()
    with pytest.raises(ProfilerError, match="py-spy cannot be started: No such file"):
        profiler.start(1, 100)
