"""The workflows of examples/ci: they parse, and every command in them does what its job says, on a tiny project.

What a runner offers is stood in for where it would reach out: pip only notes how it was called.
"""

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import ROOT
from support.project import MODEL, QUICK, clean_environment
from support.project import OPTIONS as WITHOUT_NEIGHBOURS
from support.repository import Repository, settings

from pytest_mlpatterns.plugin.options import OPTIONS

pytestmark = pytest.mark.processes

FOLDER = ROOT / "examples" / "ci"
GITHUB = sorted((FOLDER / "github").glob("*.yml"))
GITLAB = FOLDER / "gitlab" / ".gitlab-ci.yml"
GITLAB_HISTORY = FOLDER / "gitlab" / "history.yml"
FILES = [*GITHUB, GITLAB, GITLAB_HISTORY, FOLDER / "README.md"]
TESTS = f"""{MODEL}

@{QUICK}
@pytest.mark.perf(tolerance=1.0, budget="1s")
def test_it(perf):
    perf.assert_rtm_below("60s")
"""
EXPRESSIONS = {"github.base_ref": "main", "github.ref": "refs/pull/1/merge", "secrets.GITHUB_TOKEN": "token"}
"""What GitHub would put in place of an expression, where a command can see it."""


def parsed(file: Path) -> dict[Any, Any]:
    data = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert isinstance(data, dict)
    return data


def workflow(name: str) -> dict[Any, Any]:
    return parsed(FOLDER / "github" / name)


def commands(job: Mapping[str, Any]) -> list[tuple[str, dict[str, str]]]:
    """The commands of a GitHub job with their environment."""
    return [
        (step["run"], {name: resolved(text) for name, text in step.get("env", {}).items()})
        for step in job["steps"]
        if "run" in step
    ]


def resolved(text: str) -> str:
    return re.sub(r"\$\{\{\s*(\S+)\s*\}\}", lambda match: EXPRESSIONS.get(match[1], match[1]), text)


def gitlab_job(name: str) -> dict[str, Any]:
    """A job of the GitLab file with what it extends."""
    everything = parsed(GITLAB)
    job = everything[name]
    return {**everything[job["extends"]], **job}


class Runner:
    """A checkout of the project on a branch, as a runner has it, and the commands that it offers."""

    def __init__(self, directory: Path) -> None:
        origin = Repository.made(directory / "origin")
        (origin.top / "tests" / "perf").mkdir(parents=True)
        (origin.top / "tests" / "perf" / "test_perf.py").write_text(TESTS, encoding="utf-8")
        (origin.top / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        origin.git("add", ".")
        origin.git("commit", "--quiet", "-m", "The base")
        origin.git("config", "receive.denyCurrentBranch", "updateInstead")
        self.origin = origin
        self.checkout = Repository.cloned(origin, directory / "checkout")
        self.checkout.git("checkout", "--quiet", "-b", "change", "--track", "origin/main")
        self.checkout.git("config", "push.default", "upstream")
        (self.top / "change.txt").write_text("a change\n", encoding="utf-8")
        self.checkout.git("add", ".")
        self.checkout.git("commit", "--quiet", "-m", "A change")
        self._offered = directory / "bin"
        self._offered.mkdir()
        self._offer("pytest", f'exec "{sys.executable}" -m pytest {" ".join(WITHOUT_NEIGHBOURS)} "$@"')
        self._offer("python", f'exec "{sys.executable}" "$@"')
        for name in ("pip", "gh"):
            self._offer(name, f'echo "{name} $*" >> "{directory}/called.txt"')
        self._called = directory / "called.txt"

    @property
    def top(self) -> Path:
        return self.checkout.top

    @property
    def called(self) -> list[str]:
        return self._called.read_text(encoding="utf-8").splitlines()

    def run(self, command: str, environment: Mapping[str, str] | None = None) -> None:
        """Run a command as a runner does: by bash, which ends at the first error."""
        assert "${{" not in command, "an expression in a command is not quoted; pass it in the environment"
        path = f"{self._offered}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", command],
            cwd=self.top,
            env={**settings(), **clean_environment(), "PATH": path, **(environment or {})},
            capture_output=True,
            encoding="utf-8",
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"

    def run_all(self, commands: Sequence[tuple[str, Mapping[str, str]]]) -> None:
        for command, environment in commands:
            self.run(command, environment)

    def results(self) -> list[dict[str, Any]]:
        found = json.loads((self.top / "perf-results.json").read_text(encoding="utf-8"))["results"]
        assert isinstance(found, list)
        return found

    def _offer(self, name: str, script: str) -> None:
        file = self._offered / name
        file.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        file.chmod(file.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_option_of_ours_exists(file: Path) -> None:
    named = set(re.findall(r"--perf-([\w-]+)", file.read_text(encoding="utf-8")))
    assert named <= set(OPTIONS)
    assert named or file.name == "README.md"


@pytest.mark.parametrize("file", GITHUB, ids=lambda file: file.name)
def test_workflows_are_what_github_reads(file: Path) -> None:
    data = parsed(file)
    assert data[True], "the key on: is true to YAML 1.1"
    assert set(data) <= {"name", True, "permissions", "concurrency", "jobs"}
    for job in data["jobs"].values():
        assert job["timeout-minutes"] <= 60
        assert all(("run" in step) != ("uses" in step) for step in job["steps"])
        assert all(re.fullmatch(r"[\w-]+/[\w-]+@(v\d+|main)", step["uses"]) for step in job["steps"] if "uses" in step)


@pytest.mark.parametrize("file", GITHUB, ids=lambda file: file.name)
def test_what_is_uploaded_is_what_the_commands_write(file: Path) -> None:
    for job in parsed(file)["jobs"].values():
        said = " ".join(command for command, _ in commands(job))
        for step in job["steps"]:
            for name in str(step.get("with", {}).get("path", "")).split():
                assert name in said


def test_a_pull_request_is_compared_with_its_base(runner: Runner) -> None:
    job = workflow("compare.yml")["jobs"]["compare"]
    summary = runner.top.parent / "summary.md"
    offered = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)}
    runner.run_all([(command, {**environment, **offered}) for command, environment in commands(job)])
    (result,) = runner.results()
    assert {verdict["against"] for verdict in result["verdicts"]} >= {"revision"}
    assert re.match(r"### Performance: 1 (passed|undecided)\n", summary.read_text(encoding="utf-8")), "none failed"
    assert (runner.top / "perf-report.html").stat().st_size > 0
    assert next(step for step in job["steps"] if "checkout" in step.get("uses", ""))["with"]["fetch-depth"] == 0


def test_a_baseline_is_recorded_and_committed_by_the_runner_that_judges_by_it(runner: Runner) -> None:
    jobs = workflow("baseline.yml")["jobs"]
    assert jobs["record"]["runs-on"] == jobs["check"]["runs-on"]
    runner.run_all(commands(jobs["record"]))
    runner.run_all(commands(jobs["check"]))
    assert "perf-baseline.json" in runner.origin.git("ls-tree", "--name-only", "main").splitlines()
    (result,) = runner.results()
    assert {verdict["against"] for verdict in result["verdicts"]} == {"limit", "baseline"}


def test_a_baseline_that_is_the_same_is_no_commit(runner: Runner) -> None:
    commit = next(
        command for command, _ in commands(workflow("baseline.yml")["jobs"]["record"]) if "git push" in command
    )
    (runner.top / "perf-baseline.json").write_text("{}\n", encoding="utf-8")
    runner.run(commit)
    before = runner.checkout.git("rev-parse", "HEAD")
    runner.run(commit)
    assert runner.checkout.git("rev-parse", "HEAD") == before


def test_a_history_is_kept_on_a_branch_of_its_own_with_a_page(runner: Runner) -> None:
    job = workflow("history.yml")["jobs"]["history"]
    for _ in range(2):  # the second finds what the first has sent
        runner.run_all(commands(job))
        runner.checkout.git("worktree", "remove", "../history")
        runner.checkout.git("branch", "-D", "perf-history")
    assert runner.origin.git("ls-tree", "--name-only", "perf-history") == "perf-history.jsonl"
    line, other = map(json.loads, runner.origin.git("show", "perf-history:perf-history.jsonl").splitlines())
    assert line["test"] == other["test"] == "tests/perf/test_perf.py::test_it"
    assert line["ratios"]
    assert line.get("clean", True)
    assert "Performance history" in (runner.top / "site" / "index.html").read_text(encoding="utf-8")
    assert next(step for step in job["steps"] if "checkout" in step.get("uses", ""))["with"]["fetch-depth"] == 0


@pytest.mark.nightly
def test_gitlab_keeps_a_history_with_a_page(runner: Runner) -> None:
    job = parsed(GITLAB_HISTORY)["pages"]
    for _ in range(2):
        for command in [*job["before_script"], *job["script"]]:
            runner.run(command, {"PERF_REMOTE": str(runner.origin.top)})
    assert len(runner.origin.git("show", "perf-history:perf-history.jsonl").splitlines()) == 2
    assert (runner.top / "public" / "index.html").is_file()
    assert job["artifacts"]["paths"] == ["public"]


def test_gitlab_compares_with_the_base_and_with_the_baseline(runner: Runner) -> None:
    base = runner.checkout.git("merge-base", "HEAD", "origin/main")
    for name in ("record the baseline", "performance against the base", "performance against the baseline"):
        job = gitlab_job(name)
        for command in [*job["before_script"], *job["script"]]:
            runner.run(command, {"CI_MERGE_REQUEST_DIFF_BASE_SHA": base})
        against = "revision" if name.endswith("base") else "baseline"
        if name != "record the baseline":
            assert against in {verdict["against"] for verdict in runner.results()[0]["verdicts"]}
    written = [*job["artifacts"]["paths"], job["artifacts"]["reports"]["junit"]]
    assert all((runner.top / name).is_file() for name in written)
    assert job["tags"] == gitlab_job("record the baseline")["tags"]
