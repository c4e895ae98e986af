"""The life of a gate in a repository with two services: soft start, first red, an accepted change, and its end."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from support.golden import check_golden
from support.project import Run, run_here
from support.repository import Repository

from pytest_mlpatterns.cli import main

pytestmark = pytest.mark.processes

SERVICES = """
import time

class Service:
    seconds = 0.01

    def __call__(self, batch):
        time.sleep(self.seconds)
        return batch

class Search(Service):
    seconds = {search}

class Basket(Service):
    pass
"""
TESTS = """
import pytest

import services

pytestmark = pytest.mark.perf(
    duration="200ms", warmup="100ms", tolerance=0.5, budget="6s", payload=[1], compare=("rtm",)
)

@pytest.mark.perf(model=services.Search)
def test_search(perf):
    pass

@pytest.mark.perf(model=services.Basket)
def test_basket(perf):
    pass
"""
TEST = "test_services.py::test_search"


class Life:
    """A repository, and what each step of its life shows outside of the terminal."""

    def __init__(self, top: Path) -> None:
        self.repository = Repository.made(top)
        self.shown = ""
        ignored = "results.json\njunit.xml\nsummary.md\n__pycache__\n.pytest_cache\n"
        settings = "[pytest]\npythonpath = .\nperf_against = main\n"
        self.repository.commit(
            {
                "pytest.ini": settings,
                ".gitignore": ignored,
                "services.py": SERVICES.format(search=0.01),
                "test_services.py": TESTS,
            }
        )

    def takes(self, seconds: float) -> None:
        """Change how long a search takes."""
        self.repository.write({"services.py": SERVICES.format(search=seconds)})

    def step(self, name: str, *options: str) -> Run:
        """Run the tests as a job of GitHub, and note what people and programs see of it."""
        top = self.repository.top
        (top / "summary.md").unlink(missing_ok=True)
        environment = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(top / "summary.md")}
        run = run_here(top, "--perf-json=results.json", "--junit-xml=junit.xml", *options, environment=environment)
        kinds = {one["test"]: one["kind"] for one in run.json("results.json")["results"]}
        cases = ElementTree.parse(top / "junit.xml").iter("testcase")
        summary = (top / "summary.md").read_text(encoding="utf-8")
        lines = [
            f"# {name}",
            f"pytest {' '.join(options)}".rstrip(),
            f"exit code {run.exit_code}, of the verdict {main(['verdict', 'results.json'])}",
            *(f"JSON: {test} {kind}" for test, kind in kinds.items()),
            *(f"JUnit: {_of_case(case)}" for case in cases),
            *(f"annotation: {level} {place}" for level, place in re.findall(r"^::(\w+) (file=[^,]+)", run.out, re.M)),
            *(f"summary: {line}" for line in summary.splitlines() if line.startswith("###")),
        ]
        self.shown += "\n".join(lines) + "\n\n"
        return run


def _of_case(case: ElementTree.Element) -> str:
    found = {one.get("name"): one.get("value") for one in case.iter("property")}
    failed = ", failed" if case.find("failure") is not None else ""
    accepted = f", accepted {found['perf_accepted']}" if "perf_accepted" in found else ""
    return f"{case.get('name')} {found['perf_kind']}{failed}{accepted}"


def test_a_gate_begins_softly_turns_red_accepts_and_forgets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    life = Life(tmp_path / "shop")
    monkeypatch.chdir(life.repository.top)
    life.takes(0.05)
    soft = life.step("A soft start: verdicts are shown, and nothing fails", "--perf-gate=warn")
    assert "1 regression" in soft.out
    red = life.step("The first red")
    assert f"python -m pytest_mlpatterns accept results.json {TEST} --reason WHY" in red.out
    assert main(["accept", "results.json", TEST, "--reason", "larger model", "--ceiling", "900%"]) == 0
    green = life.step("The change is accepted, with a reason")
    assert re.search(r"(mean|median) latency .* → .*; accepted is rtm \+900 %: larger model", green.out)
    life.takes(0.5)
    beyond = life.step("Worse than was accepted")
    assert "accepted was rtm +900 %: larger model" in beyond.out
    life.takes(0.05)
    life.repository.git("add", "--all")
    life.repository.git("commit", "--quiet", "--message", "A larger model, and what it costs")
    landed = life.step("The change has landed")
    assert "main has it already, so remove it" in landed.out
    life.takes(2.0)
    again = life.step("It accepts nothing more")
    assert "main has it already, so remove it" in again.out
    assert main(["accept", "results.json", "--prune"]) == 0
    assert "accepted" not in (life.repository.top / "perf-accepted.toml").read_text(encoding="utf-8")
    check_golden("life.txt", life.shown)
