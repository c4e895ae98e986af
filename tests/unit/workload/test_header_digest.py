"""Headers of requests as one line: the same for the same headers, without credentials and without what varies."""

import httpx
from support.each_row import each_row

from pytest_mlpatterns.workload.payload import read_payload
from pytest_mlpatterns.workload.request_builder import describe_headers


def request(**headers: str) -> httpx.Request:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Request("POST", "/predict", headers=named, content=b"1")


def test_headers_that_decide_the_answer_are_in_the_line() -> None:
    line = describe_headers([request(Accept="application/json", X_Model="small")])
    assert line == f"accept: application/json; x-model: #{line[-8:]}"
    assert line != describe_headers([request(Accept="application/json", X_Model="large")])
    assert line == describe_headers([request(x_model="small", accept="application/json")])


@each_row(
    "name",
    """
    Authorization Cookie Set-Cookie Proxy-Authorization X-Api-Key X-Auth-Token Client-Secret X-Signature
    X-Auth X-Amz-Credential X-Passphrase X-User-Pwd X-Jwt X-Hub-Sig
    """.split(),  # noqa: SIM905 - a list of words is easier to read so
)
def test_credentials_are_left_out(name: str) -> None:
    assert describe_headers([request(**{name: "s3cret"})]) == "none"


def test_what_each_request_decides_is_left_out() -> None:
    assert describe_headers([request(X_Request_ID="1"), request(X_Request_ID="2")]) == "none"
    first, second = (request(Content_Type=f"multipart/form-data; boundary={mark}") for mark in "ab")
    assert describe_headers([first]) == describe_headers([second]) == "content-type: multipart/form-data"


def test_a_payload_of_requests_knows_its_headers_and_one_of_inputs_leaves_them_to_the_wire() -> None:
    assert read_payload([request(Accept="text/plain")]).headers == "accept: text/plain"
    assert read_payload([1.0]).headers == ""
