"""One baseline of several: entries of runners, and of two branches through git's merge driver."""

import sys
from pathlib import Path

import pytest
from msgspec.structs import replace
from support.repository import Repository

from pytest_mlpatterns.baseline.file import Choice, merged, read_baselines, write_baselines
from pytest_mlpatterns.cli import main
from pytest_mlpatterns.records.baseline_entry import Entry
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.setup import Setup

SETUP = Setup.from_json({"pattern": "single", "load": "closed(1)", "wire": "rest+json", "payload": "sha256:0"})
OLD = Entry(SETUP, {"rtm": (LaunchValue(1e6, 0.01),)}, {"numpy": "2.0.0"}, "1a2b3c4", "2026-11-01")
LATER = replace(OLD, date="2026-11-20", commit="2b3c4d5")
LATEST = replace(OLD, date="2026-11-24", commit="3c4d5e6")


@pytest.mark.parametrize(("first", "second", "file"), [(LATEST, LATER, 0), (LATER, LATEST, 1)])
def test_of_two_entries_that_differ_the_latest_is_taken_and_named(first: Entry, second: Entry, file: int) -> None:
    found, choices = merged([{"test_a": {"runner": first}}, {"test_a": {"runner": second}}])
    assert found == {"test_a": {"runner": LATEST}}
    assert choices == [Choice("test_a", "runner", file, LATEST.date)]


def test_of_equal_dates_the_last_file_counts() -> None:
    other = replace(OLD, commit="4d5e6f7")
    assert merged([{"test_a": {"runner": OLD}}, {"test_a": {"runner": other}}])[0] == {"test_a": {"runner": other}}


def test_what_one_branch_alone_changed_is_taken_even_if_it_is_older() -> None:
    base = {"test_a": {"runner": LATEST}}
    reverted = {"test_a": {"runner": OLD}}
    assert merged([base, reverted], base) == (reverted, [])
    assert merged([reverted, base], base) == (reverted, [])


def test_what_one_branch_removed_is_gone_unless_the_other_renewed_it() -> None:
    base = {"test_a": {"runner": OLD}, "test_b": {"runner": OLD}}
    renewed = {"test_a": {"runner": OLD}, "test_b": {"runner": LATER}}
    assert merged([{}, renewed], base) == ({"test_b": {"runner": LATER}}, [])
    assert merged([{}, {}], base) == ({}, [])


def test_the_command_writes_the_file_and_names_its_entries(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two, both = (tmp_path / name for name in ("one.json", "two.json", "both.json"))
    write_baselines(one, {"test_a": {"laptop": OLD, "runner": OLD}})
    write_baselines(two, {"test_a": {"runner": LATER}})
    assert main(["baseline", "merge", str(one), str(two), "-o", str(both)]) == 0
    assert read_baselines(both) == {"test_a": {"laptop": OLD, "runner": LATER}}
    assert capsys.readouterr().err == (
        f"test_a on runner: the entry of {two}, of 2026-11-20, which is the latest\n2 entries of 1 test from 2 files\n"
    )


@pytest.mark.parametrize("content", [None, "{}", "<<<<<<< HEAD"])
def test_a_file_that_is_no_baseline_is_named_and_nothing_is_written(
    content: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad, out = (tmp_path / name for name in ("good.json", "bad.json", "out.json"))
    write_baselines(good, {"test_a": {"runner": OLD}})
    if content is not None:
        bad.write_text(content)
    assert main(["baseline", "merge", str(good), str(bad), "-o", str(out)]) == 2
    assert str(bad) in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.processes
def test_git_merges_two_branches_that_both_recorded(tmp_path: Path) -> None:
    repository = Repository.made(tmp_path / "shop")
    file = repository.top / "perf-baseline.json"
    command = f'"{sys.executable}" -m pytest_mlpatterns baseline merge %A %B --base %O -o %A'
    repository.git("config", "merge.perf-baseline.driver", command)
    repository.commit({".gitattributes": "perf-baseline.json merge=perf-baseline\n", "start.txt": ""})
    for branch, entries in (("laptop", {"laptop": OLD}), ("runner", {"laptop": LATER, "runner": OLD})):
        repository.git("checkout", "--quiet", "-b", branch, "main")
        write_baselines(file, {"test_a": entries})
        repository.git("add", ".")
        repository.git("commit", "--quiet", "-m", branch)
    repository.git("merge", "--quiet", "laptop", "-m", "both")
    assert read_baselines(file) == {"test_a": {"laptop": LATER, "runner": OLD}}
