"""What layers share: how they count, and that another thread can read it at any moment."""

import asyncio
import threading
from functools import partial
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.batching import batching
from support.caching import Clock
from support.each_row import each_row
from support.synthetic import MS, PROPERTY, S

from pytest_mlpatterns.patterns import tally as tally_module
from pytest_mlpatterns.patterns.layer import RequestError, ends_task, matched, needs_loop
from pytest_mlpatterns.patterns.tally import Tally, rounded
from pytest_mlpatterns.records.telemetry import LayerStats


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(tally_module, "perf_counter_ns", clock)
    return clock


class TestRounding:
    @each_row(
        ("value", "kept"),
        [(0, 0), (1, 1), (127, 127), (128, 129), (129, 129), (130, 131), (1000, 1004), (2**40, 2**40 + 2**33)],
    )
    def test_seven_leading_bits_are_kept(self, value: int, kept: int) -> None:
        assert rounded(value) == kept

    @PROPERTY
    @given(st.integers(0, 2**62))
    def test_rounding_changes_a_number_by_less_than_a_percent(self, value: int) -> None:
        assert abs(rounded(value) - value) <= value * 0.008
        assert rounded(rounded(value)) == rounded(value)

    @PROPERTY
    @given(st.integers(0, 2**40), st.integers(0, 2**40))
    def test_rounding_keeps_the_order_of_numbers(self, one: int, other: int) -> None:
        assert rounded(min(one, other)) <= rounded(max(one, other))


class TestCounting:
    def test_small_numbers_are_kept_exactly_and_times_to_their_leading_bits(self) -> None:
        tally = Tally(0, "batched")
        for size in (1000, 1001, 1000):
            tally.observe("size", size)
            tally.time("wait_ns", size)
        assert tally.snapshot().histograms == {"size": {1000: 2, 1001: 1}, "wait_ns": {1004: 3}}

    def test_a_snapshot_stays_as_it_was(self) -> None:
        tally = Tally(0, "batched")
        tally.count("calls")
        tally.observe("size", 2)
        tally.level("depth", 1)
        before = tally.snapshot()
        counters = dict(before.counters)
        tally.count("calls")
        tally.observe("size", 2)
        tally.level("depth", 2)
        assert before.counters == counters
        assert before.histograms == {"size": {2: 1}}
        assert len(before.series["depth"]) == 1

    def test_a_snapshot_survives_a_trip_through_plain_values(self) -> None:
        tally = Tally(1, "queued")
        tally.level("depth", 4)
        tally.time("wait_ns", 12345)
        found = tally.snapshot()
        assert LayerStats.from_json(msgspec.to_builtins(found)) == found


class TestLevels:
    def test_the_integral_of_a_level_is_over_the_time_that_it_was_observed(self, clock: Clock) -> None:
        tally = Tally(0, "queued")
        clock.now_ns += 5 * S  # before the first level nothing is observed
        for value, seconds in ((0, 1), (3, 2), (1, 4)):
            tally.level("depth", value)
            clock.now_ns += seconds * S
        assert tally.snapshot().counters == {"depth_ns": 10 * S, "observed_ns": 7 * S}

    @PROPERTY
    @given(
        st.lists(st.tuples(st.integers(0, 50), st.integers(0, 100 * MS)), min_size=1, max_size=50), st.integers(0, 49)
    )
    def test_readings_in_between_change_nothing(self, steps: list[tuple[int, int]], at: int) -> None:
        with pytest.MonkeyPatch.context() as patch:
            clock = Clock()
            patch.setattr(tally_module, "perf_counter_ns", clock)
            tally = Tally(0, "queued")
            between = None
            for number, (value, duration_ns) in enumerate(steps):
                tally.level("depth", value)
                clock.now_ns += duration_ns
                if number == at:
                    between = tally.snapshot()
            whole = tally.snapshot()
        assert whole.counters["depth_ns"] == sum(value * duration_ns for value, duration_ns in steps)
        assert whole.counters["observed_ns"] == sum(duration_ns for _, duration_ns in steps)
        if between is not None:
            assert whole.since(between).counters["depth_ns"] == sum(v * d for v, d in steps[at + 1 :])

    def test_the_course_keeps_a_moment_in_ten_milliseconds(self, clock: Clock) -> None:
        start = clock.now_ns
        tally = Tally(0, "queued")
        for value in range(25):
            tally.level("depth", value)
            clock.now_ns += MS
        assert tally.snapshot().series == {"depth": ((start, 0), (start + 10 * MS, 10), (start + 20 * MS, 20))}

    def test_a_value_that_lasts_is_in_the_course_however_soon_it_came(self, clock: Clock) -> None:
        start = clock.now_ns
        tally = Tally(0, "queued")
        for value, milliseconds in ((0, 2), (1, 3), (2, 50), (2, 20), (0, 1), (3, 4), (0, 30)):
            tally.level("depth", value)
            clock.now_ns += milliseconds * MS
        course = ((start, 0), (start + 5 * MS, 2), (start + 55 * MS, 2), (start + 75 * MS, 0))
        assert tally.snapshot().series == {"depth": course}
        tally.level("depth", 7)
        clock.now_ns += 12 * MS
        tally.level("depth", 8)
        clock.now_ns += MS
        tally.level("depth", 9)
        clock.now_ns += 15 * MS
        last = (start + 110 * MS, 7), (start + 122 * MS, 8), (start + 123 * MS, 9)
        assert tally.snapshot().series["depth"] == tally.snapshot().series["depth"] == (*course, *last)

    def test_the_course_does_not_grow_for_ever(self, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tally_module, "_MAX_SERIES", 5)
        tally = Tally(0, "queued")
        for value in range(100):
            tally.level("depth", value)
            clock.now_ns += S
        found = tally.snapshot()
        assert [value for _, value in found.series["depth"]] == [0, 1, 2, 3, 4]
        assert found.counters["depth_ns"] == sum(range(100)) * S

    def test_a_tally_read_from_another_thread_only_grows(self) -> None:
        tally, done = Tally(0, "queued"), threading.Event()

        def count() -> None:
            number = 0
            while not done.is_set():
                number += 1
                tally.level("depth", number % 7)
                tally.count("accepted")
                tally.time("wait_ns", number)
                tally.observe(f"seen{number % 300}", number % 500)

        thread = threading.Thread(target=count)
        thread.start()
        try:
            readings = [tally.snapshot() for _ in range(200)]
        finally:
            done.set()
            thread.join()
        for earlier, later in zip(readings, [*readings[1:], tally.snapshot()], strict=True):
            gained = later.since(earlier)
            assert min(gained.counters.values(), default=0) >= 0
            assert all(times > 0 for spread in gained.histograms.values() for times in spread.values())
        assert tally.snapshot().counters["accepted"] == sum(tally.snapshot().histograms["wait_ns"].values())


class Frame:
    """As libraries of data frames have them: as long as its rows, and gone through by the names of its columns."""

    columns = ("a", "b")

    def __len__(self) -> int:
        return 2


class TestMatching:
    @each_row("outputs", [[1, 2], (1, 2), {1: 1, 2: 2}.keys(), np.zeros((2, 3)), [{"a": 1}, {"a": 2}], ["a", "b"]])
    def test_as_many_outputs_as_inputs_are_taken_as_they_are(self, outputs: Any) -> None:
        assert matched(outputs, 2, "the model") is outputs

    @each_row(
        ("outputs", "said"),
        ([], "the model returned 0 outputs for 2 inputs; it must return one for each"),
        ([1, 2, 3], "the model returned 3 outputs for 2 inputs; it must return one for each"),
        (
            None,
            "the model returned None for 2 inputs, expected a list with one output for each; is its return missing?",
        ),
        (iter([1, 2]), "the model returned list_iterator, which has no length; it must return a list of outputs"),
        (
            {"label": 1, "score": 2},
            "the model returned dict for 2 inputs, expected a list with one output for each; return [{...}, ...]",
        ),
        ({}, "the model returned dict for 2 inputs, expected a list with one output for each; return [{...}, ...]"),
        ({1, 2}, "the model returned set for 2 inputs, expected a list with one output for each; return [...]"),
        ("ab", "the model returned str for 2 inputs, expected a list with one output for each; return [...]"),
        (b"ab", "the model returned bytes for 2 inputs, expected a list with one output for each; return [...]"),
        (
            Frame(),
            "the model returned Frame for 2 inputs, expected a list with one output for each; "
            "return frame.to_dict('records') or frame.to_numpy()",
        ),
    )
    def test_anything_else_is_an_error_of_the_model(self, outputs: Any, said: str) -> None:
        with pytest.raises(RequestError) as caught:
            matched(outputs, 2, "the model")
        assert (caught.value.status, str(caught.value)) == (500, said)


class Plain:
    def __call__(self, batch: list[Any]) -> list[Any]:
        return batch


class Later:
    async def __call__(self, batch: list[Any]) -> list[Any]:
        return batch


class Says(Plain):
    def __init__(self, needs: object) -> None:
        self.needs_loop = needs


async def later(batch: list[Any]) -> list[Any]:
    return batch


@each_row(
    ("inner", "needs"),
    (later, True),
    (Later(), True),
    (Later().__call__, True),
    (partial(Later().__call__), True),
    (Plain(), False),
    (partial(Plain()), False),
    (str, False),
    (len, False),
    (lambda inputs: inputs, False),
    (Says(True), True),
    (Says(False), False),
    (Says("of something else"), False),
    (batching(Plain())[0], True),
)
def test_handler_needs_the_loop_if_it_is_a_coroutine_function_or_declares_it(inner: Any, needs: bool) -> None:
    assert needs_loop(inner) is needs


class TestEnds:
    """Whether an exception ends the task that awaits a model."""

    @pytest.mark.parametrize("error", [GeneratorExit(), KeyboardInterrupt()])
    def test_the_end_of_a_loop_and_of_a_process_do(self, error: BaseException) -> None:
        assert ends_task(error)

    @pytest.mark.parametrize(
        ("error", "ends"),
        [(asyncio.CancelledError(), True), (ValueError(), False), (SystemExit(), False), (BaseException(), False)],
    )
    async def test_a_cancellation_does_once_the_task_was_cancelled_and_what_a_model_makes_of_it_does_not(
        self, error: BaseException, ends: bool
    ) -> None:
        assert not ends_task(error)
        task = asyncio.current_task()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(0)
        assert ends_task(error) is ends
