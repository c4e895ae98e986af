"""A start that fails is tried once more, if that may help; what is given up stays so."""

from collections.abc import Callable
from typing import Any

import pytest
from support.each_row import each_row

from pytest_mlpatterns import DeploymentError
from pytest_mlpatterns.measurement.system_under_test import Starts, ends_starts

READY: Any = "a deployment"
FAILS, LATE, SET_UP = DeploymentError, (True,), (False,)
"""What a start comes to, but for a deployment: it fails, is late, or its set-up fails."""


def starting(*outcomes: Any) -> tuple[Callable[..., Any], list[dict[str, Any]]]:
    """A start with these outcomes in turn, and what it was asked for each time."""
    asked: list[dict[str, Any]] = []

    def start(**how: Any) -> Any:
        asked.append(how)
        outcome = outcomes[len(asked) - 1]
        if outcome is READY:
            return outcome
        raise DeploymentError(f"try {len(asked)}\nits log", retry=None if outcome is FAILS else outcome[0])

    return start, asked


@each_row(
    ("outcomes", "calls", "tries", "notes"),
    ((READY, READY), 2, 2, []),
    ((FAILS,), 1, 1, []),
    ((SET_UP,), 1, 1, []),
    ((LATE, READY), 1, 2, ["a start failed and was tried once more: try 1"]),
    ((LATE, FAILS), 1, 2, []),
    ((READY, FAILS, READY), 2, 3, ["a start failed and was tried once more: try 2"]),
    ((READY, SET_UP), 2, 2, []),
    ((READY, LATE, FAILS), 3, 3, ["a further start failed twice, and what was measured before it counts: try 3"]),
)
def test_a_start_is_tried_once_more_if_it_was_late_or_one_has_succeeded(
    outcomes: tuple[Any, ...], calls: int, tries: int, notes: list[str]
) -> None:
    start, asked = starting(*outcomes)
    starts = Starts()
    patient = starts.patient(start)
    errors = []
    for _ in range(calls):
        try:
            assert patient(profiled=True) is READY
        except DeploymentError as error:
            errors.append(error)
    assert asked == [{"profiled": True}] * tries
    assert starts.notes == notes
    assert [ends_starts(error) for error in errors] == [bool(notes)] * len(errors)
    if outcomes == (LATE, FAILS):
        assert str(errors[0]).endswith("it was tried twice; the first time: try 1")


def test_each_side_has_tries_of_its_own_and_its_error_may_be_named() -> None:
    starts = Starts()
    own, reference = (
        starts.patient(starting(*tries)[0], side) for side, *tries in (("", READY, READY), ("main", FAILS))
    )
    assert own() is READY
    with pytest.raises(DeploymentError, match="try 1") as caught:
        reference()
    assert not ends_starts(caught.value)
    assert own() is READY
    caught.value.end_starts()
    named = DeploymentError("main: it failed", side="main")
    named.__cause__ = caught.value
    assert ends_starts(named)
