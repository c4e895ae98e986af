"""The example of an engine outside the package: it serves a perf test, and refuses what it cannot serve."""

import json
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from support.examples import PYTEST, copied, run_python
from support.nightly import rarer
from support.project import OPTIONS as WITHOUT_NEIGHBOURS

pytestmark = pytest.mark.processes

GROUP = "pytest_mlpatterns.engines"
HTTP = "test_engine.py::test_behind_the_server_of_pythons_library"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the example, with what ``pip install -e .`` leaves: the metadata of a distribution."""
    project = copied("own_engine", tmp_path)
    written = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    metadata = project / "http_engine-1.0.dist-info"
    metadata.mkdir()
    name = f"Metadata-Version: 2.1\nName: {written['name']}\nVersion: {written['version']}\n"
    (metadata / "METADATA").write_text(name, encoding="utf-8")
    (found,) = written["entry-points"][GROUP].items()
    (metadata / "entry_points.txt").write_text(f"[{GROUP}]\n{found[0]} = {found[1]}\n", encoding="utf-8")
    return project


def run(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_python(*PYTEST, *WITHOUT_NEIGHBOURS, *arguments, directory=project)


def test_the_engine_serves_a_perf_test_beside_the_local_one(project: Path) -> None:
    done = run(project, "--perf-duration=300ms", "--perf-json=results.json")
    assert done.returncode == 0, done.stdout + done.stderr
    served, local = json.loads((project / "results.json").read_text(encoding="utf-8"))["results"]
    assert (served["setup"]["engine"], local["setup"].get("engine", "")) == ("http_server", "")
    assert served["requests"] > 10
    assert served["metrics"]["cpu_per_request"][0] > 0


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ('pattern="cached", ', 'engine="http_server" serves one model in one process, expected Single()'),
        ('generators_on="http_server", ', ""),
        *rarer(('wire="rest+binary", ', 'engine="http_server" over rest+binary, expected wire="rest+json"')),
    ],
)
def test_what_it_cannot_serve_is_refused_before_anything_starts(project: Path, marker: str, message: str) -> None:
    test = project / "test_engine.py"
    text = test.read_text(encoding="utf-8").replace('engine="http_server", ', f'engine="http_server", {marker}')
    test.write_text(text, encoding="utf-8")
    done = run(project, "--perf-smoke", HTTP)
    assert done.returncode == (1 if message else 0), done.stdout + done.stderr
    assert message in done.stdout


def test_a_model_that_cannot_be_loaded_is_reported_with_its_traceback(project: Path) -> None:
    broken = "class double:\n    def __init__(self):\n        raise OSError('no weights')\n"
    (project / "model.py").write_text(broken, encoding="utf-8")
    done = run(project, "--perf-smoke", HTTP)
    assert done.returncode == 1
    assert "perf_model double failed to load:" in done.stdout
    assert "OSError: no weights" in done.stdout


def test_an_engine_that_is_not_installed_is_refused_with_those_that_are(project: Path) -> None:
    shutil.rmtree(project / "http_engine-1.0.dist-info")
    done = run(project, "--perf-smoke", HTTP)
    assert done.returncode == 1
    assert "perf(engine=...) is 'http_server', expected one of 'local', 'ray'" in done.stdout
