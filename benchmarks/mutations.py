"""How many broken lines of five rooms of the package the unit tests notice.

``python benchmarks/mutations.py --rooms loadgen`` breaks lines one by one in a copy of the tree: a comparison turned
round, a constant changed, a call left out, + to -. The same seed breaks the same lines, in each room as many as its
share of all lines. The tests that name the module run first, and for survivors all other unit tests without processes.
Each line of ``mutations.jsonl`` is a mutant with its end, and a second run goes on where the first one stopped. Who
changed the tests removes the lines of the survivors, and only these run again.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("analysis", "judging", "measurement", "loadgen", "records")
COUNT = 200
SEED = 1
LIMIT_S = 120
"""Seconds that a test may take; a mutant that makes one take longer is noticed."""
COMPARISONS = {"<": ">=", ">": "<=", "<=": ">", ">=": "<", "==": "!=", "!=": "==", "in": "not in", "not in": "in"}
COMPARISONS |= {"is": "is not", "is not": "is"}
ARITHMETIC = {"+": "-", "-": "+", "*": "/", "/": "*"}
LEFT_OUT = frozenset(
    {"abs", "bool", "exp", "log", "max", "min", "replace", "reversed", "round", "sorted", "sqrt", "sum"}
)
"""Functions in whose place their first argument stands; any other call goes if its result is not used."""
UNIT = "tests/unit"
OWN, OTHERS, SURVIVED = "its own tests", "other unit tests", "survived"
"""What noticed a mutant, if anything did."""


@dataclass(frozen=True)
class Mutant:
    """One broken line.

    Attributes:
        file: of the package, relative to the root.
        line: its number, from 1.
        start: first byte of what is replaced, in the file.
        stop: the byte after the last one.
        before: what stands there.
        after: what takes its place.
    """

    file: str
    line: int
    start: int
    stop: int
    before: str
    after: str

    @property
    def place(self) -> str:
        """Where it is, and what it is: ``judging/guards.py:153  < becomes >=``."""
        return f"{self.file}:{self.line}  {' '.join(self.before.split())} becomes {self.after}"

    def breaks(self, text: bytes) -> bytes:
        """The file with the broken line."""
        return text[: self.start] + self.after.encode() + text[self.stop :]


class Module:
    """The mutants of one module."""

    def __init__(self, path: Path) -> None:
        self._file = path.relative_to(ROOT).as_posix()
        self._text = path.read_bytes()
        self._starts = [0]
        for line in self._text.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    def mutants(self) -> Iterator[Mutant]:
        """Each change of one node; what only type checkers read, and names of ``__all__``, stay as they are."""
        pending: list[ast.AST] = [ast.parse(self._text)]
        while pending:
            node = pending.pop()
            yield from self._of(node)
            pending += [child for child in ast.iter_child_nodes(node) if not _is_aside(node, child)]

    def _of(self, node: ast.AST) -> Iterator[Mutant]:
        match node:
            case ast.Compare(left=left, comparators=[right]):
                yield from self._turned(left, right, COMPARISONS)
            case ast.BinOp(left=left, right=right):
                yield from self._turned(left, right, ARITHMETIC)
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                yield self._replaced(node, repr(2 * value or 1))
            case ast.Expr(value=ast.Call()):
                yield self._replaced(node, "pass")
            case ast.Call(func=function, args=[first, *_]) if _last_name(function) in LEFT_OUT:
                if not isinstance(first, ast.Starred | ast.GeneratorExp):
                    start, stop = self._span(first)
                    yield self._replaced(node, f"({self._text[start:stop].decode()})")

    def _turned(self, left: ast.expr, right: ast.expr, others: Mapping[str, str]) -> Iterator[Mutant]:
        """Another operator between two operands, beside which parentheses and comments may stand."""
        start, stop = self._span(left)[1], self._span(right)[0]
        pattern = "|".join(sorted(map(re.escape, others), key=len, reverse=True)).encode()
        found = re.search(rb"(?<![\w*/<>=!])(%b)(?![\w*/<>=])" % pattern, self._text[start:stop])
        if found is not None:
            first, operator = start + found.start(), found[0].decode()
            line = self._text.count(b"\n", 0, first) + 1
            yield Mutant(self._file, line, first, start + found.end(), operator, others[operator])

    def _replaced(self, node: ast.expr | ast.stmt, after: str) -> Mutant:
        start, stop = self._span(node)
        return Mutant(self._file, node.lineno, start, stop, self._text[start:stop].decode(), after)

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._starts[node.lineno - 1] + node.col_offset, self._starts[node.end_lineno - 1] + node.end_col_offset


def _is_aside(node: ast.AST, child: ast.AST) -> bool:
    """Whether a part of the tree decides nothing that a test can see."""
    if isinstance(node, ast.JoinedStr):
        return True
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return True
    annotations = [getattr(node, name, None) for name in ("annotation", "returns")]
    return any(child is annotation for annotation in annotations)


def _last_name(function: ast.expr) -> str:
    return ast.unparse(function).rpartition(".")[2]


def chosen(count: int, seed: int) -> dict[str, list[Mutant]]:
    """One mutant in each of some seeded lines of each room, in the order in which they are drawn."""
    files = {room: sorted((ROOT / "pytest_mlpatterns" / room).rglob("*.py")) for room in ROOMS}
    lines = {room: sum(len(path.read_bytes().splitlines()) for path in files[room]) for room in ROOMS}
    drawn: dict[str, list[Mutant]] = {}
    for room in ROOMS:
        draw = random.Random(f"{seed} {room}")
        found: dict[tuple[str, int], list[Mutant]] = {}
        for mutant in (one for path in files[room] for one in Module(path).mutants()):
            found.setdefault((mutant.file, mutant.line), []).append(mutant)
        share = round(count * lines[room] / sum(lines.values()))
        drawn[room] = [draw.choice(found[line]) for line in draw.sample(sorted(found), share)]
    return drawn


def ordered_tests(root: Path, mutant: Mutant) -> dict[str, list[str]]:
    """The files of the room's tests that name the module, and all others, those that name it most often first."""
    module, room = Path(mutant.file).stem, Path(mutant.file).parts[1]
    named = {path: path.read_text("utf-8").count(module) for path in sorted((root / UNIT).rglob("test_*.py"))}
    tests: dict[str, list[str]] = {OWN: [], OTHERS: []}
    for path in sorted(named, key=lambda path: (module not in path.stem, -named[path])):
        tests[OWN if (module in path.stem or named[path]) and path.parent.name == room else OTHERS].append(
            path.relative_to(root).as_posix()
        )
    return {end: files for end, files in tests.items() if files}


class Copy:
    """A copy of the tree in which one line at a time is broken."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        shutil.copytree(ROOT, directory, ignore=shutil.ignore_patterns(".*", "_build", "build", "dist"))

    def end_of(self, mutant: Mutant) -> str:
        """Which tests noticed a mutant, if any did."""
        path = self._directory / mutant.file
        text = path.read_bytes()
        path.write_bytes(mutant.breaks(text))
        try:
            tests = ordered_tests(self._directory, mutant)
            return next((end for end, files in tests.items() if not self.passes(files)), SURVIVED)
        finally:
            path.write_bytes(text)

    def passes(self, tests: Sequence[str]) -> bool:
        """Whether the tests of some files pass, of which those that start processes are left out."""
        command = [sys.executable, "-B", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "not processes"]
        command += [f"--timeout={LIMIT_S}", "--timeout-method=thread", *tests]
        environment = {**os.environ, "PYTHONPATH": str(self._directory)}
        silent = subprocess.DEVNULL
        run = subprocess.run(command, cwd=self._directory, env=environment, stdout=silent, stderr=silent, check=False)
        return run.returncode in (0, 5)  # 5 where there is none


def read_ends(path: Path) -> dict[str, str]:
    """The ends that earlier runs wrote, by place."""
    if not path.exists():
        return {}
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {Mutant(**{name: one[name] for name in Mutant.__annotations__}).place: one["end"] for one in lines}


def write_ends(mutants: Sequence[Mutant], directory: Path, out: Path) -> None:
    """Write the end of each mutant as soon as it is known."""
    copy = Copy(directory)
    if mutants and not copy.passes([UNIT]):
        sys.exit(f"{UNIT} failed with nothing broken, expected that it passes")
    for mutant in mutants:
        end = copy.end_of(mutant)
        print(f"{end:<17} {mutant.place}", flush=True)
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**asdict(mutant), "end": end}) + "\n")


def main() -> None:
    """Break the lines that no earlier run broke; print a table of the rooms, and the survivors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=COUNT, help="lines that are drawn in all rooms")
    parser.add_argument("--rooms", nargs="+", choices=ROOMS, default=ROOMS, help="whose lines are broken now")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--jobs", type=int, default=2, help="copies of the tree that are tested at once")
    parser.add_argument("--out", type=Path, default=Path("mutations.jsonl"))
    given = parser.parse_args()
    drawn = {room: mutants for room, mutants in chosen(given.count, given.seed).items() if room in given.rooms}
    ends = read_ends(given.out)
    todo = [mutant for mutants in drawn.values() for mutant in mutants if mutant.place not in ends]
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(given.jobs) as pool:
        shares = [(todo[number :: given.jobs], Path(name, str(number)), given.out) for number in range(given.jobs)]
        list(pool.map(lambda share: write_ends(*share), shares))
    ends = read_ends(given.out)
    print(f"\n{'room':<12}{'mutants':>8}{OWN:>18}{OTHERS:>18}{SURVIVED:>10}")
    for room, mutants in drawn.items():
        count = Counter(ends[mutant.place] for mutant in mutants)
        print(f"{room:<12}{len(mutants):>8}{count[OWN]:>18}{count[OTHERS]:>18}{count[SURVIVED]:>10}")
    print(*(mutant.place for some in drawn.values() for mutant in some if ends[mutant.place] == SURVIVED), sep="\n")


if __name__ == "__main__":
    main()
