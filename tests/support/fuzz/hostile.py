"""Makers of hostile values: mutated text and bytes, numbers at every edge, objects that answer nothing sensibly."""

import itertools
import random
from collections.abc import Callable, Sequence
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from pytest_mlpatterns import wire as wires
from pytest_mlpatterns.patterns import Batched, Cached, Queued, Replicated, Single
from pytest_mlpatterns.serving.prometheus import Prometheus
from pytest_mlpatterns.workload.schedule import ClosedLoop, ConstantRate

SNIPPETS = (
    *("", " ", "\0", "\n", "\r", "\t", "\x1b[2J", "\u202e", "\ud800", "\ufeff", "é", "٣", "１", "²", "µ", "∞", "😀"),
    *("0", "1", "-1", "1e400", "NaN", "inf", "-0", "0x10", "1_000", "9" * 30, "9" * 400, "1e-400", "."),
    *("(", ")", "[", "]", "{", "}", ",", "=", "|", "+", ":", ";", "%", "<", ">=", "'", '"', "\\", "/", "#", "@", "://"),
    *("None", "True", "auto", "port", "ms", "-", "[[", "e"),
)
LONG = ("[" * 300, "(" * 9000, "-" * 9000, "a" * 300, " " * 20_000, "x" * 100_000, "9" * 5000, "a|" * 500, ",=" * 500)
OCTETS = (b"\0", b"\xff" * 8, b"[" * 3000, b"9" * 400, b"-1", b"null", b"\x7f\xff\xff\xff")
NUMBERS: tuple[Any, ...] = (
    *(0, 1, -1, 2, 3, 16, 64, 65, 4096, 4097, 10**6, 2**31, 2**63, 2**64, 10**30, 10**400, -(10**400), 10**5000),
    *(0.0, -0.0, 0.5, 1.5, 5e-324, 1e-12, 1e12, 1e300, 1.8e308, float("inf"), float("-inf"), float("nan"), 2.0),
    *(Decimal("1.5"), Decimal("NaN"), Fraction(1, 3), Fraction(10**400), complex(1, 2), True, False),
    *(np.int64(3), np.uint8(2), np.float32(0.5), np.float64("nan"), np.bool_(True), np.longdouble("1e400")),
)


class Unhelpful:
    """Raises wherever it is compared, hashed, shown or tested."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("cannot be compared")

    def __hash__(self) -> int:
        raise RuntimeError("cannot be hashed")

    def __repr__(self) -> str:
        raise RuntimeError("cannot be shown")

    def __bool__(self) -> bool:
        raise RuntimeError("is neither")


class Anything:
    """Has every attribute, can be called, and shows itself on several lines."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *_args: Any, **_kwargs: Any) -> Any:
        return self

    def __repr__(self) -> str:
        return "one line\nand another"


def deep_list(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


def endless_list() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


def array(draw: random.Random) -> Any:
    """An array of numpy, of many kinds."""
    kind = draw.choice(("i8", "f8", "?", "U3", "S2", "O", "M8[s]", "c16", "f2"))
    shape = draw.choice(((), (0,), (1,), (2,), (3,), (2, 2), (0, 3), (1, 1, 1)))
    return np.zeros(shape, dtype=kind)


_OBJECTS: tuple[Callable[[random.Random], Any], ...] = (
    lambda draw: None,
    lambda draw: object(),
    lambda draw: Unhelpful(),
    lambda draw: Anything(),
    lambda draw: deep_list(draw.choice((1, 100, 5000))),
    lambda draw: endless_list(),
    lambda draw: itertools.count(),
    lambda draw: itertools.repeat("a:b"),
    lambda draw: (part for part in "ab"),
    lambda draw: draw.choice((len, print, int, str, Unhelpful, Anything, Single, Cached, timedelta)),
    lambda draw: lambda *_: None,
    lambda draw: timedelta(draw.choice((0, 1, -1, 10**5, 999_999_999)), draw.choice((0, 5))),
    lambda draw: Path(draw.choice(("", ".", "a\0b", "/dev/null", "/nowhere/x", "x" * 300, "\udc80"))),
    lambda draw: draw.randbytes(draw.randrange(5)),
    lambda draw: bytearray(b"rest+json"),
    lambda draw: {
        **({"rtm": 0.1} if draw.random() < 0.5 else {}),
        draw.choice((1, "p99", None, (), 2.5)): number(draw),
    },
    lambda draw: {"a", "b"},
    lambda draw: range(draw.choice((0, 2, 3, 10**9))),
    lambda draw: draw.choice((Single(), Cached(), Batched(), Queued(), Replicated(2), Cached() | Batched())),
    lambda draw: draw.choice((wires.GRPC, wires.REST_JSON, Prometheus(), ClosedLoop(2), ConstantRate(5))),
    lambda draw: NotImplemented,
    lambda draw: ...,
)


def number(draw: random.Random) -> Any:
    """A number, most of them at the edge of something."""
    return draw.choice(NUMBERS) if draw.random() < 0.7 else draw.uniform(-1, 1) * 10.0 ** draw.randrange(-320, 308)


def value(draw: random.Random, seeds: Sequence[str] = (), depth: int = 0) -> Any:
    """Any value at all; texts are mutated from the seeds."""
    kind = draw.random()
    if kind < 0.3:
        return text(draw, seeds)
    if kind < 0.5:
        return number(draw)
    if kind < 0.6:
        return array(draw)
    if kind < 0.75 and depth < 3:
        members = [value(draw, seeds, depth + 1) for _ in range(draw.randrange(4))]
        return draw.choice((list, tuple))(members)
    return draw.choice(_OBJECTS)(draw)


def text(draw: random.Random, seeds: Sequence[str] = ()) -> str:
    """One of the seeds with parts changed, removed, doubled or inserted; sometimes noise."""
    if not seeds or draw.random() < 0.05:
        return "".join(draw.choice(SNIPPETS) for _ in range(draw.randrange(5)))
    found = draw.choice(seeds)
    for _ in range(draw.randrange(4)):
        at = draw.randrange(len(found) + 1)
        end = at + draw.randrange(1, 8)
        how = draw.randrange(5)
        if how == 0:
            found = found[:at] + draw.choice(LONG if draw.random() < 0.05 else SNIPPETS) + found[at:]
        elif how == 1:
            found = found[:at] + found[end:]
        elif how == 2:
            found = found[:end] + found[at:]
        elif how == 3:
            found = found[:at] + chr(draw.randrange(0x250)) + found[at + 1 :]
        else:
            found += draw.choice(seeds)
    return found


def octets(draw: random.Random, seeds: Sequence[bytes], splices: Sequence[bytes] = OCTETS) -> bytes:
    """The same for bytes; ``splices`` are inserted."""
    if draw.random() < 0.05:
        return draw.randbytes(draw.randrange(200))
    found = bytearray(draw.choice(seeds))
    for _ in range(draw.randrange(5)):
        at = draw.randrange(len(found) + 1)
        how = draw.randrange(6)
        if how == 0:
            found[at : at + 1] = draw.randbytes(1)
        elif how == 1:
            del found[at : at + draw.randrange(1, 8)]
        elif how == 2:
            found[at:at] = found[at : at + draw.randrange(1, 30)]
        elif how == 3:
            found[at:at] = draw.choice(splices)
        elif how == 4 and found:
            at = draw.randrange(len(found))
            found[at] = (found[at] + draw.choice((1, 255, 128))) % 256
        else:
            found += draw.choice(seeds)
    return bytes(found)
