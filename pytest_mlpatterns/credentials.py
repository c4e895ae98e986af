r"""Which texts may hold a credential, and the same texts without it: command lines, addresses, variables.

A set-up names the command, the address and the variables of a service, and is committed with the baseline. What may be
a credential is replaced by ``***`` in everything that is written or shown, so two set-ups that differ in a credential
only are equal.
"""

import ast
import re
import shlex
from collections.abc import Iterator, Sequence

HIDDEN = "***"  # Printed instead of a value that may be a credential
_WORD = (
    r"(?:(?<![a-z])(?:(?:my|db|sql|mysql|pg|mongo|redis|user|login|root|admin|smtp|mail|ssh|proxy)?pass|jwt|pat|sig)"
    r"|(?<!don)(?<!hoc)(?<!hot)(?<!joc)(?<!mon)(?<!tur)(?<!whis)key"
    r"|auth(?:orization)?|cookie|credential|passphrase|passwd|password|pwd|secret|signature|token)s?(?![a-z])"
)
_NAME = re.compile(_WORD, re.IGNORECASE)
"""Word in a name whose value may be a credential; ``TOKENIZERS_PARALLELISM`` and ``monkey`` have none."""
_ORDINARY = re.compile(
    r"^-{0,2}(?:disable|enable|ignore|no|skip)[-_]"
    r"|(?:^|[-_])(?:cache|group|hash|order|partition|primary|routing|shard|sort)[-_]keys?$"
    r"|(?:^|[-_])(?:max|min|num|n|total)[-_](?:\w+[-_])?(?:keys|tokens)$|(?:^|[-_])(?:keys|tokens)[-_]per[-_]"
    r"|[-_](?:file|path|dir|env|name|header|map|ratio|heads|domain|type|dtype|mode|format|size|len|length|limit|count)$",
    re.IGNORECASE,
)
"""Name whose value is no credential: a switch, what is sorted by, a number of them (``MAX_TOKENS``), the place of one
(``--ssl-key-file``), or a property (``--num-key-value-heads``)."""
_SURE = re.compile(r"access|api|auth|client|private|secret", re.IGNORECASE)
"""Part of a name with token or key whose value is a credential even if it is a number."""
_PLAIN = re.compile(r"\d{1,7}[kmg]?|\d{0,7}\.\d{1,7}|true|false", re.IGNORECASE)
"""Value that is no credential after a name with token or key: ``--max-num-batched-tokens 16k``. A token has more than
seven digits."""
_OPTION = re.compile(r"--?[A-Za-z][\w.-]*")
_MANY = re.compile(r"--?(?:[\w.-]*[-_])?(?:api[-_]?keys?|keys|tokens)", re.IGNORECASE)
"""Option that takes several credentials: ``--api-key K1 K2``."""
_KEY = re.compile(r"[^-/.:{}=][^/.:{}=]*={0,2}")
"""Word that may be a further one of them, as it is no option, module, variable, path, file or model."""
_ASSIGNED = re.compile(r"(?P<name>-{0,2}[A-Za-z][\w.-]*)(?P<sign>\s*[:=]\s*)(?P<value>.+)", re.DOTALL)
"""A whole word such as ``--api-key=X``, ``API_KEY=X`` or ``Authorization: Bearer X``."""
_INSIDE = re.compile(
    rf"(?P<name>(?<![\w.-])(?P<dashes>-{{1,2}})?[\w.-]{{0,60}}?{_WORD}[\w.-]{{0,60}})"
    r"(?P<sign>\\{0,3}[\"']?\s{0,9}[:=]\s{0,9}(?:(?:Basic|Bearer)\s{1,9})?|\s{1,9})"
    r"(?P<value>\\{0,3}\"[^\"]*\"|'[^']*'"
    r"|(?:(?<=authorization[:=])|(?<=authorization[:=]\s))[^\s\"'][^\"'\r\n]*"  # a scheme, and what belongs to it
    r"|(?(dashes)[^\s\"']+|(?:[^\s\"',;&})]|,(?![\w.-]{1,60}[:=]|[\s\"']|$))+))",
    re.IGNORECASE,
)
"""The same inside a longer word, such as a line for a shell, JSON, or the query of an address."""
_USER = re.compile(r"(?<=://)(?:[^/?#\s]*(?=@)|[^/?#@\s:]*:(?!\d{1,5}[?#])[^/\s]*(?=@))")
"""User and password of an address, to the last ``@`` before its path: a password may have one too."""
_USER_OPTION = re.compile(r"-u|--(?:proxy-)?user")
_PASSWORD = re.compile(r"(?!\d+:\d+$|\w+://)[^:]*:.+", re.DOTALL)
"""User and password after such an option; two numbers are the user and group of a process."""
_USER_INSIDE = re.compile(
    r"(?P<option>(?<![\w.-])(?:-u|--(?:proxy-)?user)(?:\s{1,9}|=))(?P<value>\"[^\"]*\"|'[^']*'|[^\s\"']+)"
)


def names_credential(name: str) -> bool:
    """Whether every value of this name counts as a credential."""
    return _NAME.search(name) is not None


def is_credential(name: str, value: str) -> bool:
    """Whether the value of an option, a variable or a member of this name may be a credential."""
    if not value or not names_credential(name) or _ORDINARY.search(name):
        return False
    return not (re.search("token|key", name, re.IGNORECASE) and not _SURE.search(name) and _PLAIN.fullmatch(value))


def public_words(words: Sequence[str]) -> tuple[str, ...]:
    """The words of a command without credentials: ``("serve", "--api-key", "***")``."""
    return tuple(_public(words))


def address_without_credentials(address: str) -> str:
    """The address without a user and password, and without the values of its query that may be credentials."""
    return _USER_INSIDE.sub(_hidden_user, _INSIDE.sub(_hidden_inside, without_users(address)))


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
    """``Command('serve --port {port}')`` of a record without the credentials that earlier versions wrote."""
    try:
        call = ast.parse(text, mode="eval").body
        first = call.args[0] if isinstance(call, ast.Call) else None
        line = first.value if isinstance(first, ast.Constant) else None
        words = tuple(shlex.split(line)) if isinstance(line, str) else ()
    except (ValueError, SyntaxError, IndexError, RecursionError, MemoryError):
        return address_without_credentials(text)
    if first is None or not isinstance(line, str):
        return address_without_credentials(text)
    hidden = public_words(words)
    given = ast.get_source_segment(text, first) or text
    before, _, after = text.partition(given)
    public = unquoted(line if hidden == words else shlex.join(hidden))
    return f"{before}{public!r}{address_without_credentials(after)}"


def unquoted(line: str) -> str:
    """A line of words without the quotes that a shell would need for ``{port}`` and ``***``."""
    return re.sub(r"'(\S*(?:\{\w+\}|\*\*\*)\S*)'", r"\1", line)


def _public(words: Sequence[str]) -> Iterator[str]:
    option, values = "", 0
    for word in words:
        is_hidden = _is_hidden_after(option, word) if not values else _KEY.fullmatch(word) is not None
        if is_hidden:
            yield HIDDEN
        else:
            yield address_without_credentials(word) if option == "-c" else _public_word(word)
        if is_hidden and _MANY.fullmatch(option):
            values += 1
        else:
            option, values = word if _OPTION.fullmatch(word) else "", 0


def _is_hidden_after(option: str, word: str) -> bool:
    is_value = bool(option) and not word.startswith("-")
    return is_value and (is_credential(option, word) or _is_user(option, word))


def _public_word(word: str) -> str:
    if (found := _ASSIGNED.fullmatch(word)) and (
        _is_assigned(found) or (found["sign"] == "=" and _is_user(found["name"], found["value"]))
    ):
        return f"{found['name']}{found['sign']}{HIDDEN}"
    return address_without_credentials(word)


def _hidden_inside(found: re.Match[str]) -> str:
    value = found["value"]
    quote = value[0] if value[0] in "\"'" else ""
    if not found["sign"].strip() and (not found["dashes"] or value.startswith("-")):  # two words, or two options
        return found[0]
    return f"{found['name']}{found['sign']}{quote}{HIDDEN}{quote}" if _is_assigned(found) else found[0]


def _hidden_user(found: re.Match[str]) -> str:
    is_hidden = _PASSWORD.fullmatch(found["value"].strip("\"'"))
    return f"{found['option']}{HIDDEN}" if is_hidden else found[0]


def _is_assigned(found: re.Match[str]) -> bool:
    name = found["name"]
    is_module = found["sign"] == ":" and "-" not in name and name.lower() != "authorization"  # auth.service:app
    return not is_module and is_credential(name, found["value"].strip("\"'"))


def _is_user(option: str, value: str) -> bool:
    return _USER_OPTION.fullmatch(option) is not None and _PASSWORD.fullmatch(value) is not None
