"""The plugin as pytest meets it: the marker and its errors, parametrization, what an idle session loads."""

import json
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from support.owners import declare_owner
from support.project import Project

from pytest_mlpatterns.config.run_settings import read_run_settings
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.plugin.run_end import ReportHooks, require_room
from pytest_mlpatterns.system.empty_results import write_empty_results

ASKS = "def test_it(perf):\n    pass\n"
EMPTY = Project()

WRONG_MARKERS = {
    "concurency=2": ["perf(concurency=...)", "did you mean concurrency=?", "duration", "rate_rps"],
    "pattern='ensemble'": ["perf(pattern=...) names 'ensemble'", "needs code"],
    "pattern=[Single(), 3]": ["perf(pattern=...) is 3", "expected a pattern"],
    "pattern=[]": ["perf(pattern=...) is empty", "write [Single()]"],
    "engine='steam'": ["perf(engine=...) is 'steam'", "'local', 'ray'"],
}
"""What stands in a marker, and the words of its failure; all messages are in test_first_mistakes and test_settings."""


def _marked(arguments: str) -> Project:
    text = f"import pytest\nfrom pytest_mlpatterns import *\n\n\n@pytest.mark.perf({arguments})\n{ASKS}"
    return EMPTY.with_file("test_it.py", text)


@pytest.mark.processes
@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_a_marker_that_cannot_be_served_fails_its_test_with_one_line_and_no_other(
    tmp_path: Path, workers: tuple[str, ...]
) -> None:
    tests = [f"@pytest.mark.perf({marker})\ndef test_{n}(perf): pass\n" for n, marker in enumerate(WRONG_MARKERS)]
    text = "\n\n".join(("import pytest\nfrom pytest_mlpatterns import *", *tests, "def test_unit(): pass\n"))
    run = EMPTY.with_file("test_it.py", text).run(tmp_path, *workers)
    assert run.outcomes == {"passed": 1, "failed": len(WRONG_MARKERS)}
    for number, words in enumerate(WRONG_MARKERS.values()):
        (line,) = [line for line in run.failure(f"test_{number}").splitlines() if line.startswith("E ")]
        assert [word for word in words if word not in line] == []


@pytest.mark.parametrize(
    ("ini", "options", "source"),
    [
        ("", ("--perf-engine=steam",), "--perf-engine"),
        ("perf_engine = steam", (), "ini key perf_engine"),
        ("perf_generators_on = steam", (), "ini key perf_generators_on"),
    ],
)
def test_an_unknown_engine_blames_its_namer(tmp_path: Path, ini: str, options: tuple[str, ...], source: str) -> None:
    run = _marked("").with_file("pytest.ini", f"[pytest]\n{ini}\n").run(tmp_path, *options)
    (line,) = [line for line in run.failure("test_it").splitlines() if line.startswith("E ")]
    assert f"{source} is 'steam', expected one of 'local', 'ray'" in line


NAMING = """
import pytest
from pytest_mlpatterns import Batched, Cached, Replicated

def test_open(perf): pass

@pytest.mark.perf(concurrency=2)
def test_marked(perf): pass

@pytest.mark.perf(pattern=Cached() | Batched())
def test_value(perf): pass

@pytest.mark.perf(pattern="cached")
def test_name(perf): pass

@pytest.mark.perf(pattern=["single", "Cached(ttl=30s) | batched", Replicated(replicas=3)])
def test_names(perf): pass

def test_plain(): pass
"""
OPEN = ("test_open", "test_marked")


@pytest.mark.parametrize(
    ("arguments", "ini", "ids"),
    [
        ((), {}, [*OPEN]),
        (
            ("--perf-patterns", "single,microservice"),
            {},
            [f"{test}[{pattern}]" for test in OPEN for pattern in ("single", "microservice")],
        ),
        ((), {"perf_patterns": "cached|batched"}, [f"{test}[cached|batched]" for test in OPEN]),
        (("--perf-patterns=single",), {"perf_patterns": "cached,batched"}, [f"{test}[single]" for test in OPEN]),
    ],
    ids=["nowhere", "command line", "ini file", "command line over ini file"],
)
def test_patterns_of_the_command_line_make_tests_of_those_that_name_none(
    tmp_path: Path, arguments: tuple[str, ...], ini: dict[str, str], ids: list[str]
) -> None:
    run = EMPTY.with_file("test_it.py", NAMING).with_ini(**ini).run(tmp_path, "--collect-only", "-q", *arguments)
    assert [line.removeprefix("test_it.py::") for line in run.out.splitlines() if "::" in line] == [
        *ids,
        "test_value",
        "test_name",
        "test_names[single]",
        "test_names[cached(ttl=30s)|batched]",
        "test_names[replicated(replicas=3)]",
        "test_plain",
    ]


def test_the_id_names_the_pattern_and_then_the_wire_of_lists(tmp_path: Path) -> None:
    body = """
        import pytest

        @pytest.mark.perf(wire=["rest+json"])
        def test_wires(perf): pass

        @pytest.mark.perf(pattern=["single", "cached"], wire=["rest+json"])
        def test_both(perf): pass

        @pytest.mark.perf(wire="rest+json")
        def test_one(perf): pass
    """
    run = EMPTY.with_file("test_it.py", body).run(tmp_path, "--collect-only", "-q")
    assert [line.removeprefix("test_it.py::") for line in run.out.splitlines() if "::" in line] == [
        "test_wires[rest+json]",
        "test_both[single-rest+json]",
        "test_both[cached-rest+json]",
        "test_one",
    ]


@pytest.mark.parametrize("arguments", ["'fast'", "group='x'", "threshold=3, duration='1s'"])
def test_another_plugins_marker_of_this_name_is_left_alone(tmp_path: Path, arguments: str) -> None:
    text = f"import pytest\n\n\n@pytest.mark.perf({arguments})\ndef test_it(): pass\n"
    run = EMPTY.with_file("test_it.py", text).run(tmp_path, "--strict-markers")
    assert run.outcomes == {"passed": 1}
    assert run.exit_code == pytest.ExitCode.OK


def test_the_marker_and_the_options_are_documented(tmp_path: Path) -> None:
    assert "@pytest.mark.perf(pattern=Single(), concurrency=1 | rate_rps=..." in EMPTY.run(
        tmp_path, "--markers"
    ).out.replace("\n", " ")
    shown = EMPTY.run(tmp_path, "--help").out
    assert "performance tests (pytest-mlpatterns):" in shown
    assert "--perf-baseline={check,update,require,prune,off}" in shown
    assert "perf_startup_timeout" in shown


@pytest.mark.processes
@pytest.mark.parametrize(
    ("arguments", "more"),
    [((), ()), (("--perf-json=r.json",), ("system", "system.empty_results", "system.files", "system.owned_files"))],
)
def test_a_session_without_perf_tests_loads_nothing_heavy(
    tmp_path: Path, arguments: tuple[str, ...], more: tuple[str, ...]
) -> None:
    write_empty_results(tmp_path / "r.json")
    project = EMPTY.with_file(
        "test_plain.py",
        """
        import sys

        def test_light(pytestconfig):
            assert pytestconfig.pluginmanager.hasplugin("pytest_mlpatterns.plugin.entry")
            heavy = {"numpy", "httpx", "uvicorn", "psutil", "httptools", "orjson", "cloudpickle", "uvloop", "asyncio"}
            heavy |= {"grpc", "google.protobuf"}
            ours = {name for name in sys.modules if name.startswith("pytest_mlpatterns")}
            assert not heavy & set(sys.modules)
            inside = {name.removeprefix("pytest_mlpatterns.") for name in ours}
            light = {"plugin", *(f"plugin.{name}" for name in ("entry", "collection", "hookspecs", "options"))}
            light |= {"engines", "engines.ray", "engines.ray.options"}  # the texts of two options
            assert inside == {"pytest_mlpatterns", *light, *MORE}
        """.replace("MORE", str(more)),
    )
    alone = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    run = project.run_apart(tmp_path, "-p", "pytest_mlpatterns.plugin.entry", *arguments, environment=alone)
    assert run.outcomes == {"passed": 1}
    assert "performance" not in run.out.replace("mlpatterns: baseline perf-baseline.json (check)", "")


LOADED = """
import sys

def pytest_collection_finish(session):
    print("loaded", *sorted(sys.modules))
"""
"""A conftest file that prints what the collection of tests has loaded."""
COLLECTED = {
    *("plugin", *(f"plugin.{name}" for name in ("entry", "collection", "hookspecs", "options"))),
    *("config", "config.arguments", "errors", "fields", "removed", "units", "wording"),
    *("engines", "engines.ray", "engines.ray.options"),
}
"""The modules by which the plugin knows which tests exist."""


def loaded_by_collecting(tmp_path: Path, marker: str) -> set[str]:
    """The modules that are loaded when a perf test with this marker was collected, and will not run."""
    project = EMPTY.with_file("conftest.py", LOADED).with_tests(ASKS, marker=marker)
    alone = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    run = project.run_apart(tmp_path, "-p", "pytest_mlpatterns.plugin.entry", "--collect-only", environment=alone)
    assert run.exit_code == 0
    (line,) = [line for line in run.out.splitlines() if line.startswith("loaded ")]
    return set(line.split())


NEEDED_LATER = (
    *("analysis.choice.ranking", "engines.local.launcher", "history", "judging.cause_search"),
    *("judging.revision_comparison", "measurement.capacity", "measurement.further_load"),
    *("plugin.other_revision", "profiling", "reports.html", "revision.client", "serving.external.start"),
)
"""What a comparison with a revision, a search, a ranking, a failure or a deployment loads."""


@pytest.mark.processes
def test_a_session_loads_what_single_tests_need_when_they_need_it() -> None:
    source = "import sys, pytest_mlpatterns.plugin.session; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    loaded = {name.removeprefix("pytest_mlpatterns.") for name in done.stdout.split()}
    assert "judging.perf" in loaded
    assert not [name for name in NEEDED_LATER if name in loaded]


@pytest.mark.processes
def test_a_run_that_only_collects_reads_no_values(tmp_path: Path) -> None:
    loaded = loaded_by_collecting(tmp_path, "pytest.mark.perf(concurrency=2, duration='200ms', tolerance={'rtm': 0.1})")
    assert not {"numpy", "httpx", "msgspec", "psutil", "orjson", "asyncio"} & loaded
    ours = {name.removeprefix("pytest_mlpatterns.") for name in loaded if name.startswith("pytest_mlpatterns.")}
    assert ours == COLLECTED


@pytest.mark.processes
def test_a_run_that_only_collects_lists_loads_patterns_and_wires_and_no_arithmetic(tmp_path: Path) -> None:
    loaded = loaded_by_collecting(tmp_path, "pytest.mark.perf(pattern=['cached', 'batched'], wire=['rest+json'])")
    assert not {"numpy", "httpx", "psutil"} & loaded
    ours = {name.split(".")[1] for name in loaded if name.startswith("pytest_mlpatterns.")}
    assert ours <= {
        *(name.split(".")[0] for name in COLLECTED),
        "patterns",
        "wire",
        "records",
        "removed",
        "credentials",
    }


@pytest.mark.processes
def test_a_conftest_file_is_too_late_to_load_the_plugin(tmp_path: Path) -> None:
    project = EMPTY.with_file("conftest.py", "pytest_plugins = ['pytest_mlpatterns.plugin.entry']\n")
    run = project.with_file("test_it.py", "def test_it(): pass\n").run(
        tmp_path, environment={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    )
    assert run.exit_code == pytest.ExitCode.USAGE_ERROR
    (line,) = filter(None, run.errors)
    assert "too late for its options" in line
    assert "-p pytest_mlpatterns.plugin.entry" in line


def test_the_header_says_which_baseline_is_used(tmp_path: Path) -> None:
    text = "def test_it(): pass\n"
    project = EMPTY.with_file("test_it.py", text).with_ini(perf_baseline_file="old.json")
    assert "mlpatterns: baseline old.json (check)" in project.run(tmp_path).out
    given = project.run(tmp_path, "--perf-baseline", "require", "--perf-baseline-file", "new.json").out
    assert "mlpatterns: baseline new.json (require)" in given
    updated = project.run(tmp_path, "--perf-baseline", "update", "--perf-budget", "45s").out
    takes = "records up to 8 launches of a test, within its budget of 45s"
    assert f"mlpatterns: baseline old.json (update): {takes}" in " ".join(updated.split())


def test_a_hook_that_would_do_its_work_later_is_an_error() -> None:
    async def told(**_given: object) -> None:
        raise AssertionError

    hook = SimpleNamespace(pytest_mlpatterns_result=lambda **_given: [told()])
    output = SimpleNamespace(take_end=Mock(), take_result=lambda _data: SimpleNamespace(to_json=dict))
    report = pytest.TestReport("t.py::t", ("t.py", 1, "t"), {}, "passed", None, "call", perf_result={})
    with pytest.raises(
        pytest.UsageError, match="a hook pytest_mlpatterns_result returned an unfinished coroutine, exp"
    ):
        ReportHooks(Mock(hook=hook), output, is_worker=False).pytest_runtest_logreport(report)  # type: ignore[arg-type]


def test_the_plugin_can_be_switched_off(tmp_path: Path) -> None:
    text = "def test_it(pytestconfig):\n    assert not hasattr(pytestconfig.option, 'perf_smoke')\n"
    run = EMPTY.with_file("test_it.py", text).run(tmp_path, "-p", "no:mlpatterns")
    assert run.outcomes == {"passed": 1}
    assert "mlpatterns:" not in run.out


@pytest.mark.processes
def test_other_plugins_are_told_of_every_result_once(tmp_path: Path, distribution: tuple[str, ...]) -> None:
    told = """
        import json
        from pathlib import Path

        def pytest_mlpatterns_result(config, result):
            with (config.rootpath / "told.jsonl").open("a", encoding="utf-8") as file:
                print(json.dumps(result), file=file)
        """
    project = Project().with_file("conftest.py", told).with_tests("def test_a(perf): pass\ndef test_b(perf): pass\n")
    run = project.run(tmp_path, "--perf-json", "out.json", *distribution)
    assert run.outcomes == {"passed": 2}
    lines = (tmp_path / "told.jsonl").read_text(encoding="utf-8").splitlines()
    by_test = {result["test"]: result for result in map(json.loads, lines)}
    assert len(lines) == 2
    assert by_test == {result["test"]: result for result in run.json("out.json")["results"]}


@pytest.fixture
def small_files() -> Iterator[None]:
    """Files of this process end at 200 kB, as on a disk that is nearly full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.processes
@pytest.mark.parametrize("name", ["json", "html", "baseline-file", "history"])
@pytest.mark.usefixtures("small_files")
def test_a_file_without_room_is_found_before_anything_is_measured(tmp_path: Path, name: str) -> None:
    update = ["--perf-baseline=update"] if name == "baseline-file" else []
    run = EMPTY.with_tests(ASKS).run(tmp_path, *update, f"--perf-{name}=out")
    assert run.exit_code == pytest.ExitCode.USAGE_ERROR
    (line,) = filter(None, run.errors)
    assert re.match(r"ERROR: \S+/out cannot be written: File too large; nothing is measured; make room there, ", line)
    assert line.endswith(f"name another file with --perf-{name}=PATH")
    assert not (tmp_path / "out").exists()


def test_a_link_of_another_user_is_found_before_measuring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "d").symlink_to(tmp_path)
    declare_owner(monkeypatch, 4711)
    with pytest.raises(SettingError, match=r"d is a link of another user, of id 4711; nothing is measured; "):
        require_room(read_run_settings({"history": "d/h"}, {}, invoked_in=tmp_path, root=tmp_path))


@pytest.mark.usefixtures("small_files")
def test_no_room_is_needed_where_nothing_is_written(tmp_path: Path) -> None:
    def require(**given: str) -> None:
        require_room(read_run_settings(given, {}, invoked_in=tmp_path, root=tmp_path))

    require(baseline="check")
    require(baseline="update", history="h", smoke="true")
    require(json="/dev/null")
    with pytest.raises(SettingError, match="h cannot be written: File too large"):
        require(history="h")
    (tmp_path / "h").touch(0o400)
    with pytest.raises(SettingError, match="h cannot be written: "):
        require(history="h")
