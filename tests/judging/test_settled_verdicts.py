"""The verdict on each metric, of what the baseline file and the recorded code say: a table of all cases."""

from typing import Any

import pytest
from msgspec.structs import replace
from support.synthetic import MS, launch, make_setup, samples, usage

from pytest_mlpatterns.judging.baseline_comparison import with_rates
from pytest_mlpatterns.judging.machine_doubts import MachineSign
from pytest_mlpatterns.judging.settled_comparison import SettledVerdicts, is_decided
from pytest_mlpatterns.records.baseline_entry import Entry
from pytest_mlpatterns.records.launch import Estimate, Launch, LaunchValue, Taken
from pytest_mlpatterns.records.verdict import OpenBy, Outcome, Verdict

PASS, FAIL, OPEN = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
THEN_NS = 4.0 * MS
SORTING_NS = 0.7 * MS

BUSY = "other processes used 1.2 of the 2 cores"


def screened(outcome: Outcome, change: float = 0.0, *, half: float = 0.05, metric: str = "rtm") -> Verdict:
    """What the file says: a change in the interval of this half width, at a tolerance of 10 %."""
    interval = Estimate(change, change - half, change + half)
    return Verdict(metric, "baseline", outcome, "by the file", interval, 0.10, THEN_NS, THEN_NS * (1 + change))


def judged(outcome: Outcome, change: float = 0.0, *, half: float = 0.05, metric: str = "rtm") -> Verdict:
    """What the recorded code says."""
    return replace(screened(outcome, change, half=half, metric=metric), against="revision", reason="interleaved")


def merged(seen: Verdict, settled: Verdict | None, **known: Any) -> Verdict:
    both = SettledVerdicts(known.pop("name", "a1b2c3d"), settled is None, {seen.metric: seen}, **known)
    (verdict,) = both.merged(() if settled is None else (settled,))
    return verdict


def make_entry(*, taken: Taken | None = None) -> Entry:
    metrics = {"rtm": (LaunchValue(THEN_NS, 0.01),), "cpu_per_request": (LaunchValue(1e6, 0.01),)}
    return Entry(make_setup(), metrics, {}, None, "2026-01-31", taken=taken or Taken(), sorting_ns=(SORTING_NS,))


def make_launch(*, others_cores: float = 0.0) -> Launch:
    """A launch of a second with 200 requests, beside neighbours that use this many of two cores."""
    due = [number * 5 * MS for number in range(200)]
    used = usage(0.5, 0.6 + others_cores, seconds=1.0, others_cores=others_cores)
    return launch(samples(due, 4 * MS), seconds=1.0, used=used)


def sign(
    *, others_cores: float = 0.0, sorting: float = 0.0, beside: float = 0.0, taken: Taken | None = None
) -> MachineSign:
    """A machine beside neighbours, on which the fixed work takes this multiple of its time then; 0 if unknown.

    Beside the recorded code, it takes ``beside`` times its time then; 0 if that was not measured.
    """
    now = make_launch(others_cores=others_cores)
    of_settling = [replace(now, sorting_ns=(SORTING_NS * beside,))] * 3 if beside else []
    return MachineSign(make_entry(taken=taken), [replace(now, sorting_ns=(SORTING_NS * sorting,))], of_settling)


class TestARateFollowsFromItsTimes:
    """One disturbed launch of an entry leaves the throughput of a closed loop open."""

    RATE = screened(OPEN, 0.02, half=0.15, metric="throughput")

    def found(self, rate: Verdict, *times: Verdict) -> Outcome:
        return with_rates({one.metric: one for one in (rate, *times)})[rate.metric].outcome

    def test_times_within_their_tolerance_decide_it(self) -> None:
        assert self.found(self.RATE, screened(PASS)) is PASS

    @pytest.mark.parametrize("times", [(), (screened(OPEN, 0.05),), (screened(FAIL, 0.3),)])
    def test_others_leave_it_open(self, times: tuple[Verdict, ...]) -> None:
        assert self.found(self.RATE, *times) is OPEN

    def test_a_rate_that_looks_slower_stays_open(self) -> None:
        assert self.found(screened(OPEN, 0.06, half=0.15, metric="throughput"), screened(PASS)) is OPEN
        assert self.found(screened(FAIL, 0.3, metric="throughput"), screened(PASS)) is FAIL

    def test_tokens_follow_from_two_times(self) -> None:
        tokens = replace(self.RATE, metric="output_tokens")
        ttft, tpot = screened(PASS, metric="ttft"), screened(PASS, metric="tpot")
        assert self.found(tokens, ttft) is OPEN
        assert self.found(tokens, ttft, tpot) is PASS


class TestTheRecordedCodeDecides:
    @pytest.mark.parametrize("seen", [screened(PASS), screened(OPEN, 0.05), screened(OPEN, 0.5), screened(FAIL, 0.3)])
    def test_a_failure_beside_it_fails(self, seen: Verdict) -> None:
        assert merged(seen, judged(FAIL, 0.3)).outcome is FAIL

    def test_its_reason_names_what_the_file_saw_too(self) -> None:
        verdict = merged(screened(FAIL, 0.5), judged(FAIL, 0.3))
        assert verdict.reason == "interleaved; by the file: RTM 4.00 ms → 6.00 ms, 50.0 % worse than the baseline"

    def test_its_reason_names_the_mean_if_the_file_saw_that(self) -> None:
        verdict = merged(replace(screened(FAIL, 0.5), judged_by="latency_mean"), judged(FAIL, 0.3))
        assert "by the file: mean latency 4.00 ms → 6.00 ms, 50.0 % worse than" in verdict.reason

    @pytest.mark.parametrize("seen", [screened(PASS), screened(OPEN, 0.05), screened(OPEN, -0.5)])
    def test_a_pass_beside_it_passes_unless_the_file_saw_it_worse(self, seen: Verdict) -> None:
        assert merged(seen, judged(PASS)).outcome is PASS

    @pytest.mark.parametrize("seen", [screened(OPEN, 0.15, half=0.4), screened(FAIL, 0.3)])
    def test_a_pass_passes_if_what_the_file_saw_has_passed(self, seen: Verdict) -> None:
        assert merged(seen, judged(PASS), today=lambda _: 0.02) == judged(PASS)
        assert merged(seen, judged(PASS), today=lambda _: 0.12).outcome is OPEN

    def test_a_metric_that_the_file_does_not_know_is_its_own(self) -> None:
        both = SettledVerdicts("a1b2c3d", False, {})
        assert both.merged([judged(FAIL, 0.5)]) == [judged(FAIL, 0.5)]

    def test_a_metric_that_only_the_file_knows_is_the_file_s(self) -> None:
        both = SettledVerdicts("a1b2c3d", False, {"rtm": screened(PASS), "p99": screened(PASS, metric="p99")})
        assert [verdict.metric for verdict in both.merged([judged(PASS)])] == ["rtm", "p99"]

    def test_a_failure_that_only_the_file_knows_is_open_if_the_machine_explains_it(self) -> None:
        seen = {"rtm": screened(FAIL, 0.4), "p99": screened(FAIL, 0.3, metric="p99")}
        for machine, outcome in ((sign(others_cores=1.2), OPEN), (sign(), FAIL)):
            both = SettledVerdicts("a1b2c3d", False, seen, sign=machine)
            assert both.merged([judged(PASS)])[1].outcome is outcome


class TestWhatBothSidesShare:
    """Present and recorded code are equally slow, and both slower than the recording."""

    def test_without_a_sign_of_the_machine_it_stays_open_and_names_what_may_have_changed(self) -> None:
        verdict = merged(screened(FAIL, 0.5), judged(PASS), sign=sign(sorting=1.02))
        assert verdict.outcome is OPEN
        assert verdict.reason == (
            "RTM 4.00 ms → 6.00 ms, 50.0 % worse than the baseline, and so is a1b2c3d today: "
            "not the code, and no sign of the machine explains it"
        )
        assert verdict.why_open is not None
        assert verdict.why_open.by is OpenBy.UNEXPLAINED

    @pytest.mark.parametrize(
        ("metric", "by", "end"),
        [
            ("rtm", OpenBy.MACHINE, f"not the code, and {BUSY} meanwhile"),
            ("peak_memory", OpenBy.UNEXPLAINED, "the code"),
        ],
    )
    def test_where_neighbours_used_cores_it_is_not_said_that_no_sign_explains_it(
        self, metric: str, by: OpenBy, end: str
    ) -> None:
        seen = screened(FAIL, 9.0, metric=metric)
        verdict = merged(seen, judged(PASS, metric=metric), sign=sign(others_cores=1.2), busy=BUSY)
        assert (verdict.outcome, verdict.why_open and verdict.why_open.by) == (OPEN, by)
        assert verdict.reason.endswith(end)

    def test_a_changed_environment_fails_and_is_named(self) -> None:
        verdict = merged(screened(FAIL, 0.5), judged(PASS), sign=sign(), facts="numpy 1.26 → 2.0")
        assert verdict.outcome is FAIL
        assert "not the code, but numpy 1.26 → 2.0 changed since the baseline was recorded" in verdict.reason

    def test_a_suspicion_beside_a_changed_environment_stays_open(self) -> None:
        assert merged(screened(OPEN, 0.12), judged(PASS), sign=sign(), facts="pandas 2.1 → 2.2").outcome is OPEN

    @pytest.mark.parametrize(
        ("machine", "why"),
        [
            (sign(others_cores=1.2), "other processes used 1.2 of the 2 cores"),
            (sign(sorting=1.5), "a fixed workload takes as much longer"),
        ],
        ids=["neighbours", "fixed workload"],
    )
    def test_a_sign_of_the_machine_lets_it_pass(self, machine: MachineSign, why: str) -> None:
        verdict = merged(screened(FAIL, 0.5), judged(PASS), sign=machine)
        assert verdict.outcome is PASS
        assert why in verdict.reason

    @pytest.mark.parametrize(("beside", "outcome"), [(1.5, PASS), (1.0, OPEN)])
    def test_the_fixed_work_beside_the_recorded_code_counts_too(self, beside: float, outcome: Outcome) -> None:
        """The launches by which the file judges have few moments of it, which may be those of a fast core."""
        machine = sign(sorting=1.2, beside=beside)
        assert merged(screened(FAIL, 0.5), judged(PASS), sign=machine).outcome is outcome

    @pytest.mark.parametrize(
        "machine", [sign(others_cores=1.2), sign(sorting=1.5)], ids=["neighbours", "fixed workload"]
    )
    def test_a_sign_explains_at_most_what_it_can_do(self, machine: MachineSign) -> None:
        assert merged(screened(FAIL, 9.0), judged(PASS), sign=machine).outcome is OPEN

    def test_the_fixed_work_of_the_launches_shows_a_machine_that_is_a_little_slower(self) -> None:
        seen = screened(FAIL, 0.15, half=0.04)  # at least 11 %
        for sorting, outcome in ((1.08, PASS), (1.04, OPEN), (0.9, OPEN)):
            assert merged(seen, judged(PASS), sign=sign(sorting=sorting)).outcome is outcome

    @pytest.mark.parametrize(
        ("metric", "seen", "later"), [("rtm", 0.9, 0.5), ("cpu_per_request", 0.9, 0.5), ("throughput", 0.47, 0.33)]
    )
    def test_only_what_the_recorded_code_shares_needs_a_sign(self, metric: str, seen: float, later: float) -> None:
        """The first launches were disturbed besides: the machine takes 1.5 times as long, and they took 1.9 times."""
        machine, first = sign(sorting=1.5), screened(FAIL, seen, half=0.01, metric=metric)
        for today, outcome in ((None, OPEN), (lambda _: None, OPEN), (lambda _: seen, OPEN), (lambda _: later, PASS)):
            assert merged(first, judged(PASS, metric=metric), sign=machine, today=today).outcome is outcome

    def test_a_failure_of_both_measurements_is_not_excused_by_what_is_shared(self) -> None:
        settled = judged(OPEN, 0.15, half=0.1)
        verdict = merged(screened(FAIL, 0.9), settled, sign=sign(sorting=1.5), today=lambda _: 0.5)
        assert verdict.outcome is FAIL

    def test_neighbours_that_were_there_at_the_recording_explain_less(self) -> None:
        same = Taken(others_cores=1.2)
        change = screened(FAIL, 4.0)  # 5 times as long
        assert merged(change, judged(PASS), sign=sign(others_cores=1.2)).outcome is PASS
        assert merged(change, judged(PASS), sign=sign(others_cores=1.2, taken=same)).outcome is OPEN

    def test_neighbours_do_not_make_a_request_need_twice_the_cpu_time(self) -> None:
        machine = sign(others_cores=1.2)
        for change, outcome in ((0.4, PASS), (1.0, OPEN)):
            seen = screened(FAIL, change, metric="cpu_per_request")
            assert merged(seen, judged(PASS, metric="cpu_per_request"), sign=machine).outcome is outcome

    def test_no_machine_makes_answers_larger(self) -> None:
        seen = screened(FAIL, 0.5, metric="response_bytes")
        verdict = merged(seen, judged(PASS, metric="response_bytes"), sign=sign(others_cores=1.2))
        assert verdict.outcome is OPEN

    def test_a_calm_line_says_how_much_slower_the_machine_is(self) -> None:
        both = SettledVerdicts("a1b2c3d", False, {"rtm": screened(FAIL, 0.4)}, sign=sign(others_cores=1.2))
        assert both.calm(both.merged([judged(PASS)])) == (
            "this machine takes 1.4 times as long as when the baseline was recorded (other processes used 1.2 of the 2 "
            "cores); the code does not"
        )

    def test_it_says_what_the_recorded_code_shares(self) -> None:
        seen = {"rtm": screened(FAIL, 0.9)}
        both = SettledVerdicts("a1b2c3d", False, seen, sign=sign(sorting=1.5), today=lambda _: 0.5)
        assert both.calm(both.merged([judged(PASS)])).startswith("this machine takes 1.5 times as long as when")

    def test_what_has_passed_has_no_calm_line(self) -> None:
        both = SettledVerdicts("a1b2c3d", False, {"rtm": screened(FAIL, 0.9)}, sign=sign(), today=lambda _: 0.0)
        verdicts = both.merged([judged(PASS)])
        assert [verdict.outcome for verdict in verdicts] == [PASS]
        assert both.calm(verdicts) == ""

    def test_a_test_that_fails_otherwise_has_no_calm_line(self) -> None:
        seen = {"rtm": screened(FAIL, 0.4), "throughput": screened(FAIL, 0.4, metric="throughput")}
        both = SettledVerdicts("a1b2c3d", False, seen, sign=sign(others_cores=1.2))
        assert both.calm(both.merged([judged(PASS), judged(FAIL, 0.4, metric="throughput")])) == ""


class TestTheVeryCode:
    """The working tree is the code that the baseline was recorded from, so that there is nothing to compare with."""

    @pytest.mark.parametrize("seen", [screened(OPEN, 0.05), screened(OPEN, -0.3)])
    def test_what_is_open_passes(self, seen: Verdict) -> None:
        assert merged(seen, None).outcome is PASS

    def test_what_got_worse_needs_a_reason(self) -> None:
        assert merged(screened(FAIL, 0.5), None).outcome is OPEN
        assert merged(screened(FAIL, 0.5), None, facts="OMP_NUM_THREADS 1 → 4").outcome is FAIL
        verdict = merged(screened(FAIL, 0.5), None, sign=sign(sorting=1.5))
        assert verdict.outcome is PASS
        assert "with the code that was recorded: a fixed workload" in verdict.reason

    @pytest.mark.parametrize("metric", ["error_rate", "peak_memory"])
    def test_what_no_machine_changes_fails(self, metric: str) -> None:
        assert merged(screened(FAIL, 0.5, metric=metric), None, sign=sign(others_cores=1.2)).outcome is FAIL


class TestTwoMeasurements:
    """The recorded code leaves open what the file decides."""

    def test_what_the_file_passes_passes_on_a_machine_that_is_no_faster(self) -> None:
        assert merged(screened(PASS), judged(OPEN, 0.05)).outcome is PASS
        assert merged(screened(PASS), judged(OPEN, 0.05), is_faster=True).outcome is OPEN
        assert merged(screened(PASS), judged(OPEN, 0.15)).outcome is OPEN  # suspected

    def test_what_the_file_fails_fails_if_the_recorded_code_is_surely_faster(self) -> None:
        seen = screened(FAIL, 0.5)
        assert merged(seen, judged(OPEN, 0.13), sign=sign()).outcome is FAIL
        assert merged(seen, judged(OPEN, 0.13), sign=sign(others_cores=1.2)).outcome is OPEN
        assert merged(seen, judged(OPEN, 0.13, half=0.2), sign=sign()).outcome is OPEN
        assert merged(seen, judged(OPEN, 0.05, half=0.1), sign=sign()).outcome is OPEN


@pytest.mark.parametrize(
    ("verdict", "decided"),
    [
        (screened(PASS), True),
        (screened(FAIL, 0.5), False),
        (screened(OPEN, 0.5), False),
        (screened(FAIL, 0.5, metric="peak_memory"), True),
        (screened(OPEN, 0.5, metric="peak_memory"), False),
    ],
)
def test_the_file_alone_decides_what_passes_and_what_no_machine_changes(verdict: Verdict, decided: bool) -> None:
    assert is_decided(verdict) is decided
