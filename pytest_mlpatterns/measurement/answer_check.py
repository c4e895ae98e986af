"""Whether answers are right: from under load, of a smoke run, and of two deployments compared.

``check=`` sees answers from under load. A smoke run sends one request instead of a load, recorded as a launch of one
sample. Two deployments that are compared get the same inputs before either is loaded. This module must not know how the
answers were measured, which deployment is faster, nor what follows from a difference.

It also knows the frames of a function of the user's that a measurement calls, of ``check=`` and ``during=``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import Struct

from pytest_mlpatterns.engines.local.plain_calls import PlainCalls
from pytest_mlpatterns.errors import DeploymentError, InvalidResultError, SettingError
from pytest_mlpatterns.fields import unrun_answer
from pytest_mlpatterns.loadgen.messages import LoadResult
from pytest_mlpatterns.loadgen.recorder import KEPT_BYTES
from pytest_mlpatterns.measurement.during import call_beside
from pytest_mlpatterns.records.addressing import Answer
from pytest_mlpatterns.records.launch import GeneratorReport, Launch, Warmup
from pytest_mlpatterns.records.outcomes import Failure, FirstFailure
from pytest_mlpatterns.records.samples import Samples, Window
from pytest_mlpatterns.serving.deployment import Deployment
from pytest_mlpatterns.serving.failed_request import error_in, stream_fault
from pytest_mlpatterns.units import format_size
from pytest_mlpatterns.wire import decode_answer, headers_of
from pytest_mlpatterns.wire.codec import plain_answer
from pytest_mlpatterns.wire.stream_request import StreamFault
from pytest_mlpatterns.wording import shown
from pytest_mlpatterns.workload.payload import Payload
from pytest_mlpatterns.workload.request_builder import answer_in

if TYPE_CHECKING:
    import httpx

    from pytest_mlpatterns.workload.plan import LoadPlan

    Check = Callable[[Sequence[Any], Sequence[Any]], object]

_INPUTS = 8  # Most inputs that are sent to both sides; models that differ mostly do so for the first
_LONGEST_S = 2.0  # Time after which no further input is sent, so that slow services are asked once or twice
_RELATIVE, _ABSOLUTE = 1e-5, 1e-8
"""Differences of numbers that do not count: 32-bit floats have seven digits, and sums of them lose one or two."""
_SHOWN = 90  # Most characters of an answer in a message


class Side(Struct, frozen=True):
    """One side: its name, and what is sent to it."""

    name: str
    plan: LoadPlan


@dataclass(slots=True)
class AnswerComparison:
    """Compares the answers of two sides, or checks the second's with the user's check."""

    first: Side
    second: Side  # the other side; its check, if it has one, replaces the comparison
    difference: str = ""  # the first answers that differ, as a sentence; empty before, and if they are equal

    def look(self, first: Deployment, second: Deployment) -> None:
        """Ask both deployments. Raises Exception: any of the user's check, with a note that names the second side."""
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


_DECODED_HEADERS = (b"content-encoding",)  # Headers to drop because httpx has already decoded the body


def send_one(deployment: Deployment, plan: LoadPlan) -> Launch:
    """Send a single request, and check its answer if the plan has a check."""
    import httpx

    from pytest_mlpatterns.serving.bounded_client import describe_error

    request = deployment.request_of(plan.payload)
    before, printed = deployment.stats(), deployment.processes.traceback_from_now()
    started = time.perf_counter_ns()
    try:
        response = deployment.ask(deployment.client, request, plan.timeout_ns / 1e9)
    except httpx.HTTPError as error:
        raise DeploymentError(f"{deployment.url}: {describe_error(error)}") from error
    done, at = time.perf_counter_ns(), deployment.endpoint
    fault = stream_fault(response, at.wire, request["content"], stream=at.stream)
    is_whole = response.is_success and fault is None
    if plan.check is not None:
        check_answers(deployment, plan, [answer_of(response)] if is_whole else [])
    why = "" if is_whole else error_in(response, deployment, printed, body=request["content"])
    return Launch(
        samples=_samples(response, started, done, outcome=_outcome(response, fault)),
        window=Window(started, done + 1),
        usage=None,
        stats=deployment.stats().since(before),
        warmup=Warmup(0, 0, None),
        generator=GeneratorReport(cpu_ns=0, wall_ns=done - started, completed=1, connections=1),
        cold_start_ns=deployment.cold_start_ns,
        request_bytes=np.array([len(request["content"])], dtype=np.int64),
        open_loop=False,
        first_failure=None if is_whole else FirstFailure(plan.payload.name_of(0), why),
    )


def _outcome(response: httpx.Response, fault: StreamFault | None) -> int:
    return response.status_code if fault is None or not response.is_success else Failure[fault.name]


def _samples(response: httpx.Response, sent_ns: int, done_ns: int, *, outcome: int) -> Samples:
    sent = np.array([sent_ns], dtype=np.int64)
    return Samples(
        due_ns=sent,
        sent_ns=sent,
        done_ns=np.array([done_ns], dtype=np.int64),
        outcome=np.array([outcome], dtype=np.int16),
        request=np.zeros(1, dtype=np.uint32),
        target=np.zeros(1, dtype=np.uint8),
        received_bytes=np.array([len(response.content)], dtype=np.uint32),
    )


def answer_of(response: httpx.Response, number: int = 0) -> Answer:
    """The response to the request of this index in the form that the load generator gives."""
    headers = [pair for pair in response.headers.raw if pair[0].lower() not in _DECODED_HEADERS]
    return Answer(number, response.content, b"\r\n" + b"\r\n".join(b"%s: %s" % pair for pair in headers))


CHECKED_ANSWERS = 200  # Most answers of one launch that the check sees


def check_answers(deployment: Deployment, plan: LoadPlan, answers: Sequence[Answer], *, are_cut: bool = False) -> None:
    """Call the user's check with the inputs and outputs of successful answers, index by index.

    Raises AssertionError: the check returned False. Raises Exception: any that the check raises.
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


def require_figures(plan: LoadPlan, result: LoadResult, samples: Samples | None = None) -> None:
    """Refuse figures that cannot be read.

    ``samples``: of a load in which each figure is expected at least once; None if it may lack them.
    """
    for name, why in result.figure_faults.items():
        raise SettingError(f"perf_figures: {name} {why}")
    if samples is None or plan.figures is None:
        return
    good = samples.successes_in(result.window)
    for name, values in samples.figures.items():
        if good.any() and np.isnan(values[good]).all():
            first = result.without_figure.get(name, "a body that cannot be kept")
            raise InvalidResultError(f"perf_figures: no answer has {name}; the first one has {first}")


def check_outputs(check: Check, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
    """Call the user's check with inputs and outputs, index by index. Raises Exception: any that the check raises."""
    verdict = check(inputs, outputs)
    if verdict is None:
        return
    if why := unrun_answer(verdict):
        raise SettingError(f"check= {why}")
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
    headers = headers_of(answer.head)
    if payload.bodies:
        at = deployment.endpoint
        return decode_answer(at.wire, answer.body, headers, path=at.path, stream=at.stream)[0]
    body = plain_answer(answer.body, headers)
    if payload.builder is None:
        return body
    import httpx

    headers.pop("content-encoding", None)
    return answer_in(httpx.Response(httpx.codes.OK, headers=headers, content=body))


_CALLS = (check_outputs.__code__, call_beside.__code__)  # Frames that call a function of the user's


def cut_to_function(error: BaseException) -> bool:
    """Cut the frames of this package from the traceback of an error of a user's check, or of one beside the load.

    The frames of the user's function remain; none if a check returned False.
    """
    entry = error.__traceback__
    while entry is not None and entry.tb_frame.f_code not in _CALLS:
        entry = entry.tb_next
    if entry is None:
        return False
    error.__traceback__ = entry.tb_next
    return True
