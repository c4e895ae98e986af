"""Services that exist already, as the ``perf_target`` fixture names them. Values only: nothing is opened here."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from pytest_mlpatterns.errors import SettingError

__all__ = ["Url"]


@dataclass(frozen=True, slots=True)
class Url:
    """A service that runs already. Nothing is started or stopped, and only this address is contacted.

    Args:
        url: ``http://host[:port]/path`` that takes the requests. Inputs of ``perf_payload`` are posted to it as
            ``{"instances": [input]}``; ``httpx.Request`` objects keep their own path and body.
        pid: process whose tree is the service, for CPU, memory and load; without it these metrics are None.

    Raises:
        SettingError: not an http address, or an impossible pid.
    """

    url: str
    pid: int | None = None

    def __post_init__(self) -> None:
        found = f"Url({self.url!r})"
        try:
            parts = urlsplit(self.url)
            port = parts.port
        except (ValueError, AttributeError) as error:
            raise SettingError(f"{found}, expected an address such as http://127.0.0.1:8000/predict; {error}") from None
        if parts.scheme != "http":
            raise SettingError(
                f"{found} has scheme {parts.scheme!r}, expected http; put the service's plain HTTP port here"
            )
        if not parts.hostname or port == 0:
            raise SettingError(
                f"{found} has no host or port, expected an address such as http://127.0.0.1:8000/predict"
            )
        if parts.username or parts.password or parts.fragment:
            raise SettingError(f"{found} has a user, password or fragment; send credentials in httpx.Request headers")
        if self.pid is not None and (isinstance(self.pid, bool) or not isinstance(self.pid, int) or self.pid <= 0):
            raise SettingError(f"Url(pid={self.pid!r}), expected the number of a running process")

    def __str__(self) -> str:
        return self.url

    @property
    def host(self) -> str:
        """Host name or address."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """Port, 80 where the address names none."""
        return urlsplit(self.url).port or 80

    @property
    def path(self) -> str:
        """Path and query, as they stand in a request line."""
        parts = urlsplit(self.url)
        return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
