"""A metric is one definition: one that a test adds is judged by default, and stands in every report and file."""

import pytest
from support.experiments import entry_of
from support.reported import report
from support.synthetic import MS, result
from test_baseline_comparison import Runner, compare, make_launch

from pytest_mlpatterns.analysis.choice.criteria import parse_criteria
from pytest_mlpatterns.analysis.choice.ranking import rank
from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.analysis.metrics.estimates import estimated
from pytest_mlpatterns.analysis.metrics.metric import Group, Metric, Role
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.baseline.updates import RunFacts, drift_notes, update_of
from pytest_mlpatterns.config.assertions import read_metrics
from pytest_mlpatterns.config.settings import read_settings
from pytest_mlpatterns.records.result import TestResult
from pytest_mlpatterns.records.verdict import Outcome
from pytest_mlpatterns.reports.text.comparison import update_lines
from pytest_mlpatterns.reports.text.failure import failure_text
from pytest_mlpatterns.reports.text.summary_table import summary_lines
from pytest_mlpatterns.units import Unit

ADDED = Metric(
    "slow_quarter",
    "slow quarter",
    lambda blocks: blocks.percentile(75),
    Unit.DURATION,
    roles=frozenset({Role.PRIMARY, Role.COLUMN, Role.SIDE_BY_SIDE, Role.FACT, Role.EVALUATED}),
    group=Group.LATENCY,
)
FACTS = RunFacts({}, "1a2b3c4", "2026-02-28")


@pytest.fixture(autouse=True)
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, ADDED.name, ADDED)


def measured(level: float = 1.0, test: str = "test_perf.py::test_digits", **changes: object) -> TestResult:
    metrics = Metrics((make_launch(1, rtm_ns=3 * MS * level), make_launch(2, rtm_ns=3 * MS * level)))
    found, launches = estimated(metrics)
    return result(test, metrics=found, launches=launches, **changes)


def test_a_comparison_judges_it_by_default() -> None:
    before = entry_of([make_launch(seed) for seed in range(100, 106)])
    same, _ = compare(Runner(), entry=before)
    slower, _ = compare(Runner(rtm_ns=6 * MS), entry=before)

    assert same[ADDED.name].outcome is Outcome.PASS
    assert slower[ADDED.name].outcome is Outcome.FAIL
    assert slower[ADDED.name].tolerance == ADDED.tolerance


def test_the_terminal_has_a_column_of_it_and_a_failure_its_value() -> None:
    shown = measured()
    table = ["".join(span.text for span in row) for row in summary_lines([shown], 160)]
    verdicts, _ = compare(Runner(rtm_ns=6 * MS), entry=entry_of([make_launch(seed) for seed in range(6)]))

    assert "slow quarter" in table[0]
    assert ADDED.show(shown.metrics[ADDED.name][0]) in table[1]
    assert "slow quarter" in failure_text([verdicts["p95"]], shown)
    assert failure_text([verdicts[ADDED.name]], shown).startswith("slow quarter ")


def test_the_page_has_it_in_the_overview_the_table_and_the_comparison_of_patterns() -> None:
    two = [measured(level, f"test_perf.py::test_digits[{name}]") for level, name in ((1, "single"), (2, "cached"))]
    page = report(two)

    overview, _, rest = page.partition('id="patterns"')
    patterns, _, tests = rest.partition('id="tests"')
    assert "<th>Slow quarter<" in overview
    assert patterns.count("<td>Slow quarter<") == 1
    assert tests.count("<td>Slow quarter<") == 2


def test_files_hold_it() -> None:
    shown = measured()

    assert shown.to_json()["metrics"][ADDED.name] == shown.metrics[ADDED.name]
    assert TestResult.from_json(shown.to_json()) == shown


def test_the_baseline_records_it_with_its_drift_and_says_so() -> None:
    before = update_of(measured(), None, FACTS).after
    update = update_of(measured(2.0), before, FACTS)
    drifted = update_of(measured(1.02), before, FACTS).after

    assert "slow quarter" in update_lines([update])[0]
    assert ADDED.name in {verdict.metric for verdict in update.worse}
    assert update.after.anchor is None
    assert ADDED.name in drifted.anchor.metrics
    assert drift_notes(measured(), before) == []


def test_settings_and_the_ranking_take_its_name() -> None:
    settings = read_settings({"compare": (ADDED.name,), "tolerance": {ADDED.name: 0.02}}, {}, {})
    fast, slow = (measured(level, f"test_perf.py::test_digits[{level}]", group="one") for level in (1, 2))
    (ranking,) = rank([slow, fast], parse_criteria(f"{ADDED.name}=1", "--perf-rank"))

    assert settings.tolerance.of(ADDED) == 0.02
    assert read_metrics((ADDED.name,), "metrics=...") == [ADDED]
    assert [row.test for row in ranking.rows] == [fast.test, slow.test]
