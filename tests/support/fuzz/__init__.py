"""Random and mutated inputs: areas of the package, each with a maker of cases, what runs them, and what may be raised.

A case is made from the seed of the run, the name of its area and its number alone, so a failure is made again by the
line that its message ends with. The number of cases is small in ``make nightly QUICK=1``; ``make fuzz`` runs a million.
"""

import contextlib
import os
import random
import resource
import signal
import traceback
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psutil

CASES = int(os.environ.get("FUZZ_CASES", "3000"))
"""Cases of all areas together."""
SEED = int(os.environ.get("FUZZ_SEED", "13"))
ONLY = os.environ.get("FUZZ_ONLY", "")
"""One case, as ``area:number``."""
LONGEST_S = 30.0
"""A case that takes longer hangs, however busy the machine is; most take less than a millisecond."""
MEMORY_BYTES = 2**30
"""A case that takes more memory gets a MemoryError."""
_SHOWN = 300
_KINDS = 12
"""Different failures of one area that are reported."""


class Hang(BaseException):
    """A case took longer than it may; no ``except Exception`` of the package catches it."""


@dataclass(frozen=True)
class Area:
    """One kind of input."""

    name: str  # in test ids and messages
    weight: int  # cases of this area in a million
    make: Callable[[random.Random], Any]
    run: Callable[[Any], object]  # gives it to the package
    allowed: tuple[type[Exception], ...]  # the exceptions that users are promised


@dataclass(frozen=True)
class Share:
    """Consecutive cases of one area."""

    area: Area
    cases: range

    def __str__(self) -> str:
        return f"{self.area.name}-{self.cases.start}"


def cases_of(weight: int) -> int:
    """Cases of an area in this run."""
    return max(1, CASES * weight // 1_000_000)


def shares(areas: list[Area], largest: int = 5000) -> list[Share]:
    """The cases of this run, in shares that several processes can run side by side."""
    if ONLY:
        name, _, number = ONLY.partition(":")
        (area,) = (area for area in areas if area.name == name)
        return [Share(area, range(int(number), int(number) + 1))]
    found = []
    for area in areas:
        cases = cases_of(area.weight)
        found += [Share(area, range(first, min(first + largest, cases))) for first in range(0, cases, largest)]
    return found


def failures_in(share: Share) -> list[str]:
    """What went wrong, one text for each place and kind of exception."""
    found: dict[tuple[object, ...], str] = {}
    draw = random.Random()
    with _limits():
        for number in share.cases:
            if (failure := _failure_of(share.area, number, draw)) is not None:
                kind, text = failure
                found.setdefault(kind, text)
                if len(found) == _KINDS:
                    break
    return list(found.values())


def _failure_of(area: Area, number: int, draw: random.Random) -> tuple[tuple[object, ...], str] | None:
    """Run one case; the kind and text of its failure, None if it ends as it should."""
    draw.seed(zlib.crc32(f"{SEED}:{area.name}:{number}".encode()))
    case = area.make(draw)
    if (error := _exception_of(area, case)) is None:
        return None
    if isinstance(error, area.allowed):
        problem = _unprintable(error)
        return None if problem is None else ((area.name, problem), _report(area, number, case, problem))
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if "pytest_mlpatterns" in frame.filename] or list(frames)
    place = f"{inside[-1].filename.rpartition('pytest_mlpatterns/')[2]}:{inside[-1].lineno}"
    return (type(error), place), _report(area, number, case, f"{type(error).__name__} at {place}: {error!s:.300}")


def _exception_of(area: Area, case: object) -> BaseException | None:
    """What running a case raises, within the time that it may take."""
    signal.setitimer(signal.ITIMER_REAL, LONGEST_S)
    try:
        area.run(case)
    except (Exception, Hang) as error:
        return error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return None


def _unprintable(error: BaseException) -> str | None:
    """Why the message of a promised exception is none; None if it is one."""
    if not type(error).__module__.startswith("pytest_mlpatterns"):
        return None
    text = str(error)
    if not text.strip():
        return f"{type(error).__name__} without a message"
    return f"{type(error).__name__} with a message that fills more than a screen" if len(text) > 3_000 else None


def _report(area: Area, number: int, case: object, problem: str) -> str:
    try:
        shown = repr(case)
    except Exception as error:  # values that cannot be shown are among the inputs
        shown = f"<{type(case).__name__}, whose repr raises {type(error).__name__}>"
    again = f"again: FUZZ_SEED={SEED} FUZZ_ONLY={area.name}:{number} python -m pytest tests/nightly/fuzz"
    return f"{area.name}: {problem}\n  input: {shown[:_SHOWN]}\n  {again}"


@contextlib.contextmanager
def _limits() -> Iterator[None]:
    def ring(_signal: int, _frame: object) -> None:
        raise Hang(f"no end after {LONGEST_S:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = psutil.Process().memory_info().vms + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
