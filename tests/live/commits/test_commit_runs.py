"""An old commit measured against another one: with its own code and test, and why it cannot be measured."""

import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.nightly import rarer
from support.old_commits import BROKEN, INI, TEST, editable_site, files_of, repository_of
from support.repository import Repository
from support.services.processes import our_children

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.history.commit_runs import CommitRun, CommitRuns, MeasuredAs, NotRun, WhyNotRun, limit_s
from pytest_mlpatterns.revision.commits import resolve_revision

pytestmark = pytest.mark.processes

SHORT = MeasuredAs(2 * 10**9, "rtm", 0.5)


def measured(
    repository: Repository, commit: str, reference: str, *, test: str = TEST, most_s: float | None = None
) -> CommitRun | NotRun:
    with CommitRuns(repository.top) as runs:
        found = runs.of(test)(
            resolve_revision(repository.top, commit), resolve_revision(repository.top, reference), SHORT, most_s=most_s
        )
    assert len(repository.worktrees()) == 1
    assert our_children() == set()
    return found


@pytest.mark.parametrize("by_finder", [True, *rarer(False)])
def test_both_sides_run_their_own_code_although_the_project_is_installed_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_finder: bool
) -> None:
    ini = f"{INI}perf_history = git:perf\nperf_html = report.html\nperf_baseline = require\n"
    repository, (first, second, _) = repository_of(tmp_path / "shop", 0.01, 0.03, 0.06, ini=ini)
    repository.write({**files_of(0.09), "pytest.ini": "[pytest]\n"})
    site = editable_site(tmp_path / "site", repository.top, by_finder=by_finder)
    log = tmp_path / "log"
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH")))))
    monkeypatch.setenv("SHOP_LOG", str(log))
    found = measured(repository, second, first)
    assert isinstance(found, CommitRun), found
    loaded = [line.split(" ", 1) for line in log.read_text(encoding="utf-8").splitlines()]
    assert {seconds for seconds, _ in loaded} == {"0.01", "0.03"}
    assert not any(Path(file).is_relative_to(repository.top) for _, file in loaded)
    ratios = found.ratios("rtm")
    assert len(ratios) >= 3
    assert 0.3 < sum(one.value for one in ratios) / len(ratios) < 1.3
    assert found.result.test == TEST
    assert found.ratios("p99") == ()
    assert repository.git("for-each-ref", "refs/notes") == ""  # a measurement of another commit is no run of this one


REASONS = {
    "broken": (BROKEN, WhyNotRun.IMPORT, "ImportError: this commit is broken"),
    "fails": (
        "class Model:\n    def __call__(self, batch):\n        raise OSError('no')\n",
        WhyNotRun.FAILED,
        "OSError",
    ),
    "hangs": ("import time\ntime.sleep(100)\n", WhyNotRun.TIMEOUT, "took longer than 4.00 s"),
    "syntax": ("def\n", WhyNotRun.COLLECTION, "SyntaxError: invalid syntax"),
    "dies": ("import os\nos._exit(3)\n", WhyNotRun.CRASH, ""),
    "is killed": (
        "import os\n\n\nclass Model:\n    def __call__(self, batch):\n        os.kill(os.getppid(), 9)\n",
        WhyNotRun.CRASH,
        "SIGKILL",
    ),
}


@pytest.mark.parametrize("name", [*REASONS][:3] + rarer(*[*REASONS][3:]))
def test_a_commit_that_does_not_run_has_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    model, why, text = REASONS[name]
    (temporary := tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setenv("TMPDIR", str(temporary))
    repository, (first, second) = repository_of(tmp_path / "shop", 0.01, model)
    found = measured(repository, second, first, most_s=4.0 if why is WhyNotRun.TIMEOUT else None)
    assert isinstance(found, NotRun), found
    assert found.why is why
    assert text in found.text
    assert str(found).startswith(why.value)
    assert not [*temporary.iterdir()]


@pytest.mark.parametrize("test", ["test_shop.py::test_absent", *rarer("test_absent.py::test_shop")])
def test_a_test_that_is_absent_at_the_commit(tmp_path: Path, test: str) -> None:
    repository, (first, second) = repository_of(tmp_path / "shop", 0.01, 0.01)
    found = measured(repository, second, first, test=test)
    assert isinstance(found, NotRun)
    assert found.why is WhyNotRun.ABSENT


def test_a_test_that_is_absent_at_the_reference_is_not_compared(tmp_path: Path) -> None:
    repository, (first, second) = repository_of(tmp_path / "shop", BROKEN, 0.01)
    found = measured(repository, second, first)
    assert isinstance(found, NotRun)
    assert found.why is WhyNotRun.NOT_COMPARED
    assert "this commit is broken" in found.text


def test_a_test_without_a_measurement_and_one_that_is_skipped(tmp_path: Path) -> None:
    repository, (first, second) = repository_of(
        tmp_path / "shop", 0.01, "import pytest\npytest.skip('no', allow_module_level=True)\n"
    )
    plain = measured(repository, first, first, test="test_shop.py::test_plain")
    skipped = measured(repository, second, first)
    assert isinstance(plain, NotRun)
    assert isinstance(skipped, NotRun)
    assert (plain.why, skipped.why) == (WhyNotRun.FAILED, WhyNotRun.FAILED)


def test_a_directory_that_the_commit_does_not_have(tmp_path: Path) -> None:
    repository, (first, second) = repository_of(tmp_path / "shop", 0.01, 0.01)
    repository.commit({f"below/{name}": text for name, text in files_of(0.01).items()})
    below = repository.top / "below"
    with CommitRuns(below) as runs:
        found = runs.of(TEST)(resolve_revision(below, second), resolve_revision(below, "main"), SHORT)
    assert isinstance(found, NotRun)
    assert (found.why, found.text) == (WhyNotRun.ABSENT, f"below does not exist at {second[:7]}")
    assert first != second


def test_several_tests_are_refused(tmp_path: Path) -> None:
    repository, (first,) = repository_of(tmp_path / "shop", 0.01)
    with pytest.raises(SettingError, match=r"test_shop\.py names 3 tests: .*expected one"):
        measured(repository, first, first, test="test_shop.py")


def test_a_process_that_wrote_no_results_counts_as_crashed(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.json"
    damaged.write_text("{", encoding="utf-8")
    for file in (tmp_path / "absent.json", damaged):
        found = CommitRuns(tmp_path)._read(SimpleNamespace(file=file))  # type: ignore[arg-type]
        assert isinstance(found, NotRun)
        assert found.why is WhyNotRun.CRASH


def test_a_run_may_take_longer_than_its_budget() -> None:
    assert limit_s(30 * 10**9) > 60.0
