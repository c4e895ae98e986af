"""Addresses of services that exist: their parts, and what is refused before anything is contacted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.targets import Url

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("url", "host", "port", "path"),
    [
        ("http://127.0.0.1:8000/predict", "127.0.0.1", 8000, "/predict"),
        ("http://127.0.0.1:8000", "127.0.0.1", 8000, "/"),
        ("http://localhost", "localhost", 80, "/"),
        ("http://model.example/v1/models/a:predict", "model.example", 80, "/v1/models/a:predict"),
        ("http://127.0.0.1:8000/predict?model=a&b=%20", "127.0.0.1", 8000, "/predict?model=a&b=%20"),
        ("http://127.0.0.1:8000?model=a", "127.0.0.1", 8000, "/?model=a"),
        ("http://[::1]:8000/predict", "::1", 8000, "/predict"),
        ("HTTP://Localhost:81/A", "localhost", 81, "/A"),
        ("https://model.example/predict", "model.example", 443, "/predict"),
        ("https://model.example:8443/predict", "model.example", 8443, "/predict"),
    ],
)
def test_an_address_has_host_port_and_path(url: str, host: str, port: int, path: str) -> None:
    target = Url(url)
    assert (target.host, target.port, target.path) == (host, port, path)
    assert str(target) == url


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ftp://127.0.0.1", "has scheme 'ftp', expected http"),
        ("127.0.0.1:8000", "expected http"),
        ("localhost:8000", "expected http"),
        ("", "expected http"),
        ("http://", "has no host or port"),
        ("http:///predict", "has no host or port"),
        ("http://:8000", "has no host or port"),
        ("http://127.0.0.1:0", "has no host or port"),
        ("http://127.0.0.1:99999", "expected an address such as http://127.0.0.1:8000/predict"),
        ("http://127.0.0.1:http", "expected an address such as http://127.0.0.1:8000/predict"),
        ("http://[::1", "expected an address such as http://127.0.0.1:8000/predict"),
        ("http://user:secret@127.0.0.1", "send credentials in httpx.Request headers"),
        ("http://user@127.0.0.1", "send credentials in httpx.Request headers"),
        ("http://127.0.0.1/#part", "has a user, password or fragment"),
        (8000, "expected an address such as http://127.0.0.1:8000/predict"),
        (None, "expected"),
        (b"http://127.0.0.1", "expected"),
        ("http://127.0.0.1/two words", "expected"),
        ("http://127.0.0.1/prédict", "expected"),
        ("http://127.0.0.1/predict?text=größer", "expected"),
    ],
)
def test_what_is_no_http_address_is_refused(url: Any, expected: str) -> None:
    with pytest.raises(SettingError) as caught:
        Url(url)
    message = str(caught.value)
    assert message.startswith("Url(")
    assert expected in message
    assert "\n" not in message


def test_a_password_is_not_repeated_where_logs_would_keep_it() -> None:
    with pytest.raises(SettingError) as caught:
        Url("http://user:secret@127.0.0.1")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "is_https", "origin"),
    [
        ("http://127.0.0.1:8000/predict?a", False, "http://127.0.0.1:8000"),
        ("http://localhost", False, "http://localhost:80"),
        ("https://localhost/a", True, "https://localhost:443"),
        ("https://[::1]:8443/a", True, "https://[::1]:8443"),
    ],
)
def test_an_address_has_an_origin(url: str, is_https: bool, origin: str) -> None:
    assert (Url(url).is_https, Url(url).origin) == (is_https, origin)


def test_an_authority_to_trust_is_a_file_that_exists(tmp_path: Path) -> None:
    certificate = tmp_path / "ca.pem"
    certificate.write_text("certificate", encoding="utf-8")
    assert Url("https://localhost", ca=certificate).ca == certificate
    for url, ca in (
        ("https://localhost", tmp_path / "absent.pem"),
        ("https://localhost", tmp_path),
        ("http://localhost", certificate),
    ):
        with pytest.raises(SettingError) as caught:
            Url(url, ca=ca)
        message = f"Url(ca={str(ca)!r}), expected a certificate file that exists, for an https address"
        assert str(caught.value) == message


@pytest.mark.parametrize("pid", [0, -1, "12", True, 1.0])
def test_an_impossible_process_is_refused(pid: Any) -> None:
    with pytest.raises(SettingError) as caught:
        Url("http://127.0.0.1", pid=pid)
    assert str(caught.value) == f"Url(pid={pid!r}), expected the number of a running process"


def test_a_target_is_a_value() -> None:
    one = Url("http://127.0.0.1:8000", pid=12)
    assert one == Url("http://127.0.0.1:8000", pid=12)
    assert hash(one) == hash(Url("http://127.0.0.1:8000", pid=12))
    assert one != Url("http://127.0.0.1:8000")
