"""The error of a failed request, from whatever a service answers."""

from __future__ import annotations

import httpx
import pytest

from pytest_mlpatterns import Deployment
from pytest_mlpatterns.serving.deployment import ForeignProcesses
from pytest_mlpatterns.serving.failed_request import error_in
from pytest_mlpatterns.workload.endpoint import Endpoint


@pytest.mark.parametrize(
    ("content", "charset", "expected"),
    [
        (b'{"detail": "no such model"}', "utf-8", "no such model"),
        (b"the model raised KeyError: 'a'", "utf-8", "KeyError: 'a'"),
        (b"too  busy\nnow", "hex", "too busy now"),
        (b"[" * 100_000, "utf-8", "[" * 200),
        (b"", "undefined", "503"),
    ],
)
def test_an_answer_gives_its_error_in_one_line(content: bytes, charset: str, expected: str) -> None:
    response = httpx.Response(503, headers={"content-type": f"application/json; charset={charset}"}, content=content)
    deployment = Deployment(Endpoint((("127.0.0.1", 1),), "/predict", "m"), ForeignProcesses())
    assert error_in(response, deployment, ()) == expected
