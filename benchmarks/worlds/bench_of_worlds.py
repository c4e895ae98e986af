"""Counts wrong and open verdicts by family of worlds, in several processes, and prints one table.

``python benchmarks/worlds`` judges the whole grid, ``--only FAMILY`` those families whose name holds a text (several
times for several), ``--mode MODE`` one way of comparing, ``--count N`` that many worlds of each family and mode,
``--show N`` the reasons of that many wrong verdicts of each, ``--processes N`` as many at once, ``--markdown`` a table
for a page. It prints for each family and mode the shares of wrong FAIL, wrong PASS and open verdicts, and the seconds
that a test takes in the median.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
import traceback
import zlib
from collections import Counter
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from bench import Claim, Table
from msgspec import Struct
from msgspec.structs import replace

from worlds.families import FAMILIES, Family
from worlds.judged import ruling_of
from worlds.world import Mode, Ruling, Truth

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

CLAIM = (
    "in each family at most 1 % of the worlds that should not fail do, and at most 1 % of those that are worse by "
    "twice the tolerance pass, but for those that docs/explanation/error-rates.md names with their reason"
)
COUNT = 100
_BATCH = 5  # Worlds that a process judges at once
_FAILS, _PASSES = ("fail", "invalid", "error"), ("pass", "none", "error")
_TELL_S = 20.0  # Time from one line on the progress to the next


class Cell(Struct, frozen=True):
    """The rulings on the worlds of one family and mode."""

    family: str
    mode: Mode
    truth: Truth
    rulings: tuple[Ruling, ...]

    def share(self, *kinds: str) -> float:
        """The share of rulings of these kinds."""
        return sum(one.kind in kinds for one in self.rulings) / max(len(self.rulings), 1)

    @property
    def wrong_fail(self) -> float:
        return self.share(*_FAILS) if self.truth is Truth.FINE else 0.0

    @property
    def wrong_pass(self) -> float:
        return self.share(*_PASSES) if self.truth is Truth.WORSE else 0.0

    @property
    def undecided(self) -> float:
        return self.share("open", "slower")

    @property
    def wrong(self) -> list[Ruling]:
        """The rulings that are wrong."""
        kinds = _FAILS if self.truth is Truth.FINE else _PASSES
        return [one for one in self.rulings if one.kind in kinds]

    @property
    def named(self) -> str:
        """The metrics that failed, and were left open, the most frequent first."""
        counts = Counter(name for one in self.rulings if one.kind == "fail" for name in one.metrics[:1])
        others = Counter(name for one in self.rulings if one.is_open for name in one.metrics[:1])
        size = len(self.rulings)
        failed = [f"{name} {count / size:.0%}" for name, count in counts.most_common(2)]
        return ", ".join([*failed, *(f"({name} {count / size:.0%})" for name, count in others.most_common(1))])

    @property
    def row(self) -> tuple[str, ...]:
        shares = (self.wrong_fail, self.wrong_pass, self.undecided)
        numbers = [f"{100 * share:.1f} %" if share else "0" for share in shares]
        seconds = [one.seconds for one in self.rulings]
        return (self.family, str(self.mode), *numbers, f"{median(seconds):.0f} s", self.named)


class Job(Struct, frozen=True):
    """Some worlds of one family and mode, by their numbers."""

    family: int
    mode: Mode
    numbers: tuple[int, ...]


def judge(job: Job) -> tuple[Job, list[Ruling]]:
    """Draw and judge these worlds; one whose judging raises an error is wrong."""
    family, rulings = FAMILIES[job.family], []
    for number in job.numbers:
        seed = [zlib.crc32(f"{family.name}, {job.mode}".encode()), number]
        world = family.world(np.random.default_rng(seed), job.mode)
        try:
            rulings.append(ruling_of(world, seed))
        except Exception:  # what no rule foresaw is shown
            rulings.append(Ruling("error", reasons=traceback.format_exc()))
        rulings[-1] = replace(rulings[-1], world=world.label)
    return job, rulings


def judged(jobs: Sequence[Job], processes: int) -> Iterator[tuple[Job, list[Ruling]]]:
    """The rulings of all jobs, in any order."""
    if processes == 1:
        yield from map(judge, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap_unordered(judge, jobs)


def cells_of(
    families: Iterable[Family], *, count: int, modes: Sequence[Mode] = tuple(Mode), processes: int = 2
) -> list[Cell]:
    """The rulings on so many worlds of each family and mode, in their order."""
    chosen = {FAMILIES.index(family): family for family in families}
    cells = [(index, mode) for index, family in chosen.items() for mode in family.modes if mode in modes]
    jobs = [
        Job(index, mode, tuple(range(first, min(first + _BATCH, count))))
        for first in range(0, count, _BATCH)
        for index, mode in cells
    ]
    found: dict[tuple[int, Mode], dict[int, Ruling]] = {cell: {} for cell in cells}
    started, done, told_s = time.monotonic(), 0, 0.0
    for job, rulings in judged(jobs, processes):
        found[job.family, job.mode].update(zip(job.numbers, rulings, strict=True))
        done += len(rulings)
        spent_s = time.monotonic() - started
        if spent_s > told_s + _TELL_S:
            told_s = spent_s
            print(f"{done:,} of {count * len(cells):,} worlds in {spent_s:.0f} s", file=sys.stderr)
    return [
        Cell(chosen[index].name, mode, chosen[index].truth, tuple(one for _, one in sorted(rulings.items())))
        for (index, mode), rulings in found.items()
    ]


HEADINGS = ("family", "mode", "wrong FAIL", "wrong PASS", "open", "median", "first metric that failed (was left open)")


def table_of(cells: Sequence[Cell], seconds: float) -> Table:
    """One row for each family and mode."""
    worlds = sum(len(cell.rulings) for cell in cells)
    claims = [
        Claim("wrong FAIL, most of a family", max(cell.wrong_fail for cell in cells), at_most=0.01),
        Claim("wrong PASS, most of a family", max(cell.wrong_pass for cell in cells), at_most=0.01),
    ]
    return Table(f"{worlds:,} worlds in {seconds:.0f} s", HEADINGS, [cell.row for cell in cells], claims)


def markdown_of(cells: Sequence[Cell]) -> str:
    """One row for each family, with the shares of wrong and of open verdicts in each mode, in per cent."""
    modes = [mode for mode in Mode if any(cell.mode is mode for cell in cells)]
    rows = ["| family | wrong is | " + " | ".join(modes) + " |", "|---" * (len(modes) + 2) + "|"]
    by_family: dict[str, dict[Mode, Cell]] = {}
    for cell in cells:
        by_family.setdefault(cell.family, {})[cell.mode] = cell
    for family, known in by_family.items():
        wrong = "FAIL" if next(iter(known.values())).truth is Truth.FINE else "PASS"
        shares = [
            f"{100 * max(one.wrong_fail, one.wrong_pass):.0f}, {100 * one.undecided:.0f}" if one is not None else ""
            for one in map(known.get, modes)
        ]
        rows.append(f"| {family} | {wrong} | " + " | ".join(shares) + " |")
    return "\n".join(rows)


def measure() -> Iterator[Table]:
    """The whole grid."""
    started = time.monotonic()
    cells = cells_of(FAMILIES, count=COUNT)
    yield table_of(cells, time.monotonic() - started)


def main(arguments: Sequence[str]) -> None:
    """Judge the worlds that the command line asks for."""
    parser = argparse.ArgumentParser(prog="worlds", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", action="append", default=[], metavar="FAMILY")
    parser.add_argument("--mode", action="append", default=[], choices=list(Mode), type=Mode)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--show", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--markdown", action="store_true")
    asked = parser.parse_args(arguments)
    families = [one for one in FAMILIES if not asked.only or any(text in one.name for text in asked.only)]
    if not families:
        sys.exit(f"no family with {asked.only}; there are: {'; '.join(one.name for one in FAMILIES)}")
    started = time.monotonic()
    cells = cells_of(families, count=asked.count, modes=asked.mode or tuple(Mode), processes=asked.processes)
    print(table_of(cells, time.monotonic() - started))
    if asked.markdown:
        print(f"\n{markdown_of(cells)}")
    for cell in cells:
        for ruling in cell.wrong[: asked.show]:
            print(f"\n{cell.family}, {cell.mode}: {ruling.world}: {ruling.kind} of {ruling.metrics}: {ruling.reasons}")
