"""The kind of a test: by its verdicts, or by the exception that failed it; and what travels between processes."""

import json

from msgspec.structs import replace
from support.each_row import each_row
from support.synthetic import result, verdict

from pytest_mlpatterns import DeploymentError, InvalidResultError, UnitError
from pytest_mlpatterns.errors import (
    GeneratorLimitError,
    InconclusiveFailure,
    InconclusiveWarning,
    LimitFailure,
    MissingExtraError,
    ModelLoadError,
    PerfFailure,
    RegressionFailure,
    SettingError,
    TooFewSamplesError,
)
from pytest_mlpatterns.records.result import FailedTest, TestResult
from pytest_mlpatterns.records.result_parts import Location
from pytest_mlpatterns.records.verdict import Gate, Kind, Outcome, Unjudged, failure_kind

WORSE = verdict(Outcome.FAIL, against="revision")
OVER = verdict(Outcome.FAIL, against="limit")
SLOWER_PATTERN = verdict(Outcome.FAIL, against="pattern")
OPEN = verdict(Outcome.INCONCLUSIVE)
FINE = verdict(Outcome.PASS)
AGREED = replace(FINE, accepted="rtm +60 %: larger model")


@each_row(
    ("changes", "kind"),
    ({}, Kind.PASSED),
    ({"verdicts": (FINE,)}, Kind.PASSED),
    ({"verdicts": (FINE, AGREED)}, Kind.ACCEPTED),
    ({"verdicts": (AGREED, OPEN)}, Kind.UNDECIDED),
    ({"verdicts": (WORSE,), "passed": False}, Kind.REGRESSION),
    ({"verdicts": (verdict(Outcome.FAIL),), "passed": False}, Kind.REGRESSION),
    ({"verdicts": (OVER, WORSE), "passed": False}, Kind.REGRESSION),
    ({"verdicts": (OVER, OPEN), "passed": False}, Kind.LIMIT),
    ({"verdicts": (SLOWER_PATTERN,), "passed": False}, Kind.LIMIT),
    ({"verdicts": (OPEN,), "passed": False}, Kind.UNDECIDED),
    ({"verdicts": (OVER,)}, Kind.PASSED),  # the test expects the failure
    ({"passed": False}, Kind.TEST_ERROR),
    ({"passed": False, "interrupted": True}, Kind.INTERRUPTED),
    ({"verdicts": (OVER,), "passed": False, "interrupted": True}, Kind.LIMIT),
    ({"verdicts": (OVER,), "passed": False, "unjudged": Unjudged(Kind.TEST_ERROR, "KeyError")}, Kind.TEST_ERROR),
    ({"unjudged": Unjudged(Kind.NOT_COMPARED, "no baseline")}, Kind.NOT_COMPARED),
)
def test_a_result_has_one_kind_also_after_a_trip_through_json(changes: dict[str, object], kind: Kind) -> None:
    found = result(**changes)
    data = json.loads(json.dumps(found.to_json()))
    assert found.kind is kind
    assert data["kind"] == kind.value
    assert TestResult.from_json(data).kind is kind


@each_row(
    ("error", "kind"),
    (RegressionFailure("worse"), Kind.REGRESSION),
    (LimitFailure("over"), Kind.LIMIT),
    (InconclusiveFailure("open"), Kind.UNDECIDED),
    (InconclusiveWarning("open"), Kind.UNDECIDED),
    (PerfFailure("no baseline"), Kind.NOT_COMPARED),
    (InvalidResultError("no request succeeded"), Kind.INVALID),
    (TooFewSamplesError("too few"), Kind.INVALID),
    (GeneratorLimitError("the generator"), Kind.INVALID),
    (SettingError("typo"), Kind.INVALID),
    (UnitError("no unit"), Kind.INVALID),
    (MissingExtraError("no package"), Kind.INVALID),
    (DeploymentError("no start"), Kind.TEST_ERROR),
    (ModelLoadError("no weights"), Kind.TEST_ERROR),
    (AssertionError("1 == 2"), Kind.TEST_ERROR),
    (KeyError("x"), Kind.TEST_ERROR),
    (None, Kind.TEST_ERROR),
)
def test_an_exception_has_a_kind(error: BaseException | None, kind: Kind) -> None:
    assert failure_kind(error) is kind


def test_what_a_result_and_a_failure_hold_travels_as_plain_text() -> None:
    one = result(gate=Gate.WARN, unjudged=Unjudged(Kind.INVALID, "too few"))
    failed = FailedTest("t.py::test", "no disk", Location("t.py", 3), gate=Gate.WARN, text="no disk\n  next …")
    for plain in (one.to_json()["gate"], one.to_json()["unjudged"]["kind"], failed.to_json()["kind"]):
        assert type(plain) is str
    assert TestResult.from_json(json.loads(json.dumps(one.to_json()))).judged.unjudged == one.judged.unjudged
    assert TestResult.from_json(one.to_json()).definition.gate is Gate.WARN
    assert FailedTest.from_json(json.loads(json.dumps(failed.to_json()))) == failed
    assert FailedTest.from_json(FailedTest("t", "r", None).to_json()).location is None
