"""``--perf-against-env``: the revision runs with the packages that it asks for."""

import json
import re
from pathlib import Path

import pytest
from support.buildable import buildable
from support.installed import installed_copy
from support.project import run_here
from support.repository import Repository

pytestmark = pytest.mark.processes

STEMMER = """
import time

def stem(word):
    time.sleep({seconds})
    return word
"""
TESTS = """
import pytest

from shop.model import Model

@pytest.mark.perf(duration="200ms", warmup="100ms", tolerance=0.5, budget="3s", model=Model, payload=["a", "b"])
def test_shop(perf):
    pass

@pytest.mark.skip
@pytest.mark.perf
def test_skipped(perf):
    pass
"""
MODEL = """
from stemmer import stem

class Model:
    def __call__(self, batch):
        return [stem(word) for word in batch]
"""


def test_a_slower_dependency_and_an_installed_copy_are_seen_in_an_environment_of_the_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here a slow dependency is installed, and a copy of the project; the revision asks for a fast dependency."""
    repository = Repository.made(tmp_path / "shop")
    files = {
        **buildable("shop", {"shop/__init__.py": "", "shop/model.py": MODEL}),
        **buildable("stemmer", {"stemmer.py": STEMMER.format(seconds=0.01)}, below="stemmer/"),
        "requirements.txt": "./stemmer\n",
        "test_shop.py": TESTS,
        "pytest.ini": "[pytest]\n",
    }
    repository.commit(files)
    repository.write({"requirements.txt": "./stemmer  # fast\nstemmer!=2\n"})
    site = installed_copy(
        tmp_path / "site-packages",
        repository.top,
        {"shop/__init__.py": "", "shop/model.py": MODEL, "stemmer.py": STEMMER.format(seconds=0.06)},
    )
    monkeypatch.syspath_prepend(str(site))
    run = run_here(repository.top, "--perf-against=main", "--perf-against-env", "--perf-json=results.json")
    assert run.exit_code == 1
    assert "building an environment for main (" in run.out
    assert "requirements.txt and the project" in run.out
    assert re.search("RegressionFailure: (mean|median) latency ", run.out)
    assert "note: main ran in an environment of its own (requirements.txt and the project)" in run.out
    (result,) = run.json("results.json")["results"]
    fastest_ns = dict(map(tuple, result["reference"]["latency_percentiles"]))[1]
    assert 10e6 <= fastest_ns < 60e6  # one word a request
    assert_a_baseline_is_settled_with_its_own_packages(repository)
    again = run_here(repository.top, "--perf-against=main", "--perf-against-env", "-k", "skipped")
    assert again.exit_code == 0
    assert "ran in an environment of its own" in again.out
    assert "building an environment" not in again.out


def assert_a_baseline_is_settled_with_its_own_packages(repository: Repository) -> None:
    """The slow dependency is slow on both sides, unless the recorded code runs with the packages that it asks for."""
    repository.write({"requirements.txt": "./stemmer\n"})
    assert run_here(repository.top, "--perf-baseline=update").exit_code == 0
    file = repository.top / "perf-baseline.json"
    data = json.loads(file.read_text(encoding="utf-8"))
    for machines in data["tests"].values():
        machines["another machine"] = machines.popitem()[1]
    file.write_text(json.dumps(data), encoding="utf-8")
    repository.write({"requirements.txt": "./stemmer  # fast\nstemmer!=2\n"})
    assert run_here(repository.top).exit_code == 0
    run = run_here(repository.top, "--perf-against-env")
    assert run.exit_code == 1
    assert re.search("RegressionFailure: (mean|median) latency ", run.out)
    assert "ran in an environment of its own (requirements.txt and the project)" in run.out


def test_without_the_cache_of_pytest_the_environment_is_built_for_one_run(tmp_path: Path) -> None:
    repository = Repository.made(tmp_path / "shop")
    tests = "import pytest\n\n@pytest.mark.skip\n@pytest.mark.perf\ndef test_skipped(perf): pass\n"
    repository.commit({"test_shop.py": tests, "requirements.txt": "# none\n", "pytest.ini": "[pytest]\n"})
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    arguments = ("-p", "no:cacheprovider", "--perf-against=main", "--perf-against-env")
    run = run_here(repository.top, *arguments, environment={"TMPDIR": str(temporary)})
    assert run.outcomes == {"skipped": 1}
    assert "building an environment for main (" in run.out
    assert not (repository.top / ".pytest_cache").exists()
    assert list(temporary.iterdir()) == []
