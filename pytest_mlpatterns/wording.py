"""Text of messages and settings: plurals, lists, suggestions, splitting outside brackets, and foreign text.

Foreign text comes from files, servers, models and test ids. It must neither change how our own is shown, nor command
the program that reads our output.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

MARK = "| "  # Beginning of each line that a service printed

_LONGEST = 300  # Longest text of a value in a message
_DIRECTIONS = (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""Marks of the direction of writing."""
HIDDEN = frozenset(
    map(
        chr,
        (
            *(code for code in range(0x20) if chr(code) not in "\t\n"),
            *range(0x7F, 0xA0),  # DEL and C1, which a terminal obeys as it does ESC
            *_DIRECTIONS,
            *(0x2028, 0x2029),  # separators of lines and paragraphs
            *range(0xD800, 0xE000),  # halves of surrogate pairs, which no output can encode
        ),
    )
)
"""Characters that change how text is shown instead of being shown."""
_COMMAND = re.compile(r"^([^\S\n]*):(?=:)|##((?:vso|teamcity)?)\[", re.MULTILINE | re.IGNORECASE)
"""Commands of the programs that run CI, which read them from the output of a step: for GitHub ``::`` after spaces at
the beginning of a line and ``##[`` anywhere in it, for Azure Pipelines ``##vso[``, for TeamCity ``##teamcity[``. One
can add an error, set a variable, or switch off the commands that come after it."""
_SPELLED = {ord(sign): f"\\x{ord(sign):02x}" if ord(sign) < 0x100 else f"\\u{ord(sign):04x}" for sign in HIDDEN}


def first_line(text: object) -> str:
    """The first line of a text or of the message of an error."""
    return str(text).strip().partition("\n")[0]


def first_and_last(text: object) -> str:
    """The first line of a message, and the last one if that is what the first one announces."""
    first, *further = str(text).strip().splitlines() or [""]
    return f"{first} {further[-1].lstrip('| ')}" if further and first.endswith(":") else first


def count(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun: ``count(1, "launch", "launches")`` is ``1 launch``, ``count(2_000, "request")`` is
    ``2,000 requests``.
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def listed(names: Sequence[str], joint: str = "and") -> str:
    """Names in a sentence: ``a``, ``a and b``, ``a, b and c``."""
    return f"{', '.join(names[:-1])} {joint} {names[-1]}" if len(names) > 1 else "".join(names)


def shown(value: object) -> str:
    """A user's value in a message: its ``repr`` in one line, cut if it is long, or its type if it has no ``repr``."""
    try:
        text = " ".join(map(str.strip, repr(value).split("\n")))
    except Exception:  # a number of 5,000 digits, a list inside a list without end, or any error of the user's class
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 50]}… ({len(text):,} characters)"


def named(text: object) -> str:
    """The name of a file or option in a message: as it is, or as :func:`shown` if it is long or cannot be printed."""
    name = str(text)
    return name if name.isprintable() and len(name) <= _LONGEST else shown(name)


def did_you_mean(
    given: str,
    known: Iterable[str],
    form: str = "{}",
    *,
    likeness: float = 0.6,
    others: Mapping[str, str] | None = None,
) -> str:
    """The question whether the most similar known name was meant, followed by a space; empty if none is similar.

    ``form``: how a name is written, such as ``"{}="`` for an argument. ``others``: known names by what they are called
    elsewhere, which no likeness shows.
    """
    import difflib

    names = list(known)
    meant = (others or {}).get(given)
    close = [meant] if meant in names else difflib.get_close_matches(given[:_LONGEST], names, n=1, cutoff=likeness)
    return f"did you mean {form.format(close[0])}? " if close and close[0] != given else ""


def split_outside_brackets(text: str, separator: str) -> list[str]:
    """Split at each separator that is not inside brackets."""
    parts, depth, start = [], 0, 0
    for at, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == separator and not depth:
            parts.append(text[start:at])
            start = at + 1
    return [*parts, text[start:]]


def visible(text: str) -> str:
    r"""The text with hidden characters spelled, and without commands.

    Text from files, servers, models and test ids passes here on its way to a terminal, a log or a report. There it
    could otherwise clear the screen, paint another verdict, or command the program that runs CI: ``::error`` at the
    beginning of a line is spelled ``\x3a:error``, ``##[`` is spelled ``##\x5b``, and ``##vso[`` ``##vso\x5b``.
    """
    return _COMMAND.sub(lambda found: rf"##{found[2]}\x5b" if found[1] is None else rf"{found[1]}\x3a", spelled(text))


def spelled(text: str) -> str:
    r"""The text with hidden characters spelled, such as ``\x1b``; tabs and line breaks stay."""
    return text.replace("\r\n", "\n").translate(_SPELLED)


def marked(text: str) -> str:
    """The text with :data:`MARK` before each of its lines, which separates them from our own."""
    return "\n".join(f"{MARK}{line}" for line in text.splitlines())
