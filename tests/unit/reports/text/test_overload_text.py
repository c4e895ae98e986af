"""Overload in words and as a curve."""

from dataclasses import replace

import pytest
from msgspec import structs
from support.overloaded import NMRT_RPS, RATIOS, offered
from support.synthetic import MS

from pytest_mlpatterns.analysis.capacity.overload import overload_of
from pytest_mlpatterns.records.capacity import Overload
from pytest_mlpatterns.reports.text.notes import describe_overload, describe_step, overload_picture


def measured(places: int | None, *, limit_ms: int = 100, peak: float = 2.0) -> Overload:
    loads = [offered(ratio, places=places) for ratio in RATIOS if ratio < peak]
    return overload_of([*loads, offered(peak, places=places, watched_s=6.0)], NMRT_RPS, limit_ms * MS)


def test_a_curve_has_a_column_for_each_load_and_fits_a_failure() -> None:
    assert overload_picture(measured(10)) == [
        "offered   0.5  0.8    1 1.25  1.5    2 →0.8  × NMRT",
        "goodput   50%  80% 100% 100% 100% 100%  80%  of NMRT",
        "         ▄▄▄▄ ▆▆▆▆ ████ ████ ████ ████ ▆▆▆▆",
        "rejected   0%   0%   0%  20%  33%  50%   0%  of offered",
        "late       0%   0%   0%   0%   0%   0%   0%  of offered",
    ]
    beyond = measured(None, peak=3.0)
    assert len(beyond.steps) == len(RATIOS) + 1
    assert all(len(line) <= 60 for line in overload_picture(beyond))


@pytest.mark.parametrize(
    ("overload", "text"),
    [
        (
            measured(10),
            "the service sheds load: at 2 times the capacity (NMRT) of 200 req/s its goodput is 100 % of the capacity",
        ),
        (
            measured(None),
            "the service collapses: at 2 times the capacity (NMRT) of 200 req/s its goodput is 0.0 % of the "
            "capacity, since",
        ),
        (
            measured(None, limit_ms=9000),
            "the service keeps its goodput: at 2 times the capacity (NMRT) of 200 req/s it is 200 %",
        ),
        (
            measured(None, peak=1.07),
            "the service degrades: at 1.07 times the capacity (NMRT) of 200 req/s its goodput is",
        ),
    ],
    ids=["sheds", "collapses", "holds", "degrades"],
)
def test_what_the_goodput_does_is_said_in_words(overload: Overload, text: str) -> None:
    assert describe_overload(overload).startswith(text)


def test_the_sentence_has_the_recovery_and_what_was_cut() -> None:
    assert describe_overload(measured(10)).endswith("; it recovers at once")
    assert describe_overload(measured(None, peak=1.25)).endswith("; it recovers in 2.02 s")
    assert describe_overload(measured(None)).endswith("; it has not recovered 6.00 s after the peak")
    cut = replace(measured(10), cut="1.0 s each")
    assert describe_overload(cut).endswith("; cut: 1.0 s each")
    busy = structs.replace(cut.peak, busy="other processes used 1.9 of the 2 cores")
    assert describe_overload(replace(cut, steps=(busy,))).endswith(
        "; cut: 1.0 s each; other processes used 1.9 of the 2 cores"
    )


def test_a_step_says_what_became_of_its_requests() -> None:
    overload = measured(10)
    assert describe_step(overload.peak, overload) == (
        "at 2 times the capacity (NMRT) 50.1 % of the requests were in time, 49.9 % rejected, p99 of the "
        "answers 50.0 ms"
    )
