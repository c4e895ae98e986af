"""How often a service calls its Python functions: read from the files that ``call_counter`` writes in each."""

import time
from array import array
from collections import Counter
from pathlib import Path

from pytest_mlpatterns.profiling import call_counter
from pytest_mlpatterns.profiling.frame_names import SourceNames, is_ours
from pytest_mlpatterns.profiling.py_spy import RawFrame
from pytest_mlpatterns.records.count import RunUnder
from pytest_mlpatterns.system.work_counter import Reading, WorkCounter

_ALL = "all functions"  # Stands for a library's functions: which are called is a matter of its own


class PythonCalls(WorkCounter):
    """Counts the calls of each function of the project, and of each library. ``directory``: private."""

    def __init__(self, directory: Path, names: SourceNames) -> None:
        (directory / "sitecustomize.py").write_bytes(Path(str(call_counter.__file__)).read_bytes())
        self.under: RunUnder = RunUnder(import_path=str(directory))
        self._directory = directory
        self._names = names
        self._last: Counter[tuple[str, str]] = Counter()

    def read(self, deadline: float) -> Reading:
        """What was called since the last look."""
        now: Counter[tuple[str, str]] = Counter()
        for counts in self._directory.glob(f"*{call_counter.COUNTS}"):
            lines = counts.with_suffix(call_counter.NAMES).read_text(encoding="utf-8", errors="replace").splitlines()
            for line, times in zip(lines, array("Q", counts.read_bytes()), strict=False):
                now[self._function(line)] += times
        found, self._last = now - self._last, now
        return Reading(found.total(), found, time.monotonic())

    def _function(self, line: str) -> tuple[str, str]:
        name, number, file = line.split("\t", 2)
        frame = self._names.frame(RawFrame(name.rpartition(".")[2], file, int(number), name))
        if is_ours(file):
            return "pytest_mlpatterns", _ALL
        if frame.owner == "project":  # a generator expression is called once for each item, its function is not
            inner = name.rpartition(".<locals>.")[2]
            return frame.file, f"{inner} in {frame.function}" if inner != name and inner[0] == "<" else frame.function
        return frame.file.partition("/")[0].removesuffix(".py"), _ALL
