"""A search among commits: what it measures, how it ends, and how it goes on, with declared measurements."""

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace
from support.each_row import each_row
from support.old_commits import run_with_ratios

from pytest_mlpatterns.analysis.changes.bisection import SearchRules
from pytest_mlpatterns.analysis.metrics.definitions import bisectable
from pytest_mlpatterns.config.settings import read_settings
from pytest_mlpatterns.errors import DeploymentError, SettingError
from pytest_mlpatterns.history.bisect import BisectPlan, Search, SearchState
from pytest_mlpatterns.history.checkout import CommitRange
from pytest_mlpatterns.history.commit_runs import CommitJob, CommitRun, MeasuredAs, NotRun, WhyNotRun
from pytest_mlpatterns.records.bisect import CommitName, SearchedCommit, SearchEnd, WhyRange
from pytest_mlpatterns.reports.text.history_text import announcement, result_lines, searched_line
from pytest_mlpatterns.revision.commits import Revision
from pytest_mlpatterns.revision.worktree import Worktree

BUDGET_NS = 10 * 10**9
ERROR = NotRun(WhyNotRun.IMPORT, "ImportError: no")


def sha(number: int) -> str:
    return f"{number:040d}"


def plan_of(last: int, *, metric: str = "rtm", at_most_s: float = 1e6) -> BisectPlan:
    shas = tuple(map(sha, range(last + 1)))
    ends = Revision(shas[0], "v1", "", "good123"), Revision(shas[-1], "main", "", "bad4567")
    names = {
        one: CommitName(one, f"c{number}", f"Commit {number}", "Ada", "2026-10-03T10:00:00+00:00")
        for number, one in enumerate(shas)
    }
    commits = CommitRange(*ends, shas)
    return BisectPlan("t.py::test", metric, commits, names, BUDGET_NS, int(at_most_s * 1e9), SearchRules())


class Measured:
    """Measures commits whose levels are declared; a text is why one does not run. Each takes 20 s of its clock."""

    def __init__(self, levels: Sequence[float | NotRun], figures: Sequence[str] = ("rtm", "throughput")) -> None:
        self.levels = levels
        self.figures = figures
        self.asked: list[tuple[int, int]] = []
        self.profiled: list[bool] = []
        self.limits_s: list[float | None] = []
        self.now_s = 0.0
        self.interrupt_at = 10**9

    def __call__(
        self, commit: Revision, reference: Revision, measured_as: MeasuredAs, *, most_s: float | None = None
    ) -> CommitRun | NotRun:
        pair = int(commit.sha), int(reference.sha)
        if len(self.asked) >= self.interrupt_at:
            raise KeyboardInterrupt
        self.asked.append(pair)
        self.profiled.append(measured_as.is_profiled)
        self.limits_s.append(most_s)
        self.now_s += 20.0
        here, there = (self.levels[number] for number in pair)
        if isinstance(here, NotRun):
            return here
        assert not isinstance(there, NotRun)
        ratios = dict.fromkeys(self.figures, ((here - there, 0.0001),) * 40)
        return run_with_ratios(ratios)


def steps(last: int, at: int, size: float = 0.1) -> list[float | NotRun]:
    return [math.log1p(size) if number >= at else 0.0 for number in range(last + 1)]


def instead(search: Search, answer: Callable[[CommitRun | NotRun], CommitRun | NotRun]) -> None:
    """Let a search find what is answered to each of its measurements."""
    take = search._measure
    search._measure = lambda *given, **named: answer(take(*given, **named))  # type: ignore[assignment]


def search_of(plan: BisectPlan, measured: Measured, file: Path) -> tuple[Search, list[SearchedCommit]]:
    shown: list[SearchedCommit] = []
    state = SearchState(file, plan.key)
    return Search(plan, measured, state, show=shown.append, clock=lambda: measured.now_s), shown


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state.json"


def test_the_commit_is_found_and_compared_with_its_parent(file: Path) -> None:
    measured = Measured(steps(8, 3))
    search, shown = search_of(plan_of(8), measured, file)
    result = search.run()
    assert result.end is SearchEnd.FOUND
    assert (result.before, result.first) == (plan_of(8).name(2), plan_of(8).name(3))
    assert measured.asked == [(8, 0), (4, 0), (2, 0), (3, 0), (3, 2)]
    assert measured.profiled == [False] * 4 + [True]
    assert [one.left for one in shown] == [8, 4, 2, 1]
    assert not file.exists()
    assert result.step.value == pytest.approx(1.1, rel=1e-3)
    lines = result_lines(result)
    assert lines[0].startswith("c3 changed median latency by +10.0 % (+9.")
    assert lines[0].endswith("against its parent c2:")
    assert lines[1:3] == ["  Commit 3", "  Ada, 2026-10-03"]


def test_a_result_is_plain_json(file: Path) -> None:
    result = search_of(plan_of(4), Measured(steps(4, 1)), file)[0].run()
    data = json.loads(json.dumps(result.to_json()))
    assert (data["end"], data["why"], data["first"]["short"]) == ("found", None, "c1")
    assert data["step"][0] == pytest.approx(0.1, rel=1e-2)
    assert data["searched"][0]["likeness"] == "bad"


def test_ends_that_do_not_differ(file: Path) -> None:
    measured = Measured([0.0] * 9)
    result = search_of(plan_of(8), measured, file)[0].run()
    assert result.end is SearchEnd.NONE
    assert measured.asked == [(8, 0)]
    (line,) = result_lines(result)
    assert line.startswith("no change to find: median latency +0.0 % (")
    assert result_lines(replace(result, is_open=True))[0].startswith("no change was shown: median latency ")


def test_commits_that_do_not_run_leave_a_range_with_the_reasons(file: Path) -> None:
    levels = steps(8, 4)
    levels[3] = levels[4] = levels[5] = ERROR
    result = search_of(plan_of(8), Measured(levels), file)[0].run()
    assert (result.end, result.why) == (SearchEnd.RANGE, WhyRange.NOT_RUN)
    lines = result_lines(result)
    assert "after c2 and up to c6 (Commit 6)" in lines[0]
    assert "  c4  import error: ImportError: no" in lines
    assert searched_line(result.searched[1]) == "    8 left  c4  does not run: import error: ImportError: no"


def test_many_reasons_are_counted(file: Path) -> None:
    levels = [0.0, *[ERROR] * 15, 0.1]
    lines = result_lines(search_of(plan_of(16), Measured(levels), file)[0].run())
    assert lines[-1] == "  and 7 more"


def test_an_end_that_does_not_run_is_an_error(file: Path) -> None:
    levels = [0.0, 0.0, replace(ERROR, log="line 7")]
    with pytest.raises(
        DeploymentError, match=r"main \(bad4567\) cannot be compared with v1 [^\n]+\n.*:\nline 7"
    ) as caught:
        search_of(plan_of(2), Measured(levels), file)[0].run()
    assert "ImportError: no" in str(caught.value)
    assert not file.exists()


def test_a_metric_that_the_test_does_not_have_is_an_error(file: Path) -> None:
    with pytest.raises(
        SettingError, match=r"--metric ttft: t\.py::test does not have it .* expected rtm or throughput"
    ):
        search_of(plan_of(2, metric="ttft"), Measured(steps(2, 1)), file)[0].run()


def test_a_commit_without_the_metric_is_passed_over(file: Path) -> None:
    measured = Measured(steps(4, 1))
    search, shown = search_of(plan_of(4), measured, file)
    instead(search, lambda found: run_with_ratios({}) if measured.asked[-1][0] == 2 else found)
    assert search.run().first == plan_of(4).name(1)
    assert shown[1].skipped == "not comparable: both sides do not have median latency"


def test_the_time_is_over_and_the_search_goes_on(file: Path) -> None:
    plan = plan_of(8, at_most_s=45.0)
    first = Measured(steps(8, 3))
    result = search_of(plan, first, file)[0].run()
    assert (result.end, result.why) == (SearchEnd.RANGE, WhyRange.TIME)
    assert first.asked == [(8, 0), (4, 0)]
    assert first.limits_s == [45.0, 25.0]
    assert "the same command goes on" in result_lines(result)[-1]
    second = Measured(steps(8, 3))
    result = search_of(replace(plan, at_most_ns=10**15), second, file)[0].run()
    assert result.end is SearchEnd.FOUND
    assert second.asked == [(2, 0), (3, 0), (3, 2)]
    assert len(result.searched) == 4


def test_the_time_may_be_over_before_both_ends_are_compared(file: Path) -> None:
    result = search_of(plan_of(8, at_most_s=5.0), Measured(steps(8, 3)), file)[0].run()
    assert (result.end, result.why, result.searched) == (SearchEnd.RANGE, WhyRange.TIME, ())
    first, second = result_lines(result)
    assert first == "nothing was measured from c0 to c8, so it is not known whether median latency changed"
    assert second == "the time of the search is over; the same command with a longer --at-most goes on where it ended"
    noisy = Measured([0.0] * 8 + [0.1])
    search, _ = search_of(plan_of(8, at_most_s=25.0), noisy, file)
    search._measure = lambda *_, **__: run_with_ratios({"rtm": ((0.0, 0.3), (0.05, 0.3))})  # type: ignore[assignment]
    search._clock = iter([0.0, 30.0]).__next__
    result = search.run()
    assert [one.likeness for one in result.searched] == [""]
    assert result_lines(result)[0].startswith("it is not decided whether median latency changed from c0 to c8: +")


def test_a_measurement_that_the_end_of_the_time_cuts_is_no_reason(file: Path) -> None:
    levels = steps(8, 3)
    levels[4] = NotRun(WhyNotRun.TIMEOUT, "took longer than 25 s")
    result = search_of(plan_of(8, at_most_s=45.0), Measured(levels), file)[0].run()
    assert result.why is WhyRange.TIME
    assert len(result.searched) == 1


def test_there_may_be_no_time_for_the_last_comparison(file: Path) -> None:
    result = search_of(plan_of(8, at_most_s=85.0), Measured(steps(8, 3)), file)[0].run()
    assert (result.why, result.before, result.first) == (WhyRange.TIME, plan_of(8).name(2), plan_of(8).name(3))
    assert file.exists()


def kept(file: Path, plan: BisectPlan) -> Mapping[str, object]:
    measured = Measured(steps(8, 3))
    measured.interrupt_at = 2
    with pytest.raises(KeyboardInterrupt):
        search_of(plan, measured, file)[0].run()
    return json.loads(file.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def test_another_search_begins_anew_and_the_same_one_goes_on(file: Path) -> None:
    kept(file, plan_of(8))
    state = SearchState(file, plan_of(8, metric="throughput").key)
    assert (state.events, state.was_other) == ([], True)
    second = Measured(steps(8, 3))
    assert search_of(plan_of(8), second, file)[0].run().end is SearchEnd.FOUND
    assert second.asked[0] == (2, 0)
    file.touch()
    for new in (file, file.with_name("absent")):
        state = SearchState(new, plan_of(8).key)
        assert (state.events, state.was_other) == ([], False)


@each_row(
    "damage",
    {"version": 2},
    {"events": 3},
    {"events": [7]},
    {"events": [{"commit": 7}]},
    {"events": [{"commit": sha(8)}]},
    {"events": [{"commit": sha(8), "figure": "rtm", "launches": []}]},
    {"events": [{"commit": sha(8), "figure": "rtm", "launches": [3]}]},
    {"events": [{"commit": sha(8), "figure": "rtm", "launches": [[0.1, -1.0]]}]},
    {"events": [{"commit": sha(8), "figure": "rtm", "launches": [[0.1, "no"]]}]},
)
def test_a_damaged_state_counts_as_none(file: Path, damage: Mapping[str, object]) -> None:
    data = {**kept(file, plan_of(8)), **damage}
    file.write_text(json.dumps(data), encoding="utf-8")
    assert SearchState(file, plan_of(8).key).events == []


@pytest.mark.parametrize("content", [b"[]", b"{", b'"text"', b'{"format": "pytest-mlpatterns-results"}', b"\xff"])
def test_a_file_of_another_format_is_left_alone(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(SettingError, match="is not what a search wrote, and would be lost; name another file with"):
        SearchState(file, plan_of(8).key)
    assert file.read_bytes() == content


def test_a_state_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    for place, words in (
        (tmp_path, "is a directory"),
        (tmp_path / "absent" / "state", "which does not exist"),
        (Path(os.devnull), "It is no regular file"),
    ):
        with pytest.raises(SettingError, match=f"{words}.*; name another file with --state"):
            SearchState(place, plan_of(8).key)


@pytest.mark.parametrize(
    "events",
    [
        [{"commit": sha(5), "skipped": "import error"}],
        [{"commit": sha(8), "skipped": "import error"}],
        [
            {"commit": sha(8), "figure": "rtm", "launches": [[0.1, 0.0001]] * 9},
            {"commit": sha(4), "figure": "throughput", "launches": [[0.1, 0.0001]] * 9},
        ],
        [{"commit": sha(8), "figure": "rtm", "launches": [[0.0, 0.0001]] * 9}] * 2,
    ],
)
def test_events_that_do_not_fit_begin_anew(file: Path, events: object) -> None:
    file.write_text(json.dumps({**kept(file, plan_of(8)), "events": events}), encoding="utf-8")
    measured = Measured(steps(8, 3))
    result = search_of(plan_of(8), measured, file)[0].run()
    assert result.end is SearchEnd.FOUND
    assert measured.asked[0] == (8, 0)
    assert len(result.searched) == 4


def test_a_state_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    search, _ = search_of(plan_of(8), Measured(steps(8, 3)), tmp_path / "state")
    (tmp_path / "state").mkdir()
    with pytest.raises(SettingError, match=r"cannot be written: .*; name another file with --state"):
        search.run()


def test_several_steps_name_one_of_them_and_offer_the_rest(file: Path) -> None:
    levels: list[float | NotRun] = [0.1 if number >= 6 else 0.05 if number >= 3 else 0.0 for number in range(9)]
    result = search_of(plan_of(8), Measured(levels), file)[0].run()
    assert (result.end, result.is_part) == (SearchEnd.FOUND, True)
    text = "\n".join(result_lines(result))
    assert "other commits have a part in that; to find them:" in text
    assert "  python -m pytest_mlpatterns bisect t.py::test " in text


def test_the_only_commit_has_no_others_beside_it(file: Path) -> None:
    measured = Measured(steps(1, 1))
    search, _ = search_of(plan_of(1), measured, file)
    instead(search, lambda _: run_with_ratios({"rtm": ((0.05 if measured.profiled[-1] else 0.1, 0.0001),) * 40}))
    result = search.run()
    assert (result.end, result.is_part) == (SearchEnd.FOUND, False)


def test_many_small_steps_are_a_range(file: Path) -> None:
    result = search_of(plan_of(40), Measured([number * 0.002 for number in range(41)]), file)[0].run()
    assert result.why is WhyRange.GRADUAL
    assert result_lines(result)[-1] == "many commits between have a part in it, each too small to be found"


def test_a_commit_that_is_not_confirmed_is_a_range(file: Path) -> None:
    measured = Measured(steps(2, 1))
    search, _ = search_of(plan_of(2, metric="throughput"), measured, file)
    unchanged = run_with_ratios({"throughput": ((0.0, 0.0001),) * 40})
    instead(search, lambda found: unchanged if measured.profiled[-1] else found)
    result = search.run()
    assert (result.end, result.why) == (SearchEnd.RANGE, WhyRange.UNCONFIRMED)
    assert "beside its parent c0 it changes it by +0.0 %" in result_lines(result)[1]


def test_a_comparison_with_the_parent_that_fails_is_an_error(file: Path) -> None:
    measured = Measured(steps(2, 1))
    search, _ = search_of(plan_of(2), measured, file)
    instead(search, lambda found: ERROR if measured.profiled[-1] else found)
    with pytest.raises(DeploymentError, match="cannot be compared with its parent"):
        search.run()
    assert file.exists()


def test_times_are_compared_by_their_location(file: Path) -> None:
    measured = Measured(steps(4, 1), ("rtm", "latency_mean"))
    assert search_of(plan_of(4), measured, file)[0].run().figure == "latency_mean"


def test_the_announcement_has_the_size_and_the_time() -> None:
    text = "\n".join(announcement(plan_of(40).extent))
    assert "40 commits from c0 to c40 may have changed median latency" in text
    assert "at most 6 commits between them" in text


def test_the_metrics_that_are_searched_for_are_compared_in_pairs() -> None:
    assert {"rtm", "throughput", "cpu_per_request", "instructions"} <= {*bisectable()}


def test_a_commit_is_measured_within_its_time_whose_loads_are_planned_for_it(tmp_path: Path) -> None:
    tree = Worktree(Revision(sha(0), "v1", "", "good123"), tmp_path, tmp_path, tmp_path, ())
    job = CommitJob("t.py::test", tree, tree, MeasuredAs(BUDGET_NS, "rtm", 0.1), tmp_path / "r.json", (), "")
    found = job.applied(read_settings({}, {}, {}))
    assert (found.budget_ns, found.planned_ns) == (BUDGET_NS, BUDGET_NS)
