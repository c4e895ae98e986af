"""Which sampler sees where the time goes, and what it costs: the choice of ``pytest_mlpatterns.profiling``.

Programs whose time by function is known run under each sampler, and alone in between. Printed for each case: the true
share of a function, the share that was seen, the looks that were lost, the slow-down of a request, and the share of a
core that the sampler itself took.

    python benchmarks/profilers.py [--python PATH] [--seconds 2] [--repeat 3] [--samplers nonblocking-500,thread-500]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from profiler_target import CASES

from pytest_mlpatterns.profiling.py_spy import read_collapsed

if TYPE_CHECKING:
    from collections.abc import Mapping

TARGET = Path(__file__).with_name("profiler_target.py")
SAMPLERS = {
    "nonblocking-100": ["--nonblocking", "--rate", "100"],
    "nonblocking-500": ["--nonblocking", "--rate", "500"],
    "blocking-100": ["--rate", "100"],
    "blocking-500": ["--rate", "500"],
    "native-100": ["--native", "--rate", "100"],
    "handler-500": [],
    "thread-500": [],
}


@dataclass
class Run:
    """One run of a program.

    ``share`` is what the sampler saw of the named function; None without one.
    """

    median_ms: float
    truth: float
    share: float | None = None
    looks: int = 0
    lost: int = 0
    start_s: float = 0.0
    cores: float = 0.0


def run(python: str, case: str, sampler: str, *, seconds: float) -> Run:
    inside, _, rate = sampler.partition("-")
    words = [python, str(TARGET), case, inside, rate or "0", str(seconds)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as target:
        assert target.stdin is not None
        assert target.stdout is not None
        target.stdout.readline()
        spy = Spy(target.pid, SAMPLERS[sampler]) if SAMPLERS.get(sampler) else None
        target.stdin.write("\n")
        target.stdin.flush()
        found = json.loads(target.stdout.readline())
        seen = spy.stop() if spy else found
        target.stdin.write("\n")
        target.stdin.flush()
    share = seen.get("share")
    return Run(
        found["median_ms"],
        found["truth"],
        share,
        int(seen.get("looks", 0)),
        int(seen.get("lost", 0)),
        seen.get("start_s", 0.0),
        seen.get("cores", 0.0),
    )


class Spy:
    """py-spy at one process."""

    def __init__(self, pid: int, options: list[str]) -> None:
        executable = shutil.which("py-spy", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        assert executable is not None, "install it: pip install 'pytest-mlpatterns[profile]'"
        self._file = Path(tempfile.mkdtemp(), "stacks.txt")
        fixed = ["--format", "raw", "--idle", "--threads", "--full-filenames", "--hideprogress"]
        words = [executable, "record", "--pid", str(pid), *options, *fixed, "--output", str(self._file)]
        self._began = time.perf_counter()
        self._process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self._process.stdout is not None
        while "Sampling" not in (line := self._process.stdout.readline()):
            assert line, "py-spy ended"
        self._started = time.perf_counter()

    def stop(self) -> Mapping[str, float]:
        seconds = time.perf_counter() - self._started
        self._process.send_signal(signal.SIGINT)
        assert self._process.stdout is not None
        said = self._process.stdout.read()
        self._process.stdout.close()
        _, _, usage = os.wait4(self._process.pid, 0)
        self._process.returncode = 0
        served = named = 0
        for stack, count in read_collapsed(self._file.read_text()).items():
            names = [frame.name for frame in stack.frames]
            if "_serve" in names:
                served += count
                named += count * ("named" in names)
        lost = int(said.rpartition("Errors: ")[2].split()[0])
        return {
            "share": named / max(served, 1),
            "looks": served,
            "lost": lost,
            "start_s": self._started - self._began,
            "cores": (usage.ru_utime + usage.ru_stime) / seconds,
        }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--samplers", default=",".join(SAMPLERS))
    parser.add_argument("--cases", default=",".join(CASES))
    given = parser.parse_args()
    print("sampler          case          truth   seen  looks    lost  slower  cores  start")
    for sampler in given.samplers.split(","):
        for case in given.cases.split(","):
            alone, under = [], []
            for _ in range(given.repeat):
                alone.append(run(given.python, case, "none", seconds=given.seconds))
                under.append(run(given.python, case, sampler, seconds=given.seconds))
            slower = statistics.median(one.median_ms for one in under) / statistics.median(
                one.median_ms for one in alone
            )
            looks, lost = sum(one.looks for one in under), sum(one.lost for one in under)
            seen = statistics.fmean(one.share or 0 for one in under)
            print(
                f"{sampler:16} {case:12} {statistics.fmean(one.truth for one in under):6.1%} "
                f"{seen:6.1%} {looks:6} {lost / max(looks + lost, 1):7.2%} "
                f"{slower - 1:+7.1%} {statistics.fmean(one.cores for one in under):6.2f} "
                f"{statistics.fmean(one.start_s for one in under):5.2f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
