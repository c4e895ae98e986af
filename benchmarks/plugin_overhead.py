"""What pytest pays for the plugin: without perf tests, to collect them, and before the first of them runs."""

from __future__ import annotations

import re
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from bench import Claim, Finished, Table, interleave, run_child, spread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

CLAIM = (
    "500 trivial tests take at most 1.03 times as long with the plugin installed as without; what perf tests need "
    "takes at most 1.8 times the CPU time of `import pytest` to import, and at most 0.9 times to be collected"
)
TESTS = 500
REPETITIONS = 21
OURS, PEER = "mlpatterns", "benchmark"
BARE = "bare pytest"
LABELS = {OURS: "with pytest-mlpatterns", PEER: "with pytest-benchmark, unused"}
PERF_TEST = """
import pytest

@pytest.fixture
def perf_model():
    return lambda batch: batch

@pytest.fixture
def perf_payload():
    return [1, 2]

@pytest.mark.perf({arguments})
def test_model(perf):
    perf.assert_rtm_below("1s")
"""
FILES = {
    "plain": "def test_plain():\n    pass\n",
    "perf": PERF_TEST.format(arguments="concurrency=2"),
    "lists": PERF_TEST.format(arguments="pattern=['single', 'cached|batched'], wire=['rest+json', 'rest+binary']"),
    "mistake": PERF_TEST.format(arguments="concurency=2"),
}
_OWN_MODULE = re.compile(r"^import 'pytest_mlpatterns[^']*' #", re.MULTILINE)
"""A line of `python -v` about a module of the package."""
FAILS = 1
"""Exit code of a run whose test fails."""


@dataclass(frozen=True)
class Start:
    """A Python that starts: its arguments, and the test file that it runs."""

    label: str
    arguments: Sequence[str]
    tests: str = "plain"
    exit_code: int = 0


def measure() -> Iterator[Table]:
    with _folder() as (directory, environment):
        yield _trivial_tests(directory, environment)
    with _folder() as (directory, environment):
        yield _starts(directory, environment)


@contextmanager
def _folder() -> Iterator[tuple[Path, dict[str, str]]]:
    """An empty project, and variables by which compiled files are kept outside of the checkout, as if installed."""
    with tempfile.TemporaryDirectory() as name:
        directory, compiled = Path(name) / "suite", Path(name) / "compiled"
        directory.mkdir()
        (directory / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        yield directory, {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(compiled)}


def _pytest(*kept: str) -> list[str]:
    """Arguments of a run of pytest with no other installed plugins than these."""
    installed = sorted({entry.name for entry in entry_points(group="pytest11")})
    refused = [word for plugin in installed if plugin not in kept for word in ("-p", f"no:{plugin}")]
    return ["-m", "pytest", "-q", "-p", "no:cacheprovider", *refused]


def _trivial_tests(directory: Path, environment: dict[str, str]) -> Table:
    installed = {entry.name for entry in entry_points(group="pytest11")}
    tests = "".join(f"def test_{number}():\n    assert True\n\n" for number in range(TESTS))
    (directory / "test_trivial.py").write_text(tests, encoding="utf-8")

    def run(*kept: str) -> Callable[[], Finished]:
        command = [sys.executable, *_pytest(*kept)]
        return lambda: run_child(command, directory=directory, environment=environment)

    sides = {BARE: run()}
    sides |= {label: run(plugin) for plugin, label in LABELS.items() if plugin in installed}
    interleave(sides, 1)  # compiles everything
    found = interleave(sides, REPETITIONS)
    walls = {side: [run.wall_s for run in runs] for side, runs in found.items()}
    cpus = {side: [run.cpu_s for run in runs] for side, runs in found.items()}
    bare_wall, bare_cpu = median(walls[BARE]), median(cpus[BARE])
    return Table(
        f"{TESTS} trivial tests, `python -m pytest -q`, median of {REPETITIONS} runs in turn; all other plugins off",
        ("", "wall", "spread", "ratio", "CPU", "ratio"),
        [
            (
                side,
                f"{median(walls[side]) * 1e3:.0f} ms",
                spread(walls[side]),
                f"{median(walls[side]) / bare_wall:.3f}",
                f"{median(cpus[side]) * 1e3:.0f} ms",
                f"{median(cpus[side]) / bare_cpu:.3f}",
            )
            for side in sides
        ],
        [Claim("wall time with the plugin, against bare pytest", median(walls[LABELS[OURS]]) / bare_wall, 1.03)],
        [] if PEER in installed else ["pytest-benchmark is not installed, so it is not compared"],
    )


IMPORT = Start("import pytest", ["-c", "import pytest"])
LIBRARIES = Start("… and numpy, httpx", ["-c", "import pytest, numpy, httpx"])
SESSION = Start(
    "… and the plugin for perf tests", ["-c", "import pytest, numpy, httpx, pytest_mlpatterns.plugin.session"]
)
COLLECT_BARE = Start("--collect-only, without the plugin", [*_pytest(), "--collect-only"])
COLLECT = Start("--collect-only, one perf test", [*_pytest(OURS), "--collect-only"], "perf")
COLLECT_LISTS = Start("--collect-only, lists of patterns and wires", [*_pytest(OURS), "--collect-only"], "lists")
PLAIN_BARE = Start("one plain test, without the plugin", _pytest())
PLAIN = Start("one plain test, with the plugin", _pytest(OURS))
MISTAKE = Start("one perf test with a mistake in its marker", _pytest(OURS), "mistake", FAILS)
STARTS = (IMPORT, LIBRARIES, SESSION, PLAIN_BARE, PLAIN, COLLECT_BARE, COLLECT, COLLECT_LISTS, MISTAKE)


def _starts(directory: Path, environment: dict[str, str]) -> Table:
    for name, text in FILES.items():
        (directory / f"test_{name}.py").write_text(text, encoding="utf-8")

    def run(start: Start, *options: str) -> Finished:
        tests = [] if "-c" in start.arguments else ["-s", f"test_{start.tests}.py"]  # -s shows all imports
        command = [sys.executable, *options, *start.arguments, *tests]
        return run_child(command, directory=directory, environment=environment, expected=(start.exit_code,))

    sides: dict[str, Callable[[], Finished]] = {one.label: (lambda one=one: run(one)) for one in STARTS}  # type: ignore[misc]
    interleave(sides, 1)  # compiles everything
    found = {label: [one.cpu_s for one in runs] for label, runs in interleave(sides, REPETITIONS).items()}
    cpu = {label: median(values) for label, values in found.items()}
    timed = {one.label: [run(one, "-X", "importtime").output for _ in range(3)] for one in STARTS}
    imports = {label: min(map(_own_imports_us, outputs)) for label, outputs in timed.items()}
    modules = {one.label: len(_OWN_MODULE.findall(run(one, "-v").output)) for one in STARTS}
    base = cpu[IMPORT.label]

    def more(start: Start, than: Start) -> float:
        """CPU time beyond another start, in units of `import pytest`."""
        return (cpu[start.label] - cpu[than.label]) / base

    return Table(
        f"CPU time of what starts, median of {REPETITIONS} in turn; own modules and their import by `-X importtime`",
        ("", "CPU", "spread", "ratio", "own modules", "their import, wall"),
        [
            (
                label,
                f"{value * 1e3:.0f} ms",
                spread(found[label]),
                f"{value / base:.2f}",
                str(modules[label]),
                f"{imports[label] / 1e3:.0f} ms",
            )
            for label, value in cpu.items()
        ],
        [
            Claim("the plugin's own import for perf tests, against import pytest", more(SESSION, LIBRARIES), 1.8),
            Claim("one plain test with the plugin beyond without, against import pytest", more(PLAIN, PLAIN_BARE), 0.1),
            Claim("to collect a perf test beyond bare pytest, against import pytest", more(COLLECT, COLLECT_BARE), 0.9),
            Claim("the same with lists", more(COLLECT_LISTS, COLLECT_BARE), 0.9),
            Claim("a run with a mistake in a marker, against import pytest", cpu[MISTAKE.label] / base, 9),
        ],
    )


def _own_imports_us(output: str) -> int:
    """The time that the modules of the package took to import, without those that they import."""
    found = re.findall(r"^import time: +(\d+) \| +\d+ \| +pytest_mlpatterns\b", output, re.MULTILINE)
    return sum(map(int, found))
