"""Results of tests keep what they carry, through JSON and between processes, and say what became of the test."""

import json
from pathlib import Path

import execnet
import pytest
from hypothesis import given
from msgspec import Struct
from msgspec.structs import replace
from support.each_row import each_row
from support.result_strategies import RESULTS
from support.synthetic import FEW, PARTS, counterpart, result, verdict

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
from pytest_mlpatterns.records import result_parts
from pytest_mlpatterns.records.launch import Noise
from pytest_mlpatterns.records.outcomes import FirstFailure
from pytest_mlpatterns.records.result import FailedTest, State, TestResult, group_of, id_from, name_of
from pytest_mlpatterns.records.result_parts import Location
from pytest_mlpatterns.records.verdict import (
    Gate,
    Kind,
    LeftOut,
    OpenBy,
    Outcome,
    Unjudged,
    Verdict,
    WhyOpen,
    failure_kind,
)


@FEW
@given(RESULTS)
def test_a_result_survives_a_trip_through_json_and_between_processes(original: TestResult) -> None:
    """As pytest-xdist sends it: execnet takes plain values only."""
    plain = original.to_json()
    assert TestResult.from_json(json.loads(json.dumps(plain))) == original
    assert TestResult.from_json(execnet.loads(execnet.dumps(plain))) == original


@pytest.mark.parametrize(
    ("name", "commit"),
    [
        ("perf-baseline.json, 2026-11-20 (1a2b3c4d5e6f)", "1a2b3c4d5e6f"),
        ("perf-baseline.json, 2026-11-20 (1a2b3c4+)", ""),
        ("perf-baseline.json, 2026-11-20", ""),
    ],
    ids=["whole", "changed files", "outside git"],
)
def test_a_result_of_0_2_0_has_the_commit_of_its_baseline_in_the_name(name: str, commit: str) -> None:
    data = result(reference=replace(counterpart(), name=name)).to_json()
    del data["reference"]["recorded_commit"]
    found = TestResult.from_json(data).reference
    assert found.recorded_commit == commit


@each_row("kind", OpenBy)
def test_an_open_verdict_is_read_with_what_leaves_it_open(kind: OpenBy) -> None:
    left = verdict(Outcome.PASS).left_open(WhyOpen(kind, "other processes used 1.1 of the 2 cores"), "but not for long")
    assert (left.outcome, left.by_machine) == (Outcome.INCONCLUSIVE, kind is OpenBy.MACHINE)
    assert left.reason.endswith("; but not for long")
    data = left.to_json()
    assert (data["why_open"], data["open_by"]) == ("other processes used 1.1 of the 2 cores", kind.value)
    assert Verdict.from_json(data) == left
    del data["open_by"]
    assert Verdict.from_json(data).by_machine is left.by_machine


def test_reasons_are_read_as_the_values_that_they_print() -> None:
    noise = Noise("other processes used 1.1 of the 2 cores", "stop other programs: all of them")
    failed = FirstFailure("perf_payload item 1", "KeyError: a -> b")
    shared = "at 4.0 answers a second p99 latency needs 115 s"
    left_out = {"p99 latency": LeftOut(shared, is_sentence=True), "peak memory": LeftOut("is not recorded yet")}
    data = result(noise=(noise,), first_failure=failed, not_compared=left_out).to_json()
    assert data["noise"] == [f"{noise.what}: {noise.advice}"]
    assert data["first_failure"] == "perf_payload item 1 -> KeyError: a -> b"
    assert data["not_compared"] == {"p99 latency": shared, "peak memory": "is not recorded yet"}
    found = TestResult.from_json(data)
    assert (found.conditions.noise, found.measured.first_failure, found.judged.not_compared) == (
        (noise,),
        failed,
        left_out,
    )


def test_a_result_of_another_shape_is_not_taken_for_one() -> None:
    with pytest.raises(TypeError, match="surprise"):
        TestResult.from_json({**result().to_json(), "surprise": 1})


def test_the_json_of_a_result_has_all_its_fields() -> None:
    parts = [name for name in TestResult.__struct_fields__ if name in PARTS]
    own = [name for name in TestResult.__struct_fields__ if name not in PARTS]
    of_parts = [name for part in parts for name in getattr(result(), part).__struct_fields__]
    assert sorted(result().to_json()) == sorted(["outcome", "kind", *own, *of_parts])
    assert sorted(parts) == sorted(PARTS)


def test_no_record_of_a_result_has_more_than_12_fields() -> None:
    parts = [one for one in vars(result_parts).values() if getattr(one, "__module__", "") == result_parts.__name__]
    records = [one for one in (TestResult, *parts) if isinstance(one, type) and issubclass(one, Struct)]
    assert {TestResult, result_parts.Judged, result_parts.Reference} < set(records)
    assert {one.__name__: len(one.__struct_fields__) for one in records if len(one.__struct_fields__) > 12} == {}


@FEW
@given(RESULTS)
def test_a_part_reads_what_it_wrote_among_the_members_of_others(original: TestResult) -> None:
    everything = json.loads(json.dumps(original.to_json()))
    for part in (getattr(original, name) for name in PARTS):
        assert type(part).from_json(everything) == part
        assert part.to_json().keys() <= everything.keys()


@each_row(
    ("changes", "state"),
    ({}, State.PASSED),
    ({"verdicts": (verdict(Outcome.PASS),)}, State.PASSED),
    ({"verdicts": (verdict(Outcome.PASS), verdict(Outcome.INCONCLUSIVE))}, State.UNDECIDED),
    ({"passed": False, "verdicts": (verdict(Outcome.INCONCLUSIVE),)}, State.FAILED),
    ({"passed": False}, State.FAILED),
    ({"passed": False, "interrupted": True}, State.INTERRUPTED),
    ({"passed": False, "interrupted": True, "verdicts": (verdict(Outcome.FAIL),)}, State.FAILED),
)
def test_a_result_says_what_became_of_its_test(changes: dict[str, object], state: State) -> None:
    found = result(**changes)  # type: ignore[arg-type]
    assert found.outcome is state
    assert found.to_json()["outcome"] == str(state)
    assert type(found.to_json()["outcome"]) is str  # execnet takes no subclass


@each_row(
    ("test", "parts", "group"),
    ("t.py::test_a", [], "t.py::test_a"),
    ("t.py::test_a[cached]", ["cached"], "t.py::test_a"),
    ("t.py::test_a[small-cached]", ["cached"], "t.py::test_a[small]"),
    ("t.py::test_a[cached-small]", ["cached"], "t.py::test_a[small]"),
    ("t.py::test_a[a-cached-b]", ["cached"], "t.py::test_a[a-b]"),
    ("t.py::test_a[cached|batched-rest+json]", ["cached|batched", "rest+json"], "t.py::test_a"),
    ("t.py::test_a[replicated(balance=shared-socket)]", ["replicated(balance=shared-socket)"], "t.py::test_a"),
    ("t.py::test_a[cached]", [], "t.py::test_a[cached]"),
    ("t.py::test_a[uncached]", ["cached"], "t.py::test_a[uncached]"),
    ("t.py::test_a[a[0]-cached]", ["cached"], "t.py::test_a[a[0]]"),
)
def test_the_patterns_of_one_test_are_a_group(test: str, parts: list[str], group: str) -> None:
    assert group_of(test, parts) == group


@each_row(
    ("directory", "test", "shown"),
    ("/shop", "t/test_a.py::test_a[x::y]", "t/test_a.py::test_a[x::y]"),
    ("/shop/t", "t/test_a.py::test_a", "test_a.py::test_a"),
    ("/shop/docs", "t/test_a.py::C::test_a", "../t/test_a.py::C::test_a"),
)
def test_a_command_takes_an_id_from_where_it_runs(directory: str, test: str, shown: str) -> None:
    assert id_from(Path(directory), test, Path("/shop")) == shown


@each_row(
    ("test", "name"),
    ("t.py::C::test_a", "test_a"),
    ("t.py::test_a[x::y-[z]]", "test_a[x::y-[z]]"),
    ("t[1]/t.py::test_a", "test_a"),
    ("test_a", "test_a"),
)
def test_the_name_of_a_test_has_its_brackets_and_not_its_file(test: str, name: str) -> None:
    assert name_of(test) == name


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
