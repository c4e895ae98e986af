"""Wires by their short form: what parses prints itself again, and what there is not is refused with what there is."""

import importlib.util

import pytest
from support.each_row import each_row

from pytest_mlpatterns import Wire
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.wire import Body, headers_of

SHORT = [
    *(f"rest+{codec}{compression}" for codec in ("json", "binary", "msgpack") for compression in ("", "+gzip", "+br")),
    "rest+binary+zstd",
    "grpc",
    "openai",
    "invocations",
    "invocations+csv",
]


@each_row("text", SHORT)
def test_a_short_form_is_what_its_wire_prints(text: str) -> None:
    assert str(Wire.parse(text)) == text


@each_row(
    ("text", "wire"),
    ("rest+json", Wire()),
    ("rest+json+gzip", Wire("rest", "json", "gzip")),
    ("rest+binary", Wire("rest", "binary", compression=None)),
    ("grpc", Wire("grpc", "protobuf")),
)
def test_a_short_form_is_a_value(text: str, wire: Wire) -> None:
    assert Wire.parse(text) == wire
    assert hash(Wire.parse(text)) == hash(wire)


@each_row(
    "text",
    *("", "rest", "json", "rest+xml", "rest+json+gzip+br", "REST+JSON", "grpc+json", "grpc+gzip", "rest+json+lz4"),
    "invocations+xml",
)
def test_an_unknown_wire_is_refused_with_those_that_there_are(text: str) -> None:
    with pytest.raises(SettingError) as caught:
        Wire.parse(text, "perf(wire=...)")
    assert str(caught.value).startswith(f"perf(wire=...) is {text!r}, ")
    assert str(caught.value).endswith(
        "(such as 'rest+json+gzip'), 'grpc', 'openai', 'invocations' or 'invocations+csv'"
    )


def test_a_misspelt_wire_is_guessed() -> None:
    with pytest.raises(SettingError, match=r"is 'rest\+jsn\+gzip', did you mean 'rest\+json\+gzip'\?"):
        Wire.parse("rest+jsn+gzip")


@each_row(
    "parts", [("rest", "protobuf"), ("grpc", "json"), ("soap", "xml"), ("rest", "json", "deflate"), ("rest", None)]
)
def test_a_combination_that_there_is_not_is_refused(parts: tuple[str, ...]) -> None:
    with pytest.raises(SettingError, match=r"^Wire\(.*\), expected 'rest\+json', "):
        Wire(*parts)


def test_grpc_is_not_compressed() -> None:
    with pytest.raises(SettingError, match="expected no compression over grpc"):
        Wire("grpc", "protobuf", "gzip")


def test_processes_speak_with_each_other_as_clients_do_but_never_grpc() -> None:
    assert Wire.parse("openai").between_processes == Wire()
    assert Wire.parse("invocations+csv").between_processes == Wire()
    assert Wire.parse("rest+msgpack+gzip").between_processes == Wire("rest", "msgpack", "gzip")
    assert Wire.parse("grpc").between_processes == Wire("rest", "binary")


@pytest.mark.parametrize(
    ("wire", "missing", "extra"),
    [
        ("rest+json+zstd", "zstandard", "wires"),
        *(("grpc", name, "grpc") for name in ("grpc", "hpack", "google.protobuf")),
    ],
)
def test_a_wire_whose_package_is_missing_is_refused_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, wire: str, missing: str, extra: str
) -> None:
    Wire.parse(wire).check_installed("perf(wire=...)")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    Wire.parse("rest+json+gzip").check_installed("perf(wire=...)")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else name)
    with pytest.raises(SettingError) as caught:
        Wire.parse(wire).check_installed("perf(wire=...)")
    assert str(caught.value) == (
        f"perf(wire=...) is {wire!r}, which needs the package {missing}, which is not installed; install it: "
        f"pip install 'pytest-mlpatterns[{extra}]'"
    )


def test_a_package_is_missing_where_the_one_around_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_spec(name: str) -> str:
        if name == "google.protobuf":
            raise ModuleNotFoundError("No module named 'google'")
        return name

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    with pytest.raises(SettingError, match=r"needs the package google\.protobuf, which is not installed"):
        Wire.parse("grpc").check_installed("perf(wire=...)")


def test_a_body_is_its_pieces_joined() -> None:
    body = Body((b"ab", memoryview(b"cd")), ())
    assert (body.size, body.joined()) == (4, b"abcd")


def test_headers_are_found_by_their_names_in_lower_case() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nx-empty:\r\nX-Colon:  a:b "
    assert headers_of(head) == {"content-type": "application/json", "x-empty": "", "x-colon": "a:b"}
    assert headers_of(b"") == {}
