"""The plan as people read it: 80 columns, and what helps in words."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.golden import check_golden

from pytest_mlpatterns.records.plan import Advice, Help, MetricPlan, Seen, TestPlan
from pytest_mlpatterns.reports.text.plan_table import plan_lines

QUIET = Seen(0.163, 0.017, 8, 0.058, (None, None, 3))
OPEN = Seen(
    0.288,
    0.061,
    8,
    0.211,
    (None, None, None),
    (
        Advice(Help.REVISION),
        Advice(Help.LAUNCHES, 12),
        Advice(Help.CORES),
        Advice(Help.TOLERANCE, 0.211),
        Advice(Help.METRIC, metric="cpu_per_request"),
    ),
)
PAIRED = Seen(0.141, 0.021, 6, 0.036, (None, 15, 4))
LITTLE_TIME = Seen(0.5, 0.03, 3, None, (None, None, 9), (Advice(Help.BUDGET, 41.2), Advice(Help.DURATION)))
PLAN = TestPlan(
    test="tests/perf/test_digits.py::test_digits[cached]",
    budget_s=30.0,
    recorded=8,
    launch_s=2.41,
    pair_s=4.8,
    launches=24,
    pairs=10,
    sittings=3,
    metrics=(
        MetricPlan("rtm", 0.10, QUIET, PAIRED),
        MetricPlan("throughput", 0.10, OPEN, PAIRED),
        MetricPlan("cpu_per_request", 0.07, replace(QUIET, change=0.1234), LITTLE_TIME),
        MetricPlan("cold_start", 0.50, replace(OPEN, change=None, advice=(Advice(Help.CORES),)), None),
    ),
    left_out=("p95", "p99", "error_rate"),
)
FROM_HISTORY = replace(
    PLAN,
    test="tests/perf/test_digits.py::test_few",
    budget_s=None,
    launch_s=None,
    pair_s=None,
    pairs=0,
    left_out=(),
    undecided=(6, 20),
)
NOTES = ("A history does not hold the time of a launch, so that launches are counted instead of seconds.",)


def test_the_plan_fits_eighty_columns() -> None:
    lines = plan_lines([PLAN, FROM_HISTORY], 80, NOTES)
    assert max(map(len, lines)) <= 80
    check_golden("plan-80.txt", "\n".join(lines) + "\n")


@pytest.mark.parametrize(("undecided", "is_named"), [((6, 20), True), ((3, 20), False), ((4, 4), False), (None, False)])
def test_a_test_that_is_often_undecided_is_named(undecided: tuple[int, int] | None, is_named: bool) -> None:
    text = "\n".join(plan_lines([replace(PLAN, undecided=undecided)], 80))
    assert ("Often undecided" in text) is is_named


def test_a_printed_change_is_never_smaller_than_it_is() -> None:
    for change, printed in ((0.1601, "+17 %"), (0.16, "+16 %"), (1.004, "+110 %"), (0.0, "+0 %")):
        plan = replace(PLAN, metrics=(MetricPlan("rtm", 0.1, replace(QUIET, change=change), None),))
        assert any(printed in line for line in plan_lines([plan], 80))


def test_one_kind_alone_has_one_table() -> None:
    plan = replace(PLAN, metrics=(MetricPlan("rtm", 0.1, None, PAIRED),))
    text = "\n".join(plan_lines([plan], 80))
    assert "against a revision" in text
    assert "against a baseline" not in text
