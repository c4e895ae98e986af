"""The payload of a mix: the requests of every class of callers, one class after the other.

Pure; this module must not know when a request is sent.
"""

from __future__ import annotations

import hashlib
import itertools
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.wire import REST_JSON, Wire
from pytest_mlpatterns.workload.payload import Payload, PayloadPart, read_payload
from pytest_mlpatterns.workload.request_builder import RequestBuilder, describe_headers

if TYPE_CHECKING:
    from pytest_mlpatterns.workload.mix import CallerClass, Mix

__all__ = ["read_mix"]


def read_mix(
    mix: Mix, given: object, wire: Wire = REST_JSON, *, path: str = "", builder: RequestBuilder | None = None
) -> Payload:
    """Encode the inputs of every class of callers.

    Args:
        mix: the load.
        given: inputs as in ``perf_payload``, for the classes without inputs of their own; None if there are none.
        wire: encodes the inputs of classes whose requests no function makes.
        path: path of the target; empty for a server of this package.
        builder: makes the requests of classes that do not make them themselves; None: the wire does.

    Raises:
        SettingError: a class has no inputs, conversations, or inputs that cannot be sent; the message names it. Or some
            classes send requests of another kind than the others.
    """
    payloads: dict[str, Payload] = {}
    shared: dict[tuple[int, int], Payload] = {}
    for one in mix.classes:
        inputs = given if one.inputs is None else one.inputs
        key = id(inputs), id(one.request)
        if key not in shared:  # encoded once, however many classes send it
            shared[key] = _read_class(one, inputs, wire, path=path, builder=builder)
        payloads[one.name] = shared[key]
    _require_one_kind(payloads)
    ends = [*itertools.accumulate(len(payload.bodies or payload.requests) for payload in payloads.values())]
    parts = tuple(
        PayloadPart(one.name, first, end, payload.draw, has_own_request=one.request is not None)
        for one, payload, first, end in zip(mix.classes, payloads.values(), [0, *ends], ends, strict=False)
    )
    every = payloads.values()
    requests = tuple(request for payload in every for request in payload.requests)
    return Payload(
        inputs=tuple(item for payload in every for item in payload.inputs),
        bodies=tuple(body for payload in every for body in payload.bodies),
        digest=_digest(payloads),
        wire=wire,
        requests=requests,
        builder=next(iter(every)).builder,
        headers=describe_headers(requests) if requests else "",
        paths=tuple(own for payload in every for own in payload.paths),
        parts=parts,
    )


def _read_class(one: CallerClass, inputs: Any, wire: Wire, *, path: str, builder: RequestBuilder | None) -> Payload:
    if inputs is None:
        raise SettingError(
            f"class {one.name} of the mix has no inputs, and the test has none; write "
            f'Mix({{"{one.name}": ({type(one.schedule).__name__}(...), inputs)}}), or define a fixture perf_payload'
        )
    own = builder if one.request is None else RequestBuilder(one.request, path)
    try:
        payload = read_payload(inputs, wire, path, builder=own)
    except SettingError as error:
        raise SettingError(f"class {one.name} of the mix: {error}") from error
    if payload.conversations is not None:
        raise SettingError(
            f"class {one.name} of the mix has conversations, whose callers wait for an answer of their own; expected "
            "inputs without turns, or perf(concurrency=...) instead of a mix"
        )
    return payload


def _require_one_kind(payloads: dict[str, Payload]) -> None:
    """Refuse classes whose requests are made in different ways: their answers would be read in different ways."""
    kinds = {name: _kind(payload) for name, payload in payloads.items()}
    if len(set(kinds.values())) == 1:
        return
    named = ", ".join(f"{name} {kind}" for name, kind in kinds.items())
    raise SettingError(
        f"the classes of the mix send different kinds of requests ({named}), expected one kind; give each class a "
        "function that makes its requests, or none"
    )


def _kind(payload: Payload) -> str:
    if payload.bodies:
        return "inputs as the wire encodes them"
    return "complete requests" if payload.builder is None else "what a function makes of its inputs"


def _digest(payloads: dict[str, Payload]) -> str:
    """The hash of the payloads and of their names, which identifies the mix in the baseline."""
    text = "\n".join(f"{name} {payload.digest}" for name, payload in payloads.items())
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()[:16]}"
