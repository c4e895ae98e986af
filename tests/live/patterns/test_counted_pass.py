"""Instructions per request, counted by valgrind: patterns, an application and forked workers; nothing stays behind."""

import ctypes
import mmap
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from support import SERVICES
from support.nightly import rarer
from support.services.deploy import make_start_options
from support.services.processes import our_children

from pytest_mlpatterns import App, Batched, Command, Microservice, Pattern, Single
from pytest_mlpatterns.errors import CountError
from pytest_mlpatterns.measurement.counted_pass import counted_passes, with_calls
from pytest_mlpatterns.measurement.system_under_test import SystemUnderTest
from pytest_mlpatterns.measurement.variant import Variant
from pytest_mlpatterns.profiling.frame_names import SourceNames
from pytest_mlpatterns.records.count import Count
from pytest_mlpatterns.serving.model import service_plan
from pytest_mlpatterns.serving.targets import Target
from pytest_mlpatterns.workload.payload import read_payload
from pytest_mlpatterns.workload.plan import LoadPlan
from pytest_mlpatterns.workload.schedule import ClosedLoop

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is absent: apt-get install valgrind"),
]
HERE = sys.modules[__name__]
INPUTS = [[1, 2], [3, 4]]
STEPS = 4_000
UNKNOWN = bytes.fromhex("62f17c4858c0c3")  # vaddps zmm0, zmm0, zmm0; ret


def work(steps: int) -> int:
    total = 0
    for number in range(steps):
        total += number & 3
    return total


def usual(batch: list[Any]) -> list[Any]:
    return [work(STEPS) for _ in batch]


def slower(batch: list[Any]) -> list[Any]:
    return [work(STEPS + STEPS // 10) for _ in batch]


def unknown(batch: list[Any]) -> list[Any]:
    code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(UNKNOWN)
    ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
    return batch


def counted(
    directory: Path,
    service: Pattern | Target,
    model: object = usual,
    *,
    limit_ns: int = 300_000_000_000,
    calls: bool = False,
) -> Count:
    options = make_start_options(directory, INPUTS)
    plan = service_plan(service, model, [HERE]) if isinstance(service, Pattern) else service
    load = LoadPlan(read_payload(INPUTS), ClosedLoop(1), 10**9, None, 10**10, None)
    side = [Variant("the service", SystemUnderTest(plan, options).start, load)]
    names = [SourceNames(Path(__file__).parent)]
    children, before = our_children(), set(os.listdir(directory))
    try:
        found = counted_passes(side, directory=directory, limit_ns=limit_ns)
        return (with_calls(found, side, names, directory=directory, limit_ns=limit_ns) if calls else found)[0]
    finally:
        assert our_children() == children
        assert not [name for name in set(os.listdir(directory)) - before if name.startswith("count-")]


@pytest.mark.nightly
def test_the_same_code_has_the_same_count_and_a_tenth_more_work_is_seen(tmp_path: Path) -> None:
    first, again = (counted(tmp_path, Single(), calls=True) for _ in range(2))
    more = counted(tmp_path, Single(), slower)
    assert again.per_request.value == pytest.approx(first.per_request.value, rel=0.005)
    assert 1.05 < more.per_request.value / first.per_request.value < 1.1


@pytest.mark.parametrize("pattern", [Microservice(), *rarer(Batched(max_batch_size=4))], ids=str)
def test_all_processes_of_a_pattern_are_counted(pattern: Pattern, tmp_path: Path) -> None:
    found = counted(tmp_path, pattern, calls=True)
    assert found.per_request.value > 50 * STEPS
    assert next(iter(found.libraries)).startswith(("libpython", "python"))
    assert found.calls["work (test_counted_pass.py)"] == 1
    assert found.architecture == platform.machine()


def test_an_application_is_counted(tmp_path: Path) -> None:
    found = counted(tmp_path, App("counted_services:app", cwd=str(SERVICES)))
    assert found.per_request.value > 50 * STEPS


@pytest.mark.nightly
def test_forked_workers_are_counted(tmp_path: Path) -> None:
    found = counted(tmp_path, Command(f"{{python}} {SERVICES}/counted_services.py {{port}}"))
    assert found.per_request.value > 50 * STEPS


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the instruction is one of x86-64")
def test_an_instruction_that_valgrind_does_not_know_is_the_reason(tmp_path: Path) -> None:
    with pytest.raises(CountError, match="does not know an instruction of the service, such as one of AVX-512"):
        counted(tmp_path, Single(), unknown)


def test_a_pass_ends_with_its_time_limit(tmp_path: Path) -> None:
    with pytest.raises(CountError, match="does not start within 0 s under valgrind"):
        counted(tmp_path, Single(), limit_ns=500_000_000)
