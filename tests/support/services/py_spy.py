"""py-spy in tests: with time for a busy machine, where the system lets it read a process."""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from pytest_mlpatterns.profiling.py_spy import PySpy, find_py_spy
from pytest_mlpatterns.system.process_limits import tracer_permission, why_not_traceable

_PATIENCE_S = 60.0
_FORBIDDEN = re.compile(r"permission denied|operation not permitted|not implemented", re.IGNORECASE)


def patient_py_spy(directory: Path) -> PySpy:
    """The installed py-spy; skips the test where a container or the system forbids it to read any process."""
    if why := _why_forbidden():
        pytest.skip(f"py-spy may read no process here: {why}")
    executable = find_py_spy("this test", directory)._executable
    return PySpy(executable, directory, start_s=_PATIENCE_S, stop_s=_PATIENCE_S)


@cache
def _why_forbidden() -> str:
    """Why py-spy may not read a process that permits it; empty if it may, or fails for another reason."""
    if why := why_not_traceable():
        return why
    executable = find_py_spy("this test", Path())._executable
    command, permit = [sys.executable, "-c", "print(flush=True); input()"], tracer_permission()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=permit) as process:  # noqa: PLW1509 - one call
        process.stdout.readline()
        dump = [executable, "dump", "--nonblocking", "--pid", str(process.pid)]
        said = subprocess.run(dump, capture_output=True, text=True, check=False)
        process.kill()
    return said.stderr.strip() if said.returncode and _FORBIDDEN.search(said.stderr) else ""
