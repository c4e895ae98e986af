"""A test is ours if it uses our fixture, however it asks for it; others of that name are left alone."""

from pathlib import Path

import pytest
from support.project import MODEL, QUICK, Project

EMPTY = Project()

OWN = """
import pytest

@pytest.fixture
def perf():
    return "a fixture of the project"

@pytest.mark.perf("nightly")
def test_own(perf):
    assert perf == "a fixture of the project"

@pytest.mark.perf
@pytest.mark.parametrize("number", [1, 2])
def test_plain(number, request):
    pass
"""


def test_a_projects_own_fixture_and_marker_of_this_name_are_left_alone(tmp_path: Path) -> None:
    project = EMPTY.with_file("test_it.py", OWN).with_ini(markers="perf: runs at night")
    run = project.run(tmp_path, "--strict-markers", "-W", "error")
    assert run.outcomes == {"passed": 3}
    assert "performance" not in run.out


REQUESTED = f"""{MODEL}

pytestmark = {QUICK}

@pytest.fixture
def service(request):
    return request.getfixturevalue("perf")

@pytest.fixture
def perf(perf):
    perf.name = "overridden"
    return perf

def test_wrapped(service):
    assert service.predict(3) == 6

def test_overridden(perf):
    assert perf.name == "overridden"

def test_by_name(request):
    assert request.getfixturevalue("perf").predict(4) == 8

def test_deployed(request):
    with request.getfixturevalue("perf_deploy")() as deployment:
        assert deployment.predict(5) == 10
"""


@pytest.mark.processes
def test_wrappers_overriding_fixtures_and_requests_by_name_are_measured(tmp_path: Path) -> None:
    project = EMPTY.with_file("test_it.py", REQUESTED)
    run = project.run(tmp_path, "-W", "error", "--perf-json=results.json")
    assert run.outcomes == {"passed": 4}
    results = run.json("results.json")["results"]
    assert {result["test"].rpartition("::")[2]: result["launch_count"] for result in results} == {
        "test_wrapped": 1,
        "test_overridden": 1,
        "test_by_name": 1,
    }


@pytest.mark.processes
def test_a_test_without_a_marker_that_asks_by_name_is_judged_too(tmp_path: Path) -> None:
    body = "def test_by_name(request):\n    request.getfixturevalue('perf')\n"
    run = EMPTY.with_tests(body, marker=None).run(tmp_path, "--perf-baseline=require", "--perf-duration=200ms")
    assert "no baseline" in run.out or "record it" in run.out
    assert run.exit_code == 1


@pytest.mark.parametrize(
    ("marker", "words"),
    [
        ("@pytest.mark.perf", "test_it.py::test_it has the marker perf but does not use the fixture perf"),
        ("@pytest.mark.perf(duration='1s')", "test_it.py::test_it has perf(duration=...) but does not use"),
    ],
)
def test_a_marker_on_a_test_without_the_fixture_warns_bare_or_not(tmp_path: Path, marker: str, words: str) -> None:
    text = f"import pytest\n\n\n{marker}\ndef test_it(): pass\n"
    run = EMPTY.with_file("test_it.py", text).run(tmp_path)
    assert f"UnusedMarkerWarning: {words}" in run.out
    assert run.outcomes == {"passed": 1, "warnings": 1}


@pytest.mark.parametrize(
    ("test", "words"),
    [
        (
            "class TestIt(unittest.TestCase):\n    {}\n    def test_it(self): pass",
            "; pytest gives unittest.TestCase no",
        ),
        ("class TestIt:\n    def setup_method(self): pass\n    {}\n    def test_it(self): pass", "; add perf to its"),
        ("{}\ndef test_it(tmp_path): pass", "; add perf to its arguments"),
    ],
    ids=("TestCase", "setup_method", "tmp_path"),
)
def test_fixtures_of_pytest_that_use_request_do_not_hide_an_unused_marker(
    tmp_path: Path, test: str, words: str
) -> None:
    text = "import unittest\n\nimport pytest\n\n\n" + test.format("@pytest.mark.perf(concurrency=2)")
    run = EMPTY.with_file("test_it.py", text).run(tmp_path)
    assert f"has perf(concurrency=...) but does not use the fixture perf, so nothing is measured{words}" in run.out
    assert run.outcomes == {"passed": 1, "warnings": 1}


def test_a_bare_marker_of_the_module_only_selects(tmp_path: Path) -> None:
    text = "import pytest\n\npytestmark = pytest.mark.perf\n\n\ndef test_it(): pass\n"
    assert EMPTY.with_file("test_it.py", text).run(tmp_path, "-m", "perf").outcomes == {"passed": 1}


SHARED = f"""{MODEL}

class Counts:
    def __call__(self, batch):
        return [value + 1 for value in batch]

@pytest.fixture(scope="module")
def service(perf_deploy_session):
    with perf_deploy_session("replicated", model=Counts, payload=[1]) as deployment:
        yield deployment

@pytest.mark.parametrize("number", [1, 2])
def test_shared(service, number):
    assert service.predict(number) == number + 1
    assert len(service.pids) > 1
"""


@pytest.mark.processes
def test_a_deployment_of_a_module_serves_several_tests(tmp_path: Path) -> None:
    run = EMPTY.with_file("test_it.py", SHARED).run(tmp_path, "-W", "error")
    assert run.outcomes == {"passed": 2}
