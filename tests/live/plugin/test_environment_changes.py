"""What changed in the environment, from outside: in a failure, beside an entry that is not comparable, in the file."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.project import QUICK, RECORD, Project

pytestmark = pytest.mark.processes

FILE = "perf-baseline.json"
ONE = Project().with_tests("def test_it(perf):\n    pass\n", marker=f"{QUICK[:-1]}, compare=('rtm',))")
ELSEWHERE = {"package uvicorn": "0.9", "kernel": "Linux 2.4"}
LOADED = "packages loaded"
THREADS = {"GOTO_NUM_THREADS": "3"}
CHANGES = r"GOTO_NUM_THREADS unset → 3,? *{sep}uvicorn 0\.9 → [\d.]+\w*,? *{sep}kernel Linux 2\.4 → \S+ "
"""The changes after these edits, with what separates them."""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    directory = tmp_path_factory.mktemp("recorded")
    found: dict[str, Any] = ONE.run(directory, *RECORD).json(FILE)
    return found


@pytest.fixture
def edited(recorded: dict[str, Any], tmp_path: Path) -> Callable[..., Path]:
    """A directory with that baseline, whose only entry is changed."""

    def edit(change: Callable[[dict[str, Any]], object]) -> Path:
        data = json.loads(json.dumps(recorded))
        ((entry,),) = (machines.values() for machines in data["tests"].values())
        change(entry)
        (tmp_path / FILE).write_text(json.dumps(data), encoding="utf-8")
        return tmp_path

    return edit


def differ(facts: dict[str, str]) -> None:
    """Change the facts to those of elsewhere."""
    facts["kernel"] = ELSEWHERE["kernel"]
    facts[LOADED] = re.sub(r"(?<=uvicorn )[^;]+", ELSEWHERE["package uvicorn"], facts[LOADED])


def test_an_entry_holds_the_environment_of_the_service(recorded: dict[str, Any]) -> None:
    ((entry,),) = (machines.values() for machines in recorded["tests"].values())
    assert {"kernel", "Python", LOADED} <= set(entry["facts"])
    assert re.search(r"; uvicorn [\d.]+\w*(;|$)", entry["facts"][LOADED])
    assert not THREADS.keys() & entry["facts"].keys()


def test_a_failure_lists_what_changed_since_the_entry(edited: Callable[..., Path]) -> None:
    def change(entry: dict[str, Any]) -> None:
        for name in ("rtm", "latency_mean"):
            entry["metrics"][name] = [[value * 1e-4, error] for value, error in entry["metrics"][name]]
        differ(entry["facts"])

    run = ONE.run(edited(change), "--perf-noise=trust", "--perf-json=out.json", environment=THREADS)
    assert run.exit_code == pytest.ExitCode.TESTS_FAILED
    shown = (
        r"changed   GOTO_NUM_THREADS unset → 3\nE +uvicorn 0\.9 → [\d.]+\w*\nE +and 1 more, which --perf-json writes"
    )
    assert re.search(shown, run.failure("test_it"))
    (result,) = run.json("out.json")["results"]
    assert result["facts"]["GOTO_NUM_THREADS"] == "3"
    assert [(one["name"], one["before"]) for one in result["facts_changed"]] == [
        ("GOTO_NUM_THREADS", None),
        *ELSEWHERE.items(),
    ]


def test_an_entry_that_is_not_comparable_is_said_with_what_changed_besides(edited: Callable[..., Path]) -> None:
    def change(entry: dict[str, Any]) -> None:
        entry["setup"]["load"] = "closed(7)"
        differ(entry["facts"])

    run = ONE.run(edited(change), environment=THREADS)
    said = " ".join(run.section("performance").split())
    assert "baseline not comparable (load: closed(7) → closed(1)) the environment changed too: " in said
    assert re.search(CHANGES.format(sep=""), said + " ")


def test_an_entry_of_an_older_version_has_no_environment_to_compare_with(edited: Callable[..., Path]) -> None:
    run = ONE.run(edited(lambda entry: entry.pop("facts")), "--perf-json=out.json", environment=THREADS)
    assert "the environment changed" not in run.out
    (result,) = run.json("out.json")["results"]
    assert result["facts_changed"] is None
