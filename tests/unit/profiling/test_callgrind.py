"""What callgrind writes becomes instructions by library and function, and its absence a sentence."""

import shutil
import time
from pathlib import Path

import pytest
from support.each_row import each_row

from pytest_mlpatterns.errors import CountError
from pytest_mlpatterns.profiling import callgrind
from pytest_mlpatterns.profiling.callgrind import Callgrind, countable, library_name, read_profile, shown_architecture

PROFILE = """
# callgrind format
version: 1
creator: callgrind-3.24.0
pid: 4711
cmd:  /usr/bin/python3 service.py
part: 1

desc: Trigger: Program termination
positions: line
events: Ir
summary: 160

ob=(2) /usr/lib/libpython3.11.so.1.0
fl=(1) ???
fn=(7) list_contains
0 90
cob=(3) /usr/lib/libc.so.6
cfn=(9) memcmp
calls=4 0
0 50
cfn=(7)
calls=1 0
0 12

ob=(3)
fl=(1)
fn=(9)
0 40
* 10

ob=(4) ???
fn=(11) 0x0000000004a3c0d0
0 20
totals: 160
""".splitlines()


def test_a_function_has_what_it_executed_itself() -> None:
    assert read_profile(PROFILE) == {
        ("libpython3.11.so.1.0", "list_contains"): 90,
        ("libc.so.6", "memcmp"): 50,
        ("code made at run time", "0x0000000004a3c0d0"): 20,
    }
    assert not read_profile([])


@each_row(
    ("path", "name"),
    ("/usr/lib/libpython3.11.so.1.0", "libpython3.11.so.1.0"),
    ("/venv/numpy/_core/_multiarray_umath.cpython-311-x86_64-linux-gnu.so", "_multiarray_umath"),
    ("/venv/pydantic_core/_pydantic_core.abi3.so", "_pydantic_core"),
    ("/usr/bin/python3.11", "python3.11"),
    ("/usr/lib/libm.so.6", "libm.so.6"),
    ("???", "code made at run time"),
    ("", "code made at run time"),
)
def test_a_library_has_the_name_of_its_file(path: str, name: str) -> None:
    assert library_name(path) == name


@each_row(
    ("system", "installed", "why", "lacks"),
    ("linux", True, "", False),
    ("linux", False, "valgrind is not installed (apt-get install valgrind)", True),
    ("darwin", True, "macOS has no valgrind; count on Linux, for instance in a container", False),
    ("win32", True, "win32 has no valgrind; count on Linux", False),
)
def test_a_machine_without_valgrind_names_what_to_do(
    system: str, installed: bool, why: str, lacks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if installed else None)
    found = countable(system)
    assert (found.why, found.lacks_tool) == (why, lacks)


def test_a_counter_without_valgrind_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(CountError, match="apt-get install valgrind"):
        Callgrind(tmp_path)


@pytest.fixture
def counter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callgrind:
    """A counter whose ``vgdb`` is a script that writes what a process counted."""
    for name, script in {
        "valgrind": "echo valgrind-3.24.0",
        "vgdb": f'for word; do case $word in --pid=*) pid=${{word#--pid=}};; esac; done\n[ "$word" = dump ] && '
        f"printf 'fn=(1) work\\n0 %s\\n' $pid > {tmp_path}/out.$pid.1\ntrue",
    }.items():
        file = tmp_path / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    return Callgrind(tmp_path)


@pytest.mark.processes
def test_each_process_writes_what_it_counted_and_is_read_once(counter: Callgrind, tmp_path: Path) -> None:
    assert counter.tool == "valgrind-3.24.0"
    assert f"--vgdb-prefix={tmp_path}/pipe" in counter.under.words
    for pid in (30, 12):
        (tmp_path / f"pipe-from-vgdb-to-{pid}-by-somebody-on-here").touch()
    (tmp_path / "out.5").write_text("fn=(1) work\n0 1000\n")  # one that has ended before
    assert counter.pids == (12, 30)
    counter.begin(time.monotonic() + 30)
    assert counter.read(time.monotonic() + 30).total == 42
    assert counter.read(time.monotonic() + 30).total == 0


@pytest.mark.processes
def test_a_process_that_a_request_starts_ends_the_count(counter: Callgrind, tmp_path: Path) -> None:
    counter.begin(time.monotonic() + 30)
    (tmp_path / "out.77").write_text("fn=(1) work\n0 1000\n")
    with pytest.raises(CountError, match="requests start processes, which"):
        counter.read(time.monotonic() + 30)


@pytest.mark.processes
def test_a_process_that_does_not_answer_ends_the_count(counter: Callgrind, tmp_path: Path) -> None:
    (tmp_path / "bin" / "vgdb").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "pipe-from-vgdb-to-12-by-somebody-on-here").touch()
    with pytest.raises(CountError, match=r"did not answer valgrind-3\.24\.0 in time"):
        counter.begin(time.monotonic() + 0.1)


@pytest.mark.processes
def test_an_instruction_that_valgrind_does_not_know_is_named(counter: Callgrind, tmp_path: Path) -> None:
    assert counter.refusal() == ""
    (tmp_path / "log.12").write_text("vex amd64->IR: unhandled instruction bytes: 0x62 0xF1 0x7C 0x48\n")
    assert counter.refusal() == "valgrind-3.24.0 does not know an instruction of the service, such as one of AVX-512"


def test_names_of_templates_are_cut() -> None:
    (name,) = (function for _, function in read_profile([f"fn=(1) {'x' * 5000}", "0 7"]))
    assert len(name) == callgrind._LONGEST_NAME


@each_row(
    ("machine", "flags", "shown"),
    [
        ("x86_64", "flags\t\t: fpu sse4_2 avx avx2 avx512f", "x86_64"),
        ("x86_64", "flags\t\t: fpu sse4_2 avx", "x86_64 without AVX2"),
        ("x86_64", "", "x86_64"),
        ("aarch64", "flags\t\t: fpu", "aarch64"),
    ],
)
def test_processors_that_valgrind_shows_as_different_ones_have_different_names(
    tmp_path: Path, machine: str, flags: str, shown: str
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{flags}\n", encoding="utf-8")
    assert shown_architecture(machine, tmp_path / "cpuinfo") == shown
    assert shown_architecture(machine, tmp_path / "none") == machine
