"""Patterns: values that compare, print as they are written, say which processes they ask for, and refuse nonsense."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import PROPERTY

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.patterns import Pattern, Replicated, Single, Spread, Topology
from pytest_mlpatterns.patterns.base import MAX_PROCESSES

REPLICATED = st.builds(Replicated, st.integers(2, MAX_PROCESSES), st.sampled_from([str(spread) for spread in Spread]))


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (Single(), "single"),
        (Replicated(), "replicated"),
        (Replicated(2), "replicated"),
        (Replicated(replicas=3), "replicated(replicas=3)"),
        (Replicated(balance="shared-socket"), "replicated(balance=shared-socket)"),
        (Replicated(4, "least-outstanding"), "replicated(replicas=4,balance=least-outstanding)"),
    ],
)
def test_a_pattern_prints_as_it_is_written_without_what_is_default(pattern: Pattern, text: str) -> None:
    assert str(pattern) == text
    assert f"{pattern}" == text


@PROPERTY
@given(REPLICATED | st.just(Single()))
def test_the_repr_of_a_pattern_makes_the_same_pattern(pattern: Pattern) -> None:
    again = eval(repr(pattern), {"Replicated": Replicated, "Single": Single})
    assert again == pattern
    assert hash(again) == hash(pattern)
    assert str(again) == str(pattern)


@PROPERTY
@given(REPLICATED, REPLICATED)
def test_patterns_are_equal_where_their_text_is(one: Pattern, other: Pattern) -> None:
    assert (one == other) is (str(one) == str(other))


def test_patterns_of_different_kinds_are_different() -> None:
    assert Single() == Single()
    assert hash(Single()) == hash(Single())
    assert Single() != Replicated()
    assert len({Single(), Single(), Replicated(), Replicated(2), Replicated(3)}) == 3


def test_a_balance_may_be_the_member_of_the_choice_or_its_text() -> None:
    member, text = Replicated(balance=Spread.SHARED_SOCKET), Replicated(balance="shared-socket")
    assert member == text
    assert hash(member) == hash(text)
    assert str(member) == str(text)


def test_a_pattern_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Replicated().replicas = 5  # type: ignore[misc]


def test_a_single_process_is_the_topology_of_single() -> None:
    assert Single().topology() == Topology(replicas=1, spread=Spread.ROUND_ROBIN)


@pytest.mark.parametrize("spread", Spread)
def test_replicas_and_their_balance_are_the_topology_of_replicated(spread: Spread) -> None:
    found = Replicated(5, str(spread)).topology()
    assert found == Topology(replicas=5, spread=spread)
    assert found.spread is spread


@pytest.mark.parametrize("replicas", [1, 0, -1, MAX_PROCESSES + 1, 2.0, "2", True, None])
def test_an_impossible_number_of_replicas_is_refused(replicas: Any) -> None:
    with pytest.raises(SettingError) as caught:
        Replicated(replicas)
    assert str(caught.value) == (
        f"Replicated(replicas={replicas!r}), expected a whole number from 2 to 64; for one process write Single()"
    )


@pytest.mark.parametrize("balance", ["random", "", None, 5, ["round-robin"]])
def test_an_unknown_balance_is_refused_with_those_that_are_known(balance: Any) -> None:
    with pytest.raises(SettingError) as caught:
        Replicated(balance=balance)
    assert str(caught.value) == (
        f"Replicated(balance={balance!r}), expected one of 'round-robin', 'least-outstanding', 'shared-socket'"
    )


def test_a_pattern_without_a_topology_cannot_be_made() -> None:
    class Nothing(Pattern):
        __slots__ = ()

    with pytest.raises(TypeError, match="topology"):
        Nothing()  # type: ignore[abstract]
