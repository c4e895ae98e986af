"""The terminal's section on choosing a pattern, compared with golden files."""

import pytest
from support.golden import check_golden
from support.synthetic import make_setup, result

from pytest_mlpatterns.analysis.choice.criteria import parse_criteria
from pytest_mlpatterns.analysis.choice.ranking import rank
from pytest_mlpatterns.records.result import TestResult
from pytest_mlpatterns.reports.text.summary_table import ranking_lines

MS = 1e6
LONG = "cached(max_entries=150)|batched(max_batch_size=16)|replicated(balance='least-outstanding')"


def measured(test: str, pattern: str, rtm_ms: float, nmrt_rps: float, p95_ms: float) -> TestResult:
    metrics = {"rtm": rtm_ms * MS, "nmrt": nmrt_rps, "asl": 0.5, "p95": p95_ms * MS}
    return result(
        f"{test}[{pattern}]",
        group=test,
        setup=make_setup(pattern=pattern),
        metrics={name: (value, value * 0.98, value * 1.02) for name, value in metrics.items()},
    )


SHORT = [
    measured("test_shop.py::test_shelf", *figures)
    for figures in (
        ("single", 20.0, 60.0, 80.0),
        ("cached", 0.4, 2400.0, 49.8),
        ("batched", 10.0, 400.0, 20.0),
        ("replicated", 10.2, 390.0, 21.0),
    )
]
LONGER = [
    measured("tests/shop/test_a_shop_with_a_long_name.py::test_shelf", *figures)
    for figures in (("single", 20.0, 60.0, 80.0), (LONG, 0.04, 24_000.0, 1.0), ("batched", 20.0, 60.0, 40.0))
]


@pytest.mark.parametrize("width", [60, 80, 140])
def test_the_section_has_a_sentence_a_table_and_what_needs_words(width: int) -> None:
    results = [*SHORT, *LONGER]
    rankings = rank(results, parse_criteria("rtm=0.5,nmrt=0.3,asl=0.2,p95<50ms", "--perf-rank"))
    lines = ranking_lines(rankings, results, width)
    assert max(map(len, lines)) <= max(width, len(LONG) + 2)
    check_golden(f"choice-{width}.txt", "\n".join(lines) + "\n")


def test_a_ranking_without_candidates_has_no_table() -> None:
    (ranking,) = rank(SHORT, parse_criteria("rtm=1,rtm<1us", "--perf-rank"))
    first, *rest = ranking_lines([ranking], SHORT, 80)
    assert first == "test_shop.py::test_shelf: no pattern can be chosen"
    assert rest[0] == "  single: median latency 20.0 ms (19.6 ms to 20.4 ms) is not below 1.00 µs"
