"""The example projects: they run as their README says, and the demo tells a caught regression from anything else.

What runs is a copy, so that nothing is written to the checkout. The demo itself measures for most of a minute; here its
decision is fed with recorded runs.
"""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.examples import EXAMPLES, copied, run_python
from support.examples import PYTEST as PLAIN_PYTEST
from support.profiles import slower_normalize
from support.project import OPTIONS as WITHOUT_NEIGHBOURS
from support.synthetic import ENVIRONMENT, result

from pytest_mlpatterns import (
    Batched,
    Cached,
    Cascade,
    Ensemble,
    Limited,
    Microservice,
    Pipeline,
    Queued,
    Replicated,
    Single,
)
from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.analysis.verdicts.verdicts import judge_change, judge_limit
from pytest_mlpatterns.plugin.options import OPTIONS
from pytest_mlpatterns.records.launch import Estimate, LaunchValue
from pytest_mlpatterns.records.result import TestResult
from pytest_mlpatterns.records.verdict import Outcome
from pytest_mlpatterns.reports.files.result_file import results_json

PATTERNS = (*(Batched, Cached, Cascade, Ensemble, Limited, Microservice), *(Pipeline, Queued, Replicated, Single))
QUICKSTART = EXAMPLES / "quickstart"
STARTED_WITH = ("README.md", "demo.py", "model.py", "pytest.ini", "slower.patch", "test_perf.py", "train.py")
PYTEST = (*PLAIN_PYTEST, *WITHOUT_NEIGHBOURS)
SHORT = ("--perf-duration=200ms", "--perf-budget=2s")
DECLARED = """
import time

import joblib
import numpy as np


class Declared:
    def __init__(self, seconds):
        self.seconds = seconds

    def predict(self, rows):
        time.sleep(self.seconds)
        return np.asarray(rows, dtype=float).sum(axis=1)

    def predict_proba(self, rows):
        probability = 1 / (1 + np.exp(self.predict(rows) / 1e4))
        return np.column_stack([1 - probability, probability])
"""
"""Models that stand in for the trained ones: each call takes a declared time, on any machine and however many rows."""
TRAINED = """
import train
from model import Forest, Linear, mean, named, without_gaps
from sklearn.datasets import load_breast_cancer

train.main()
rows, benign = load_breast_cancer(return_X_y=True)
for model in (Forest(), Linear()):
    answers = model(without_gaps(rows.tolist()))
    right = [name == ("benign" if one else "malignant") for name, one in zip(named(answers), benign, strict=True)]
    assert sum(right) > 0.9 * len(right)
assert 0 <= mean(answers) <= 1
"""
"""Trains the models of the project that shows every pattern, and asks both."""
TESTS = ("test_perf.py::test_digits", "test_perf.py::test_more")
"""What the decision of the demo is tried with; the first one is the test of the quickstart."""


def load(file: Path) -> ModuleType:
    """A module of an example, under a name that no other module has."""
    spec = importlib.util.spec_from_file_location(f"example_{file.stem}", file)
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[spec.name]
    return module


def serve_declared_times(project: Path, dumped: str) -> None:
    """Put models of a declared time into the place of the trained ones of a copy."""
    (project / "declared.py").write_text(DECLARED, encoding="utf-8")
    made = run_python("-c", f"from declared import Declared, joblib; joblib.dump({dumped})", directory=project)
    assert made.returncode == 0, made.stderr


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the quickstart."""
    return copied("quickstart", tmp_path_factory.mktemp("examples"))


@pytest.fixture(scope="module")
def trained(project: Path) -> subprocess.CompletedProcess[str]:
    """What train.py did in the copy."""
    return run_python("train.py", directory=project)


@pytest.mark.processes
class TestQuickstart:
    def test_training_prints_a_useful_accuracy_and_writes_the_model(
        self, project: Path, trained: subprocess.CompletedProcess[str]
    ) -> None:
        found = re.match(r"accuracy (0\.\d+) ", trained.stdout)
        assert found, trained.stdout + trained.stderr
        assert float(found[1]) > 0.9
        assert (project / "digits.npz").stat().st_size > 0

    @pytest.mark.usefixtures("trained")
    def test_the_quickstart_test_runs_and_leaves_no_files(self, project: Path, tmp_path: Path) -> None:
        results = tmp_path / "results.json"
        run = run_python(*PYTEST, "-W", "error", "--perf-smoke", f"--perf-json={results}", directory=project)
        assert run.returncode == 0, run.stdout + run.stderr
        assert "1 perf test sent one request" in run.stdout
        found = load(QUICKSTART / "demo.py").read_results(results)
        assert tuple(found) == TESTS[:1]
        assert all(result["requests"] == 1 and not result["failed_requests"] for result in found.values())
        assert {path.name for path in project.glob("[!._]*")} == {*STARTED_WITH, "digits.npz"}

    @pytest.mark.usefixtures("trained")
    def test_the_patch_of_the_demo_applies_and_changes_no_answer(self, project: Path, tmp_path: Path) -> None:
        from sklearn.datasets import load_digits

        slower = Path(shutil.copytree(project, tmp_path / "slower"))
        subprocess.run(["git", "apply", "slower.patch"], cwd=slower, check=True)
        inputs = load_digits().data[:200].tolist()
        answers, present = (load(one / "model.py").Digits()(inputs) for one in (slower, project))
        assert "vote" in (slower / "model.py").read_text(encoding="utf-8")
        assert all(type(answer) is int for answer in answers)
        assert sum(answer == now for answer, now in zip(answers, present, strict=True)) >= 198  # ties

    def test_the_quickstart_test_has_at_most_twelve_lines(self) -> None:
        lines = (QUICKSTART / "test_perf.py").read_text(encoding="utf-8").splitlines()
        code = [line for line in lines if line.strip() and not line.startswith(('"""', "import ", "from "))]
        assert len(code) <= 12

    def test_every_file_and_option_that_its_readme_names_exists(self) -> None:
        text = (QUICKSTART / "README.md").read_text(encoding="utf-8")
        commands = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL))
        scripts, options = re.findall(r"python (\S+)", commands), re.findall(r"--perf-([\w-]+)", commands)
        assert scripts
        assert options
        assert all((QUICKSTART / script).is_file() for script in scripts)
        assert set(options) <= set(OPTIONS)


def test_a_variable_that_slows_the_recorded_code_down_too_is_judged_by_the_file_alone() -> None:
    texts = [file.read_text(encoding="utf-8") for file in EXAMPLES.glob("**/README.md")]
    recording = [text for text in texts if "--perf-baseline update" in text]
    commands = [line for text in recording for line in re.findall(r"^[A-Z_]+=\d+ pytest.*", text, re.MULTILINE)]
    assert len(commands) >= 10
    assert all(command.endswith(" --perf-settle off") for command in commands)


BEFORE = [LaunchValue(10e6, 0.01)] * 3
SLOWER, SAME, UNDECIDED = (
    judge_change(METRICS["rtm"], [LaunchValue(now, 0.01)] * 2, BEFORE, tolerance=0.10) for now in (20e6, 10e6, 11e6)
)
WITHIN = judge_limit(METRICS["rtm"], Estimate(20e6, 19e6, 21e6), 1e9)
OVER = judge_limit(METRICS["rtm"], Estimate(20e6, 19e6, 21e6), 1e6)


PASSED = [result(test, verdicts=(WITHIN,)) for test in TESTS]
CAUGHT = [result(test, verdicts=(WITHIN, SLOWER), passed=False) for test in TESTS]
NAMED = [result(test, verdicts=(SLOWER,), passed=False, profile=slower_normalize()) for test in TESTS]


class TestDemo:
    """The decision of demo.py, on results that went through the file of --perf-json."""

    @pytest.fixture
    def demo(self) -> ModuleType:
        return load(QUICKSTART / "demo.py")

    @pytest.fixture
    def run_of(self, demo: ModuleType, tmp_path: Path) -> Callable[[int, Sequence[TestResult]], Any]:
        """A run of pytest as the demo sees it."""

        def make(exit_code: int, results: Sequence[TestResult]) -> Any:
            file = tmp_path / "results.json"
            file.write_text(results_json(results, ENVIRONMENT, "2026-01-01", baseline={}))
            return demo.Run(exit_code, demo.read_results(file))

        return make

    def test_a_regression_caught_in_every_test_is_a_success_told_with_its_figures(
        self, demo: ModuleType, run_of: Callable[..., Any], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert {UNDECIDED.outcome, SAME.outcome, SLOWER.outcome} == set(Outcome)
        assert demo.judge(run_of(0, PASSED), (run_of(1, CAUGHT), run_of(1, NAMED))) == 0
        text = capsys.readouterr().out
        assert text.count(SLOWER.reason) == len(CAUGHT) + len(NAMED)
        assert "10.0 ms → 20.0 ms" in text
        assert text.count("no function stood out this time") == len(CAUGHT)
        assert text.count("cause: normalize (model.py:41), line 44: order = np.sort(values)") == len(NAMED)

    @pytest.mark.parametrize(
        ("runs", "problem"),
        [
            pytest.param(
                [(1, PASSED), (1, CAUGHT)], "recording the baseline ended with exit code 1", id="first failed"
            ),
            pytest.param([(0, []), (1, CAUGHT)], "measured no test", id="first measured nothing"),
            pytest.param([(0, PASSED), (0, CAUGHT)], "ended with exit code 0, expected 1", id="second passed"),
            pytest.param(
                [(0, PASSED), (4, CAUGHT)], "ended with exit code 4, expected 1", id="second was a usage error"
            ),
            pytest.param([(0, PASSED), (1, [])], f"{TESTS[0]} was not measured", id="second measured nothing"),
            pytest.param([(0, PASSED), (1, CAUGHT[:1])], f"{TESTS[1]} was not measured", id="one test is missing"),
            pytest.param(
                [(0, PASSED), (1, [CAUGHT[0], result(TESTS[1], verdicts=(WITHIN, UNDECIDED))])],
                f"{TESTS[1]} stayed undecided: the speed of this machine varied too much; try again",
                id="one test is undecided",
            ),
            *(
                pytest.param(
                    [(0, PASSED), (1, [CAUGHT[0], other])], f"{TESTS[1]} did not fail by a regression", id=name
                )
                for name, other in {
                    "one test passed": result(TESTS[1], verdicts=(WITHIN, SAME)),
                    "one test failed its limit": result(TESTS[1], verdicts=(OVER,), passed=False),
                    "one test failed otherwise": result(TESTS[1], passed=False),
                    "one test got away": result(TESTS[1], verdicts=(SLOWER,)),
                }.items()
            ),
        ],
    )
    def test_anything_else_is_a_failure_that_says_why(
        self,
        demo: ModuleType,
        run_of: Callable[..., Any],
        runs: Sequence[tuple[int, Sequence[TestResult]]],
        problem: str,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        recorded, slowed = (run_of(*run) for run in runs)
        caught = run_of(1, CAUGHT)
        assert demo.judge(recorded, (slowed, caught)) == 1
        assert problem in capsys.readouterr().out
        assert demo.judge(recorded, (caught, slowed)) == 1
        assert problem in capsys.readouterr().out

    def test_a_step_that_a_busy_machine_left_open_is_tried_again(
        self, demo: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        undecided = {"passed": True, "verdicts": [{"outcome": "inconclusive"}]}
        open_, clear = demo.Run(0, {TESTS[0]: undecided}), demo.Run(1, {TESTS[0]: {"passed": False}})
        coming = [open_, clear, open_, open_, open_]
        monkeypatch.setattr(demo, "run_pytest", lambda *_: coming.pop(0))
        assert demo.run_until_decided(tmp_path) is clear
        assert demo.run_until_decided(tmp_path) is open_
        assert coming == []

    def test_a_part_of_the_server_is_no_function_of_the_project(self, demo: ModuleType) -> None:
        server = {"chain": [0], "line": 0, "source": ""}
        profile = {"frames": [["HTTP server", "", 0, "layer"]], "changes": [server]}
        assert "no function stood out" in demo.cause(demo.Run(1, {TESTS[0]: {"profile": profile}}), TESTS[0])
        assert "no function stood out" in demo.cause(demo.Run(1, {TESTS[0]: {"profile": None}}), TESTS[0])

    def test_the_demo_runs_with_the_default_settings(self) -> None:
        text = (QUICKSTART / "demo.py").read_text(encoding="utf-8")
        code = text + (QUICKSTART / "test_perf.py").read_text(encoding="utf-8")
        assert set(re.findall(r"--perf-[\w-]+", text)) == {"--perf-against", "--perf-baseline", "--perf-json"}
        assert re.findall(r"tolerance|budget|duration|warmup|noise", code) == []

    def test_a_demo_without_git_names_what_is_missing(
        self, demo: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("PATH", "")
        assert demo.main() == 1
        assert "The demo needs git" in capsys.readouterr().out

    def test_a_run_that_wrote_no_results_has_none(self, demo: ModuleType, tmp_path: Path) -> None:
        assert demo.read_results(tmp_path / "results.json") == {}


@pytest.fixture(scope="module")
def patterns(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project that shows every pattern."""
    return copied("patterns", tmp_path_factory.mktemp("examples"))


@pytest.fixture(scope="module")
def declared_patterns(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of that project whose models take declared times, and no second to load."""
    project = copied("patterns", tmp_path_factory.mktemp("declared"))
    serve_declared_times(project, '{"forest": Declared(0.008), "linear": Declared(0.002)}, "tumours.joblib"')
    return project


@pytest.mark.processes
class TestOwnPattern:
    """The project with a pattern of its own, measured in a short window."""

    def test_counters_of_a_layer_are_in_metrics_results_summary_and_charts_in_a_distributed_run_too(
        self, tmp_path: Path
    ) -> None:
        project = copied("own_pattern", tmp_path)
        files = ("--perf-json=results.json", "--perf-html=report.html")
        run = run_python(*PLAIN_PYTEST, "--perf-duration=300ms", *files, "-n1", directory=project)
        assert run.returncode == 0, run.stdout + run.stderr
        (result,) = json.loads((project / "results.json").read_text(encoding="utf-8"))["results"]
        assert result["setup"]["pattern"] == "fallback(other=unknown)|microservice"
        assert "fallback" in [layer["layer"] for layer in result["layers"]]
        assert result["metrics"]["fallback_share"][0] > 0
        assert re.search(r"^  fallback: [\d.]+ % from the other model$", run.stdout, re.MULTILINE)
        page = (project / "report.html").read_text(encoding="utf-8")
        assert "Who answered" in page
        assert "Share answered by the other model" in page


@pytest.mark.processes
class TestPatterns:
    """The project that shows every pattern; trained models would take a second to load in every process."""

    def test_the_trained_models_answer(self, patterns: Path) -> None:
        done = run_python("-W", "error", "-c", TRAINED, directory=patterns)
        assert done.returncode == 0, done.stderr
        assert re.findall(r"(\w+): accuracy 0\.9\d+", done.stdout) == ["forest", "linear"]

    def test_every_test_passes_and_every_pattern_is_among_them(self, declared_patterns: Path) -> None:
        doubt = "--perf-noise=doubt"  # the suite is a busy neighbour: a cache need not be twice as fast beside it
        long = ("--perf-duration=1s", "--perf-budget=2s")  # that a share is one of many requests beside it too
        run = run_python(*PYTEST, *long, doubt, "--perf-json=results.json", directory=declared_patterns)
        assert run.returncode == 0, run.stdout
        results = json.loads((declared_patterns / "results.json").read_text(encoding="utf-8"))["results"]
        shown = {part.partition("(")[0] for result in results for part in result["setup"]["pattern"].split("|")}
        assert shown == {kind.__name__.lower() for kind in PATTERNS}
        assert all(result["passed"] for result in results)


class TestChoosing:
    """The project that works a decision through."""

    @pytest.mark.processes
    def test_every_pattern_gets_its_place_or_what_excludes_it(self, tmp_path: Path) -> None:
        project = copied("choosing", tmp_path)
        smoke = run_python(*PYTEST, "--perf-smoke", "-k", "single", directory=project)
        assert smoke.returncode == 0, smoke.stdout + smoke.stderr
        assert "1 perf test sent one request" in smoke.stdout
        serve_declared_times(project, 'Declared(0.004), "progression.joblib"')
        run = run_python(*PYTEST, *SHORT, "--perf-json=results.json", directory=project)
        assert run.returncode == 0, run.stdout
        (ranking,) = json.loads((project / "results.json").read_text(encoding="utf-8"))["ranking"]
        assert ranking["requirements"]
        assert set(ranking["weights"]) == {"rtm", "nmrt", "asl"}
        assert len(ranking["rows"]) == 5
        assert all(row["score"] or row["excluded"] for row in ranking["rows"])
        again = run_python("-m", "pytest_mlpatterns", "rank", "results.json", "peak_memory=1", directory=project)
        assert again.returncode == 0, again.stderr
        assert again.stdout.startswith("test_choosing.py::test_forest: ")

    @pytest.mark.processes
    def test_four_ways_to_survive_twice_the_load_are_ranked_and_may_refuse(self, tmp_path: Path) -> None:
        project = copied("choosing/overload", tmp_path)
        serve_declared_times(project, '{"forest": Declared(0.02), "linear": Declared(0.001)}, "models.joblib"')
        run = run_python(*PYTEST, "--perf-duration=1s", "--perf-json=results.json", directory=project)
        assert run.returncode == 0, run.stdout
        (ranking,) = json.loads((project / "results.json").read_text(encoding="utf-8"))["ranking"]
        assert set(ranking["weights"]) == {"goodput(latency<250ms)", "cpu_per_request"}
        scores = {row["pattern"].partition("(")[0]: row["score"] for row in ranking["rows"]}
        assert set(scores) == {"queued", "limited", "cascade", "batched"}
        assert all(scores.values())

    @pytest.mark.parametrize("folder", ["choosing", "choosing/overload"])
    def test_the_readme_of_choosing_has_the_weights_of_its_settings(self, folder: str) -> None:
        settings, text = ((EXAMPLES / folder / name).read_text() for name in ("pytest.ini", "README.md"))
        (weights,) = re.findall(r"^perf_rank = (.+)$", settings, re.MULTILINE)
        assert f"perf_rank = {weights}" in text


class TestFramework:
    """The project that evaluates a system of today against a target pattern."""

    @pytest.mark.processes
    def test_a_system_is_measured_to_its_limit_and_is_evaluated(self, tmp_path: Path) -> None:
        project = copied("framework", tmp_path)
        smoke = run_python(*PYTEST, "--perf-smoke", "-k", "batched", directory=project)
        assert smoke.returncode == 0, smoke.stdout + smoke.stderr
        assert "1 perf test sent one request" in smoke.stdout
        serve_declared_times(project, 'Declared(0.008), "progression.joblib"')
        files = ("--perf-json=results.json", "--perf-html=report.html")
        short = ("--perf-duration=200ms", "--perf-budget=15s")  # the search for NMRT and the overload are in the budget
        run = run_python(*PYTEST, *short, *files, "-k", "single", directory=project)
        assert run.returncode == 0, run.stdout + run.stderr
        (result,) = json.loads((project / "results.json").read_text(encoding="utf-8"))["results"]
        assert [step["replicas"] for step in result["scaling"]["steps"]] == [1, 2]
        assert result["overloads"][0]["steps"]
        assert {"nmrt", "pc", "cost"} <= set(result["metrics"])
        page = (project / "report.html").read_text(encoding="utf-8")
        assert 'id="patterns"' in page

    def test_the_readme_of_the_framework_has_the_settings_of_the_project(self) -> None:
        settings, text = ((EXAMPLES / "framework" / name).read_text() for name in ("pytest.ini", "README.md"))
        for line in re.findall(r"^(?:perf_rank|perf_price) = .+$", settings, re.MULTILINE):
            assert line in text
