"""How many broken lines of ``analysis`` and ``judging`` the tests of these rooms notice.

``python benchmarks/mutations.py --first 30`` breaks lines one by one in a copy of the tree: a comparison turned round,
a constant changed, a call left out, + to -. The same seed breaks the same lines. Each line of ``mutations.jsonl`` is a
mutant with its end, and a second run goes on where the first one stopped. Who changed the tests removes the lines of
the survivors, and only these run again.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import json
import math
import os
import queue
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("analysis", "judging")
COPIED = ("pytest_mlpatterns", "tests", "benchmarks", "pyproject.toml")
COUNT = 100
SEED = 1
LIMIT = 4.0
"""Times as long as with nothing broken that the tests may take; a mutant that makes them longer is noticed."""
COMPARISONS = {"<": ">=", ">": "<=", "<=": ">", ">=": "<", "==": "!=", "!=": "==", "in": "not in", "not in": "in"}
COMPARISONS |= {"is": "is not", "is not": "is"}
ARITHMETIC = {"+": "-", "-": "+", "*": "/", "/": "*"}
LEFT_OUT = frozenset(
    {"abs", "bool", "exp", "log", "max", "min", "replace", "reversed", "round", "sorted", "sqrt", "sum"}
)
"""Functions in whose place their first argument stands; any other call goes if its result is not used."""
ENDS = {0: "survived", 1: "noticed", 2: "noticed"}
"""Of a run, by the exit code of pytest: 2 is an error while it collects."""


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


def chosen(count: int, seed: int) -> list[Mutant]:
    """One mutant in each of some seeded lines, in the order in which they are drawn."""
    draw = random.Random(seed)
    lines: dict[tuple[str, int], list[Mutant]] = {}
    for room in ROOMS:
        for path in sorted((ROOT / "pytest_mlpatterns" / room).rglob("*.py")):
            for mutant in Module(path).mutants():
                lines.setdefault((mutant.file, mutant.line), []).append(mutant)
    return [draw.choice(lines[line]) for line in draw.sample(sorted(lines), count)]


def ordered_tests(mutant: Mutant) -> list[str]:
    """The files of tests, those that name the module most often first, so that most runs end early."""
    module = Path(mutant.file).stem
    files = [path for room in ROOMS for path in sorted((ROOT / "tests" / "unit" / room).glob("test_*.py"))]
    return [
        path.relative_to(ROOT).as_posix()
        for path in sorted(files, key=lambda path: (module not in path.stem, -path.read_text("utf-8").count(module)))
    ]


class Copy:
    """A copy of the tree in which one line at a time is broken."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        for name in COPIED:
            source, target = ROOT / name, directory / name
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, target)

    def end_of(self, mutant: Mutant | None, tests: Sequence[str], limit_s: float) -> str:
        """Run the tests beside a mutant, or beside none: ``survived``, ``noticed`` or ``took too long``."""
        path = self._directory / (mutant.file if mutant else "pyproject.toml")
        text = path.read_bytes()
        path.write_bytes(mutant.breaks(text) if mutant else text)
        try:
            code = self._run(tests, limit_s)
        finally:
            path.write_bytes(text)
        return "took too long" if code is None else ENDS.get(code, f"ended with {code}")

    def _run(self, tests: Sequence[str], limit_s: float) -> int | None:
        """The exit code of pytest; None if it was ended."""
        command = [sys.executable, "-B", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        with subprocess.Popen(
            [*command, *tests],
            cwd=self._directory,
            env={**os.environ, "ALL": "1", "PYTHONPATH": str(self._directory)},  # the simulations in full
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as run:
            try:
                return run.wait(None if math.isinf(limit_s) else limit_s)
            except subprocess.TimeoutExpired:
                return None
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(run.pid, signal.SIGKILL)


def read_ends(path: Path) -> dict[str, str]:
    """The ends that earlier runs wrote, by place."""
    if not path.exists():
        return {}
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {Mutant(**{name: one[name] for name in Mutant.__annotations__}).place: one["end"] for one in lines}


class Runs:
    """Runs of the tests, some at once, each of whose ends is written as soon as it is known."""

    def __init__(self, directory: Path, *, jobs: int, limit: float, out: Path) -> None:
        self._copies: queue.SimpleQueue[Copy] = queue.SimpleQueue()
        for number in range(jobs):
            self._copies.put(Copy(directory / str(number)))
        self._jobs, self._limit, self._out = jobs, limit, out
        self._limit_s = math.inf

    def require_green(self) -> None:
        """End this script if the tests fail, although nothing is broken; note how long they take."""
        started = time.monotonic()
        end = self._end_of(None, [f"tests/unit/{room}" for room in ROOMS])
        self._limit_s = self._limit * (time.monotonic() - started)
        if end != ENDS[0]:
            sys.exit(f"the tests of {' and '.join(ROOMS)} were {end} with nothing broken, expected that they pass")

    def ends_of(self, mutants: Sequence[Mutant]) -> dict[str, str]:
        """The end of each mutant, by place."""
        with ThreadPoolExecutor(self._jobs) as pool:
            return dict(zip((one.place for one in mutants), pool.map(self._written, mutants), strict=True))

    def _written(self, mutant: Mutant) -> str:
        end = self._end_of(mutant, ordered_tests(mutant))
        with self._out.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**asdict(mutant), "end": end}) + "\n")
        return end

    def _end_of(self, mutant: Mutant | None, tests: Sequence[str]) -> str:
        copy, started = self._copies.get(), time.monotonic()
        try:
            end = copy.end_of(mutant, tests, self._limit_s)
        finally:
            self._copies.put(copy)
        place = mutant.place if mutant else "nothing is broken"
        print(f"{time.monotonic() - started:4.0f} s  {end:<13}  {place}", flush=True)
        return end


def main() -> None:
    """Break the lines that no earlier run broke, and print the survivors of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=COUNT, help="lines that are drawn")
    parser.add_argument("--first", type=int, help="how many of them are broken now; all by default")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--jobs", type=int, default=2, help="copies of the tree that are tested at once")
    parser.add_argument("--limit", type=float, default=LIMIT, help="times as long as usual that a run may take")
    parser.add_argument("--out", type=Path, default=Path("mutations.jsonl"))
    given = parser.parse_args()
    mutants = chosen(given.count, given.seed)[: given.first]
    ends = read_ends(given.out)
    if todo := [mutant for mutant in mutants if mutant.place not in ends]:
        with tempfile.TemporaryDirectory() as name:
            runs = Runs(Path(name), jobs=given.jobs, limit=given.limit, out=given.out)
            runs.require_green()
            ends |= runs.ends_of(todo)
    survivors = [mutant.place for mutant in mutants if ends[mutant.place] == ENDS[0]]
    print(f"\n{len(mutants) - len(survivors)} of {len(mutants)} mutants were noticed; survivors:", *survivors, sep="\n")


if __name__ == "__main__":
    main()
