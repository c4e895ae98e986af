"""Instructions per request through the real plugin: recorded, beside the file and a commit, and asserted."""

import shutil
from pathlib import Path

import pytest
from support.project import RECORD, run_here
from support.repository import Repository

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is absent: apt-get install valgrind"),
]
COUNT = "--perf-count=instructions"
SHOP = """
class Shop:
    def __call__(self, batch):
        return [self.price(one) for one in batch]

    def price(self, one):
        return sum(number % 7 for number in range({steps})) + one
"""
TESTS = """
import pytest

from shop import Shop

@pytest.mark.perf(model=Shop, payload=[1, 2, 3, 4])
@pytest.mark.perf(duration="200ms", warmup="0s", launches=1, compare=("instructions",))
def test_shop(perf):
    {body}
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A repository whose baseline has a count."""
    made = Repository.made(tmp_path_factory.mktemp("counted") / "shop")
    files = {"pytest.ini": "[pytest]\npythonpath = .\n", "shop.py": SHOP.format(steps=2_000)}
    made.commit({**files, "test_perf.py": TESTS.format(body="pass"), ".gitignore": ".pytest_cache\n__pycache__\n"})
    assert run_here(made.top, *RECORD, COUNT).exit_code == 0
    made.commit({}, "Its baseline")
    return made


def test_the_file_alone_decides_what_needs_more_instructions_and_a_limit_asks_for_the_count_itself(
    shop: Repository, tmp_path: Path
) -> None:
    slower = shop.copied(tmp_path / "shop")
    slower.write({"test_perf.py": TESTS.format(body='perf.assert_instructions_below("100M")')})
    same = run_here(slower.top, "--perf-settle=off", "--perf-json=results.json")
    assert same.exit_code == 0
    verdicts = same.json("results.json")["results"][0]["verdicts"]
    found = {(one["metric"], one["against"], one["outcome"]) for one in verdicts}
    assert found == {("instructions", "limit", "pass"), ("instructions", "baseline", "pass")}
    slower.write({"shop.py": SHOP.format(steps=4_000)})
    failed = run_here(slower.top, COUNT, "--perf-settle=off")
    assert failed.exit_code == 1
    assert "RegressionFailure: instructions per request" in failed.out
    assert "instructions a request: libpython" in failed.out


def test_a_commit_is_counted_beside_the_present(shop: Repository, tmp_path: Path) -> None:
    slower = shop.copied(tmp_path / "shop")
    slower.write({"shop.py": SHOP.format(steps=4_000)})
    failed = run_here(slower.top, COUNT, "--perf-against=HEAD")
    assert failed.exit_code == 1
    assert "instructions per request" in failed.failure("test_shop")
    assert "tolerance 2.0 %" in failed.failure("test_shop")
