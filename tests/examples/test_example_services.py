"""The examples of services that exist and of onnxruntime: what runs here needs no more than the test extra.

``make servers`` runs those whose servers need environments of their own.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT
from support.project import RECORD

from pytest_mlpatterns.plugin.options import OPTIONS

pytestmark = pytest.mark.processes

EXAMPLES = ROOT / "examples"
SERVERS = ("bentoml", "fastapi", "litserve", "mlserver", "mosec")


def run(example: str, directory: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """pytest in a copy of an example with short launches, without what the outer run put into the environment."""
    project = directory / Path(example).name
    if not project.exists():
        shutil.copytree(EXAMPLES / example, project, ignore=shutil.ignore_patterns("__pycache__", ".*", "perf-*"))
        test = project / "test_perf.py"
        text = test.read_text(encoding="utf-8")
        assert text.count('duration="1s"') == 1
        text = text.replace('duration="1s"', 'duration="200ms", warmup="100ms", launches=6')
        patient = re.sub(r'assert_rtm_below\("\w+"\)', 'assert_rtm_below("60s")', text)  # this machine may be busy
        test.write_text(patient, encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COVERAGE_"))}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--perf-noise", "trust", *arguments],
        cwd=project,
        env={**kept, "COLUMNS": "160", **environment},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def test_the_fastapi_service_is_measured_and_its_slower_self_is_a_regression(tmp_path: Path) -> None:
    recorded = run("servers/fastapi", tmp_path, *RECORD)
    assert recorded.returncode == 0, recorded.stdout + recorded.stderr
    assert re.search(r"batched: 3\.0\d inputs per call\n", recorded.stdout)
    slowed = run("servers/fastapi", tmp_path, SLOWDOWN="20")
    assert slowed.returncode == 1, slowed.stdout + slowed.stderr
    assert re.search(r"RegressionFailure: (RTM|throughput|CPU per request) .* worse", slowed.stdout)


def test_more_threads_of_onnxruntime_are_a_regression_of_cpu_per_request(tmp_path: Path) -> None:
    recorded = run("onnx", tmp_path, *RECORD, INTRA_OP_NUM_THREADS="1")
    assert recorded.returncode == 0, recorded.stdout + recorded.stderr
    threaded = run("onnx", tmp_path, INTRA_OP_NUM_THREADS="4")
    assert threaded.returncode == 1, threaded.stdout + threaded.stderr
    assert re.search(r"RegressionFailure: .*|CPU per request .* worse", threaded.stdout)


def test_one_request_is_enough_to_pass_where_figures_are_read(tmp_path: Path) -> None:
    smoked = run("servers/fastapi", tmp_path, "--perf-smoke")
    assert smoked.returncode == 0, smoked.stdout + smoked.stderr
    assert "1 perf test sent one request" in smoked.stdout


@pytest.mark.parametrize("example", [*(f"servers/{name}" for name in SERVERS), "onnx"])
def test_every_file_and_option_that_a_readme_names_exists(example: str) -> None:
    folder = EXAMPLES / example
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"--perf-([\w-]+)", text)) <= set(OPTIONS)
    assert "-r requirements.txt" not in text or (folder / "requirements.txt").is_file()
    assert {"README.md", "pytest.ini", "test_perf.py"} <= {file.name for file in folder.iterdir()}


def test_every_server_has_its_line_in_the_overview() -> None:
    named = set(re.findall(r"\]\((\w+)\)", (EXAMPLES / "servers" / "README.md").read_text(encoding="utf-8")))
    assert named == set(SERVERS) == {path.parent.name for path in EXAMPLES.glob("servers/*/requirements.txt")}
