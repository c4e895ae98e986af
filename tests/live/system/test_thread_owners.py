"""Which library started a thread: stacks that are declared, and the threads of real libraries."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.each_row import each_row

from pytest_mlpatterns.system.process_limits import tracer_permission
from pytest_mlpatterns.system.thread_times import MemoryMap, owner_of_stack, thread_owners

PACKAGES = "/env/lib/python3.12/site-packages"
MAPS = [
    MemoryMap(100, 200, "/lib/x86_64-linux-gnu/libc.so.6"),
    MemoryMap(200, 300, f"{PACKAGES}/onnxruntime/capi/onnxruntime_pybind11_state.cpython-312-x86_64-linux-gnu.so"),
    MemoryMap(300, 400, f"{PACKAGES}/numpy.libs/libscipy_openblas64_-32a4b2a6.so"),
    MemoryMap(400, 500, f"{PACKAGES}/polars/_polars_runtime.abi3.so"),
    MemoryMap(500, 600, "/opt/model/libengine.so.2"),
    MemoryMap(600, 700, "/usr/lib/libstdc++.so.6.0.33"),
    MemoryMap(700, 800),
]


@each_row(
    ("words", "owner"),
    ((150, 210, 350, 130), "OpenBLAS"),  # the outermost one started the thread
    ((350, 0, 7, 250, 650, 120), "onnxruntime"),
    ((450,), "polars"),
    ((550, 799), "libengine"),
    ((150, 650, 750, 900), ""),
    ((), ""),
)
def test_the_outermost_library_of_a_stack_owns_it(words: tuple[int, ...], owner: str) -> None:
    assert owner_of_stack(words, MAPS) == owner


@pytest.mark.processes
def test_a_process_that_has_ended_has_no_owners() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert thread_owners(process.pid, [process.pid]) == {}


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_threads_of_a_product_of_matrices_are_those_of_its_library(tmp_path: Path) -> None:
    code = "import numpy; a = numpy.ones((300, 300)); a @ a; print(flush=True); input()"
    command = [sys.executable, "-c", code]
    variables = {**os.environ, "OPENBLAS_NUM_THREADS": "2"}
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=tmp_path,
        env=variables,
        preexec_fn=tracer_permission(),  # noqa: PLW1509 - one call
    ) as process:
        assert process.stdin is not None
        process.stdout.readline()
        threads = [int(name) for name in os.listdir(f"/proc/{process.pid}/task")]
        owners = thread_owners(process.pid, [one for one in threads if one != process.pid])
        process.stdin.close()
    assert "OpenBLAS" in owners.values()
