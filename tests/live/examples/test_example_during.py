"""The example of steps beside the load: a reload that hurts nothing passes, and one that lets requests wait fails."""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from support.examples import PYTEST, copied, run_python

pytestmark = pytest.mark.processes

PATIENT = {"test_perf.py": {'p95="100ms"': 'p95="5s"'}, "test_replicas.py": {'p95="500ms"': 'p95="5s"'}}
"""Limits that a busy machine keeps too, in place of those of the example: by file, old and new text."""
SLOW = {"service.py": {"LOADS_S = 0.5": "LOADS_S = 2"}, "test_perf.py": {'p95="100ms"': 'p95="400ms"'}}
"""A limit that is so long that a lag of the generator does not matter beside it, and a reload that is longer than three
times as much, which busy neighbours do not explain."""


def run(
    directory: Path, *arguments: str, changes: Mapping[str, Mapping[str, str]], **environment: str
) -> subprocess.CompletedProcess[str]:
    project = copied("during_load", directory)
    for name, texts in changes.items():
        source = (project / name).read_text(encoding="utf-8")
        for old, new in texts.items():
            assert old in source
            source = source.replace(old, new)
        (project / name).write_text(source, encoding="utf-8")
    return run_python(*PYTEST, *arguments, directory=project, **environment)


def test_replicas_and_a_reload_beside_requests_pass(tmp_path: Path) -> None:
    kept = run(tmp_path, changes=PATIENT)
    assert kept.returncode == 0, kept.stdout + kept.stderr
    assert "step kill" in kept.stdout


def test_a_reload_that_lets_requests_wait_fails(tmp_path: Path) -> None:
    blocked = run(tmp_path, "test_perf.py", changes=SLOW, BLOCKING="1")
    assert blocked.returncode == 1, blocked.stdout + blocked.stderr
    assert re.search(r"LimitFailure: p95 latency [\d.]+ m?s around the step reload", blocked.stdout)
