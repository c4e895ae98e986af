"""Generators on the nodes of a cluster: one that is at its limit, all together, and how far apart they began."""

import numpy as np
import pytest
from msgspec.structs import replace
from support.each_row import each_row
from support.synthetic import MS, S

from pytest_mlpatterns.analysis.health.sustained import moves_ratios, spread_note, why_limited
from pytest_mlpatterns.records.launch import GeneratorPart, GeneratorReport

PARTS = tuple(GeneratorPart(f"10.0.0.{number}", 1000, 0.5, 5000.0) for number in (2, 3, 4))
REPORT = GeneratorReport(
    cpu_ns=3 * S // 2, wall_ns=S, completed=3000, connections=3, ceiling_rps=5000.0, processes=3, parts=PARTS
)


def test_one_that_uses_most_of_a_core_is_the_limit_though_the_others_are_idle() -> None:
    parts = (PARTS[0], replace(PARTS[1], core_share=0.83), PARTS[2])
    said = why_limited(replace(REPORT, cpu_ns=S, parts=parts))
    assert said == "the load generator on node 10.0.0.3 used 83.0 % of a core and may itself be the limit"


@pytest.mark.parametrize(("completed", "limited"), [(10_400, False), (10_600, True)])
def test_all_together_are_held_to_the_sum_of_their_ceilings(completed: int, limited: bool) -> None:
    said = why_limited(replace(REPORT, completed=completed))
    assert (said is not None) is limited
    assert not limited or "did 10,600 req/s together, over 70.0 % of the 15,000 req/s that they reach" in str(said)


@each_row(
    ("late_ns", "error_ns", "said"),
    ((0, MS, 5 * MS), 2 * MS, None),
    ((MS, 2 * MS, 8 * MS), MS // 5, "began within 7.00 ms of each other (their clocks are known to ±200 µs)"),
    ((0, 0, 0), 3 * MS, "began within 0 ns of each other (their clocks are known to ±3.00 ms)"),
)
def test_a_note_says_how_far_apart_they_began(late_ns: tuple[int, ...], error_ns: int, said: str | None) -> None:
    parts = tuple(replace(part, opened_late_ns=late) for part, late in zip(PARTS, late_ns, strict=True))
    note = spread_note(replace(REPORT, parts=(replace(parts[0], clock_error_ns=error_ns), *parts[1:])))
    assert note == (None if said is None else f"the load generators {said}")


def test_generators_on_this_machine_have_no_note() -> None:
    assert spread_note(replace(REPORT, parts=(), opened_late_ns=S)) is None


@each_row(
    ("lag_us", "late", "moves"),
    (1500, 2, False),  # the median of both sides, and the change between them, are what they are
    (1500, 25, True),
    (79, 100, False),
    (81, 100, True),
)
def test_requests_that_are_sent_late_on_both_sides_move_no_ratio_if_they_are_few(
    lag_us: int, late: int, moves: bool
) -> None:
    lag_ns = np.where(np.arange(100) < late, lag_us * 1000, 0)
    assert moves_ratios(lag_ns, 800_000.0) is moves
