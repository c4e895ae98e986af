"""What pytest pays for the plugin where there are no perf tests."""

from __future__ import annotations

import sys
import tempfile
from importlib.metadata import entry_points
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from bench import Claim, Finished, Table, interleave, run_child, spread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CLAIM = "500 trivial tests take at most 1.03 times as long with the plugin installed as without"
TESTS = 500
REPETITIONS = 21
OURS, PEER = "mlpatterns", "benchmark"
BARE = "bare pytest"
LABELS = {OURS: "with pytest-mlpatterns", PEER: "with pytest-benchmark, unused"}


def measure() -> Iterator[Table]:
    installed = sorted({entry.name for entry in entry_points(group="pytest11")})
    with tempfile.TemporaryDirectory() as name:
        directory, compiled = Path(name) / "suite", Path(name) / "compiled"
        directory.mkdir()
        tests = "".join(f"def test_{number}():\n    assert True\n\n" for number in range(TESTS))
        (directory / "test_trivial.py").write_text(tests, encoding="utf-8")
        (directory / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")

        def run(*kept: str) -> Callable[[], Finished]:
            refused = [word for plugin in installed if plugin not in kept for word in ("-p", f"no:{plugin}")]
            command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *refused]
            # with compiled files, as in every installation, but outside of the checkout
            environment = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(compiled)}
            return lambda: run_child(command, directory=directory, environment=environment)

        sides = {BARE: run()}
        sides |= {label: run(plugin) for plugin, label in LABELS.items() if plugin in installed}
        interleave(sides, 1)  # compiles everything
        found = interleave(sides, REPETITIONS)
    walls = {side: [run.wall_s for run in runs] for side, runs in found.items()}
    cpus = {side: [run.cpu_s for run in runs] for side, runs in found.items()}
    bare_wall, bare_cpu = median(walls[BARE]), median(cpus[BARE])
    yield Table(
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
