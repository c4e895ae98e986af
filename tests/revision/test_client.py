"""What the client of a revision says when the other side fails, without a process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.repository import Repository

from pytest_mlpatterns.errors import ChildError, DeploymentError
from pytest_mlpatterns.revision import client
from pytest_mlpatterns.revision.client import NothingToCompareError, RevisionClient
from pytest_mlpatterns.revision.messages import InheritedOptions, Reason, RevisionFailed
from pytest_mlpatterns.revision.resolve import Revision
from pytest_mlpatterns.revision.worktree import Worktree

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.processes  # git

HINT = "w.json exists here, but git does not track it, so main runs without it; take it along: --perf-against-files"
TRACE = "    open('w.json')\n    ^^^^\nE   FileNotFoundError: [Errno 2] No such file or directory: 'w.json'"


@pytest.fixture
def setup_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[object], object]:
    """Asks for the set-up of a test at a revision whose process gives this answer, or raises this error."""
    repository = Repository.made(tmp_path / "top")
    repository.write({"w.json": "{}"})
    (tmp_path / "there").mkdir()
    there = tmp_path / "there"
    worktree = Worktree(Revision("0" * 40, "main", "", "0000000"), there, there, repository.top, ())

    def ask(answer: object) -> object:
        class Process:
            def __init__(self, *_: object, **__: object) -> None: ...

            def send(self, _: object) -> None: ...

            def receive(self, _: float) -> object:
                if isinstance(answer, Exception):
                    raise answer
                return answer

        monkeypatch.setattr(client, "Child", Process)
        inherited = InheritedOptions((), {}, ())
        return RevisionClient(
            "t.py::test", worktree, tmp_path, startup_timeout_ns=10**9, inherited_options=inherited
        ).setup()

    return ask


def test_an_error_there_begins_with_its_last_line_and_names_the_file(setup_after: Callable[[object], object]) -> None:
    with pytest.raises(NothingToCompareError) as caught:
        setup_after(RevisionFailed(Reason.FAILED, TRACE))
    assert str(caught.value).startswith("t.py::test fails at main (0000000): FileNotFoundError: [Errno 2] No such")
    assert HINT in str(caught.value)
    assert caught.value.details.splitlines() == [TRACE.splitlines()[0], TRACE.splitlines()[2]]


def test_an_error_without_a_file_names_the_option_all_the_same(setup_after: Callable[[object], object]) -> None:
    with pytest.raises(NothingToCompareError, match=r"ValueError: no; if it lacks files .* --perf-against-files"):
        setup_after(RevisionFailed(Reason.FAILED, "E   ValueError: no"))


def test_a_process_that_ends_there_names_the_file_too(setup_after: Callable[[object], object]) -> None:
    with pytest.raises(DeploymentError) as caught:
        setup_after(ChildError(f"process 7 ended with exit code 4; it printed last:\n{TRACE}"))
    assert "ended with exit code 4; it printed last:" in str(caught.value)
    assert HINT in str(caught.value).splitlines()[-1]
    assert "^^^" not in str(caught.value)


def test_a_test_that_is_absent_there_is_a_reason_of_its_own(setup_after: Callable[[object], object]) -> None:
    with pytest.raises(NothingToCompareError, match="does not exist at main") as caught:
        setup_after(RevisionFailed(Reason.ABSENT, "pytest ended with exit code 4"))
    assert caught.value.reason is Reason.ABSENT
