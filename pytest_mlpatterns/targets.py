"""Services that exist already, as the ``perf_target`` fixture names them. Values only: nothing is opened here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pytest_mlpatterns.errors import SettingError

__all__ = ["Url"]


@dataclass(frozen=True, slots=True)
class Url:
    """A service that runs already. Nothing is started or stopped, and only this address is contacted.

    Args:
        url: ``http://host[:port]/path`` or ``https://…`` that takes the requests. Inputs of ``perf_payload`` are posted
            to it as ``{"instances": [input]}``; ``httpx.Request`` objects keep their own path and body.
        pid: process whose tree is the service, for CPU, memory and load; without it these metrics are None.
        http2: speak HTTP/2. That and https go through a client library (extra ``https``), whose cost is in the result.
        ca: file with the certificate of an authority to trust besides those of the system (https).

    Raises:
        SettingError: not an http or https address, an impossible pid, or a certificate file that is not there.
    """

    url: str
    pid: int | None = None
    http2: bool = False
    ca: str | Path | None = None

    def __post_init__(self) -> None:
        found = f"Url({re.sub('//[^/@]*@', '//…@', repr(self.url))})"
        if not isinstance(self.url, str):
            raise SettingError(f"{found}, expected an address such as http://127.0.0.1:8000/predict")
        try:
            parts = urlsplit(self.url)
            port = parts.port
        except ValueError as error:
            raise SettingError(f"{found}, expected an address such as http://127.0.0.1:8000/predict; {error}") from None
        if "://" not in self.url:
            raise SettingError(
                f"{found} has no scheme, expected http or https; write http://{self.url or 'host:port/path'}"
            )
        if parts.scheme not in ("http", "https"):
            raise SettingError(
                f"{found} has scheme {parts.scheme!r}, expected http or https; write http://host:port/path"
            )
        if not parts.hostname or port == 0:
            raise SettingError(
                f"{found} has no host or port, expected an address such as http://127.0.0.1:8000/predict"
            )
        if parts.username or parts.password or parts.fragment:
            raise SettingError(f"{found} has a user, password or fragment; send credentials in httpx.Request headers")
        if not self.path.isascii() or not self.path.isprintable() or " " in self.path:
            raise SettingError(f"{found}, expected a path of printable ASCII; quote it: urllib.parse.quote(path)")
        if self.pid is not None and (isinstance(self.pid, bool) or not isinstance(self.pid, int) or self.pid <= 0):
            raise SettingError(f"Url(pid={self.pid!r}), expected the number of a running process")
        if self.ca is not None and (parts.scheme != "https" or not Path(self.ca).is_file()):
            raise SettingError(
                f"Url(ca={str(self.ca)!r}), expected a certificate file that exists, for an https address"
            )

    def __str__(self) -> str:
        return self.url

    @property
    def host(self) -> str:
        """Host name or address."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """Port; 80, or 443 for https, where the address names none."""
        return urlsplit(self.url).port or (443 if self.is_https else 80)

    @property
    def is_https(self) -> bool:
        """Whether the connection is encrypted."""
        return urlsplit(self.url).scheme == "https"

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.is_https else 'http'}://{host}:{self.port}"

    @property
    def path(self) -> str:
        """Path and query, as they stand in a request line."""
        parts = urlsplit(self.url)
        return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
