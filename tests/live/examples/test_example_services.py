"""The examples of services that exist and of onnxruntime: what runs here needs no more than the test extra.

``make servers`` runs those whose servers need environments of their own.
"""

import importlib
import json
import re
import subprocess
from pathlib import Path

import pytest
from support import ROOT
from support.examples import EXAMPLES, PYTEST, copied, run_python
from support.project import RECORD

from pytest_mlpatterns.plugin.options import OPTIONS

pytestmark = pytest.mark.processes

RESULTS = "--perf-json=out.json"
SERVERS = ("bentoml", "fastapi", "litserve", "llama_cpp", "mlserver", "mosec", "parity")


def run(example: str, directory: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """pytest in a copy of an example with short launches, without what the outer run put into the environment."""
    project = directory / Path(example).name
    if not project.exists():
        copied(example, directory)
        test = project / "test_perf.py"
        text = test.read_text(encoding="utf-8")
        assert text.count('duration="1s"') == 1
        duration = "1s" if example == "streaming" else "500ms"  # whole texts take longer than predictions
        text = text.replace('duration="1s"', f'duration="{duration}", warmup="100ms", launches=6')
        text = text.replace("output_tokens=(96, 16)", "output_tokens=(24, 4)")  # so that a busy machine ends some
        text = re.sub(r'assert_(\w+)_below\("\w+"\)', r'assert_\1_below("60s")', text)  # this machine may be busy
        patient = text.replace("rps=50", "rps=0.01").replace(
            'rps=1, slo="ttft<2s, tpot<200ms"', 'rps=0.01, slo="ttft<60s"'
        )
        test.write_text(patient, encoding="utf-8")
    return run_python(*PYTEST, "--perf-noise", "trust", *arguments, directory=project, **environment)


def assert_found_worse(run: subprocess.CompletedProcess[str], project: Path, metric: str) -> None:
    """A metric is a regression from the baseline, or undecided if this machine is busy, and the run says the same."""
    (result,) = json.loads((project / "out.json").read_text(encoding="utf-8"))["results"]
    found = {
        verdict["metric"]: verdict["outcome"] for verdict in result["verdicts"] if verdict["against"] == "baseline"
    }
    assert found[metric] in ("fail", "inconclusive"), run.stdout
    has_failed = "fail" in found.values()
    assert run.returncode == has_failed, run.stdout + run.stderr
    assert ("RegressionFailure: " in run.stdout) == has_failed


def test_the_fastapi_service_is_measured_and_its_slower_self_is_a_regression(tmp_path: Path) -> None:
    recorded = run("servers/fastapi", tmp_path, *RECORD)
    assert recorded.returncode == 0, recorded.stdout + recorded.stderr
    (words,) = re.findall(r"batched: ([\d.]+) inputs per call\n", recorded.stdout)
    assert float(words) == pytest.approx(3, abs=0.5)  # of as many texts as a busy machine has time for
    slowed = run("servers/fastapi", tmp_path, RESULTS, SLOWDOWN="20")
    assert_found_worse(slowed, tmp_path / "fastapi", "rtm")


def test_more_threads_of_onnxruntime_are_a_regression_of_cpu_per_request(tmp_path: Path) -> None:
    recorded = run("onnx", tmp_path, *RECORD, INTRA_OP_NUM_THREADS="1")
    assert recorded.returncode == 0, recorded.stdout + recorded.stderr
    threaded = run("onnx", tmp_path, RESULTS, INTRA_OP_NUM_THREADS="4")
    assert_found_worse(threaded, tmp_path / "onnx", "cpu_per_request")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the language model, after its training."""
    directory = tmp_path_factory.mktemp("streaming")
    collected = run("streaming", directory, "--collect-only")
    assert collected.returncode == 0, collected.stdout + collected.stderr
    done = run_python("train.py", directory=directory / "streaming")
    assert done.returncode == 0, done.stderr
    (right,) = re.findall(r"right in (\d+)% of an unseen text", done.stdout)
    assert int(right) > 40
    return directory


def test_a_language_model_is_served_in_both_patterns_with_whole_answers(trained: Path) -> None:
    smoked = run("streaming", trained, "--perf-smoke")
    assert smoked.returncode == 0, smoked.stdout + smoked.stderr
    assert "2 perf tests sent one request each" in smoked.stdout


def test_a_prompt_that_is_read_more_often_is_a_regression_of_the_first_token(trained: Path) -> None:
    recorded = run("streaming", trained, *RECORD, "-k", "continuous")
    assert recorded.returncode == 0, recorded.stdout + recorded.stderr
    slowed = run("streaming", trained, RESULTS, "-k", "continuous", READINGS="4")
    assert_found_worse(slowed, trained / "streaming", "ttft")


def test_a_service_is_compared_with_the_plain_call_of_its_library(tmp_path: Path) -> None:
    kept = run("plain_call", tmp_path, RESULTS, "--perf-budget=3s")
    assert kept.returncode == 0, kept.stdout + kept.stderr
    (result,) = json.loads((tmp_path / "plain_call" / "out.json").read_text(encoding="utf-8"))["results"]
    (verdict,) = result["verdicts"]
    assert verdict["against"] == "service"
    assert verdict["outcome"] in ("pass", "inconclusive")  # this machine may be busy
    assert "(plain calls of PlainCall): " in verdict["reason"]
    slowed = run("plain_call", tmp_path, "--perf-budget=3s", SLOWDOWN="20")
    assert slowed.returncode == 1, slowed.stdout + slowed.stderr
    assert "LimitFailure: throughput" in slowed.stdout


def test_typed_example_passes(tmp_path: Path) -> None:
    smoked = run("typed", tmp_path, "--perf-smoke")
    assert smoked.returncode == 0, smoked.stdout + smoked.stderr
    assert "3 perf tests sent one request each" in smoked.stdout


@pytest.mark.parametrize(
    "example", [*(f"servers/{name}" for name in SERVERS), "onnx", "plain_call", "streaming", "typed"]
)
def test_every_file_and_option_that_a_readme_names_exists(example: str) -> None:
    folder = EXAMPLES / example
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"--perf-([\w-]+)", text)) <= set(OPTIONS)
    assert "-r requirements.txt" not in text or (folder / "requirements.txt").is_file()
    assert {"README.md", "pytest.ini", "test_perf.py"} <= {file.name for file in folder.iterdir()}


def test_every_server_has_its_line_in_the_overview() -> None:
    named = set(re.findall(r"\]\((\w+)\)", (EXAMPLES / "servers" / "README.md").read_text(encoding="utf-8")))
    assert named == set(SERVERS) == {path.parent.name for path in EXAMPLES.glob("servers/*/requirements.txt")}


def test_changes_of_the_benchmark_on_slow_services_are_edits_of_the_example(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    benchmark = importlib.import_module("slow_services")
    projects = {name: benchmark.language_model(tmp_path, edits) for name, edits in benchmark.LANGUAGE_MODELS.items()}
    for case in benchmark.CASES:
        if case.service in projects:
            project = projects[case.service]
            project.change(benchmark.CHANGES[case.change], 1)
            changed = {name for name, text in project.texts.items() if (tmp_path / name).read_text("utf-8") != text}
            assert changed == {"serve.py"}
