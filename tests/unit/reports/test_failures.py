"""Why a test failed, which the page, the summaries and the annotations say alike."""

import html
import re
from types import SimpleNamespace
from typing import Any

import pytest
from support.synthetic import ENVIRONMENT, result, verdict

from pytest_mlpatterns.plugin.run_end import RunOutput
from pytest_mlpatterns.records.result import FailedTest, TestResult
from pytest_mlpatterns.records.verdict import Kind, Outcome, Unjudged, Verdict
from pytest_mlpatterns.reports.files.ci_reports import annotation, job_summary
from pytest_mlpatterns.reports.files.result_file import read_results, results_json
from pytest_mlpatterns.reports.html.fragments import NO_VERDICT
from pytest_mlpatterns.reports.html.page import html_report

SLOWER = verdict(Outcome.FAIL, change=(0.96, 0.9, 1.02))
OPEN = verdict(Outcome.INCONCLUSIVE, change=(0.12, -0.01, 0.25))
BROKEN = Unjudged(Kind.TEST_ERROR, "OSError: teardown broke")


def page_of(found: TestResult) -> str:
    """The text of the page's section on the test."""
    text = html_report(read_results(results_json([found], ENVIRONMENT, "2026-11-30", baseline={})))
    return html.unescape(re.sub(r"<[^>]+>", " ", text[text.index('id="tests"') :]))


@pytest.mark.parametrize(
    ("judged", "unjudged", "expected"),
    [
        (OPEN, None, [OPEN.reason]),  # --perf-inconclusive fail
        (SLOWER, BROKEN, [SLOWER.reason, BROKEN.reason]),
        (verdict(Outcome.PASS), BROKEN, [BROKEN.reason]),
        (verdict(Outcome.PASS), None, [NO_VERDICT]),
    ],
    ids=["undecided", "slower and broken", "broken", "another reason"],
)
def test_the_page_has_every_reason_once(judged: Verdict, unjudged: Unjudged | None, expected: list[str]) -> None:
    text = page_of(result(passed=False, verdicts=(judged,), unjudged=unjudged))
    assert [text.count(reason) for reason in expected] == [1] * len(expected)
    assert (NO_VERDICT in text) is (expected == [NO_VERDICT])


def test_a_teardown_that_fails_besides_hides_no_regression() -> None:
    baseline: Any = SimpleNamespace(with_drift=lambda found: found)
    output = RunOutput.__new__(RunOutput)
    output._results, output._failures, output._unmeasured, output._baseline = [], {}, {}, baseline
    slower = result(passed=False, verdicts=(SLOWER,))
    output.take_result(slower.to_json())
    output.take_failure(FailedTest(slower.test, SLOWER.reason, None, kind=Kind.REGRESSION), measured=True)
    output.take_failure(FailedTest(slower.test, BROKEN.reason, None), measured=False)
    (failure,) = output._failures.values()
    (kept,) = read_results(results_json(output._results, ENVIRONMENT, "2026-11-30", baseline={})).failures
    assert failure.kind is kept.kind is Kind.TEST_ERROR
    assert failure.reason == kept.reason == f"{SLOWER.reason}\n{BROKEN.reason}"
    assert f"{SLOWER.reason}%0A{BROKEN.reason}" in annotation(failure)


def test_the_title_of_folded_details_is_text() -> None:
    name = "test_perf.py::test_digits[a<img src=x>b]"
    slower = result(name, passed=False, verdicts=(SLOWER,), facts_changed=None)
    text = job_summary([slower], [], {})
    titles = re.findall(r"<summary>(.*)</summary>", text)
    assert titles == [html.escape(name)]
