"""The scale-out time from declared requests: when the new replica carries its share, and what callers notice."""

import re
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from support.synthetic import MS, PROPERTY, S, capacity, samples

from pytest_mlpatterns.analysis.capacity.scale_out import ScaleOut, ScaleOutTimes, answers_in_share, scale_out_ns
from pytest_mlpatterns.analysis.capacity.scaling import Scaling, ScalingStep
from pytest_mlpatterns.records.capacity import ScalingRecord
from pytest_mlpatterns.records.samples import Samples
from pytest_mlpatterns.reports.text.notes import describe_scaling

ASKED = 1 * S
READY = round(1.8 * S)


def load(targets: Any, *, latency_ns: Any = 10 * MS, outcome: Any = 200, each_ns: int = 10 * MS) -> Samples:
    """One request every 10 ms, each answered by the replica of this number."""
    targets = np.asarray(targets, dtype=np.uint8)
    due_ns = np.arange(targets.size, dtype=np.int64) * each_ns
    return structs.replace(samples(due_ns, latency_ns, outcome=outcome), target=targets)


def added(found: Samples, *, replicas: int = 1, concurrency: int = 1) -> ScaleOut:
    return ScaleOut.of(found, ScaleOutTimes(ASKED, READY), replicas=replicas, concurrency=concurrency)


def in_turn(before: int, after: int, replicas: int = 1) -> list[int]:
    """Requests to the replicas in turn, from some request on also to a new one, which has the highest number."""
    return [i % replicas for i in range(before)] + [replicas - i % (replicas + 1) for i in range(after)]


@PROPERTY
@given(st.integers(1, 6), st.integers(150, 300))
def test_scaling_out_lasts_until_the_first_answer_of_a_replica_with_its_share(replicas: int, before: int) -> None:
    found = added(load(in_turn(before, 200, replicas)), replicas=replicas)
    assert found.duration_ns == (before + 1) * 10 * MS - ASKED
    assert found.ready_ns == READY - ASKED
    assert (found.never, found.failed, found.requests) == ("", 0, before + 1 - 100)


def test_answers_before_it_carries_its_share_do_not_count() -> None:
    rare = [1 if i % 5 == 0 else 0 for i in range(60)]  # a fifth instead of half
    found = added(load([*([0] * 200), *rare, *in_turn(0, 100)]))
    assert found.duration_ns == pytest.approx(261 * 10 * MS - ASKED, abs=5 * 10 * MS)


@pytest.mark.parametrize("wave", [8, 32])
def test_answers_may_arrive_in_waves_as_large_as_the_number_of_callers(wave: int) -> None:
    waves = [1 - i // wave % 2 for i in range(10 * wave)]
    found = added(load([*([0] * 200), *waves]), concurrency=wave)
    assert found.duration_ns == 201 * 10 * MS - ASKED
    assert answers_in_share(1, wave) == max(40, 4 * wave)


def test_few_answers_suffice_if_there_are_no_more() -> None:
    assert added(load(in_turn(200, 12))).duration_ns == 201 * 10 * MS - ASKED
    assert added(load(in_turn(200, 9))).duration_ns is None


class TestNever:
    def test_a_replica_that_gets_nothing_never_carries_its_share(self) -> None:
        found = added(load([0] * 300))
        assert found.duration_ns is None
        assert found.never == (
            "the new replica was ready after 800 ms, but did not carry its share, 50.0 % of the answers, in the 1.20 s "
            "after that: it gave 0 of 121 answers, and 0 requests to it failed"
        )
        assert found.requests == 200

    def test_failed_requests_are_no_answers(self) -> None:
        targets = in_turn(200, 100)
        outcome = np.where(np.asarray(targets) == 1, 500, 200)
        found = added(load(targets, outcome=outcome))
        assert found.duration_ns is None
        assert "it gave 0 of 71 answers, and 50 requests to it failed" in found.never
        assert found.failed == 50

    def test_a_load_without_an_answer_has_no_p99(self) -> None:
        found = added(load([]))
        assert (found.duration_ns, found.p99_ns, found.p99_before_ns, found.requests) == (None, None, None, 0)


def test_callers_notice_the_highest_p99_until_then() -> None:
    latency = np.full(400, 10 * MS)
    latency[150:160] = 300 * MS  # while the replica loads
    latency[350:] = 900 * MS  # after it carries its share
    due_ns = np.arange(400, dtype=np.int64) * 10 * MS
    order = np.argsort(due_ns + latency, kind="stable")
    found = added(
        structs.replace(samples(due_ns, latency), target=np.asarray(in_turn(200, 200), dtype=np.uint8)[order])
    )
    assert found.p99_before_ns == 10 * MS
    assert found.p99_ns == 300 * MS


class TestScaling:
    STEP = ScalingStep.of(1, (capacity(100.0),), ())

    def test_the_time_is_the_geometric_mean_over_the_passes_with_an_interval(self) -> None:
        one = added(load(in_turn(200, 100)))
        other = replace(one, duration_ns=2 * one.duration_ns)
        found = Scaling((self.STEP,), 2, (one, other)).scale_out_ns
        assert found.value == pytest.approx(one.duration_ns * 2**0.5)
        assert found.low < one.duration_ns < found.high

    def test_the_time_is_not_known_if_one_pass_did_not_see_it(self) -> None:
        passes = (added(load(in_turn(200, 100))), added(load([0] * 300)))
        found = Scaling((self.STEP,), 2, passes)
        assert found.scale_out_ns is None
        assert found.scale_out_unknown == passes[1].never
        assert scale_out_ns(()) is None

    @pytest.mark.parametrize("passes", [(in_turn(200, 100), in_turn(210, 90)), ([0] * 300,)])
    def test_its_record_survives_json(self, passes: Any) -> None:
        record = Scaling((self.STEP,), 2, tuple(added(load(one)) for one in passes)).record
        assert record.scale_out is not None
        assert ScalingRecord.from_json(msgspec.to_builtins(record)) == record

    def test_notes_have_the_time_and_what_callers_noticed(self) -> None:
        note = describe_scaling(Scaling((self.STEP,), 2, (added(load(in_turn(200, 100))),)).record)[-1]
        assert note.startswith("one more replica under load carries its share 1.01 s (1 pass: 1.01 s) after")
        assert note.endswith(
            "after it was asked for, meanwhile p99 was up to 10.0 ms (before: 10.0 ms), 0 of 101 requests failed"
        )

    @pytest.mark.parametrize(
        ("taken_ms", "spread"),
        [((490, 515), r"502 ms \(2 passes: 490 ms, 515 ms\)"), ((490, 502, 515), r"502 ms \([\d.]+ ms to [\d.]+ ms\)")],
    )
    def test_an_interval_needs_three_passes(self, taken_ms: tuple[int, ...], spread: str) -> None:
        passes = tuple(replace(added(load(in_turn(200, 100))), duration_ns=one * MS) for one in taken_ms)
        note = describe_scaling(Scaling((self.STEP,), 2, passes).record)[-1]
        assert re.search(f"its share {spread} after", note)

    def test_notes_say_why_it_is_not_known(self) -> None:
        found = Scaling((self.STEP,), 2, (), "the kernel spreads the requests")
        why = "the scale-out time is not known: the kernel spreads the requests"
        assert describe_scaling(found.record)[-1] == why
        never = replace(found, scale_outs=(added(load([0] * 300)),))
        assert "did not carry its share" in describe_scaling(never.record)[-1]
