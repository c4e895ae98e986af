"""Schedules: when requests are due as pure functions of elapsed time, checked against the formulas, without a clock."""

import itertools
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.each_row import each_row
from support.synthetic import FEW, MS, PROPERTY, S

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.units import MAX_CONCURRENCY, MAX_RATE_RPS
from pytest_mlpatterns.workload.schedule import ClosedLoop, ConstantRate, GammaRate, PoissonRate, Stages, Trace

IN_FLIGHT = "a whole number of requests in flight from 1 to 10,000; write 16"
PER_SECOND = "requests per second, from 0.000001 to 1,000,000; write 200"


@each_row(
    ("schedule", "text"),
    (ClosedLoop(8), "closed(8)"),
    (ClosedLoop(8, think_time="50ms"), "closed(8, think_time=50ms)"),
    (ClosedLoop(8, think_time=("10ms", "2s")), "closed(8, think_time=10ms to 2s)"),
    (ConstantRate(200), "constant(200/s)"),
    (ConstantRate(0.5), "constant(0.5/s)"),
    (PoissonRate(200.0), "poisson(200/s)"),
    (PoissonRate(200, seed=7), "poisson(200/s, seed=7)"),
    (GammaRate(200, 0.5), "gamma(200/s, burstiness=0.5)"),
    (GammaRate(200, seed=7), "gamma(200/s, burstiness=1, seed=7)"),
    (Stages((("10s", 100), ("5s", 0))), "stages(rate_rps: 0, 10s→100, 5s→0)"),
    (Stages((("1s", 4),), of="concurrency", start=2), "stages(concurrency: 2, 1s→4)"),
)
def test_a_schedule_prints_as_baselines_keep_it(schedule: object, text: str) -> None:
    assert str(schedule) == text


@each_row(
    ("one", "same", "other"),
    (ClosedLoop(8), ClosedLoop(8), ClosedLoop(9)),
    (ClosedLoop(8, ("1s", "2s")), ClosedLoop(8, ["1s", "2s"]), ClosedLoop(8, ("1s", "3s"))),  # type: ignore[arg-type]
    (ConstantRate(8), ConstantRate(8.0), ConstantRate(9)),
    (PoissonRate(8), PoissonRate(8), PoissonRate(8, seed=1)),
    (Stages((("1s", 4),)), Stages([["1s", 4]]), Stages((("1s", 5),))),  # type: ignore[arg-type]
)
def test_a_schedule_is_a_value(one: object, same: object, other: object) -> None:
    assert one == same
    assert hash(one) == hash(same)
    assert one != other


@each_row(
    ("make", "found", "expected"),
    (lambda: ClosedLoop(0), "concurrency is 0", IN_FLIGHT.replace("16", "1")),
    (lambda: ClosedLoop(MAX_CONCURRENCY + 1), "concurrency is 10001", IN_FLIGHT),
    (lambda: ClosedLoop("8"), "concurrency is '8'", IN_FLIGHT.replace("16", "8, without quotes")),
    (lambda: ClosedLoop(1.5), "concurrency is 1.5", IN_FLIGHT),
    (lambda: ClosedLoop(True), "concurrency is True", IN_FLIGHT),
    (lambda: ClosedLoop(1, think_time=5), "ClosedLoop(think_time=...) is 5", "a time with its unit"),
    (lambda: ClosedLoop(1, think_time=("1s", 5)), "ClosedLoop(think_time=...) is 5", "a time with its unit"),
    (lambda: ClosedLoop(1, think_time=("2s", "1s")), "ClosedLoop(think_time=('2s', '1s'))", '("10ms", "2s")'),
    (lambda: ClosedLoop(1, think_time=("2s",)), "ClosedLoop(think_time=('2s',))", '("10ms", "2s")'),
    (lambda: ConstantRate(0), "rate_rps is 0", PER_SECOND),
    (lambda: ConstantRate(-1), "rate_rps is -1", PER_SECOND),
    (lambda: ConstantRate(MAX_RATE_RPS + 1), "rate_rps is 1000001", PER_SECOND),
    (lambda: ConstantRate(float("nan")), "rate_rps is nan", PER_SECOND),
    (lambda: ConstantRate("200"), "rate_rps is '200'", PER_SECOND),
    (lambda: ConstantRate(True), "rate_rps is True", PER_SECOND),
    (lambda: PoissonRate(0), "rate_rps is 0", PER_SECOND),
    (lambda: PoissonRate(1, seed="x"), "PoissonRate(seed='x')", "a whole number"),
    (lambda: PoissonRate(1, seed=True), "PoissonRate(seed=True)", "a whole number"),
    (lambda: GammaRate(1, burstiness=0), "GammaRate(burstiness=0)", "less for bursts; write 0.5"),
    (lambda: GammaRate(1, burstiness="x"), "GammaRate(burstiness='x')", "less for bursts; write 0.5"),
    (lambda: GammaRate(1, seed="x"), "GammaRate(seed='x')", "a whole number"),
    (lambda: Stages([]), "Stages([])", "write [('10s', 100), ('5s', 0)]"),
    (lambda: Stages(5), "Stages(5)", "(duration, level) pairs"),
    (lambda: Stages([5]), "Stages([5])", "(duration, level) pairs"),
    (lambda: Stages([("1s", 2, 3)]), "Stages([('1s', 2, 3)])", "(duration, level) pairs"),
    (lambda: Stages([("1s", 2)], of="users"), "Stages(of='users')", "'rate_rps' or 'concurrency'"),
    (lambda: Stages([("1 moon", 2)]), "Stages duration is '1 moon'", "a time with its unit"),
    (lambda: Stages([("1s", -2)]), "Stages level (rate_rps) is -2", "from 0.000001"),
    (lambda: Stages([("1s", False)]), "Stages level (rate_rps) is False", "requests per second"),
    (lambda: Stages([("1s", 2)], start="x"), "Stages level (rate_rps) is 'x'", "requests per second"),
    (lambda: Stages([("1s", 2.5)], of="concurrency"), "Stages level (concurrency) is 2.5", "a whole number"),
    (lambda: Stages([("1s", 0)]), "Stages([('1s', 0)]) never sends anything", "some time above level 0"),
    (lambda: Stages([("0s", 5)]), "Stages([('0s', 5)]) never sends anything", "some time above level 0"),
    (lambda: Stages([("1s", 0), ("0s", 5)]), "Stages([('1s', 0), ('0s', 5)]) never sends", "above level 0"),
    (lambda: Stages([("1s", np.False_)]), f"Stages level (rate_rps) is {np.False_!r}", "requests per second"),
    (lambda: ClosedLoop(np.float64(2)), f"concurrency is {np.float64(2)!r}", "a whole number of requests in flight"),
    (lambda: ClosedLoop(np.int64(0)), f"concurrency is {np.int64(0)!r}", IN_FLIGHT.replace("16", "1")),
    (lambda: Trace(3), "Trace(3), expected a file of timestamps", "write Trace('arrivals.csv')"),
    (lambda: Trace(None), "Trace(None), expected a file of timestamps", "write Trace('arrivals.csv')"),
)
def test_an_impossible_schedule_is_named_with_what_is_possible(make: Any, found: str, expected: str) -> None:
    with pytest.raises(SettingError) as caught:
        make()
    message = str(caught.value)
    assert message.startswith(found)
    assert expected in message
    assert "\n" not in message


@each_row(
    ("schedule", "plain"),
    (ClosedLoop(np.int64(4)), "ClosedLoop(concurrency=4, think_time='0s')"),  # type: ignore[arg-type]
    (ConstantRate(np.int64(3)), "ConstantRate(rate_rps=3)"),  # type: ignore[arg-type]
    (ConstantRate(np.float32(0.5)), "ConstantRate(rate_rps=0.5)"),  # type: ignore[arg-type]
    (ConstantRate(Fraction(1, 4)), "ConstantRate(rate_rps=0.25)"),  # type: ignore[arg-type]
    (PoissonRate(np.float64(2.5), seed=np.uint8(7)), "PoissonRate(rate_rps=2.5, seed=7)"),  # type: ignore[arg-type]
    (
        Stages([("1s", np.int64(4)), ("1s", np.int64(0))], "concurrency", np.float64(0)),  # type: ignore[arg-type,list-item]
        "Stages(stages=(('1s', 4), ('1s', 0)), of='concurrency', start=0)",
    ),
)
def test_numbers_of_other_kinds_are_kept_as_plain_ones(schedule: object, plain: str) -> None:
    assert repr(schedule) == plain


def test_a_closed_loop_has_the_same_callers_at_any_time() -> None:
    loop = ClosedLoop(MAX_CONCURRENCY, think_time="50ms")
    assert (loop.closed, loop.length_ns, loop.max_concurrency) == (True, None, 10_000)
    assert (loop.concurrency_at(0), loop.concurrency_at(10**15)) == (10_000, 10_000)
    assert loop.think_time_ns == 50 * MS
    assert ClosedLoop(1).think_time_ns == 0


def test_pauses_between_two_times_are_uniform_and_the_same_in_each_launch() -> None:
    loop = ClosedLoop(8, think_time=("10ms", "30ms"))
    pauses = list(itertools.islice(loop.pauses(0), 2000))
    assert pauses == list(itertools.islice(loop.pauses(0), 2000))
    assert pauses[:9] != list(itertools.islice(loop.pauses(1), 9)), "another generator has other callers"
    assert (min(pauses) // MS, max(pauses) // MS, round(sum(pauses) / 2000 / MS)) == (10, 29, 20)
    assert (loop.think_time_ns, loop.mean_think_time_ns) == (30 * MS, 20 * MS)


@each_row("rate", [0.5, 1, 3, 200, 999.9, MAX_RATE_RPS])
def test_request_n_of_a_constant_rate_is_due_at_n_over_the_rate(rate: float) -> None:
    schedule = ConstantRate(rate)
    assert (schedule.closed, schedule.length_ns) == (False, None)
    assert schedule.due_ns(0) == 0
    assert schedule.due_ns(10**6) == round(10**6 * S / rate)
    assert list(itertools.islice(schedule.arrivals(), 50)) == [round(number * S / rate) for number in range(50)]


@PROPERTY
@given(st.floats(min_value=0.001, max_value=MAX_RATE_RPS), st.integers(0, 10**7))
def test_even_arrivals_do_not_drift_however_many_there_are(rate: float, number: int) -> None:
    gap = ConstantRate(rate).due_ns(number + 1) - ConstantRate(rate).due_ns(number)
    assert gap == pytest.approx(S / rate, abs=1.001, rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_intervals_of_independent_callers_are_exponential(seed: int) -> None:
    schedule = PoissonRate(100, seed=seed)
    assert (schedule.closed, schedule.length_ns) == (False, None)
    due = np.array(list(itertools.islice(schedule.arrivals(), 20_000)))
    gaps = np.diff(due, prepend=0)
    assert np.all(gaps >= 0)
    assert gaps.mean() == pytest.approx(10 * MS, rel=0.05)
    assert gaps.std() == pytest.approx(10 * MS, rel=0.05)
    assert (gaps > 20 * MS).mean() == pytest.approx(np.exp(-2), abs=0.02)


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_intervals_of_bursts_scatter_as_their_shape_says(burstiness: float) -> None:
    schedule = GammaRate(100, burstiness, seed=1)
    assert (schedule.closed, schedule.length_ns) == (False, None)
    gaps = np.diff(np.array(list(itertools.islice(schedule.arrivals(), 40_000))), prepend=0)
    assert gaps.mean() == pytest.approx(10 * MS, rel=0.05)
    assert gaps.std() / gaps.mean() == pytest.approx(burstiness**-0.5, rel=0.05)


def test_the_same_seed_gives_the_same_arrivals_and_another_gives_others() -> None:
    def first(schedule: PoissonRate) -> list[int]:
        return list(itertools.islice(schedule.arrivals(), 100))

    assert first(PoissonRate(100, seed=3)) == first(PoissonRate(100, seed=3))
    assert first(PoissonRate(100, seed=3)) != first(PoissonRate(100, seed=4))


def test_stages_go_linearly_from_level_to_level_and_jump_where_they_take_no_time() -> None:
    stages = Stages((("10s", 100), ("5s", 100), ("0s", 20), ("2s", 0)))
    assert stages.length_ns == 17 * S
    assert [stages.level_at(moment * S) for moment in (0, 5, 10, 14, 15, 16, 17, 99)] == [
        0, 50, 100, 100, 20, 10, 0, 0,
    ]  # fmt: skip


def test_stages_of_callers_are_a_closed_loop() -> None:
    stages = Stages((("10s", 9), ("1s", 3)), of="concurrency", start=1)
    assert (stages.closed, stages.max_concurrency, stages.think_time_ns) == (True, 9, 0)
    assert [stages.concurrency_at(moment * S) for moment in (0, 5, 10, 11)] == [1, 5, 9, 3]
    assert Stages((("1s", 9),)).closed is False


def test_a_stage_may_last_a_timedelta() -> None:
    assert Stages(((timedelta(seconds=2), 10),)).length_ns == 2 * S  # type: ignore[arg-type]


def test_a_plateau_sends_as_a_constant_rate_does() -> None:
    plateau = list(Stages((("3s", 70),), start=70).arrivals())
    assert plateau == list(itertools.islice(ConstantRate(70).arrivals(), 210))


LEVELS = st.one_of(st.just(0.0), st.floats(min_value=0.5, max_value=300))
STAGES = st.builds(
    lambda stages, start: (tuple((f"{length}ms", level) for length, level in stages), start),
    st.lists(st.tuples(st.integers(0, 3000), LEVELS), min_size=1, max_size=4),
    LEVELS,
).filter(lambda made: any(level for _, level in made[0]) and any(length != "0ms" for length, _ in made[0]))


@FEW
@given(STAGES)
def test_request_n_of_stages_is_due_when_the_integral_of_the_rate_reaches_n(made: tuple[Any, float]) -> None:
    stages = Stages(made[0], start=made[1])
    grid_ns = np.arange(0, stages.length_ns + 1, MS)
    middle = np.array([stages.level_at(int(moment) + MS // 2) for moment in grid_ns[:-1]])
    integral = np.concatenate([[0.0], np.cumsum(middle * MS / S)])
    due = list(stages.arrivals())
    assert due == sorted(due)
    assert all(0 <= moment <= stages.length_ns for moment in due)
    assert len(due) == pytest.approx(integral[-1], abs=1.01)
    reached = np.interp(due, grid_ns, integral)
    assert reached == pytest.approx(np.arange(len(due)), abs=0.01)


SHARED = st.one_of(
    st.builds(ConstantRate, st.floats(min_value=0.5, max_value=5000)),
    st.builds(
        GammaRate,
        st.floats(min_value=0.5, max_value=5000),
        burstiness=st.floats(min_value=0.1, max_value=10),
        seed=st.integers(0, 99),
    ),
    STAGES.map(lambda made: Stages(made[0], start=made[1])),
)


@FEW
@given(SHARED, st.integers(1, 9))
def test_the_shares_of_generators_add_up_to_the_schedule(schedule: ConstantRate | GammaRate | Stages, of: int) -> None:
    whole = list(itertools.islice(schedule.arrivals(), 200))
    shares = [list(itertools.islice(schedule.arrivals(number, of), 200)) for number in range(of)]
    for number, share in enumerate(shares):
        assert share[: len(whole[number::of])] == whole[number::of]
    assert sorted(itertools.chain(*shares))[: len(whole)] == whole


@PROPERTY
@given(st.floats(min_value=0.5, max_value=10**6), st.integers(0, 99), st.integers(1, 9))
def test_the_shares_of_independent_callers_are_together_the_merged_schedule(rate: float, seed: int, of: int) -> None:
    schedule = PoissonRate(rate, seed)
    merged = list(itertools.islice(schedule.merged_arrivals(of), 200))
    assert merged == sorted(merged)
    end = merged[-1]
    shares = [list(itertools.takewhile(lambda due: due < end, schedule.arrivals(number, of))) for number in range(of)]
    assert sorted(itertools.chain(*shares)) == [due for due in merged if due < end]
    assert all(share != other for share, other in itertools.pairwise(shares) if share)
    assert of > 1 or merged == list(itertools.islice(schedule.arrivals(), 200))


@each_row("of", [2, 5])
@each_row("seed", range(3))
def test_independent_callers_of_several_generators_are_as_random_as_one_stream(of: int, seed: int) -> None:
    """Counts per interval are Poisson, and intervals exponential: χ² of 20 classes, whose 99.9 % point is 43.8."""
    due = np.array(list(itertools.islice(PoissonRate(1000, seed=seed).merged_arrivals(of), 20_000)))
    gaps = np.diff(due, prepend=0) / (S / 1000)
    edges = -np.log1p(-np.arange(20) / 20)  # equally likely classes of an exponential interval; the last has no end
    observed = np.histogram(gaps, np.append(edges, np.inf))[0]
    assert ((observed - 1000) ** 2 / 1000).sum() < 43.8
    counts = np.histogram(due, np.arange(0, 19 * S, 20 * MS))[0]
    assert counts.mean() == pytest.approx(20, rel=0.05)
    assert counts.var() == pytest.approx(20, rel=0.15)


@each_row(
    ("name", "text", "column"),
    ("a.jsonl", "10.5\n10\n12\n", "timestamp"),
    ("a.jsonl", '{"timestamp": 10.5}\n\n{"timestamp": 10, "x": 1}\n12\n', "timestamp"),
    ("a.jsonl", '{"at": 10.5}\n{"at": "10"}\n{"at": 12}\n', "at"),
    ("a.csv", "path,timestamp\n/a,10.5\n/b,10\n/c,12\n", "timestamp"),
    ("a.csv", "\ufefftimestamp\n10.5\n10\n12\n", "timestamp"),
    ("A.CSV", "at\n10.5\n10\n12\n", "at"),
    ("a.jsonl", '{"timestamp": 10.5, "x": "\u2028"}\r\n10\r\n12\r\n', "timestamp"),
    ("a.csv", "path,timestamp\n/\u2028\x85a,10.5\n/b,10\n/c,12\n", "timestamp"),
)
def test_a_trace_replays_its_timestamps_from_the_earliest_on(tmp_path: Path, name: str, text: str, column: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    trace = Trace(path, column=column)
    assert list(trace.arrivals()) == [0, S // 2, 2 * S]
    assert [list(trace.arrivals(number, 2)) for number in range(2)] == [[0, 2 * S], [S // 2]]
    assert (trace.closed, trace.length_ns) == (False, 2 * S + 1)
    assert str(trace) == f"trace({name}, 3 in 2.00 s)"


def test_a_trace_can_be_replayed_faster(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("0\n1\n4\n", encoding="utf-8")
    fast = Trace(str(path), speed=2.0)
    assert list(fast.arrivals()) == [0, S // 2, 2 * S]
    assert str(fast) == "trace(a.jsonl, 3 in 2.00 s, speed=2)"
    assert fast != Trace(path)
    assert type(Trace(path, speed=np.int64(2)).speed) is int  # type: ignore[arg-type]


@each_row(
    ("name", "text", "found"),
    ("a.jsonl", "1\nsoon\n", "row 2 is 'soon', expected a number of seconds, or one under 'timestamp'"),
    ("a.jsonl", '1\n{"at": 2}\n', "row 2 is '{\"at\": 2}', expected a number of seconds"),
    ("a.jsonl", "1\nNaN\n", "row 2 is 'NaN', expected a number of seconds"),
    ("a.jsonl", "1\n[2]\n", "row 2 is '[2]', expected a number of seconds"),
    ("a.jsonl", "1\n\n\nsoon\n", "row 4 is 'soon', expected a number of seconds"),
    ("a.csv", "timestamp\n1\nsoon\n", "row 3 is {'timestamp': 'soon'}, expected a number of seconds"),
    ("a.csv", "at\n1\n", "row 2 is {'at': '1'}, expected a number of seconds, or one under 'timestamp'"),
    ("a.csv", "timestamp\n1\n\n\nsoon\n", "row 5 is {'timestamp': 'soon'}, expected a number of seconds"),
    ("a.jsonl", "", "has 0 timestamps, expected at least 2"),
    ("a.jsonl", "5\n", "has 1 timestamps, expected at least 2"),
)
def test_a_trace_that_cannot_be_read_names_its_file_and_row(tmp_path: Path, name: str, text: str, found: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingError) as caught:
        Trace(path)
    message = str(caught.value)
    assert message.startswith(f"Trace({str(path)!r}) ")
    assert found in message


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"], ids=["absent", "no text"])
def test_a_trace_without_a_readable_file_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingError, match="cannot be read: "):
        Trace(path)


@pytest.mark.parametrize("speed", [0, -1, "2", True, float("inf"), float("nan")])
def test_a_trace_runs_at_a_finite_speed_above_zero(tmp_path: Path, speed: Any) -> None:
    with pytest.raises(SettingError) as caught:
        Trace(tmp_path / "a.jsonl", speed=speed)
    assert str(caught.value) == f"Trace(speed={speed!r}), expected a factor above 0; 2.0 replays in half the time"
