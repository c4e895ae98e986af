"""Advice on a path that a service does not know: the paths that it describes, and where the user names one."""

from pathlib import Path
from typing import Any

import httpx
from msgspec.structs import replace
from support.each_row import each_row
from support.services.deploy import make_start_options

from pytest_mlpatterns import App, Command, Url
from pytest_mlpatterns.serving.external.attach import advice_on_request
from pytest_mlpatterns.serving.targets import Target
from pytest_mlpatterns.workload.request_builder import RequestBuilder

DESCRIBED = {"paths": {"/health": {"get": {}}, "/api/model/predict": {"post": {}}, "/items/{id}": {"put": {}}}}
HAS = "; the service has POST /api/model/predict and PUT /items/{id} (its openapi.json)"
BUILDER = RequestBuilder(lambda value: {"json": value}, "/api/predict")


def advice(
    directory: Path,
    target: Target,
    payload: Any = ([1.0],),
    *,
    status: int = 404,
    described: Any = DESCRIBED,
    builder: RequestBuilder | None = None,
) -> str:
    options = replace(make_start_options(directory, payload), builder=builder)
    transport = httpx.MockTransport(lambda _: httpx.Response(200 if described else 404, json=described))
    with httpx.Client(transport=transport, base_url="http://service") as client:
        return advice_on_request(httpx.Response(status), target, options, client=client)


def test_request_builder_gets_the_paths_of_the_service(tmp_path: Path) -> None:
    found = advice(tmp_path, App("service:app"), builder=BUILDER)
    assert found == f"{HAS}; correct the path that request= returns"


def test_complete_requests_are_corrected_in_the_payload(tmp_path: Path) -> None:
    found = advice(tmp_path, App("service:app"), [httpx.Request("POST", "/predict", json=[1])])
    assert found == f"{HAS}; correct the path of the requests in perf_payload"


@each_row(
    ("target", "described", "expected"),
    (App("service:app"), DESCRIBED, f'{HAS}; name the path that takes inputs: App(..., path="/api/model/predict")'),
    (Command("serve {port}"), {}, '; name the path that takes inputs: Command(..., path="/predict")'),
    (Command("serve {port}"), [1], '; name the path that takes inputs: Command(..., path="/predict")'),
    (Url("http://service/predict"), DESCRIBED, f"{HAS}; name the path that takes inputs in the address"),
)
def test_target_names_its_path(tmp_path: Path, target: Target, described: Any, expected: str) -> None:
    assert advice(tmp_path, target, described=described) == expected


def test_an_answer_that_expects_another_form_is_told_how_inputs_are_sent(tmp_path: Path) -> None:
    found = advice(tmp_path, App("service:app"), status=422)
    assert found.startswith("; each input of perf_payload was sent in the form of the wire 'rest+json'; if")
    assert found.endswith("request=lambda item: {'json': item})")
    assert advice(tmp_path, App("service:app"), status=422, builder=BUILDER) == "; correct what request= returns"


def test_other_errors_need_no_path(tmp_path: Path) -> None:
    assert advice(tmp_path, App("service:app"), status=500) == ""
