"""A stored baseline settled by the commit that it was recorded at, through the real plugin, in real repositories."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.installed import installed_copy
from support.nightly import rarer
from support.project import Run, run_here
from support.repository import Repository
from support.services.processes import our_children
from support.services.scripted import ScriptedServer, Send, answer

from pytest_mlpatterns.history.file import History
from pytest_mlpatterns.records.history import CommitPosition
from pytest_mlpatterns.records.verdict import Kind

pytestmark = pytest.mark.processes

FILE = "perf-baseline.json"
MODEL = """
import os
import time
from pathlib import Path

DATA = Path(__file__).with_name("wait.txt")

class Model:
    def __init__(self):
        self.seconds = {seconds} * float(os.environ.get("SHOP_FACTOR", 1))
        if DATA.exists():
            self.seconds *= float(DATA.read_text())

    def __call__(self, batch):
        time.sleep(self.seconds)
        return batch
"""
TESTS = """
import pytest

from shop import Model

@pytest.fixture
def perf_model():
    return Model

@pytest.fixture
def perf_payload():
    return [1, 2, 3]

@pytest.mark.perf(duration="300ms", warmup="100ms", tolerance=0.5, budget="20s", compare=("rtm",))
def test_shop(perf):
    pass
"""
TARGET = """

@pytest.fixture
def perf_target():
    from pytest_mlpatterns import Url

    return Url("{url}")
"""
IGNORED = "wait.txt\n.pytest_cache\n__pycache__\n"


def model(seconds: float) -> dict[str, str]:
    return {"shop.py": MODEL.format(seconds=seconds)}


@pytest.fixture
def shop(tmp_path: Path) -> Repository:
    """A repository with a model that takes 10 ms, and no test yet."""
    repository = Repository.made(tmp_path / "shop")
    repository.commit({"pytest.ini": "[pytest]\npythonpath = .\n", ".gitignore": IGNORED, **model(0.01)})
    return repository


def run(repository: Repository, *arguments: str) -> Run:
    found = run_here(repository.top, *arguments)
    assert len(repository.worktrees()) == 1
    assert our_children() == set()
    return found


def edit(repository: Repository, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the entries of the only test, by machine."""
    file = repository.top / FILE
    data = json.loads(file.read_text(encoding="utf-8"))
    for machines in data["tests"].values():
        change(machines)
    file.write_text(json.dumps(data, indent=1), encoding="utf-8")


def as_of_another_machine(machines: dict[str, Any]) -> None:
    (entry,) = machines.values()
    machines.clear()
    machines["Another processor, 8 cores, x86_64, Python 3.11"] = entry


def much_faster(machines: dict[str, Any]) -> None:
    """As if it had been recorded on a machine that is faster beyond any noise."""
    for entry in machines.values():
        for name in ("rtm", "latency_mean"):
            entry["metrics"][name] = [[value / 1000, error] for value, error in entry["metrics"][name]]


def recorded(
    repository: Repository, change: Callable[[dict[str, Any]], object] = lambda _machines: None, *, test: str = TESTS
) -> None:
    """Write the test, record it in a tree with changes, and commit test, model and baseline together."""
    repository.write({"test_shop.py": test, "notes.md": "not committed yet\n"})
    assert run(repository, "--perf-baseline", "update").exit_code == 0
    edit(repository, change)
    repository.git("add", "--all")
    repository.git("commit", "--quiet", "--message", "A test, and what it measured")


def test_a_branch_recorded_on_a_laptop_and_squashed_gates_a_fresh_clone(shop: Repository, tmp_path: Path) -> None:
    shop.git("checkout", "--quiet", "-b", "feature")
    recorded(shop, as_of_another_machine)
    shop.git("checkout", "--quiet", "main")
    shop.git("merge", "--quiet", "--squash", "feature")
    shop.commit({}, "Feature (#1)")
    shop.git("branch", "--quiet", "-D", "feature")
    shop.commit({"README.md": "The shop\n"}, "Later")
    clone = Repository.cloned(shop, tmp_path / "clone")
    unchanged = run(clone, "--perf-baseline", "require")
    assert unchanged.exit_code == 0, unchanged.out
    assert "compared with the baseline's commit (" in unchanged.out
    assert "baseline not comparable" not in unchanged.out
    clone.write(model(0.06))
    slower = run(clone)
    assert slower.exit_code == 1
    assert re.search("RegressionFailure: (mean|median) latency ", slower.out)
    assert "(the baseline's commit (" in slower.out
    assert "--perf-baseline update" in slower.out
    assert "perf_version" not in slower.out


def test_what_the_file_does_not_decide_is_settled_by_its_commit_also_in_a_worker(shop: Repository) -> None:
    recorded(shop)
    shop.commit(model(0.06), "Slower")
    slower = run(shop, "-n", "1", "--perf-history", "runs.jsonl")
    assert slower.exit_code == 1
    assert "(the baseline's commit (" in slower.out
    (line,) = History(shop.top / "runs.jsonl", "runs.jsonl").read().lines
    assert (line.clean, line.kind) == (True, Kind.REGRESSION)
    assert line.reference == CommitPosition(shop.git("rev-parse", "HEAD~1"), 2)
    assert all(ratio.log_ratio > 0.5 for ratio in line.ratios["rtm"])
    assert re.search("by the file: (mean|median) latency ", slower.out)
    alone = run(shop, "--perf-settle", "off", "--perf-noise", "trust")
    assert alone.exit_code == 1
    assert "the baseline's commit" not in alone.out


def test_the_very_tree_of_the_entry_is_not_measured_twice_and_what_it_shares_is_no_pass(shop: Repository) -> None:
    recorded(shop, much_faster)
    shared = run(shop, "--perf-noise", "trust")
    assert shared.exit_code == 0
    assert "undecided" in shared.out
    words = " ".join(shared.out.split())
    assert "with the code that was recorded: not the code, and " in words
    assert ("no sign of the machine explains it" in words) is not ("run it again in a quieter moment" in words)
    assert "compared with the working tree itself" in words


@pytest.mark.parametrize("kind", ["data", *rarer("variable")])
def test_what_slows_down_present_and_recorded_code_alike_is_no_pass(
    shop: Repository, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded(shop)
    shop.commit({"README.md": "The shop\n"}, "Later")
    files: list[str] = []
    if kind == "data":
        shop.write({"wait.txt": "6"})
        files = ["--perf-against-files", "wait.txt"]
    else:
        monkeypatch.setenv("SHOP_FACTOR", "6")
    slower = run(shop, "--perf-noise", "trust", *files)
    assert "undecided" in slower.out
    words = " ".join(slower.out.split())
    assert "and so is the baseline's commit (" in words
    known = ("look for a data file, a variable or another service that changed", "run it again in a quieter moment")
    assert any(one in words for one in known)


SERVICE = """
from features import wait


async def app(scope, receive, send):
    if scope["type"] == "http":
        wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"{}"})
"""
OF_AN_APP = """

@pytest.fixture
def perf_target():
    from pytest_mlpatterns import App

    return App("service:app")
"""


def test_a_slower_package_of_pure_python_fails_and_is_named_and_an_equally_fast_one_passes(
    shop: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site-packages"
    monkeypatch.setenv("PYTHONPATH", str(site))

    def install(version: str, seconds: float) -> None:
        shutil.rmtree(site, ignore_errors=True)
        wait = f"import time\n\n\ndef wait():\n    time.sleep({seconds})  # {version}\n"
        installed_copy(site, None, {"features.py": wait}, name="features", version=version)

    install("2.0", 0.01)
    monkeypatch.syspath_prepend(site)
    shop.write({"service.py": SERVICE})
    recorded(
        shop, test=TESTS.replace('compare=("rtm",)', 'compare=("rtm",), request=lambda one: {"json": one}') + OF_AN_APP
    )
    (entry,) = (
        entry for test in json.loads((shop.top / FILE).read_text())["tests"].values() for entry in test.values()
    )
    assert "; features 2.0;" in f"; {entry['facts']['packages loaded']};"
    shop.commit({"README.md": "The shop\n"}, "Later")
    install("2.1", 0.01)
    same = run(shop, "--perf-noise", "trust")
    assert same.exit_code == 0
    assert "undecided" not in same.out
    install("1.0", 0.06)
    slower = run(shop, "--perf-noise", "trust")
    assert slower.exit_code == 1
    words = " ".join(slower.out.replace("\nE ", " ").split())
    assert "not the code, but features 2.0 → 1.0 changed since the baseline was recorded" in words


def test_a_commit_that_cannot_be_measured_leaves_it_to_the_file_and_says_why(shop: Repository) -> None:
    shop.write({"test_shop.py": TESTS})
    assert run(shop, "--perf-baseline", "update").exit_code == 0
    edit(shop, much_faster)
    shop.commit({"shop.py": "raise ImportError('no such weights')\n", "test_shop.py": TESTS})
    shop.git("add", FILE)
    shop.git("commit", "--quiet", "--amend", "--no-edit")
    shop.commit(model(0.011), "Mended")
    found = run(shop, "--perf-noise", "trust")
    assert found.exit_code == 1
    words = " ".join(found.out.split())
    assert "not compared with the recorded commit: test_shop.py::test_shop fails at the baseline's commit (" in words
    assert "no such weights" in words


def test_a_shallow_clone_says_what_to_do_and_fetches_if_it_may(shop: Repository, tmp_path: Path) -> None:
    recorded(shop, as_of_another_machine)
    shop.commit(model(0.06), "Slower")
    clone = Repository.cloned(shop, tmp_path / "clone", "--depth=1")
    shallow = run(clone, "--perf-baseline", "require")
    assert shallow.exit_code == 1
    (line,) = [one for one in shallow.out.splitlines() if one.startswith("E ")]
    assert re.match(r"E +PerfFailure: this clone is shallow, .*`fetch-depth: 0`.*; baseline not comparable \(", line)
    assert "record it" not in line
    words = " ".join(shallow.out.split())
    assert "not compared with the recorded commit: this clone is shallow" in words
    assert "`fetch-depth: 0`" in words
    fetched = run(clone, "--perf-settle", "fetch")
    assert fetched.exit_code == 1
    assert re.search("RegressionFailure: (mean|median) latency ", fetched.out)


def test_a_service_that_runs_already_is_judged_by_the_file(shop: Repository) -> None:
    """Nothing in the repository says whether it changed."""
    with ScriptedServer(lambda _: [Send(answer(b'{"predictions": [1]}'))]) as server:
        target = TARGET.format(url=f"http://{server.address[0]}:{server.address[1]}/v1/models/m:predict")
        shop.write({"test_shop.py": TESTS.replace('"20s"', '"10s"') + target})
        assert run(shop, "--perf-baseline", "update").exit_code == 0
        edit(shop, much_faster)
        slower = run(shop, "--perf-noise", "trust")
    assert slower.exit_code == 1
    assert re.search("RegressionFailure: (mean|median) latency ", slower.out)
    assert "compared with the" not in slower.out  # launches may settle in two ways
