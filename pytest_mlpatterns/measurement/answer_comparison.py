"""Whether two deployments give the same answers to the same inputs, before either is loaded.

It must not know which of them is faster, nor what follows from a difference.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from pytest_mlpatterns.engines.local.plain_calls import PlainCalls
from pytest_mlpatterns.errors import DeploymentError, InvalidResultError
from pytest_mlpatterns.measurement.answer_check import check_outputs, output_in
from pytest_mlpatterns.measurement.smoke import answer_of
from pytest_mlpatterns.wording import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.serving.deployment import Deployment
    from pytest_mlpatterns.workload.plan import LoadPlan

__all__ = ["AnswerComparison", "Side", "are_alike"]

_INPUTS = 8
"""Most inputs that are sent to both sides; models that differ mostly do so for the first."""
_LONGEST_S = 2.0
"""Time after which no further input is sent, so that slow services are asked once or twice."""
_RELATIVE, _ABSOLUTE = 1e-5, 1e-8
"""Differences of numbers that do not count: 32-bit floats have seven digits, and sums of them lose one or two."""
_SHOWN = 90
"""Most characters of an answer in a message."""


class Side(Struct, frozen=True):
    """One side: its name, and what is sent to it."""

    name: str
    plan: LoadPlan


@dataclass(slots=True)
class AnswerComparison:
    """Compares the answers of two sides, or checks those of the second with the user's check.

    Args:
        second: the other side; its check, if it has one, replaces the comparison.
        difference: the first answers that differ, as a sentence; empty before, and if they are equal.
    """

    first: Side
    second: Side
    difference: str = ""

    def look(self, first: Deployment, second: Deployment) -> None:
        """Ask both deployments.

        Raises:
            DeploymentError: one of them gives no answer.
            InvalidResultError: an answer of the second side cannot be read for the check.
            Exception: any of the user's check, with a note that names the second side.
        """
        payload = self.second.plan.payload
        sent = range(min(_INPUTS, len(payload.inputs)))
        if self.second.plan.check is not None:
            self._check(second, sent)
            return
        deadline = time.monotonic() + _LONGEST_S
        for number in sent:
            try:
                one, other = _answer(first, self.first, number), _answer(second, self.second, number)
            except (ValueError, IndexError):  # an output that is no answer: there is nothing to compare
                return
            if first.streams or second.streams:  # chunks of equal texts may end at other places
                return
            if not are_alike(one, other):
                self.difference = (
                    f"the answers differ: to {payload.name_of(number)} {self.first.name} gave {_cut(one)}, "
                    f"{self.second.name} {_cut(other)}"
                )
                return
            if time.monotonic() > deadline:
                return

    def _check(self, second: Deployment, sent: Sequence[int]) -> None:
        plan, deadline = self.second.plan, time.monotonic() + _LONGEST_S
        assert plan.check is not None
        answers: dict[int, Any] = {}
        for number in sent:
            try:
                answer = _answer(second, self.second, number)
            except (ValueError, IndexError) as error:
                raise InvalidResultError(f"{self.second.name}: check= could not read an answer: {error}") from error
            if not isinstance(answer, _Refusal):  # the check of a load sees the successful ones, too
                answers[number] = answer
            if time.monotonic() > deadline:
                break
        if not answers:
            return
        try:
            check_outputs(plan.check, [plan.payload.inputs[number] for number in answers], [*answers.values()])
        except Exception as error:  # of the user's check
            error.add_note(f"these are answers of {self.second.name}")
            raise


class _Refusal(Struct, frozen=True):
    """An answer that is no success."""

    status: int

    def __repr__(self) -> str:
        return f"status {self.status}"


def are_alike(first: Any, second: Any) -> bool:
    """Whether two answers are equal, but for the last digits of floating-point numbers."""
    first, second = _plain(first), _plain(second)
    if isinstance(first, bool) or isinstance(second, bool):
        return first is second
    if isinstance(first, int | float) and isinstance(second, int | float):
        both_nan = first != first and second != second  # noqa: PLR0124 - only NaN differs from itself
        return both_nan or math.isclose(first, second, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(are_alike(value, second[key]) for key, value in first.items())
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(are_alike, first, second))
    return bool(first == second)


def _plain(value: Any) -> Any:
    """An array as a list."""
    return value.tolist() if hasattr(value, "tolist") else value


def _answer(deployment: Deployment, side: Side, number: int) -> Any:
    """The answer to one input, outside the load."""
    wait_s, payload = side.plan.timeout_ns / 1e9, side.plan.payload
    if isinstance(deployment, PlainCalls):
        try:
            return deployment.call(number, wait_s)
        except TimeoutError:
            raise DeploymentError(f"{side.name}: no call has returned after {wait_s:g} s", side=side.name) from None
    import httpx

    from pytest_mlpatterns.serving.bounded_client import describe_error

    try:
        response = deployment.ask(deployment.client, deployment.request_of(payload, number), wait_s)
    except httpx.HTTPError as error:
        said = f"{side.name}: {describe_error(error)}{deployment.reason_of_failure()}"
        raise DeploymentError(said, side=side.name) from error
    if not response.is_success:
        return _Refusal(response.status_code)
    return output_in(answer_of(response, number), deployment, payload)


def _cut(answer: Any) -> str:
    text = shown(answer)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
