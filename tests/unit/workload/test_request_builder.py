"""Requests built from inputs by the user's function, and answers as the service gives them."""

import pickle
from typing import Any

import httpx
import pytest
from support.each_row import each_row

from pytest_mlpatterns import SettingError, Wire, Zipf
from pytest_mlpatterns.workload.payload import MAX_PAYLOAD_BYTES, arguments_of, read_payload
from pytest_mlpatterns.workload.request_builder import RequestBuilder, answer_in, text_of


def built(build: Any, value: Any = "text") -> httpx.Request:
    return RequestBuilder(build, "/predict")(value)


class TestBuilding:
    def test_a_mapping_names_what_differs_from_a_post_to_the_targets_path(self) -> None:
        request = built(lambda text: {"json": {"text": text}})
        assert (request.method, request.url.raw_path, request.read()) == ("POST", b"/predict", b'{"text":"text"}')

    def test_a_mapping_may_name_everything_of_a_request(self) -> None:
        given = {"method": "PUT", "path": "/a", "params": {"b": 1}, "headers": {"x-c": "d"}, "content": b"e"}
        request = built(lambda _: given)
        assert (request.method, request.url.raw_path, request.read()) == ("PUT", b"/a?b=1", b"e")
        assert request.headers["x-c"] == "d"
        assert given["method"] == "PUT"

    def test_files_and_forms_are_encoded_as_httpx_does(self) -> None:
        assert b"name=" in built(lambda text: {"files": {"image": text.encode()}}).read()
        assert built(lambda text: {"data": {"text": text}}).read() == b"text=text"

    def test_a_form_in_parts_has_the_boundary_of_its_content(self) -> None:
        def build(text: str) -> dict[str, Any]:
            return {"files": {"image": text.encode()}, "data": {"name": text}}

        first, again, other = built(build), built(build), built(build, "other")
        given = httpx.Request("POST", "/predict", files={"image": b"text"}, data={"name": "text"})
        assert first.read() == again.read() == built(lambda _: given).read() != given.read()
        assert first.headers == again.headers
        assert int(first.headers["content-length"]) == len(first.read())
        boundary, of_other = (one.headers["content-type"].rpartition("=")[2].encode() for one in (first, other))
        assert first.read().count(b"--" + boundary) == 3
        assert boundary != of_other
        payloads = [read_payload(["text"], builder=RequestBuilder(build, "/predict")) for _ in range(2)]
        assert payloads[0].digest == payloads[1].digest

    def test_a_boundary_of_the_users_own_stays(self) -> None:
        headers = {"content-type": "multipart/form-data; boundary=mine"}
        assert built(lambda _: {"files": {"a": b"x"}, "headers": headers}).read().startswith(b"--mine\r\n")

    def test_a_request_is_taken_as_it_is(self) -> None:
        request = httpx.Request("GET", "/a")
        assert built(lambda _: request) is request

    @each_row(
        ("build", "expected"),
        (lambda _: None, "returned NoneType, expected an httpx.Request or a mapping"),
        (lambda text: text, "returned str, expected an httpx.Request or a mapping"),
        (lambda text: {"body": text}, "returned 'body', expected only method, path, params"),
        (lambda text: {"jsn": text}, "returned 'jsn', did you mean json? expected only method, path, params"),
        (lambda text: text["a"], "failed for an input of type str: TypeError: string indices"),
        (lambda _: {"json": {1j}}, "returned an invalid request: Object of type set is not JSON serializable"),
        (lambda _: {"path": "http://[::1"}, "returned an invalid request"),
        (lambda _: {"params": 3}, "returned an invalid request"),
    )
    def test_invalid_requests_are_refused(self, build: Any, expected: str) -> None:
        with pytest.raises(SettingError) as caught:
            built(build)
        assert str(caught.value).startswith("perf(request=...) ")
        assert expected in str(caught.value)


class TestPayload:
    BUILDER = RequestBuilder(lambda text: {"json": text}, "/predict")

    def test_every_input_has_its_request_for_the_address_it_goes_to(self) -> None:
        payload = read_payload(["a", "b"], builder=self.BUILDER)
        assert payload.inputs == ("a", "b")
        for message, text in zip(payload.messages("127.0.0.1", 8000, "/unused"), ("a", "b"), strict=True):
            head, _, body = message.partition(b"\r\n\r\n")
            assert head.startswith(b"POST /predict HTTP/1.1\r\n")
            assert head.lower().count(b"host: ") == 1
            assert b"Host: 127.0.0.1:8000\r\n" in head
            assert body == f'"{text}"'.encode()
        assert payload.messages("::1", 80, "/")[0].count(b"Host: [::1]:80\r\n") == 1

    @pytest.mark.parametrize("given", [None, "identity", "br"])
    def test_a_target_is_asked_for_what_clients_accept_unless_the_request_names_it(self, given: str | None) -> None:
        headers = {} if given is None else {"Accept-Encoding": given}
        payload = read_payload(["a"], builder=RequestBuilder(lambda _: {"headers": headers}, "/"))
        (message,) = payload.messages("h", 1, "/", accepts="gzip, deflate")
        assert message.lower().count(b"\r\naccept-encoding: %s\r\n" % (given or "gzip, deflate").encode()) == 1
        assert payload.headers == ("none" if given is None else f"accept-encoding: {given}")
        assert (b"accept-encoding" in payload.messages("h", 1, "/")[0].lower()) is (given is not None)

    @pytest.mark.parametrize(("wire", "value"), [("rest+json", "gzip, deflate"), ("rest+json+gzip", "gzip")])
    def test_a_wire_asks_for_its_own_compression(self, wire: str, value: str) -> None:
        payload = read_payload([1], Wire.parse(wire), "/")
        (message,) = payload.messages("h", 1, "/", accepts="gzip, deflate")
        assert message.count(b"accept-encoding: ") == message.count(b"accept-encoding: %s\r\n" % value.encode()) == 1

    def test_an_address_of_its_own_keeps_its_host(self) -> None:
        payload = read_payload(["a"], builder=RequestBuilder(lambda _: {"path": "http://model.example/a"}, "/"))
        assert b"Host: model.example\r\n" in payload.messages("127.0.0.1", 8000, "/")[0]

    def test_the_first_is_asked_before_the_load(self) -> None:
        first = read_payload(["a", "b"], builder=self.BUILDER).request("/unused", 0)
        assert (first["method"], first["url"], first["content"]) == ("POST", "/predict", b'"a"')
        assert first == arguments_of(self.BUILDER("a"))
        assert "content-length" not in first["headers"]

    def test_another_builder_is_another_payload(self) -> None:
        other = RequestBuilder(lambda text: {"json": [text]}, "/predict")
        digests = {read_payload(["a"], builder=builder).digest for builder in (self.BUILDER, other, None)}
        assert len(digests) == 3

    def test_a_payload_for_another_process_is_pickled_without_the_function(self) -> None:
        payload = read_payload(Zipf(["a", "b", "c"]), builder=self.BUILDER)
        bare = pickle.loads(pickle.dumps(payload.bare()))
        assert (bare.inputs, bare.builder) == ((), None)
        assert bare.order() == payload.order() != b""
        assert bare.messages("h", 1, "/") == payload.messages("h", 1, "/")

    def test_ready_made_requests_need_no_builder(self) -> None:
        requests = [httpx.Request("POST", "http://h/a", content=b"a")]
        payload = read_payload(requests, builder=self.BUILDER)
        assert payload.requests == payload.inputs == tuple(requests)
        assert payload.builder is None

    def test_too_much_of_it_is_refused(self) -> None:
        large = RequestBuilder(lambda _: {"content": bytes(MAX_PAYLOAD_BYTES // 2 + 1)}, "/")
        with pytest.raises(SettingError, match="makes over 256 MiB of requests by item 1 of 2"):
            read_payload(["a", "b"], builder=large)


@each_row(
    ("kind", "content", "expected"),
    ("application/json", b'{"a": [1]}', {"a": [1]}),
    ("application/json; charset=utf-8", '"ü"'.encode(), "ü"),
    ("application/vnd.api+json", b"3", 3),
    ("text/plain; charset=latin-1", "ü".encode("latin-1"), "ü"),
    ("image/png", b"\x89PNG", b"\x89PNG"),
    (None, b"{}", b"{}"),
)
def test_an_answer_is_read_as_what_it_says_it_is(kind: str | None, content: bytes, expected: object) -> None:
    headers = {} if kind is None else {"content-type": kind}
    assert answer_in(httpx.Response(200, headers=headers, content=content)) == expected


def test_json_that_is_none_is_told() -> None:
    with pytest.raises(ValueError, match="Expecting value"):
        answer_in(httpx.Response(200, headers={"content-type": "application/json"}, content=b"<html>"))


@each_row("charset", ["undefined", "idna", "punycode", "hex", "base64", "zip", "rot13", "utf-16", "\0"])
def test_text_is_read_whatever_charset_the_service_names(charset: str) -> None:
    response = httpx.Response(503, headers={"content-type": f"text/plain; charset={charset}"}, content=b"busy\xff")
    assert text_of(response) == answer_in(response) == "busy\ufffd"


def test_the_charset_of_a_text_is_kept_to() -> None:
    response = httpx.Response(200, headers={"content-type": "text/plain; charset=latin-1"}, content=b"\xfc")
    assert text_of(response) == "ü"


def test_deep_brackets_are_no_json() -> None:
    response = httpx.Response(200, headers={"content-type": "application/json"}, content=b"[" * 100_000)
    with pytest.raises(ValueError, match=r"^its JSON is nested too deeply$"):
        answer_in(response)
