"""``--perf-against``: the same tests at another git revision, through the real plugin, in real repositories."""

import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.fault_run import await_true
from support.installed import installed_copy
from support.nightly import rarer
from support.project import READ_ONLY, Run, clean_environment, command, run_apart, run_here
from support.repository import Repository
from support.services.processes import our_children
from support.services.scripted import ScriptedServer, Send, answer
from support.sleeping import MODEL

from pytest_mlpatterns.system.process_limits import why_not_traceable

pytestmark = pytest.mark.processes


TESTS = """
import pytest

from shop.model import Model

@pytest.fixture
def perf_model():
    return Model

@pytest.fixture
def perf_payload():
    return [1, 2, 3]

pytestmark = pytest.mark.perf(duration="200ms", warmup="100ms", tolerance=0.5, budget="5s")

def test_shop(perf):
    perf.assert_rtm_below("10s")
"""


def files(*, seconds: float, tests: str = TESTS) -> dict[str, str]:
    return {
        "pytest.ini": "[pytest]\npythonpath = src\n",
        "src/shop/__init__.py": "",
        "src/shop/model.py": MODEL.format(seconds=seconds),
        "test_shop.py": tests,
    }


@pytest.fixture
def shop(tmp_path: Path) -> Repository:
    """A repository whose model, in a package under ``src``, takes 10 ms."""
    repository = Repository.made(tmp_path / "shop")
    repository.commit(files(seconds=0.01))
    return repository


def against(repository: Repository, *arguments: str, ref: str = "main") -> Run:
    run = run_here(repository.top, f"--perf-against={ref}", *arguments)
    assert_nothing_is_left(repository)
    return run


SHAPES = ("latency_percentiles", "present_latency_percentiles")


def assert_nothing_is_left(repository: Repository) -> None:
    assert len(repository.worktrees()) == 1
    assert our_children() == set()


def assert_slower_is_caught(top: Path, project: Callable[[float], dict[str, str]]) -> None:
    """Of a project whose service takes a number of seconds."""
    repository = Repository.made(top)
    repository.commit(project(0.01))
    repository.write(project(0.06))
    run = against(repository)
    assert run.exit_code == 1
    assert re.search("RegressionFailure: (mean|median) latency ", run.out)


BARE = TESTS.replace('perf.assert_rtm_below("10s")', "pass")
SAME = BARE.replace("shop.model", "shop.same")
BATCHED = 'pattern="batched(max_batch_size=2)"'
STAGES = 'load=Stages([("5s", 10)], of="concurrency")'
LONG = "from pytest_mlpatterns import Stages\n" + BARE.replace('duration="200ms", warmup="100ms"', STAGES)
"""A test whose load is too long to be compared, which is said as soon as its set-up there is known and alike."""


def assert_alike_there(run: Run) -> None:
    """The set-up there was like this one, so that all but the length of its load allowed to compare."""
    assert run.exit_code == 1
    assert re.search(r"takes 5\.00 s, and a comparison with main \(\w+\) sends it 12 times", run.out), run.out


def several(*, seconds: float, concurrency: int = 1, check: str = "None") -> dict[str, str]:
    """Tests of one model that takes a number of seconds, and of one that does not change."""
    by_name = BARE.replace("test_shop(perf):\n    pass", "test_by_name(request):\n    request.getfixturevalue('perf')")
    return files(seconds=seconds) | {
        "src/shop/same.py": MODEL.format(seconds=0.01),
        "test_bare.py": SAME.replace("test_shop", "test_bare"),
        "test_batched.py": SAME.replace("test_shop", "test_batched").replace("perf(", f"perf({BATCHED}, ", 1),
        "test_by_name.py": by_name.replace("perf(", 'perf(profile="auto", ', 1),
        "test_checked.py": SAME.replace("test_shop", "test_checked").replace("perf(", f"perf(check={check}, ", 1),
        "test_set_up.py": SAME.replace("test_shop", "test_set_up").replace(
            "perf(", f"perf(concurrency={concurrency}, ", 1
        ),
    }


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One run of tests that compare in different ways; what is not committed is the present."""
    repository = Repository.made(tmp_path_factory.mktemp("several") / "shop")
    repository.commit(several(seconds=0.01))
    repository.write(several(seconds=0.06, concurrency=3, check="lambda inputs, outputs: False"))
    repository.write({"test_new.py": SAME.replace("test_shop", "test_new")})
    return against(repository, "--perf-json=results.json")


def result_of(run: Run, test: str) -> dict[str, Any]:
    (found,) = [one for one in run.json("results.json")["results"] if one["test"].endswith(f"::{test}")]
    assert isinstance(found, dict)
    return found


def test_a_regression_is_caught_without_any_baseline_file(compared: Run) -> None:
    assert compared.exit_code == 1
    assert re.search("RegressionFailure: (mean|median) latency ", compared.failure("test_shop"))
    assert "(the working tree)" in compared.failure("test_shop")
    assert "compared 4 of 7 tests with main (" in compared.out
    assert not (compared.directory / "perf-baseline.json").exists()


def test_a_test_that_asks_for_no_figure_takes_them_from_the_comparison(compared: Run) -> None:
    result = result_of(compared, "test_bare")
    assert result["launch_count"] >= 3  # a comparison's launches; the load that the test asks for would be one
    assert {"rtm", "throughput", "asl", "cpu_per_request", "peak_memory", "cold_start"} <= result["metrics"].keys()
    assert result["launch_count"] == len(result["reference"]["log_ratios"]["rtm"])
    assert result["metrics"]["peak_memory"] == result["reference"]["present_metrics"]["peak_memory"]
    assert result["seconds_spent"] > 1


def test_both_sides_say_what_their_layers_count_and_where_they_run(compared: Run) -> None:
    found = result_of(compared, "test_batched")
    assert found["reference"]["metrics"]["batch_size"][0] == 1.0
    assert found["facts"]["Python"]
    assert found["facts_changed"] == []


def test_a_failure_says_which_part_of_a_request_got_slower(compared: Run) -> None:
    """The model sleeps, for 10 ms there and for 60 ms here."""
    reference = result_of(compared, "test_shop")["reference"]
    for side, slept_ns in (("split", 10e6), ("present_split", 60e6)):
        split = reference[side]["rtm"]
        parts = {part["name"]: part for part in split["parts"]}
        assert parts["model_wait"]["mean_ns"] >= 0.8 * slept_ns  # less what it was ready in meanwhile, but not running
        assert sum(part["mean_ns"] for part in split["parts"]) == pytest.approx(split["mean_ns"], abs=100)
        assert split["calls"] == {"": 1.0}
    (where,) = re.findall("where +(.+)", compared.failure("test_shop"))
    assert re.match(r"\+[\d.]+ m?s: (no part stands out \(largest: )?model waits \+\d", where)  # a stall is noise


def test_a_check_is_asked_although_the_comparison_could_do_without_it(compared: Run) -> None:
    assert "check= returned False" in compared.failure("test_checked")


def test_a_test_that_is_new_is_measured_and_said_not_to_exist_there(compared: Run) -> None:
    result = result_of(compared, "test_new")
    assert result["passed"]
    assert result["launch_count"] == 1
    assert "new: nothing to compare with at main (" in compared.out


def test_a_test_that_asks_for_the_fixture_by_name_is_compared(compared: Run) -> None:
    assert re.search("RegressionFailure: (mean|median) latency ", compared.failure("test_by_name"))


def test_a_failure_is_profiled_on_both_sides_and_one_that_asks_for_none_is_not(compared: Run) -> None:
    profile = result_of(compared, "test_by_name")["profile"]
    assert result_of(compared, "test_shop")["profile"] is None
    if profile["note"]:  # the system permits none, or a busy machine had no time for one
        assert profile["note"].startswith(("no profile: ", "the cause was not found in "))
        assert profile["note"].endswith(why_not_traceable())
        assert profile["blocks"] == 0
        return
    assert profile["compared"]
    assert profile["blocks"] >= 4
    assert ["Model.__call__", "src/shop/model.py"] in [frame[:2] for frame in profile["frames"]]


def test_each_test_has_the_kind_of_its_comparison(compared: Run) -> None:
    data = compared.json("results.json")
    found = {one["test"].rpartition("::")[2]: one["kind"] for one in [*data["results"], *data["unmeasured"]]}
    kinds = {"test_new": "not_compared", "test_set_up": "not_compared"}
    kinds |= {"test_by_name": "regression", "test_checked": "test_error"}
    assert kinds.items() <= found.items()


def test_another_set_up_there_is_not_comparable(compared: Run) -> None:
    assert "PerfFailure: not comparable with main (" in compared.failure("test_set_up")
    assert "load: closed(1) → closed(3)); give the test another name: a new test" in compared.failure("test_set_up")


@pytest.mark.covered_processes
def test_the_same_code_passes_and_a_package_is_imported_from_the_revision(shop: Repository) -> None:
    shop.write(files(seconds=0.002))  # much faster: had both sides run this code, it would be no better than itself
    run = against(shop, "--perf-json=results.json")
    assert run.exit_code == 0
    (result,) = run.json("results.json")["results"]
    changes = {one["metric"]: one["change"] for one in result["verdicts"] if one["against"] == "revision"}
    assert changes["rtm"]["value"] < 0
    reference = result["reference"]
    assert (reference["kind"], reference["name"][:6]) == ("revision", "main (")
    before, now = (dict(map(tuple, reference[name])) for name in SHAPES)
    assert before[1] >= 10_000_000 > now[1] > 0  # the fastest of many, which no busy machine delays
    assert reference["metrics"]["rtm"][0] > reference["present_metrics"]["rtm"][0]


def test_a_package_that_only_python_dash_m_finds_is_imported_from_the_revision(tmp_path: Path) -> None:
    def project(seconds: float) -> dict[str, str]:
        model = MODEL.format(seconds=seconds)
        return {"pytest.ini": "[pytest]\n", "shop/model.py": model, "shop/__init__.py": "", "tests/test_shop.py": TESTS}

    assert_slower_is_caught(tmp_path / "shop", project)


def test_changed_requirements_and_the_time_of_loads_with_a_length_are_said(shop: Repository) -> None:
    shop.commit({"requirements.txt": "numpy==1\n"})
    shop.write({"requirements.txt": "numpy==2\n"})
    staged = TESTS.replace('duration="200ms", warmup="100ms"', 'load=Stages([("5s", 10)])')
    shop.write(files(seconds=0.01, tests="from pytest_mlpatterns import Stages\n" + staged))
    shop.write({"conftest.py": READ_ONLY})
    run = against(shop)
    assert "1 test has a load with a length of its own: comparing with main takes at least 60.0 s" in run.out
    assert "note: requirements.txt changed since main; both sides ran with the packages installed here" in run.out


def test_a_test_that_only_the_command_line_selects_is_found_at_the_revision(shop: Repository) -> None:
    ini = "[pytest]\npythonpath = src\naddopts = -m 'not perf'\n"
    shop.commit(files(seconds=0.01, tests=LONG) | {"pytest.ini": ini})
    assert_alike_there(against(shop, "-m", "perf"))


@pytest.mark.parametrize("require", [["--perf-baseline=require"], *rarer(["-o", "perf_baseline=require"])])
def test_a_new_test_fails_where_a_comparison_is_required(shop: Repository, require: list[str]) -> None:
    shop.write(files(seconds=0.01, tests=BARE.replace("test_shop(", "test_new(")))
    run = against(shop, *require)
    assert run.exit_code == 1
    assert "new: nothing to compare with at main (" in run.out
    assert "and --perf-baseline require asks for a comparison" in run.out


@pytest.mark.parametrize(
    "arguments",
    [("--perf-patterns", "batched"), ("-o", "perf_patterns=batched"), ("-c", "other.ini")],
    ids=["option", "override", "file"],
)
def test_patterns_of_an_option_and_a_setting_are_those_there_too(shop: Repository, arguments: tuple[str, ...]) -> None:
    shop.commit(files(seconds=0.01, tests=LONG))
    shop.commit({"other.ini": "[pytest]\npythonpath = src\nperf_patterns = batched\n"})
    shop.commit({"pytest.ini": "[pytest]\n" + "pythonpath = src\n" * (arguments[0] != "-c")})
    run = against(shop, *arguments)
    assert_alike_there(run)
    assert "test_shop[batched]" in run.out


def test_options_of_conftest_files_hold_there_too(shop: Repository) -> None:
    chosen = TESTS.replace("def perf_model():\n    return Model", MODEL_BY_OPTION)
    shop.commit(files(seconds=0.01, tests=chosen) | {"conftest.py": CONFTEST})
    run = against(shop, "--answers-in=0.01", "--perf-json=results.json")
    assert run.exit_code == 0
    (result,) = run.json("results.json")["results"]
    assert result["reference"]["metrics"]["rtm"][0] > 10_000_000  # the default would be answered at once


CONFTEST = """
def pytest_addoption(parser):
    parser.addoption("--answers-in", type=float, default=0.0)
"""
MODEL_BY_OPTION = """def perf_model(request):
    seconds = request.config.getoption("--answers-in")

    class Chosen:
        def __call__(self, batch):
            import time

            time.sleep(seconds)
            return batch

    return Chosen"""


def test_settings_of_the_whole_run_are_not_those_of_the_other_side(shop: Repository) -> None:
    settings = "addopts = --ff\nperf_against = main\nperf_json = build/out.json\nperf_baseline = require\n"
    shop.commit(files(seconds=0.01, tests=LONG) | {"pytest.ini": f"[pytest]\npythonpath = src\n{settings}"})
    shop.write({"build/.keep": ""})
    run = against(shop)
    assert_alike_there(run)
    assert "mlpatterns: compared with main" in run.out


def test_a_pytest_that_cannot_begin_there_is_an_error_with_what_it_printed(shop: Repository) -> None:
    shop.commit({"pytest.ini": "[pytest]\npythonpath = src\naddopts = --no-such-option\n"})
    shop.write({"pytest.ini": "[pytest]\npythonpath = src\n"})
    run = against(shop)
    assert run.exit_code == 1
    assert "ended with exit code 4; it printed last:" in run.out
    assert "--no-such-option" in run.out


def test_a_service_that_runs_already_is_not_compared_with_itself(shop: Repository) -> None:
    with ScriptedServer(lambda _: [Send(answer(b'{"predictions": [1]}'))]) as server:
        tests = TARGETS.replace("{target}", f'Url("http://127.0.0.1:{server.address[1]}/predict")')
        shop.commit(files(seconds=0, tests=tests.replace("import App", "import Url, App")))
        run = against(shop, "-W", "ignore")
    assert run.exit_code == 1
    assert f"http://127.0.0.1:{server.address[1]}/predict runs already and is the same service on both" in run.out
    assert "req/s" not in run.out, "it is known before anything is measured"


def test_a_test_that_fails_there_fails_here_and_says_which_file_to_take_along(tmp_path: Path) -> None:
    repository = Repository.made(tmp_path / "shop")
    reading = "    open('data/weights.json').close()\n    return Model"
    repository.commit(files(seconds=0.01, tests=TESTS.replace("    return Model", reading)))
    repository.write({"data/weights.json": "{}"})
    run = against(repository)
    assert run.exit_code == 1
    (line,) = [line for line in run.out.splitlines() if line.startswith("E   PerfFailure: ")]
    assert "test_shop.py::test_shop fails at main (" in line
    assert "): FileNotFoundError: [Errno 2] No such file or directory: 'data/weights.json'; " in line
    assert line.endswith(
        "data/weights.json exists here, but git does not track it, so main runs without it; take it along: "
        '--perf-against-files "data/weights.json"'
    )
    assert "^^^" not in run.out.partition("PerfFailure")[2]
    assert "compared 0 of 1 test with main (" in run.out


@pytest.mark.covered_processes
def test_code_that_leads_back_into_the_present_tree_is_an_error_that_names_it(tmp_path: Path) -> None:
    repository = Repository.made(tmp_path / "shop")
    tests = STRAY.format(path=repository.top / "src" / "shop" / "model.py") + TESTS
    repository.commit(files(seconds=0.01, tests=tests))
    run = against(repository)
    assert run.exit_code == 1
    assert "the reference side loaded shop_stray from the working tree" in run.out


STRAY = """
import importlib.util
import sys

spec = importlib.util.spec_from_file_location("shop_stray", "{path}")
stray = importlib.util.module_from_spec(spec)
sys.modules["shop_stray"] = stray
spec.loader.exec_module(stray)
"""


@pytest.mark.parametrize("workers", [[], *rarer(["-n1"])], ids=["serial", "distributed"])
def test_a_project_that_is_imported_from_a_copy_is_not_compared_with_itself(
    shop: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, workers: list[str]
) -> None:
    site = installed_copy(tmp_path / "site-packages", shop.top, {"shop/__init__.py": "", "shop/model.py": MODEL})
    monkeypatch.setenv("PYTHONPATH", str(site))
    shop.write({"pytest.ini": "[pytest]\n"})
    run = run_apart(shop.top, "--perf-against=main", *workers)  # pytest-xdist keeps the path that a Python begins with
    assert run.exit_code == 4
    (line,) = [line for line in run.err.splitlines() if line]
    assert f"shop is imported from {site}, a copy of this project: both sides would run the same code" in line
    assert "pip install -e ., or set pythonpath = src" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--perf-against=nowhere"], "'nowhere' is no revision of"),
        (["--perf-against=main", "--perf-against-files=none/*.csv"], "'none/*.csv' matches nothing"),
    ],
)
def test_what_cannot_be_compared_with_ends_the_run_with_one_line(
    shop: Repository, arguments: list[str], words: str, *, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run = against(shop, *arguments, ref="main")
    assert run.exit_code == 4
    (line,) = [line for line in run.err.splitlines() if line]
    assert words in line
    assert list(tmp_path.glob("pytest-mlpatterns-*")) == []


def test_ctrl_c_in_the_comparison_leaves_nothing_and_says_what_there_was(shop: Repository) -> None:
    """The model tells by a file when the comparison's load has reached the present side."""
    told = MODEL.replace("import time\n", "import pathlib\nimport time\n").replace(
        "        time.sleep", f"        pathlib.Path({str(shop.top / 'under-way')!r}).touch()\n        time.sleep"
    )
    shop.write({**files(seconds=0.01, tests=BARE), "src/shop/model.py": told.format(seconds=0.01)})
    running = subprocess.Popen(
        command("--perf-against=main", "--perf-budget=60s", "--perf-tolerance=0"),
        cwd=shop.top,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    await_true((shop.top / "under-way").exists, 60, "the load has not reached the present side")
    assert len(shop.worktrees()) == 2
    running.send_signal(signal.SIGINT)
    out, _ = running.communicate(timeout=60)
    assert running.returncode == 2, out
    assert "KeyboardInterrupt" in out
    assert_nothing_is_left(shop)


TARGETS = """
import sys

import pytest

from pytest_mlpatterns import App, Command

@pytest.fixture
def perf_target():
    return {target}

@pytest.mark.perf(payload=[1, 2, 3], duration="200ms", warmup="100ms", tolerance=0.5, budget="5s")
def test_service(perf):
    pass
"""
