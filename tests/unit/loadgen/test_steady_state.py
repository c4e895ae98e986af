"""The end of the warm-up: three windows that agree within a tenth, in throughput and in median latency."""

from hypothesis import given
from hypothesis import strategies as st
from support.each_row import each_row
from support.synthetic import MS, PROPERTY

from pytest_mlpatterns.loadgen.warmup import WarmupWindow, is_steady


def windows(*pairs: tuple[float, float]) -> list[WarmupWindow]:
    return [WarmupWindow(rate, median) for rate, median in pairs]


@each_row(
    ("seen", "steady"),
    ([], False),
    ([(100, MS)], False),
    ([(100, MS), (100, MS)], False),
    ([(100, MS), (100, MS), (100, MS)], True),
    ([(95, MS), (100, MS), (105, MS)], True),  # a tenth of the middle value exactly
    ([(105, MS), (95, MS), (100, MS)], True),
    ([(95, MS), (100, MS), (105.1, MS)], False),
    ([(100, 0.95 * MS), (100, MS), (100, 1.05 * MS)], True),
    ([(100, 0.94 * MS), (100, MS), (100, 1.05 * MS)], False),
    ([(20, 5 * MS), (100, MS), (100, MS), (100, MS)], True),  # only the last three count
    ([(100, MS), (100, MS), (100, MS), (20, 5 * MS)], False),
    ([(20, 5 * MS), (50, 2 * MS), (100, MS)], False),
    ([(0, 0), (0, 0), (0, 0)], True),
)
def test_the_last_three_windows_decide(seen: list[tuple[float, float]], steady: bool) -> None:
    assert is_steady(windows(*seen)) is steady


@PROPERTY
@given(
    st.lists(st.tuples(st.floats(1, 1e5), st.floats(1, 1e9)), min_size=3, max_size=6),
    st.sampled_from([0.25, 0.5, 2.0, 8.0]),
)
def test_the_rule_does_not_know_the_unit(seen: list[tuple[float, float]], factor: float) -> None:
    assert is_steady(windows(*seen)) is is_steady(windows(*((rate * factor, median / factor) for rate, median in seen)))


@PROPERTY
@given(st.permutations([(100.0, 1.0), (104.0, 1.02), (97.0, 0.98)]))
def test_the_order_of_the_last_three_does_not_matter(seen: list[tuple[float, float]]) -> None:
    assert is_steady(windows(*seen))
