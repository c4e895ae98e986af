"""Old months of a history in fewer lines: what is merged, what stays, and that a course stays the same."""

from __future__ import annotations

import math
import random
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.history_lines import history_line, numbered_line
from support.history_strategies import VALUES
from support.repository import Repository
from support.repository import settings as git_settings

from pytest_mlpatterns.errors import HistoryError, SettingError
from pytest_mlpatterns.history.compaction import compacted, merged, month
from pytest_mlpatterns.history.file import FileHistory
from pytest_mlpatterns.history.line_texts import content_of
from pytest_mlpatterns.history.notes import NotesHistory
from pytest_mlpatterns.records.history import CommitPosition, HistoryLine, PairedRatio
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.verdict import Kind
from pytest_mlpatterns.system.files import ForeignLockError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.history.place import History

TESTS = Path(__file__).parents[1]
LINE = history_line(metrics=("rtm",), date="2026-03-05T10:00:00Z", at=CommitPosition("a1b2c3d4", 7))


def with_values(*values: float, error: float = 0.01, **changes: object) -> HistoryLine:
    """A line of one metric with a launch for each value."""
    launches = tuple(LaunchValue(value, error) for value in values)
    return replace(LINE, **{"values": {"rtm": launches}, **changes})  # type: ignore[arg-type]


def content(*lines: HistoryLine) -> bytes:
    return content_of(lines, "test")


def read(bytes_: bytes) -> list[HistoryLine]:
    return [HistoryLine.from_text(line) for line in bytes_.decode().splitlines()]


@pytest.mark.parametrize("given", ["2026", "2026-13", "2026-1", "2026-00", "last", "2026-10-03", "", "２026-10"])
def test_only_a_month_is_taken(given: str) -> None:
    with pytest.raises(
        SettingError, match=r"the month is .*, expected the first one that stays as it is, such as 2026-10"
    ):
        month(given)
    assert month("2026-12") == "2026-12"


def test_runs_of_one_commit_become_one_line_where_the_first_stood() -> None:
    one, other = with_values(100.0, 102.0), with_values(104.0, 106.0, date="2026-03-09T10:00:00Z")
    between = replace(one, at=CommitPosition("b1b2c3d4", 8))
    (first, second) = read(compacted(content(one, between, other), "2026-04"))

    assert (first.at, second.at) == (one.at, between.at)
    assert (first.runs, second.runs) == (2, 1)
    assert (first.date, first.kind, first.clean) == (other.date, one.kind, True)
    (launch,) = first.values["rtm"]
    assert launch.value == pytest.approx(statistics.geometric_mean((100, 102, 104, 106)), rel=1e-3)
    assert [len(line.values["rtm"]) for line in (first, second)] == [1, 1]


@pytest.mark.parametrize(
    "change",
    [
        {"test": "other"},
        {"machine": "other"},
        {"setup": "other"},
        {"facts": "other"},
        {"at": CommitPosition("a1b2c3d4", 8)},
        {"clean": False},
        {"kind": Kind.UNDECIDED},
        {"reference": CommitPosition("c0ffee11", 1)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_lines_that_differ_stay_apart(change: dict[str, object]) -> None:
    lines = [LINE, replace(LINE, **change)]  # type: ignore[arg-type]
    assert len(read(compacted(content(*lines), "2026-04"))) == 2


def test_lines_of_later_months_stay_as_they_are() -> None:
    later = [replace(LINE, date=f"2026-04-0{day}T00:00:00Z") for day in (1, 2)]
    text = content(LINE, *later)
    assert compacted(text, "2026-03") == text
    assert compacted(text, "2026-04").endswith(content(*later))
    assert len(read(compacted(text, "2026-05"))) == 1
    assert compacted(b"", "2026-05") == b""


def test_what_this_version_does_not_understand_stays_as_it_is() -> None:
    line = LINE.to_text().encode()
    strange = [
        b'{"at":["a1b2c3d4",7],"v":2}',
        b'{"weather":"rain",' + line[1:],
        b"<<<<<<< HEAD",
        b"\xff\xfe",
        line[:50],
    ]
    result = compacted(b"\n".join([strange[0], line, *strange[1:], line]), "2026-05")
    kept = result.split(b"\n")
    assert [kept[0], *kept[2:-1]] == strange
    assert (len(read(kept[1])), kept[-1]) == (1, b"")


def test_an_error_has_the_scatter_of_launches_and_of_runs() -> None:
    """The errors of the launches are the least; a scatter beyond them counts as it is."""
    (quiet,) = merged([with_values(100.0, 100.0, error=0.02)]).values["rtm"]
    assert quiet.relative_error == pytest.approx(0.02 / math.sqrt(2))
    (launches,) = merged([with_values(90.0, 110.0, error=0.001)]).values["rtm"]
    spread = statistics.stdev(map(math.log, (90, 110)))
    assert launches.relative_error == pytest.approx(spread / math.sqrt(2))
    (runs,) = merged([with_values(value, value, error=0.001) for value in (90.0, 110.0)]).values["rtm"]
    assert runs.relative_error == pytest.approx(spread / math.sqrt(2))


def test_an_error_covers_the_truth_as_often_as_it_promises() -> None:
    """Runs of a level with scatter between runs and launches; 2 standard errors of 6 runs hold it in about 90 %."""
    chance, hits = random.Random(5), 0
    for _ in range(400):
        runs = []
        for _ in range(6):
            level = chance.gauss(math.log(1000), 0.02)
            values = [math.exp(chance.gauss(level, 0.01)) for _ in range(3)]
            runs.append(with_values(*values, error=0.003))
        (launch,) = merged(runs).values["rtm"]
        hits += abs(math.log(launch.value / 1000)) < 2 * launch.relative_error
    assert 0.84 < hits / 400 < 0.96


def test_values_that_are_not_positive_have_an_arithmetic_mean() -> None:
    (launch,) = merged([with_values(-1.0, 3.0, error=0.1), with_values(0.0, 2.0, error=0.1)]).values["rtm"]
    assert launch.value == pytest.approx(1.0)
    (nothing,) = merged([with_values(0.0, 0.0, error=0.0)]).values["rtm"]
    assert nothing == LaunchValue(0.0, 0.0)
    assert merged([with_values(-1.0, 1.0)]).values["rtm"][0].relative_error == 0.0


def test_ratios_are_merged_too_and_a_metric_may_lack_in_some_runs() -> None:
    reference = CommitPosition("c0ffee11", 1)
    lines = [
        replace(LINE, reference=reference, ratios={"rtm": (PairedRatio(0.02, 0.01), PairedRatio(0.04, 0.01))}),
        replace(
            LINE, reference=reference, ratios={"rtm": (PairedRatio(0.06, 0.01),), "p95": (PairedRatio(0.1, 0.02),)}
        ),
    ]
    line = merged(lines)
    assert line.ratios["rtm"][0].log_ratio == pytest.approx(0.045)
    assert line.ratios["p95"] == (PairedRatio(0.1, 0.02),)
    assert (line.reference, line.runs) == (reference, 2)


@settings(deadline=None)
@given(st.lists(st.tuples(VALUES, st.integers(1, 10**6), st.sampled_from("ab")), max_size=5))
def test_a_second_compaction_changes_nothing(runs: Sequence[tuple[tuple[LaunchValue, ...], int, str]]) -> None:
    lines = {
        line.to_text(): line
        for line in (replace(LINE, values={"rtm": values}, runs=of, setup=setup) for values, of, setup in runs)
    }
    once = compacted(content(*lines.values()), "2027-01")
    assert compacted(once, "2027-01") == once
    assert sum(line.runs for line in read(once)) == sum(line.runs for line in lines.values())


def test_a_merged_line_counts_for_all_its_runs_in_the_next_compaction() -> None:
    runs = [with_values(100.0 + number, 101.0 + number, date=f"2026-03-0{number}T00:00:00Z") for number in range(1, 7)]
    at_once = merged(runs)
    in_steps = merged([merged(runs[:4]), *runs[4:]])
    assert in_steps.runs == at_once.runs == 6
    assert in_steps.values["rtm"][0].value == pytest.approx(at_once.values["rtm"][0].value)


def test_a_step_between_two_commits_stays_where_it_was() -> None:
    """Levels before and after it are those of the uncompacted lines, commit by commit."""
    chance = random.Random(8)
    lines = [
        with_values(
            *(chance.lognormvariate(math.log(1000 if commit < 10 else 1050), 0.01) for _ in range(3)),
            at=CommitPosition(f"{commit:08x}", commit),
            date=f"2026-03-{commit + 1:02}T0{run}:00:00Z",
        )
        for commit in range(20)
        for run in range(3)
    ]
    compact = read(compacted(content(*lines), "2026-04"))
    assert [line.at.position for line in compact] == list(range(20))
    for line in compact:
        values = [one.value for run in lines if run.at == line.at for one in run.values["rtm"]]
        assert line.values["rtm"][0].value == pytest.approx(statistics.geometric_mean(values), rel=6e-4)
    assert len(content(*compact)) < len(content(*lines)) / 3


# --- files and notes -------------------------------------------------------------------------------------------------


def old_lines(commit: str = "") -> list[HistoryLine]:
    """Ten runs of one commit."""
    return [replace(numbered_line(0, commit), date=f"2026-02-01T00:00:0{second}Z") for second in range(10)]


def test_a_file_is_replaced_by_a_smaller_one(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    history = FileHistory(path, path.name)
    history.append([*old_lines(), history_line(date="2026-08-01T00:00:00Z")])
    path.write_bytes(path.read_bytes() + b"<<<<<<< HEAD\n")
    path.chmod(0o640)
    before = path.stat()
    done = history.compact("2026-06")
    assert done.lines == (12, 3)
    assert done.size_bytes == (before.st_size, path.stat().st_size)
    assert (len(history.read().lines), history.read().skipped) == (2, 1)
    assert path.stat().st_mode == before.st_mode
    assert [child.name for child in tmp_path.iterdir()] == [path.name]
    compact = path.stat()
    assert history.compact("2026-06").lines == (3, 3)
    assert path.stat() == compact or path.stat().st_ino == compact.st_ino
    with pytest.raises(SettingError, match="the month is"):
        history.compact("June")


def test_a_file_that_cannot_be_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "history.jsonl"
    history = FileHistory(path, path.name)
    history.append(old_lines())
    before = path.read_bytes()
    for error, expected in (
        (OSError(28, "No space left on device"), "cannot be written: No space left on device; it is unchanged"),
        (ForeignLockError(13, "its lock belongs to ada"), "is unchanged: its lock belongs to ada, then compact again"),
    ):

        def fail(*_: object, error: OSError = error) -> None:
            raise error

        monkeypatch.setattr("pytest_mlpatterns.history.file.replace_file", fail)
        with pytest.raises(HistoryError, match=expected):
            history.compact("2026-06")
        assert path.read_bytes() == before


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    for name, value in git_settings().items():
        if name.startswith("GIT_CONFIG"):
            monkeypatch.setenv(name, value)
    made = Repository.made(tmp_path / "repository")
    for number in range(2):
        made.commit({"model.py": f"SPEED = {number}\n"})
    return made


@pytest.mark.processes
def test_notes_are_compacted_each_by_itself(repository: Repository) -> None:
    first, last = repository.git("log", "--reverse", "--format=%h", "--abbrev=12").split()
    history = NotesHistory("perf", repository.top)
    history.append([*old_lines(first), replace(numbered_line(5, last), date="2026-08-01T00:00:00Z")])
    untouched = repository.git("notes", "--ref=perf", "show", last)
    assert history.compact("2026-06").lines == (11, 2)
    assert sorted(line.runs for line in history.read().lines) == [1, 10]
    assert repository.git("notes", "--ref=perf", "show", last) == untouched
    tip = repository.git("rev-parse", "refs/notes/perf")
    assert history.compact("2026-06").lines == (2, 2)
    assert repository.git("rev-parse", "refs/notes/perf") == tip
    assert NotesHistory("empty", repository.top).compact("2026-06").lines == (0, 0)


@pytest.mark.processes
@pytest.mark.parametrize("kind", ["file", "notes"])
def test_a_compaction_beside_appends_loses_no_run(repository: Repository, kind: str) -> None:
    commits = repository.git("log", "--format=%h", "--abbrev=12").split()
    history: History = (
        FileHistory(repository.top / "history.jsonl", "history.jsonl")
        if kind == "file"
        else NotesHistory("perf", repository.top)
    )
    place = "history.jsonl" if kind == "file" else "git:perf"
    script = f"""
    import sys
    from dataclasses import replace
    from pathlib import Path
    sys.path.insert(0, {str(TESTS)!r})
    from support.history_lines import codes, herd, numbered_line
    from pytest_mlpatterns.history.place import open_history
    history = open_history({place!r}, root=Path.cwd(), invoked_in=Path.cwd())

    def work(index):
        for number in range(10):
            if index == 0:
                history.compact("2026-06")
            else:
                line = numbered_line(0, {commits!r}[index % 2])
                history.append([replace(line, date=f"2026-02-01T00:{{index:02}}:{{number:02}}Z")])

    assert codes(herd(work, 6)) == [0] * 6
    """
    process = subprocess.run(
        [sys.executable, "-c", dedent(script)], cwd=repository.top, capture_output=True, text=True, check=False
    )
    assert (process.returncode, process.stderr) == (0, "")
    assert sum(line.runs for line in history.read().lines) == 50
    history.compact("2026-06")
    assert sorted(line.runs for line in history.read().lines) == [20, 30]
