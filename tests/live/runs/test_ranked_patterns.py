"""--perf-rank through the plugin: what a run ranks, and what it says if there is nothing to rank."""

from pathlib import Path

import pytest
from support.project import APART, QUICK, Project

pytestmark = pytest.mark.processes

PATTERNS = f'{QUICK}, pytest.mark.perf(pattern=["single", "cached", "queued"], concurrency=4, wire=["rest+json"])'
BODY = """
    def test_it(perf):
        pass

    @pytest.mark.perf(pattern="single")
    def test_alone(perf):
        assert not perf.metrics.capacities

    def test_no_perf_test():
        pass
"""


def project() -> Project:
    return Project().with_tests(BODY, marker=f"[{PATTERNS}]")


def test_the_patterns_of_a_test_are_ranked_after_the_table(tmp_path: Path) -> None:
    run = project().run(tmp_path, "--perf-rank", "rtm=0.7,asl=0.3,rtm<60s", "--perf-json", "out.json", *APART)
    assert run.exit_code == 0, run.out
    (ranking,) = run.json("out.json")["ranking"]
    assert ranking["group"] == "test_perf.py::test_it"
    assert {row["pattern"] for row in ranking["rows"]} == {"single", "cached", "queued"}
    assert all(row["excluded"] is None and row["score"] for row in ranking["rows"])
    section = run.section("choosing a pattern")
    assert " ".join(ranking["sentence"].split()) in " ".join(section.split())
    assert run.out.index("- performance -") < run.out.index("- choosing a pattern -")
    assert not any(result["capacities"] for result in run.json("out.json")["results"])


def test_a_ranking_by_nmrt_searches_for_it_where_a_test_has_several_patterns(tmp_path: Path) -> None:
    marker = 'pytest.mark.perf(pattern=["single", "cached"], duration="200ms", warmup="0s", launches=1, budget="2s")'
    tests = Project().with_tests(
        """
        def test_it(perf):
            perf.assert_nmrt_at_least(1)  # stops the search as soon as that is known

        @pytest.mark.perf(pattern=["cached"])
        def test_alone(perf):
            pass
        """,
        marker=marker,
    )
    run = tests.with_ini(perf_rank="nmrt=1").run(tmp_path, "--perf-json", "out.json")
    assert run.exit_code == 0, run.out
    found = run.json("out.json")
    ends = {one["test"]: [capacity["end"] for capacity in one["capacities"]] for one in found["results"]}
    assert ends.pop("test_perf.py::test_alone[cached]") == []
    assert all(first == "decided" != second for first, second in ends.values())
    (ranking,) = found["ranking"]
    assert ranking["weights"] == {"nmrt": 1.0}
    assert all(row["parts"]["nmrt"][1] == 1.0 for row in ranking["rows"])


def test_a_run_without_alternatives_is_reported(tmp_path: Path) -> None:
    run = project().run(tmp_path, "--perf-rank", "rtm=1", "-k", "alone")
    assert run.section("choosing a pattern").startswith("nothing to rank: ")


def test_a_run_without_alternatives_is_fine_with_weights_in_the_ini_file(tmp_path: Path) -> None:
    run = project().with_ini(perf_rank="rtm=1").run(tmp_path, "-k", "alone")
    assert run.exit_code == 0, run.out
    assert "choosing a pattern" not in run.out
