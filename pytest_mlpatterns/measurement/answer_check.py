"""``check=``: the user's check of answers from under load.

It must not know how the answers were measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_mlpatterns.errors import InvalidResultError, SettingError
from pytest_mlpatterns.loadgen.recorder import KEPT_BYTES
from pytest_mlpatterns.units import format_size
from pytest_mlpatterns.wire import decode_answer, headers_of
from pytest_mlpatterns.wording import shown
from pytest_mlpatterns.workload.request_builder import answer_in

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_mlpatterns.records.addressing import Answer
    from pytest_mlpatterns.serving.deployment import Deployment
    from pytest_mlpatterns.workload.payload import Payload
    from pytest_mlpatterns.workload.plan import LoadPlan

    Check = Callable[[Sequence[Any], Sequence[Any]], object]

__all__ = ["CHECKED_ANSWERS", "check_answers", "check_outputs", "output_in"]

CHECKED_ANSWERS = 200
"""Most answers of one launch that the check sees."""


def check_answers(deployment: Deployment, plan: LoadPlan, answers: Sequence[Answer], *, are_cut: bool = False) -> None:
    """Call the user's check with the inputs and outputs of successful answers, index by index.

    Raises:
        InvalidResultError: there is no successful answer, or one cannot be read.
        SettingError: the check returned something else than None, a truth value or an array of them.
        AssertionError: the check returned False.
        Exception: any that the check raises.
    """
    assert plan.check is not None
    if not answers and are_cut:
        raise InvalidResultError(
            f"check= keeps at most {format_size(KEPT_BYTES)} of answers, and every answer is longer; check one "
            "with perf.predict(...) instead"
        )
    if not answers:
        raise InvalidResultError("check= has no successful answer to check")
    try:
        outputs = [output_in(answer, deployment, plan.payload) for answer in answers]
        inputs = [plan.payload.inputs[answer.request] for answer in answers]
    except (ValueError, IndexError) as error:
        raise InvalidResultError(f"check= could not read an answer: {error}") from error
    check_outputs(plan.check, inputs, outputs)


def check_outputs(check: Check, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
    """Call the user's check with inputs and outputs, index by index.

    Raises:
        SettingError: the check returned something else than None, a truth value or an array of them.
        AssertionError: the check returned False.
        Exception: any that the check raises.
    """
    verdict = check(inputs, outputs)
    if verdict is None:
        return
    try:
        found = np.asarray(verdict)
    except ValueError:  # lists of different lengths
        found = np.empty(0)
    if found.dtype != np.bool_:
        raise SettingError(
            f"check= returned {shown(verdict)}, expected None, True, False or an array of them; assert inside it, or "
            "return whether the answers are right"
        )
    if not found.all():
        raise AssertionError(
            f"check= returned {shown(verdict)} for {len(outputs)} answers from under load; "
            "return None or True, or assert inside it"
        )


def output_in(answer: Answer, deployment: Deployment, payload: Payload) -> Any:
    """The output in an answer, as the wire or the service gives it; for a user's own request the body as bytes."""
    if payload.bodies:
        at, headers = deployment.endpoint, headers_of(answer.head)
        return decode_answer(at.wire, answer.body, headers, path=at.path, stream=at.stream)[0]
    if payload.builder is None:
        return answer.body
    import httpx

    return answer_in(httpx.Response(httpx.codes.OK, headers=headers_of(answer.head), content=answer.body))
