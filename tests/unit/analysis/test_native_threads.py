"""Threads without Python code: their growth is named, and nothing else is."""

import numpy as np
import pytest
from msgspec.structs import replace
from support.each_row import each_row

from pytest_mlpatterns.analysis.causes.attribution import native_change, profile_record
from pytest_mlpatterns.records.profile import NativeChange, ProfiledBlock, ProfiledRun

MS = 1_000_000
REQUESTS = 40
ONE, FOUR = (0, 0.02), (3, 1.7)
"""Busy threads of a session and their milliseconds per request, with one thread and with four."""


def side(busy: int, ms: float, *, python_ms: float = 1.0, noise: float = 0.02, seed: int = 0) -> list[ProfiledBlock]:
    random = np.random.default_rng(seed)
    found = []
    for scale in random.lognormal(0, noise, 8):
        native_ns = int(scale * ms * MS * REQUESTS)
        found.append(
            ProfiledBlock(
                (),
                REQUESTS,
                cpu_ns=native_ns + int(scale * python_ms * MS * REQUESTS),
                native_ns=native_ns,
                native_busy=busy,
            )
        )
    return found


def run(before: list[ProfiledBlock], now: list[ProfiledBlock]) -> ProfiledRun:
    return ProfiledRun(tuple(now), tuple(before), libraries=("onnxruntime",))


def test_a_session_with_four_threads_in_place_of_one_is_named() -> None:
    found = native_change(run(side(*ONE), side(*FOUR, seed=1)))
    assert (found.busy_before, found.busy_now, found.libraries) == (0, 3, ("onnxruntime",))
    assert (found.before_ns, found.now_ns) == pytest.approx((0.02 * MS, 1.7 * MS), rel=0.05)
    for seed in range(0, 100, 2):  # and on a busy machine, where threads that wait actively take what others leave
        assert native_change(run(side(*ONE, seed=seed), side(*FOUR, noise=0.7, seed=seed + 1)))


@each_row(("before_ms", "now_ms"), [(1.2, 2.4), (0.25, 0.44)])  # from a tenth of the CPU time on
def test_more_work_in_as_many_threads_is_named_too(before_ms: float, now_ms: float) -> None:
    found = native_change(run(side(3, before_ms), side(3, now_ms, seed=1)))
    assert (found.busy_before, found.busy_now) == (3, 3)


@pytest.mark.parametrize("before", [ONE, FOUR])
@pytest.mark.parametrize("noise", [0.02, 0.2])
def test_unchanged_threads_are_never_named(before: tuple[int, float], noise: float) -> None:
    named = [
        native_change(run(side(*before, noise=noise, seed=seed), side(*before, noise=noise, seed=seed + 1)))
        for seed in range(0, 400, 2)
    ]
    assert named == [None] * 200


@each_row(
    ("before", "now"),
    (side(*FOUR), side(*ONE)),  # fewer threads
    (side(0, 0.02), side(0, 0.09)),  # a growth by less than a tenth of the CPU time
    (side(*ONE), [replace(one, native_ns=None) for one in side(*FOUR)]),  # a system that does not show threads
    (side(*ONE)[:2], side(*FOUR)[:2]),
    ([], side(*FOUR)),
)
def test_what_explains_no_slower_test_or_is_not_known_is_not_named(
    before: list[ProfiledBlock], now: list[ProfiledBlock]
) -> None:
    assert native_change(run(before, now)) is None


def test_the_record_of_a_profile_has_it() -> None:
    record = profile_record(run(side(*ONE), side(*FOUR)), lambda _frame, _line: "", is_known=True)
    assert isinstance(record.native, NativeChange)
    assert record.changes == ()
