"""What a failing verdict does to a test: it raises, or with a gate that only warns it is kept and the body goes on."""

import pytest
from msgspec.structs import replace
from support.experiments import verdict_log
from support.synthetic import result, verdict

from pytest_mlpatterns.config.settings import InconclusivePolicy
from pytest_mlpatterns.errors import InconclusiveFailure, InconclusiveWarning, LimitFailure, PerfFailure
from pytest_mlpatterns.judging.verdict_log import VerdictLog
from pytest_mlpatterns.records.verdict import Gate, Outcome

OVER = verdict(Outcome.FAIL, against="limit")
OPEN = verdict(Outcome.INCONCLUSIVE)
HERE = "tests/unit/judging/test_verdict_log.py"
DIGITS = replace(result(passed=False), test=f"{HERE}::test_digits")


def log(gate: Gate, policy: InconclusivePolicy = InconclusivePolicy.WARN) -> VerdictLog:
    return verdict_log("test_perf.py::test_digits", result(passed=False), gate=gate, policy=policy)


def refuse(warning: Warning) -> None:
    raise warning


def test_a_gate_that_fails_raises_a_failing_verdict() -> None:
    failing = log(Gate.FAIL)
    with pytest.raises(LimitFailure):
        failing.add([OVER], LimitFailure)
    assert (failing.all, failing.advised) == ([replace(OVER, asserted_at=failing.all[0].asserted_at)], [])
    assert failing.all[0].asserted_at.startswith("test_verdict_log.py:")


def test_of_two_assertions_that_compare_a_metric_the_smaller_tolerance_counts() -> None:
    asking = log(Gate.FAIL)
    asking.ask({"rtm": 0.1, "asl": 0.2})
    asking.ask({"rtm": 0.05})
    asking.ask({"asl": 0.3})
    assert asking.asked == {"rtm": 0.05, "asl": 0.2}


def test_a_gate_that_warns_keeps_each_failure_with_its_whole_text() -> None:
    advising = log(Gate.WARN, InconclusivePolicy.FAIL)
    advising.add([OVER], LimitFailure)
    advising.add([OPEN], LimitFailure)
    advising.fail(PerfFailure("no baseline"))
    assert [type(one) for one in advising.advised] == [LimitFailure, InconclusiveFailure, PerfFailure]
    assert [one.metric for one in advising.all] == [OVER.metric, OPEN.metric]
    assert advising.all[1] == OPEN
    assert OVER.reason in str(advising.advised[0])
    assert "\n  next" in str(advising.advised[0])


def test_requests_that_fail_lead_a_failure_before_the_tail_that_they_make() -> None:
    tail, failed = (
        replace(verdict(Outcome.FAIL, against="limit"), metric=name, reason=name) for name in ("p99", "error_rate")
    )
    with pytest.raises(LimitFailure, match=r"^error_rate\n") as raised:
        log(Gate.FAIL).add([tail, failed], LimitFailure)
    assert "find what fails requests" in str(raised.value)


def test_a_failure_names_the_file_of_its_test_from_the_root() -> None:
    failing = verdict_log(f"{HERE}::test_digits", DIGITS)
    with pytest.raises(LimitFailure, match=rf"{HERE}:\d+"):
        failing.add([OVER], LimitFailure)


def test_a_warning_that_a_filter_makes_an_error_fails_no_test_whose_gate_warns() -> None:
    failing, advising = log(Gate.FAIL), log(Gate.WARN)
    failing.warn = advising.warn = refuse
    with pytest.raises(InconclusiveWarning):
        failing.add([OPEN], LimitFailure)
    advising.add([OPEN], LimitFailure)
    assert [type(one) for one in advising.advised] == [InconclusiveFailure]
