"""Do history and bisect name the right commit? A repository of 40 commits with known steps, and a drift beside them.

The model computes for about 3 ms. Three commits add 3, 5 and 8 % to that, and each commit 0.05 %. ``bisect`` searches
for each step among the commits around it, and once among all. With ``history`` every commit is measured beside the
first one, and the changes of that history are compared with the steps. Run it on an idle machine, and with ``--beside``
beside a busy loop:

    python benchmarks/history_repository.py bisect --tries 3
    python benchmarks/history_repository.py history --beside
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.changes.findings import find_changes
from pytest_mlpatterns.analysis.changes.series import series_of
from pytest_mlpatterns.history.file import History

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMITS = 40
SIZES = (0.03, 0.05, 0.08)
"""Steps, as shares of the time at the first commit."""
DRIFT = 0.0005
"""What each commit adds, as a share."""
SECONDS = 0.003
"""Time of the model at the first commit."""
TEST = "test_model.py::test_model"
MODEL = """
def work(rounds):
    total = 0
    for number in range(rounds):
        total += number * number
    return total


class Model:
    def __call__(self, batch):
        work({rounds})
        return batch
"""
TESTS = """
import pytest

from model import Model


@pytest.fixture
def perf_model():
    return Model


@pytest.fixture
def perf_payload():
    return [1, 2, 3]


def test_model(perf):
    pass
"""
GIT = ("git", "-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false")


@dataclass(frozen=True)
class Repository:
    """A repository, its commits from the first one, and the numbers of those with a step, by its size."""

    top: Path
    shas: tuple[str, ...]
    steps: dict[float, int]

    def range_of(self, size: float) -> tuple[int, int]:
        """The numbers of the commits around a step, up to its neighbours."""
        at = self.steps[size]
        before = max((one for one in self.steps.values() if one < at), default=0)
        after = min((one for one in self.steps.values() if one > at), default=len(self.shas))
        return before, after - 1


def rounds_for(seconds: float) -> int:
    """Rounds of the loop that take as long on this machine."""
    namespace: dict[str, object] = {}
    exec(MODEL.format(rounds=0), namespace)
    work = namespace["work"]
    assert callable(work)
    times = []
    for _ in range(50):
        began = time.perf_counter()
        work(20_000)
        times.append(time.perf_counter() - began)
    return int(20_000 * seconds / min(times))


def repository_in(top: Path, seed: int) -> Repository:
    """A repository whose steps are at places that follow from the seed."""
    chosen = random.Random(seed)
    places = [chosen.randint(4, 10), chosen.randint(16, 22), chosen.randint(28, 35)]
    sizes = chosen.sample(SIZES, 3)
    steps = dict(zip(sizes, places, strict=True))
    base, shas = rounds_for(SECONDS), []
    top.mkdir()
    run(top, "init", "--quiet", "--initial-branch=main")
    for number in range(COMMITS):
        factor = 1 + DRIFT * number + sum(size for size, at in steps.items() if number >= at)
        (top / "model.py").write_text(MODEL.format(rounds=round(base * factor)), encoding="utf-8")
        (top / "test_model.py").write_text(TESTS, encoding="utf-8")
        (top / "pytest.ini").write_text("[pytest]\npythonpath = .\n", encoding="utf-8")
        run(top, "add", "--all")
        run(top, "commit", "--quiet", "--allow-empty", "--message", f"Commit {number}")
        shas.append(run(top, "rev-parse", "HEAD"))
    return Repository(top, tuple(shas), steps)


def run(top: Path, *arguments: str) -> str:
    return subprocess.run([*GIT, *arguments], cwd=top, check=True, capture_output=True, encoding="utf-8").stdout.strip()


def command(repository: Repository, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the package there; what it does is shown as it goes."""
    full = [sys.executable, "-m", "pytest_mlpatterns", *arguments]
    with subprocess.Popen(full, cwd=repository.top, stdout=subprocess.PIPE, encoding="utf-8") as process:
        try:
            out, _ = process.communicate()
        except BaseException:
            process.terminate()  # it removes its trees and processes
            process.wait()
            raise
    return subprocess.CompletedProcess(full, process.returncode, out)


@contextlib.contextmanager
def busy() -> Iterator[None]:
    """A process that uses a core."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def searched(repository: Repository, sizes: list[float], *, budget: str, metric: str) -> None:
    """Search for each step among the commits around it, and for any of them among all."""
    for size in sizes:
        first, last = repository.range_of(size) if size else (0, COMMITS - 1)
        began = time.perf_counter()
        commits = f"{repository.shas[first]}..{repository.shas[last]}"
        options = ("--json", "--budget", budget, "--metric", metric)
        done = command(repository, "bisect", TEST, commits, *options)
        took_s = time.perf_counter() - began
        wanted = {repository.steps[size]} if size else set(repository.steps.values())
        print(f"{size:.0%} among {last - first}: {answer(repository, done, wanted)}, {took_s:.0f} s", flush=True)


def answer(repository: Repository, done: subprocess.CompletedProcess[str], wanted: set[int]) -> str:
    """What a search found, beside the truth."""
    if done.returncode not in (0, 1, 3):
        return f"error {done.returncode}"
    found = json.loads(done.stdout)
    runs = len([one for one in found["searched"] if not one["skipped"]])
    if found["first"] is None:
        return f"nothing found, {runs} measurements"
    first, before = (repository.shas.index(found[name]["sha"]) for name in ("first", "before"))
    if found["end"] == "found":
        return f"{'RIGHT' if first in wanted else 'WRONG'} (number {first}), {runs} measurements"
    inside = any(before < one <= first for one in wanted)
    return f"range {before}..{first} ({found['why']}), the step is {'inside' if inside else 'OUTSIDE'}, {runs}"


def filled(repository: Repository, budget: str) -> None:
    """Measure every commit, and look for the steps in that history."""
    place = str(repository.top.parent / "history.jsonl")
    options = ("--perf-against", repository.shas[0], f"--perf-history={place}", "--perf-budget", budget)
    for sha in repository.shas[1:]:
        run(repository.top, "checkout", "--quiet", sha)
        measure = [sys.executable, "-m", "pytest", "--quiet", "-p", "no:cacheprovider", "--perf-gate", "warn", *options]
        subprocess.run([*measure, TEST], cwd=repository.top, check=True, stdout=subprocess.DEVNULL)
    lines = History(repository.top / place, place).read().lines
    changes = [one for one in find_changes(series_of(lines, repository.shas)) if one.metric == "rtm"]
    for one in changes:
        old, new = (repository.shas.index(commit.commit) for commit in (one.old, one.new))
        print(f"{one.course.value}: {one.factor[0] - 1:+.1%} at {old}..{new}", flush=True)
    for size, at in sorted(repository.steps.items()):
        near = [one for one in changes if abs(repository.shas.index(one.new.commit) - at) <= 0]
        print(f"step of {size:.0%} at {at}: {'found' if near else 'not found'}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("bisect", "history"))
    parser.add_argument("--tries", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--budget", default="30s")
    parser.add_argument("--metric", default="rtm", help="of bisect")
    parser.add_argument("--sizes", default="0.03,0.05,0.08,0", help="0 is any step, among all commits")
    parser.add_argument("--beside", action="store_true", help="beside a busy loop")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sizes = [float(size) for size in options.sizes.split(",")]
    with busy() if options.beside else contextlib.nullcontext(), tempfile.TemporaryDirectory() as directory:
        for seed in range(options.seed, options.seed + options.tries):
            repository = repository_in(Path(directory) / f"repository-{seed}", seed)
            print(f"seed {seed}: steps { ({f'{size:.0%}': at for size, at in repository.steps.items()}) }", flush=True)
            if options.what == "bisect":
                searched(repository, sizes, budget=options.budget, metric=options.metric)
            else:
                filled(repository, options.budget)


if __name__ == "__main__":
    main()
