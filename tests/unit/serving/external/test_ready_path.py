"""Which path says that a server is ready, and which answers do."""

import httpx
from support.each_row import each_row

from pytest_mlpatterns import Wire
from pytest_mlpatterns.serving.external.start import is_ready, ready_path


@each_row(
    ("ready", "wire", "path", "answers"),
    (None, "rest+json", "/", {200: True, 404: True, 503: True}),
    ("/health", "rest+json", "/health", {200: True, 404: False, 503: False}),
    (None, "invocations", "/ping", {200: True, 204: True, 404: True, 405: True, 500: False, 503: False}),
    ("/health", "invocations+csv", "/health", {200: True, 404: False}),
)
def test_a_server_is_ready(ready: str | None, wire: str, path: str, answers: dict[int, bool]) -> None:
    found = Wire.parse(wire)
    assert ready_path(ready, found) == path
    assert {status: is_ready(httpx.Response(status), ready, found) for status in answers} == answers
