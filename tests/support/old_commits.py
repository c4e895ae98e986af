"""Repositories whose commits take declared times, for what measures old commits."""

from collections.abc import Mapping
from pathlib import Path

from pytest_mlpatterns.history.commit_runs import CommitRun
from pytest_mlpatterns.records.result_parts import Reference
from support.repository import Repository
from support.synthetic import result

TEST = "test_shop.py::test_shop"
MODEL = """
import os
import time
from pathlib import Path


class Model:
    def __init__(self):
        if "SHOP_LOG" in os.environ:
            with Path(os.environ["SHOP_LOG"]).open("a", encoding="utf-8") as log:
                log.write(f"{seconds} {{__file__}}\\n")

    def __call__(self, batch):
        self.work()
        return batch

    def work(self):
        time.sleep({seconds})
"""
"""A model that needs no processor, and notes where it was loaded from."""
TESTS = """
import pytest

from shop.model import Model


@pytest.fixture
def perf_model():
    return Model


@pytest.fixture
def perf_payload():
    return [1, 2, 3]


pytestmark = pytest.mark.perf(duration="200ms", warmup="100ms", tolerance=0.5, budget="1h")


def test_shop(perf):
    perf.assert_rtm_below("1us")  # what held in another time does not count


def test_other(perf):
    pass


def test_plain():
    pass
"""
INI = "[pytest]\npythonpath = src\n"
BROKEN = "raise ImportError('this commit is broken')\n"
"""A model file that cannot be imported."""


def files_of(seconds: float, *, ini: str = INI) -> dict[str, str]:
    """The files of a project whose model takes a number of seconds."""
    return {
        "pytest.ini": ini,
        "src/shop/__init__.py": "",
        "src/shop/model.py": MODEL.format(seconds=seconds),
        "test_shop.py": TESTS,
    }


def repository_of(top: Path, *seconds: float | str, ini: str = INI) -> tuple[Repository, list[str]]:
    """A repository, and the hashes of its commits, one for each time; text in place of a time is the model file."""
    repository = Repository.made(top)
    shas = []
    for number, one in enumerate(seconds):
        files = files_of(0.01 if isinstance(one, str) else one, ini=ini)
        model = {"src/shop/model.py": one} if isinstance(one, str) else {}
        shas.append(repository.commit({**files, **model, "number": str(number)}, f"Commit {number}"))
    return repository, shas


def editable_site(site: Path, top: Path, *, by_finder: bool) -> Path:
    """A directory for ``PYTHONPATH`` by which each Python imports the project from ``top/src``.

    By a finder, as setuptools' editable installs do it; else by a ``.pth`` file.
    """
    site.mkdir()
    if by_finder:
        finder = f"""
import sys
from importlib.util import spec_from_file_location

MAPPING = {{"shop": {str(top / "src" / "shop")!r}}}
NAMESPACES = {{}}


class Finder:
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name in MAPPING:
            return spec_from_file_location(name, f"{{MAPPING[name]}}/__init__.py")


def install():
    sys.meta_path.append(Finder)
"""
        (site / "shop_finder.py").write_text(finder, encoding="utf-8")
        start = "import shop_finder\nshop_finder.install()\n"
    else:
        start = f"import sys\nsys.path.append({str(top / 'src')!r})\n"
    (site / "sitecustomize.py").write_text(start, encoding="utf-8")
    return site


def run_with_ratios(ratios: Mapping[str, tuple[tuple[float, float], ...]], test: str = TEST) -> CommitRun:
    """A commit that was measured, with these log ratios and errors of its paired launches, by the metric's name."""
    found = result(test, reference=Reference("revision", "main (0123456)", {}, log_ratios=ratios), verdicts=())
    return CommitRun(found)
