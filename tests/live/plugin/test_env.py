"""``env=`` on patterns: the worker processes start with it, and another one is not comparable."""

from pathlib import Path

import pytest
from support.project import RECORD, Project

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="this system does not tell how a process began"),
]

VARIABLES = """
import time
from pathlib import Path

import pytest

from pytest_mlpatterns import Cached, Microservice, Replicated

def at_start(batch):
    time.sleep(0.005)  # so that its time is known well enough to be recorded on a busy machine
    began_with = dict(pair.split("=", 1) for pair in Path("/proc/self/environ").read_text().split("\\0") if pair)
    return [{name: began_with.get(name, "") for name in ("OMP_NUM_THREADS", "API_TOKEN")} for _ in batch]

@pytest.fixture
def perf_model():
    return at_start

@pytest.fixture
def perf_payload():
    return [0]

def test_inner(perf_deploy):
    gateway = Cached(env={"OMP_NUM_THREADS": "3", "API_TOKEN": "of-the-gateway"})
    with perf_deploy(gateway | Microservice(env={"OMP_NUM_THREADS": "2"})) as deployment:
        assert deployment.predict(0) == {"OMP_NUM_THREADS": "2", "API_TOKEN": "of-the-gateway"}

@pytest.mark.perf(duration="200ms", warmup="0s", launches=1)
@pytest.mark.perf(pattern=Replicated(2, env={"OMP_NUM_THREADS": "NUMBER", "API_TOKEN": "s3cret"}))
def test_replicas(perf):
    assert perf.predict(0) == {"OMP_NUM_THREADS": "NUMBER", "API_TOKEN": "s3cret"}
    perf.metrics
"""


def test_worker_processes_start_with_the_variables_of_their_pattern(tmp_path: Path) -> None:
    first = (
        Project()
        .with_file("test_perf.py", VARIABLES.replace("NUMBER", "1"))
        .run(tmp_path, *RECORD, "--perf-json=results.json")
    )
    assert first.outcomes["passed"] == 2
    (result,) = first.json("results.json")["results"]
    assert result["setup"]["env"] == "API_TOKEN=***, OMP_NUM_THREADS=1"
    assert result["setup"]["pattern"] == "replicated(env={API_TOKEN:***,OMP_NUM_THREADS:1})"
    written = "".join(file.read_text() for file in tmp_path.glob("*.json"))
    assert "API_TOKEN=***" in written
    assert "s3cret" not in written + first.out
    second = Project().with_file("test_perf.py", VARIABLES.replace("NUMBER", "2")).run(tmp_path, "-k", "replicas")
    differs = "env: API_TOKEN=***, OMP_NUM_THREADS=1 → API_TOKEN=***, OMP_NUM_THREADS=2"
    assert f"baseline not comparable ({differs})" in second.out
