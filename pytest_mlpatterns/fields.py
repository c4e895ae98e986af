"""Checks for the fields of values that users build.

Each check returns the plain Python value, or raises a :class:`SettingError` that names the field. Numbers of numpy's
types are accepted. A function has to do its work when it is called: nothing here awaits or iterates what it returns.
"""

import inspect
import math
from collections.abc import Callable
from functools import partial
from numbers import Integral, Real
from typing import Any

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.units import MAX_CONCURRENCY, MAX_RATE_RPS, MIN_RATE_RPS
from pytest_mlpatterns.wording import shown

MAX_SEED = 2**64 - 1  # Largest seed of random numbers
_LONGEST_NUMBER = 21
"""Digits of a number in quotes that is read: the largest seed has 20, and Python reads no text of 5,000."""


def plain_number(value: object) -> int | float | None:
    """Convert a number, also one of numpy's, to Python's own ``int`` or ``float``; return None for anything else."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        return int(value) if isinstance(value, Integral) else float(value)
    except (ValueError, OverflowError):  # a fraction beyond the largest float
        return None


def whole_number(
    value: object, found: str, *, least: float = -math.inf, most: float = math.inf, expected: str = ""
) -> int:
    """Check a whole number.

    ``found``: the field and its value, as the message begins, such as ``"Replicated(replicas=0)"``.
    """
    number = plain_number(value)
    if not isinstance(number, int) or not least <= number <= most:
        raise SettingError(f"{found}, expected {expected or _range(least, most)}{_without_quotes(value, least, most)}")
    return number


def set_whole(
    owner: object, name: str, *, least: float = -math.inf, most: float = math.inf, expected: str = ""
) -> None:
    """Check a field of a frozen dataclass as :func:`whole_number` does, and replace it with the plain value."""
    value = getattr(owner, name)
    found = f"{type(owner).__name__}({name}={shown(value)})"
    object.__setattr__(owner, name, whole_number(value, found, least=least, most=most, expected=expected))


def check_truth(owner: object, *names: str) -> None:
    """Check fields of a frozen dataclass that are True or False."""
    for name in names:
        if not isinstance(value := getattr(owner, name), bool):
            raise SettingError(f"{type(owner).__name__}({name}={shown(value)}), expected True or False")


_UNRUN: dict[str, Callable[[Any], bool]] = {
    "an async function": inspect.iscoroutinefunction,
    "an asynchronous generator function": inspect.isasyncgenfunction,
    "a generator function": inspect.isgeneratorfunction,
}
"""Functions that a call does not run, by their names in messages."""


def unrun_function(function: Callable[..., Any]) -> str:
    """Why a call of a function runs nothing of it, as the end of a sentence about it; empty if a call runs it."""
    while isinstance(function, partial):
        function = function.func
    both = (function, type(function).__call__)
    kind = next((kind for kind, is_of_kind in _UNRUN.items() if any(map(is_of_kind, both))), "")
    if not kind:
        return ""
    name = getattr(function, "__name__", type(function).__name__)
    return f"is {name}, {kind}, and calling it runs nothing; expected one without async and yield"


def unrun_answer(answer: object) -> str:
    """Why a function that returned this has not done its work, as the end of a sentence about it; empty if it has."""
    if not (inspect.isawaitable(answer) or inspect.isgenerator(answer) or inspect.isasyncgen(answer)):
        return ""
    if inspect.iscoroutine(answer):
        answer.close()  # otherwise Python warns that it was never awaited
    return f"returned an unfinished {type(answer).__name__}, expected a function that does its work when it is called"


def concurrency(value: object, name: str) -> int:
    """Check a number of requests in flight."""
    expected = f"a whole number of requests in flight from 1 to {MAX_CONCURRENCY:,}"
    if not _without_quotes(value, 1, MAX_CONCURRENCY):
        number = plain_number(value)
        expected = f"{expected}; write {16 if number is None or number > 0 else 1}"
    return whole_number(value, f"{name} is {shown(value)}", least=1, most=MAX_CONCURRENCY, expected=expected)


def rate_rps(value: object, name: str) -> float:
    """Check a request rate, in requests per second."""
    number = plain_number(value)
    if number is None or not MIN_RATE_RPS <= number <= MAX_RATE_RPS:
        raise SettingError(
            f"{name} is {shown(value)}, expected requests per second, from {MIN_RATE_RPS:f} to {MAX_RATE_RPS:,}; "
            "write 200"
        )
    return number


def _without_quotes(value: object, least: float, most: float) -> str:
    """The end of a message about an allowed number in quotes; empty for another value."""
    quoted = int(value) if isinstance(value, str) and value.isdecimal() and len(value) < _LONGEST_NUMBER else None
    return "" if quoted is None or not least <= quoted <= most else f"; write {quoted}, without quotes"


def _range(least: float, most: float) -> str:
    if math.isfinite(most):
        return f"a whole number from {least:,} to {most:,}"
    return "a whole number that is not negative" if least == 0 else "a whole number"
