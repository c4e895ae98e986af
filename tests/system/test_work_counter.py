"""Counters of the processor: their arithmetic, and a counter of the kernel where there is none of the processor."""

import ctypes
import errno
import os
import platform
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from pytest_mlpatterns.errors import CountError
from pytest_mlpatterns.system import work_counter
from pytest_mlpatterns.system.work_counter import HardwareCounters, why_no_counters

CPU_TIME = (1, 1)  # ``PERF_TYPE_SOFTWARE``, ``PERF_COUNT_SW_TASK_CLOCK``: in nanoseconds


def refuse(code: int) -> Callable[[object], object]:
    """A C library whose system calls fail so."""

    def syscall(*_: object) -> int:
        ctypes.set_errno(code)
        return -1

    return lambda *_, **__: SimpleNamespace(syscall=syscall)


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOSYS])
def test_a_refusal_of_the_kernel_is_the_reason(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", refuse(code))
    assert why_no_counters() == f"the counters of the processor cannot be read: {os.strerror(code)}"


def test_another_architecture_has_no_counters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "m68k")
    assert why_no_counters() == f"the counters of the processor cannot be read: {os.strerror(errno.ENOSYS)}"


def test_threads_and_processes_that_have_ended_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    counters = HardwareCounters()
    counters.begin([2**22 + 1], 0.0)
    monkeypatch.setattr(ctypes, "CDLL", refuse(errno.ESRCH))
    counters.begin([os.getpid()], 0.0)
    assert counters.read(0.0).total == 0


def test_a_counter_that_took_turns_is_scaled(tmp_path: Path) -> None:
    counters = HardwareCounters()
    for name, value in (("always", (600, 1000, 1000)), ("turns", (600, 1000, 250)), ("never", (0, 1000, 0))):
        (tmp_path / name).write_bytes(struct.pack("<QQQ", *value))
        counters._open.append(os.open(tmp_path / name, os.O_RDONLY))
    assert counters.read(0.0).total == 600 + 2400
    counters.close()


@pytest.mark.processes
def test_threads_and_processes_that_start_later_are_counted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    burn = "import time\nwhile time.process_time() < 0.1: pass"
    monkeypatch.setattr(work_counter, "_EVENT", CPU_TIME)
    counters = HardwareCounters()
    try:
        counters.begin([os.getpid()], 0.0)
    except CountError as error:
        pytest.skip(str(error))
    counters.read(0.0)
    subprocess.run([sys.executable, "-c", burn], check=True)
    thread = threading.Thread(target=sum, args=[range(1_000_000)])
    thread.start()
    thread.join()
    assert counters.read(0.0).total > 50_000_000
    counters.close()
    counters.close()
