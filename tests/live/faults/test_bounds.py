"""Servers whose answers do not end, or hardly: each run ends within its time limit, with a sentence about why."""

from pathlib import Path

import pytest
from support import SERVICES
from support.fault_run import FaultRun, run_fault, run_fault_here
from support.nightly import rarer
from support.project import Project
from support.services.endless import script
from support.services.scripted import ScriptedServer

pytestmark = pytest.mark.processes

SERVER = str(SERVICES / "endless.py")
ENDLESS = "answers without end"
HEADERS = "answers with over 100 KiB of headers"
SILENT = "ReadTimeout: no answer after"

TEST = """
import pytest
from pytest_mlpatterns import Command, Prometheus, Url

@pytest.fixture
def perf_target():
    return {target}

@pytest.mark.perf(payload=[[1, 2]])
@pytest.mark.perf(duration="300ms", warmup="0s", launches=1, startup_timeout="{startup}", timeout="{timeout}")
@pytest.mark.perf({settings})
def test_it(perf):
    {body}
"""


def run(
    directory: Path,
    target: str,
    *options: str,
    startup: str = "60s",
    timeout: str = "1s",
    settings: str = "",
    body: str = "perf.assert_rtm_below('10s')",
    apart: bool = False,
) -> FaultRun:
    text = TEST.format(target=target, startup=startup, timeout=timeout, settings=settings, body=body)
    run = run_fault if apart else run_fault_here
    return run(Project().with_file("test_it.py", text), directory, *options)


def command(*answers: str, **settings: object) -> str:
    """A server with these answers, as the source of a ``Command``."""
    given = {"ready": "/health", "path": "/predict", "stop": "1s", **settings}
    return f"Command({['{python}', SERVER, '{port}', *answers]!r}, **{given!r})".replace("'PROMETHEUS'", "Prometheus()")


def reached(name: str) -> str:
    """A start-up time limit: a short one if only it ends an answer, in which a server starts beside other work too."""
    return "60s" if name in ENDED_BY_SIZE else "8s"


ENDED_BY_SIZE = ("two-gigabytes", "bomb", "many-headers")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("body-dribbles", f"GET /health {ENDLESS}"),
        ("bomb", f"GET /health {ENDLESS}: "),
        *rarer(("two-gigabytes", f"GET /health {ENDLESS}: 16."), ("many-headers", HEADERS)),
    ],
)
class TestReadyPath:
    """Every bound without a process: tests/unit/serving/test_bounded_client.py."""

    def test_the_start_ends_within_the_start_up_time_limit(self, tmp_path: Path, name: str, expected: str) -> None:
        run(tmp_path, command(f"/health={name}"), startup=reached(name)).assert_ended({"failed": 1}, expected)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bomb", f"POST /predict {ENDLESS}"),
        *rarer(("body-dribbles", f"POST /predict {ENDLESS}"), ("head-dribbles", f"POST /predict {ENDLESS}")),
        *rarer(("events", f"POST /predict {ENDLESS}"), ("hangs", SILENT)),
    ],
)
class TestFirstAnswer:
    def test_the_wait_for_it_ends_in_the_start_up_time(self, tmp_path: Path, name: str, expected: str) -> None:
        run(tmp_path, command(f"/predict={name}"), startup=reached(name)).assert_ended({"failed": 1}, expected)

    def test_a_running_service_is_not_waited_for_longer(self, tmp_path: Path, name: str, expected: str) -> None:
        with ScriptedServer(script({"/predict": name})) as server:
            target = 'Url("http://{}:{}/predict")'.format(*server.address)
            run(tmp_path, target, startup=reached(name)).assert_ended({"failed": 1}, expected)


@pytest.mark.parametrize("name", ["metrics-flood", *rarer("body-dribbles", "wide-header")])
def test_metrics_end_within_their_time_limit(tmp_path: Path, name: str) -> None:
    fault = run(tmp_path, command(f"/metrics={name}", metrics="PROMETHEUS"))
    fault.assert_ended({"failed": 1}, "metrics: http://127.0.0.1:", HEADERS if name == "wide-header" else ENDLESS)


def test_a_smoke_run_ends_too(tmp_path: Path) -> None:
    """The first answer ends, and the one of the smoke run does not."""
    fault = run(tmp_path, command("/predict=head-dribbles@2"), "--perf-smoke")
    fault.assert_ended({"failed": 1}, f"POST /predict {ENDLESS}")


def test_the_functional_client_ends_with_its_time_limit(tmp_path: Path) -> None:
    fault = run(tmp_path, command("/stream=events"), body="perf.client.get('/stream', timeout=1)")
    fault.assert_ended({"failed": 1}, f"GET /stream {ENDLESS}")


@pytest.mark.parametrize("name", ["floods", *rarer("hangs")])
def test_a_service_that_describes_itself_without_end_is_not_read(tmp_path: Path, name: str) -> None:
    fault = run(tmp_path, command(f"/openapi.json={name}", "/predict=404"))
    fault.assert_ended({"failed": 1}, "answered 404 to its first request, POST /predict", "name the path")


def test_long_answers_are_checked_within_a_bound_of_memory(tmp_path: Path) -> None:
    """Each has 20 MiB; without a bound 200 of them would be kept."""
    body = """
    perf.assert_rtm_below("10s")
    import resource
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 900 * 1024
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 900 * 1024
    """
    settings = "check=lambda inputs, outputs: len(outputs[0]) == 20 * 2**20, concurrency=2"
    fault = run(tmp_path, command("/predict=20-mib"), timeout="30s", settings=settings, body=body, apart=True)
    fault.assert_ended({"passed": 1}, "check= saw fewer answers of a launch, because 64.0 MiB of them are kept at most")
