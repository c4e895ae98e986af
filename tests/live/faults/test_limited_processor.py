"""Every kind of measurement limits its deployments with ``cpus=``; one that is not limited fails each request."""

import contextlib
import os
import subprocess
from pathlib import Path

import pytest
from support.half_core import VARIANT
from support.project import Project, clean_environment, command, run_here
from support.repository import Repository

from pytest_mlpatterns.system.cgroups import cpu_groups
from pytest_mlpatterns.system.cpu_share import give_cpus

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(
        not hasattr(os, "sched_setaffinity"), reason="this system does not say on which cores a process may run"
    ),
]

EVERYWHERE = """
import os
import time

import pytest

def limited(batch):
    groups = open("/proc/self/cgroup").read() if os.path.exists("/proc/self/cgroup") else ""
    if len(os.sched_getaffinity(0)) > 1 and "/pytest-mlpatterns-" not in groups:
        raise RuntimeError("this process has all of the machine")
    time.sleep(0.01)
    return batch

QUICK = dict(duration="200ms", warmup="0s", launches=1, budget="3s", tolerance=0.9, inconclusive="pass")
pytestmark = pytest.mark.perf(model=limited, payload=[1, 2, 3], cpus=CPUS, **QUICK)

def test_revision(perf):
    assert perf.predict(1) == 1

@pytest.mark.perf(pattern="cached")
def test_rival(perf):
    perf.assert_faster_than("single", by=1.5)

def test_search(perf):
    perf.assert_nmrt_at_least(0.1)
"""


@VARIANT
def test_both_sides_of_a_comparison_with_a_revision_are_limited(tmp_path: Path, refused: bool) -> None:
    repository = Repository.made(tmp_path / "shop")
    tests = EVERYWHERE.replace("CPUS", "1" if refused else "0.5")
    repository.commit({"pytest.ini": "[pytest]\n", "test_perf.py": tests})
    run = run_here(repository.top, "--perf-against=main", "-k", "revision")
    assert run.outcomes["passed"] == 1
    assert "compared 1 of 1 test with main" in run.out
    for group in cpu_groups():
        assert not list(group.folder.glob(f"pytest-mlpatterns-{os.getpid()}-*"))


def test_a_rival_and_a_search_for_nmrt_are_limited(tmp_path: Path) -> None:
    project = Project().with_file("test_perf.py", EVERYWHERE.replace("CPUS", "1"))
    run = project.run(tmp_path, "--perf-json=results.json", "-k", "not revision")
    assert run.outcomes["passed"] == 2
    for result in run.json("results.json")["results"]:
        assert result["setup"]["cpus"] == "1"
        assert result["metrics"]["error_rate"][0] == 0


SPINNING = """
import os
import time

import pytest

def spinning(batch):
    end = time.process_time() + 0.004 * float(os.environ.get("TIMES", 1))
    while time.process_time() < end:
        pass
    return batch

@pytest.mark.perf(model=spinning, payload=[1, 2, 3])
@pytest.mark.perf(duration="500ms", warmup="200ms", launches=3, tolerance=0.5, compare=("rtm", "cpu_per_request"))
def test_it(perf):
    pass
"""


@VARIANT
def test_in_a_container_with_a_quota_a_service_ten_times_slower_fails_and_an_unchanged_one_does_not(
    tmp_path: Path, refused: bool
) -> None:
    """The load saturates the quota, so that the container stops the service, at the recording and later."""
    (tmp_path / "test_perf.py").write_text(SPINNING, encoding="utf-8")

    def run(*arguments: str, times: int = 1) -> subprocess.CompletedProcess[str]:
        with contextlib.ExitStack() as container:
            words = command("--perf-noise", "doubt", *arguments)
            if not refused:
                share = give_cpus(0.5)
                container.callback(share.release)
                assert share.group is not None
                enter = f'echo $$ > "{share.group}/cgroup.procs" && exec "$@"'
                words = ["sh", "-c", enter, "sh", *words]
            env = {**clean_environment(), "TIMES": str(times)}
            return subprocess.run(
                words, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False
            )

    for exit_code, done in ((0, run("--perf-baseline", "update")), (0, run()), (1, run(times=10))):
        assert done.returncode == exit_code, done.stdout
