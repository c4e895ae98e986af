"""When an acceptance ends beside a revision: by the file there, and by what pytest reads of the marker there."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec.structs import replace
from support.experiments import declared_experiment
from support.project import OPTIONS
from support.repository import Repository

from pytest_mlpatterns.plugin.acceptances import Acceptances
from pytest_mlpatterns.records.verdict import Accepted
from pytest_mlpatterns.revision.client import RevisionClient
from pytest_mlpatterns.revision.commits import resolve_revision
from pytest_mlpatterns.revision.messages import InheritedOptions
from pytest_mlpatterns.revision.worktree import checkout

pytestmark = pytest.mark.processes

FILE = """
[[accepted]]
test = "{pattern}"
metric = "rtm"
ceiling = "60 %"
reason = "larger model"
"""
TEST = "test_shop.py::test_shop"
TEXT = "rtm +60 %: larger model"


def ended_of(project: Path, place: Path) -> list[str]:
    """Why what a file at this place accepts of the test no longer holds beside ``HEAD``."""
    with checkout(project, resolve_revision(project, "HEAD")) as worktree:
        run = SimpleNamespace(accepted_file=place)
        known = Acceptances(project, run, worktree)  # type: ignore[arg-type]
        settings, item = SimpleNamespace(accept=()), SimpleNamespace(nodeid=TEST)
        found = known.of(item, settings, declared_experiment().baseline)  # type: ignore[arg-type]
    return [why for _, why in found.ended]


@pytest.mark.parametrize("below", [".", "services", "services/shop"])
@pytest.mark.parametrize("place", ["perf-accepted.toml", "ci/perf-accepted.toml"])
def test_the_file_ends_what_the_revision_has_wherever_the_project_is(tmp_path: Path, below: str, place: str) -> None:
    repository = Repository.made(tmp_path / "top")
    project = (repository.top / below).resolve()
    file = project / place
    repository.commit({str(file.relative_to(repository.top)): FILE.format(pattern=TEST)})
    assert ended_of(project, file) == ["HEAD has it already"]


def test_a_file_above_the_root_directory_ends_too(tmp_path: Path) -> None:
    repository = Repository.made(tmp_path / "top")
    repository.commit({"perf-accepted.toml": FILE.format(pattern=TEST), "services/test_shop.py": ""})
    project = repository.top / "services"
    assert ended_of(project, repository.top / "perf-accepted.toml") == ["HEAD has it already"]


def test_what_the_revision_accepts_of_another_test_goes_on(tmp_path: Path) -> None:
    repository = Repository.made(tmp_path / "top")
    file = repository.top / "perf-accepted.toml"
    repository.commit({file.name: FILE.format(pattern="test_shop.py::test_other")})
    repository.write({file.name: FILE.format(pattern="test_shop.py::*")})
    assert ended_of(repository.top, file) == []


MARKERS = f"""
import pytest

from words import LARGER

@pytest.mark.perf(model=lambda batch: batch, payload=[1], accept=WRITTEN)
def test_shop(perf):
    pass

@pytest.mark.perf(model=lambda batch: batch, payload=[1], accept="{TEXT}")
def test_other(perf):
    pass
"""
WORDS = {"words.py": 'LARGER = "larger model"\n', "pytest.ini": "[pytest]\npythonpath = .\n"}


def of_the_marker_there(top: Path, directory: Path) -> Accepted:
    """What goes on of ``TEXT`` in the marker of the test here, once the pytest of ``HEAD`` has answered."""
    with checkout(top, resolve_revision(top, "HEAD")) as worktree:
        inherited = InheritedOptions(OPTIONS, {}, tuple(sys.path))
        client = RevisionClient(TEST, worktree, directory, startup_timeout_ns=60 * 10**9, inherited_options=inherited)
        here = replace(declared_experiment(accept=TEXT), revision=client)
        assert here.agreed.in_force  # before the answer
        try:
            client.setup()
        finally:
            client.close()
        return here.agreed


@pytest.mark.parametrize(
    "written",
    ["'rtm +60 %: '\n    f'{LARGER}'", '["p95 +90 %: why", "rtm+60%:larger\\x20model"]'],
    ids=["two lines, an f-string and another module", "a list and an escape"],
)
def test_a_marker_ends_what_pytest_reads_of_it_at_the_revision(tmp_path: Path, written: str) -> None:
    repository = Repository.made(tmp_path / "top")
    repository.commit({"test_shop.py": MARKERS.replace("WRITTEN", written), **WORDS})
    found = of_the_marker_there(repository.top, tmp_path)
    assert found.notes == (f"accepted is {TEXT}; HEAD has it already, so remove it",)


def test_what_the_marker_of_another_test_accepts_there_ends_nothing(tmp_path: Path) -> None:
    repository = Repository.made(tmp_path / "top")
    repository.commit({"test_shop.py": MARKERS.replace("WRITTEN", '"rtm +50 %: larger model"'), **WORDS})
    assert of_the_marker_there(repository.top, tmp_path).ended == ()
