"""The baseline from outside: recorded, compared, required, refused, and never harmed."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from support.project import QUICK, RECORD, Project, Run

pytestmark = pytest.mark.processes

FILE = "perf-baseline.json"
TEST = "test_perf.py::test_it"
ONE = Project().with_tests("def test_it(perf):\n    pass\n", marker=f"{QUICK[:-1]}, compare=('rtm', 'throughput'))")
"""Compared in what its entries are edited in, so that a busy machine's start or tail decides nothing."""
SAME_BYTES = f"{QUICK[:-1]}, compare=('request_bytes',))"
"""Compared in what no noise changes."""


def _edit(path: Path, change: Callable[[dict[str, Any]], object]) -> bytes:
    """Change the only test's entries, by machine, in a baseline file; returns its new bytes."""
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data["tests"][TEST])
    path.write_text(json.dumps(data), encoding="utf-8")
    return path.read_bytes()


TAKES_NS, ERROR = 6_000_000, 0.02
"""Time of a request of the model, about, and the error of an entry that knows it well."""


def _of_speed(factor: float) -> Callable[[dict[str, Any]], None]:
    """Let every entry be of a service that takes this many times as long, whatever a busy machine recorded."""
    times = [[TAKES_NS * factor, ERROR]]
    declared = {"rtm": times, "latency_mean": times, "throughput": [[1e9 / TAKES_NS / factor, ERROR]]}

    def change(machines: dict[str, Any]) -> None:
        for entry in machines.values():
            entry["metrics"].update(declared)

    return change


_much_faster, _much_slower = _of_speed(1e-4), _of_speed(1e4)
"""By more than any noise of a busy machine."""


def _setups(machines: dict[str, Any]) -> list[tuple[str, ...]]:
    return [(machine, *entry["setup"].values()) for machine, entry in machines.items()]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return ONE.run(tmp_path_factory.mktemp("recorded"), *RECORD)


@pytest.fixture
def directory(recorded: Run, tmp_path: Path) -> Path:
    """A directory with the baseline that was just recorded."""
    (tmp_path / FILE).write_bytes((recorded.directory / FILE).read_bytes())
    return tmp_path


def test_update_records_what_was_measured(recorded: Run) -> None:
    assert recorded.exit_code == pytest.ExitCode.OK
    data = recorded.json(FILE)
    assert (data["format"], data["version"]) == ("pytest-mlpatterns-baseline", 1)
    ((machine, entry),) = data["tests"][TEST].items()
    assert re.fullmatch(r".+, \d+ cores, \w+, Python 3\.\d+", machine)
    assert {key: value for key, value in entry["setup"].items() if key != "payload"} == {
        "pattern": "single",
        "load": "closed(1)",
        "wire": "rest+json",
        "duration": "200 ms",
        "warmup": "0 ns",
        "timeout": "10.0 s",
        "generators": "1",
        "order": "shuffled",
    }
    assert re.fullmatch(r"sha256:[0-9a-f]{16}", entry["setup"]["payload"])
    assert {"rtm", "throughput", "asl", "cpu_per_request", "peak_memory"} <= set(entry["metrics"])
    assert [percent for percent, _ in entry["latency"]][:5] == [1, 5, 10, 25, 50]
    assert entry["versions"]["pytest-mlpatterns"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", entry["date"])
    said = recorded.section("performance")
    assert f"baseline {recorded.directory / FILE} updated:" in said
    assert re.search(rf"{TEST}: new, median latency \S+ ms, throughput \S+ req/s", said)


def test_update_prints_old_and_new_and_lists_what_it_recorded_although_worse(directory: Path) -> None:
    _edit(directory / FILE, _much_faster)
    tolerances = "rtm=5000%,throughput=90%"
    run = ONE.run(directory, "--perf-baseline", "update", "--perf-tolerance", tolerances, "--perf-json", "out.json")
    assert run.exit_code == pytest.ExitCode.OK
    change = r"median latency \S+ ns → \S+ ms \(\+[\d,. ]+ %\), throughput \S+ req/s → \S+ req/s \([-−]\S+ %\)"
    judged = r"(mean|median) latency \S+ ns → .+ % worse"
    worse = rf"recorded although worse:\n  {TEST}: {judged}.+\n  {TEST}: throughput .+ % worse"
    said = run.section("performance")
    assert re.search(rf"{TEST}: {change}", said)
    assert re.search(worse, said)
    account = run.json("out.json")["baseline"]
    assert (account["mode"], account["recorded"]) == ("update", [TEST])
    assert [(one["test"], one["metric"]) for one in account["recorded_although_worse"]] == [
        (TEST, "rtm"),
        (TEST, "throughput"),
    ]


ASKS = """
    def test_it(perf):
        perf.assert_no_regression(metrics=({metric!r},))
"""


def test_too_few_samples_of_what_the_test_asks_for_are_an_error(directory: Path) -> None:
    run = Project().with_tests(ASKS.format(metric="p99")).run(directory)
    assert run.outcomes == {"failed": 1}
    needed = r"TooFewSamplesError: p99 latency needs 459 requests, the reference has \d+; write requests=459, "
    assert re.search(needed, run.failure("test_it"))


def test_nmrt_is_searched_for_where_a_test_asks_that_it_does_not_fall(directory: Path) -> None:
    def one_a_second(machines: dict[str, Any]) -> None:
        for entry in machines.values():
            entry["metrics"]["nmrt"] = [[1.0, 0.01]]

    _edit(directory / FILE, one_a_second)
    run = Project().with_tests(ASKS.format(metric="nmrt"), marker=SAME_BYTES).run(directory, "--perf-json", "out.json")
    assert run.outcomes == {"passed": 1}
    assert "NMRT" in run.section("performance")
    (result,) = run.json("out.json")["results"]
    assert "nmrt" in {one["metric"] for one in result["verdicts"] if one["against"] == "baseline"}


def test_update_writes_what_passed_and_keeps_all_others_also_over_workers(recorded: Run, tmp_path: Path) -> None:
    project = Project().with_tests(
        """
        from pytest_mlpatterns import Cached

        @pytest.mark.perf(pattern=[Cached()])
        def test_new(perf): pass

        def test_fails(perf): perf.assert_rtm_below("1ns")

        def test_breaks(perf):
            perf.assert_rtm_below("60s")
            raise KeyError("not about speed")
        """
    )
    before = recorded.json(FILE)["tests"]
    setups = []
    for name, arguments in (("serial", ()), ("xdist", ("-n", "2"))):
        directory = tmp_path / name
        directory.mkdir()
        (directory / FILE).write_bytes((recorded.directory / FILE).read_bytes())
        run = project.run(directory, *RECORD, *arguments)
        assert run.outcomes == {"passed": 1, "failed": 2}
        after = run.json(FILE)["tests"]
        assert set(after) == {TEST, "test_perf.py::test_new[cached]"}
        assert after[TEST] == before[TEST]
        setups.append({(test, *found) for test, machines in after.items() for found in _setups(machines)})
    assert setups[0] == setups[1]


@pytest.mark.parametrize(
    ("arguments", "code"), [((), 1), (("-k", "ordinary"), 0), (("-k", "deploys"), 0)], ids=["all", "none", "deploys"]
)
def test_an_update_whose_perf_tests_are_all_skipped_is_no_success(
    tmp_path: Path, distribution: tuple[str, ...], *, arguments: tuple[str, ...], code: int
) -> None:
    body = """
    def test_on_a_gpu(perf):
        pytest.skip("no GPU")

    def test_that_deploys(perf_deploy):
        pytest.skip("no GPU")

    def test_ordinary():
        pass
    """
    run = Project().with_tests(body, marker=None).run(tmp_path, *RECORD, *arguments, *distribution)
    assert run.exit_code == code
    assert not (tmp_path / FILE).exists()


def test_a_run_better_than_its_baseline_says_so(directory: Path) -> None:
    def change(machines: dict[str, Any]) -> None:
        """A slower service; of a machine that may be faster now, nothing is offered to be recorded."""
        _much_slower(machines)
        for entry in machines.values():
            entry.pop("sorting_ns", None)

    _edit(directory / FILE, change)
    run = ONE.run(directory)
    assert run.outcomes == {"passed": 1}
    assert re.search(
        r"better than its baseline: (mean latency .+ % better.+; )?median latency .+--perf-baseline update",
        run.section("performance"),
    )


def test_a_regression_fails_the_test_at_its_definition(directory: Path, distribution: tuple[str, ...]) -> None:
    before = _edit(directory / FILE, _much_faster)
    run = ONE.run(directory, "--junitxml", "junit.xml", *distribution)
    assert run.exit_code == pytest.ExitCode.TESTS_FAILED
    assert run.outcomes == {"failed": 1}
    text = run.failure("test_it")
    lines = (directory / "test_perf.py").read_text(encoding="utf-8").splitlines()
    defined = lines.index("def test_it(perf):") + 1
    assert ">   def test_it(perf):" in text
    assert f"test_perf.py:{defined}: RegressionFailure" in text
    assert "pytest_mlpatterns/" not in text
    interval = r"99 % interval \+\S+ % to \+\S+ %; tolerance 10"
    medians = r"\.0 %(?(mean); median latency \S+ ns → \S+ ms)"
    assert re.search(
        rf"RegressionFailure: ((?P<mean>mean)|median) latency \S+ ns → \S+ ms: \S+ % worse, {interval}{medians}", text
    )
    assert re.search(r"also +throughput \S+ req/s → \S+ req/s: -\S+ %", text)
    assert re.search(r"measured  1 launch, \d+ requests, 0 failed", text)
    assert f"record it: pytest {TEST} --perf-baseline update" in run.facts("test_it")["next"]
    assert run.table == {"test_it": "FAIL"}
    (suite,) = ElementTree.parse(directory / "junit.xml").getroot()
    assert (suite.get("failures"), suite.get("errors")) == ("1", "0")
    assert (directory / FILE).read_bytes() == before
    if distribution:
        return
    again = ONE.run(directory, "--lf", "--tb=line")
    assert again.outcomes["failed"] == 1
    assert re.search(rf"test_perf\.py:{defined}: RegressionFailure: (mean|median) latency", again.out)


def _unsure(machines: dict[str, Any]) -> None:
    """Make the throughput that was recorded so uncertain that nothing can be worse than it; nor are its times.

    It is twice what any machine reaches: times within their tolerance decide a rate whose estimate has not changed.
    """
    _much_slower(machines)
    for entry in machines.values():
        entry["metrics"]["throughput"] = [[2e9 / TAKES_NS, 5.0]]


@pytest.mark.parametrize("strict", [(), ("-W", "error")], ids=["warned", "an error"])
def test_a_comparison_that_stays_open_points_to_the_test(directory: Path, strict: tuple[str, ...]) -> None:
    _edit(directory / FILE, _unsure)
    run = ONE.run(directory, "--perf-budget", "1s", *strict)
    said = run.failure("test_it") if strict else run.section("warnings summary")
    whole = r"InconclusiveWarning: test_perf\.py::test_it: undecided: .*throughput "
    assert re.search(whole if strict else r"InconclusiveWarning: undecided: .+, see below", said)
    assert "test_perf.py" in said
    assert "pluggy" not in said
    assert "session.py" not in said


def test_without_a_comparable_entry_a_run_says_so_and_require_fails(directory: Path) -> None:
    project = Project().with_tests(
        "def test_new(perf): pass\ndef test_load(perf): pass\ndef test_machine(perf): pass\n"
    )
    path = directory / FILE
    data = json.loads(path.read_text(encoding="utf-8"))
    ((machine, entry),) = data["tests"][TEST].items()
    other_load = {**entry, "setup": {**entry["setup"], "load": "closed(16)"}}
    data["tests"]["test_perf.py::test_load"] = {machine: other_load}
    data["tests"]["test_perf.py::test_machine"] = {"Abacus 3000, 2 cores, wood, Python 3.12": entry}
    path.write_text(json.dumps(data), encoding="utf-8")
    found = {
        "test_new": "no baseline",
        "test_load": "baseline not comparable (load: closed(16) → closed(1))",
        "test_machine": f"baseline not comparable (machine: Abacus 3000, 2 cores, wood, Python 3.12 → {machine})",
    }
    checked = project.run(directory)
    assert checked.outcomes == {"passed": 3}
    assert checked.table == dict.fromkeys(found, "measured")
    said = checked.section("performance")
    assert "1 test has no baseline yet; record it: pytest --perf-baseline update" in said
    assert f"no baseline ({FILE} has {TEST}, which no longer exists: rename the entry there if the test was" in said
    assert said.splitlines()[-1] == "performance: 3 not compared"
    for test in ("test_load", "test_machine"):
        assert f"test_perf.py::{test}\n  {found[test]}" in said
    required = project.run(directory, "--perf-baseline", "require", "--tb=short")
    assert required.outcomes == {"failed": 3}
    for test, reason in found.items():
        text = required.failure(test)
        assert f"PerfFailure: {reason}" in text
        command = f"pytest test_perf.py::{test} --perf-baseline update"
        assert f"--perf-baseline require asks for one; record it: {command}" in text


def test_a_test_that_compares_nothing_needs_no_baseline_and_ignores_its_own(directory: Path) -> None:
    body = "def test_it(perf): perf.assert_rtm_below('30s')\ndef test_asks(perf): perf.assert_no_regression()\n"
    project = Project().with_tests(body, marker=f"{QUICK[:-1]}, compare=())")
    before = _edit(directory / FILE, _much_faster)
    for mode in ("require", "update"):
        run = project.run(directory, "--perf-baseline", mode)
        assert run.outcomes == {"passed": 1, "failed": 1}
        assert "SettingError: perf(compare=()) compares nothing, but assert_no_reg" in run.failure("test_asks")
        assert (directory / FILE).read_bytes() == before
    assert "baseline not updated: no perf test passed that is compared" in run.out


PERF_AND_OTHERS = """
def test_it(perf): pass

class TestSuite:
    @pytest.mark.perf(pattern=["single"])
    def test_patterns(self, perf): pass

def test_plain(): pass
"""
GONE = (f"{TEST}_no_more", "test_perf.py::TestSuite::test_patterns[replicated]", "test_away.py::test_it")
KEPT = (
    TEST,
    "test_perf.py::TestSuite::test_patterns[single]",
    "test_other.py::test_not_looked_at",
    "test_broken.py::test_it",
    f"{TEST}[cached]",
)
"""Ids of entries, of which some tests are gone; the last is made by ``--perf-patterns cached``."""


@pytest.fixture
def overgrown(directory: Path) -> Path:
    """A directory whose baseline has entries of tests that are gone."""
    data = json.loads((directory / FILE).read_text(encoding="utf-8"))
    data["tests"] = dict.fromkeys((*KEPT, *GONE), data["tests"][TEST])
    (directory / FILE).write_text(json.dumps(data), encoding="utf-8")
    return directory


SKIPPING = """
    import pytest

    def pytest_collection_modifyitems(config, items):
        for item in items:
            if config.getoption("perf_smoke") and "perf" in item.fixturenames:
                item.add_marker(pytest.mark.skip("only its name counts"))
    """
SUITE = (
    Project()
    .with_file("conftest.py", SKIPPING)
    .with_tests(PERF_AND_OTHERS)
    .with_file("test_other.py", "def test_something_else(): pass\n")
    .with_file("test_broken.py", "import nothing_of_this_name\n")
)


def _listed(run: Run) -> list[str]:
    """The tests under the line about entries that belong to no test."""
    _, _, after = run.section("performance").partition("remove what is not needed: pytest --perf-baseline prune\n")
    return [line.strip() for line in after.splitlines() if line.startswith("  ")]


@pytest.mark.parametrize(
    ("arguments", "gone"),
    [
        (("test_perf.py",), GONE),
        (("test_perf.py", "--perf-patterns", "cached", "-k", "patterns"), GONE),
        (("test_perf.py::TestSuite",), GONE[2:]),
        ((".", "--continue-on-collection-errors", "-k", "patterns"), (*GONE, "test_other.py::test_not_looked_at")),
    ],
    ids=["file", "patterns given", "ids", "everything"],
)
def test_entries_of_tests_that_are_gone_are_listed_where_a_run_looked(
    overgrown: Path, arguments: tuple[str, ...], gone: tuple[str, ...]
) -> None:
    before = (overgrown / FILE).read_bytes()
    run = SUITE.run(overgrown, "--perf-smoke", "--perf-json", "out.json", *arguments)
    assert _listed(run) == sorted(gone)
    assert run.json("out.json")["baseline"]["without_test"] == sorted(gone)
    assert (overgrown / FILE).read_bytes() == before


def test_a_run_of_what_failed_last_lists_only_files_that_are_gone(overgrown: Path) -> None:
    cache = ("-o", "cache_dir=cache", "--perf-smoke")
    failing = SUITE.with_file("test_perf.py", SUITE.files["test_perf.py"] + "\ndef test_fails(): assert False\n")
    assert failing.run(overgrown, *cache, "test_perf.py").outcomes["failed"] == 1
    again = SUITE.with_file("test_perf.py", SUITE.files["test_perf.py"]).run(
        overgrown, *cache, "test_perf.py", "--lf", "--perf-json", "out.json"
    )
    assert again.json("out.json")["baseline"]["without_test"] == list(GONE[2:])


def test_prune_removes_them_and_judges_as_check_does(overgrown: Path) -> None:
    _edit(overgrown / FILE, _much_faster)
    run = SUITE.run(overgrown, "test_perf.py", "-k", "test_it", "--perf-baseline", "prune")
    assert re.search("RegressionFailure: (mean|median) latency ", run.failure("test_it"))
    assert set(run.json(FILE)["tests"]) == set(KEPT)
    said = run.section("performance").splitlines()
    start = said.index(f"baseline {overgrown / FILE} pruned:")
    assert said[start + 1 :] == [*(f"  {test}" for test in sorted(GONE)), "", "performance: 1 regression"]


def test_prune_works_where_no_test_is_left(overgrown: Path, distribution: tuple[str, ...]) -> None:
    project = SUITE.with_file("test_perf.py", "")
    run = project.run(overgrown, "test_perf.py", "--perf-baseline", "prune", *distribution)
    assert run.exit_code == pytest.ExitCode.NO_TESTS_COLLECTED
    assert set(run.json(FILE)["tests"]) == {"test_other.py::test_not_looked_at", "test_broken.py::test_it"}


@pytest.mark.parametrize(
    "arguments",
    [("--collect-only",), ("--collect-only", "--perf-baseline", "prune"), ("-k", "plain"), ("--perf-baseline", "off")],
    ids=" ".join,
)
def test_a_run_that_only_collects_or_has_no_perf_tests_or_baseline_does_nothing(
    overgrown: Path, arguments: tuple[str, ...]
) -> None:
    before = (overgrown / FILE).read_bytes()
    run = SUITE.run(overgrown, "test_perf.py", "--perf-smoke", *arguments)
    assert "to no test" not in run.out
    assert "pruned" not in run.out
    assert (overgrown / FILE).read_bytes() == before
