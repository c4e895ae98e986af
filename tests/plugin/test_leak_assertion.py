"""Leaks as users meet them: a service that keeps what each request opened, and what is refused."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from support.project import Project

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.processes

LEAKY = """
import time

import pytest

OPEN = []


def leaky(batch):
    time.sleep(0.02)
    OPEN.append(open(__file__))
    return batch


@pytest.fixture
def perf_payload():
    return [1, 2, 3]


@pytest.mark.perf(model=leaky, duration="200ms", warmup="0s", launches=1)
def test_it(perf):
    perf.assert_no_leak("1GiB", duration="4s")
"""
REFUSED = """
import pytest


@pytest.fixture
def perf_model():
    return lambda batch: batch


@pytest.fixture
def perf_payload():
    return [1]


@pytest.mark.parametrize("arguments", [(100, "10s"), ("0 B", "10s"), ("1KiB", "0.5s"), ("1KiB", 10)])
def test_it(perf, arguments):
    limit, duration = arguments
    perf.assert_no_leak(limit, duration=duration)
"""


def test_descriptors_that_every_request_keeps_open_are_a_leak(tmp_path: Path) -> None:
    run = Project().with_file("test_perf.py", LEAKY).run(tmp_path, "--perf-json", "results.json")

    assert run.outcomes["failed"] == 1
    assert re.search(r"open descriptors grow by [\d,]+ \(±", run.out)
    assert "per 1,000 requests over" in run.out
    assert "not levelling off in the second half; the limit is 1.00" in run.out
    assert "find what leaks; if the limit is too tight, change it" in run.out
    (result,) = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["results"]
    outcomes = {one["metric"]: one["outcome"] for one in result["verdicts"]}
    assert outcomes["descriptor_growth"] == "fail"
    assert outcomes["memory_growth"] == "pass"


def test_limits_that_no_run_can_show_are_refused(tmp_path: Path) -> None:
    run = Project().with_file("test_perf.py", REFUSED).run(tmp_path)

    assert run.outcomes["failed"] == 4
    assert "assert_no_leak(...) is 100, expected a size with its unit" in run.out
    assert "assert_no_leak('0 B'), expected more than 0, which no run can show; write \"100 B\"" in run.out
    assert "assert_no_leak(duration='0.5s'), expected at least 1s; write \"10s\"" in run.out
    assert "assert_no_leak(duration=...) is 10, expected a time with its unit" in run.out
