r"""Which texts may hold a credential, and the same texts without it: command lines, addresses, variables.

A set-up names the command, the address and the variables of a service, and is committed with the baseline. What may be
a credential is replaced by ``***`` in everything that is written or shown, so two set-ups that differ in a credential
only are equal.
"""

from __future__ import annotations

import ast
import re
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "HIDDEN",
    "address_without_credentials",
    "names_credential",
    "public_command",
    "public_description",
    "public_words",
    "unquoted",
    "without_users",
]

HIDDEN = "***"
"""Printed instead of a value that may be a credential."""
_WORD = (
    r"(?:(?<![a-z])pass|auth(?:orization)?|cookie|credential|key|passphrase|passwd|password|pwd|secret|signature|token)"
    r"s?(?![a-z])"
)
_NAME = re.compile(_WORD, re.IGNORECASE)
"""Word in a name whose value may be a credential; ``TOKENIZERS_PARALLELISM`` has none."""
_PLACE = re.compile(r"[-_](?:file|path|dir|env|name|header)$", re.IGNORECASE)
"""End of the name of an option that says where a credential is: ``--ssl-key-file``."""
_OPTION = re.compile(r"--?[A-Za-z][\w.-]*")
_ASSIGNED = re.compile(r"(?P<name>-{0,2}[A-Za-z][\w.-]*)(?P<sign>\s*[:=]\s*)(?P<value>.+)", re.DOTALL)
"""A whole word such as ``--api-key=X``, ``API_KEY=X`` or ``Authorization: Bearer X``."""
_INSIDE = re.compile(
    rf"(?P<name>(?<![\w.-])(?P<dashes>-{{0,2}})[\w.-]{{0,60}}?{_WORD}[\w.-]{{0,60}})"
    r"(?P<sign>[\"']?\s{0,9}[:=]\s{0,9}(?:(?:Basic|Bearer)\s{1,9})?|\s{1,9})"
    r"(?P<value>\"[^\"]*\"|'[^']*'|[^\s\"',;&})]+)",
    re.IGNORECASE,
)
"""The same inside a longer word, such as a line for a shell, JSON, or the query of an address."""
_USER = re.compile(r"(?<=://)[^/@\s]*(?=@)")
_MOST_DIGITS = 7
"""Digits of a number that is no credential after ``token``: ``--max-num-batched-tokens 8192``, ``--eos-token-id=2``."""


def names_credential(name: str) -> bool:
    """Whether the value of a variable of this name may be a credential."""
    return _NAME.search(name) is not None


def public_words(words: Sequence[str]) -> tuple[str, ...]:
    """The words of a command without credentials: ``("serve", "--api-key", "***")``."""
    return tuple(_public(words))


def address_without_credentials(address: str) -> str:
    """The address without a user and password, and without the values of its query that may be credentials."""
    return _INSIDE.sub(_hidden_inside, without_users(address))


def without_users(text: str) -> str:
    """The text without the users and passwords of the addresses in it."""
    return _USER.sub(HIDDEN, text)


def public_command(command: object) -> object:
    """A command of a user for a message, before it is known to be one."""
    if isinstance(command, str):
        return address_without_credentials(command)
    if isinstance(command, list | tuple) and all(isinstance(word, str) for word in command):
        return list(public_words(command))
    return command


def public_description(text: str) -> str:
    """The text of a command as records have it, ``Command('serve --port {port}')``, without credentials.

    Earlier versions wrote them.
    """
    try:
        call = ast.parse(text, mode="eval").body
        first = call.args[0] if isinstance(call, ast.Call) else None
        line = first.value if isinstance(first, ast.Constant) else None
        words = tuple(shlex.split(line)) if isinstance(line, str) else ()
    except (ValueError, SyntaxError, IndexError, RecursionError, MemoryError):
        return address_without_credentials(text)
    hidden = public_words(words)
    if first is None or hidden == words:
        return text
    given = ast.get_source_segment(text, first) or text
    return text.replace(given, repr(unquoted(shlex.join(hidden))), 1)


def unquoted(line: str) -> str:
    """A line of words without the quotes that a shell would need for ``{port}`` and ``***``."""
    return re.sub(r"'(\S*(?:\{\w+\}|\*\*\*)\S*)'", r"\1", line)


def _public(words: Sequence[str]) -> Iterator[str]:
    before = ""
    for word in words:
        if before and _is_credential(before, word):
            yield HIDDEN
        else:
            yield address_without_credentials(word) if before == "-c" else _public_word(word)
        before = word if _OPTION.fullmatch(word) else ""


def _public_word(word: str) -> str:
    if (found := _ASSIGNED.fullmatch(word)) and _is_assigned(found):
        return f"{found['name']}{found['sign']}{HIDDEN}"
    return address_without_credentials(word)


def _hidden_inside(found: re.Match[str]) -> str:
    value = found["value"]
    quote = value[0] if value[0] in "\"'" else ""
    if not found["sign"].strip() and not found["dashes"]:  # two words of a sentence
        return found[0]
    return f"{found['name']}{found['sign']}{quote}{HIDDEN}{quote}" if _is_assigned(found) else found[0]


def _is_assigned(found: re.Match[str]) -> bool:
    name = found["name"]
    is_module = found["sign"] == ":" and "-" not in name and name.lower() != "authorization"  # auth.service:app
    return not is_module and _is_credential(name, found["value"].strip("\"'"))


def _is_credential(name: str, value: str) -> bool:
    if not names_credential(name) or _PLACE.search(name) or value.startswith("-") or not value:
        return False
    return not ("token" in name.lower() and value.isdecimal() and len(value) <= _MOST_DIGITS)
