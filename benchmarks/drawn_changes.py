"""Twenty changes of 1 to 20 % of the CPU, drawn: which does the count of instructions see, and which do the times see?

    python benchmarks/drawn_changes.py [--changes N] [--unchanged N] [--loops N] [--seed N] [--times]

The service ranks texts with scikit-learn behind ``Single``. Each change is a function of its own with one kind of work,
called at a drawn place of the service, as often as makes a drawn share of its CPU. The count is one pass of each
version. With ``--times`` the same version runs under ``pytest --perf-against HEAD`` too. A line of JSON for each goes
to the standard output, and a table at the end.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from instructions import Service, busy, count

SERVICE = """
import copy, json, logging, re
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

ITEMS = [f"item{{number}}" for number in range(20_000)]
LOG = logging.getLogger("ranking")
LOG.addHandler(logging.NullHandler())
LOG.setLevel(logging.INFO)


def further(times):
    for _ in range(times):
        {work}


class Ranking:
    def __init__(self):
        texts = [f"word{{n % 7}} other{{n % 5}} thing{{n % 3}} and text number {{n}}" for n in range(200)]
        self.vectors = TfidfVectorizer().fit(texts)
        self.model = LogisticRegression().fit(self.vectors.transform(texts), [n % 3 for n in range(200)])

    def tidy(self, texts):
        {tidy}
        return [text.lower().strip() for text in texts]

    def rank(self, texts):
        {rank}
        return self.model.predict_proba(self.vectors.transform(texts))

    def shape(self, found):
        {shape}
        return [dict(zip("abc", row)) for row in found.round(4).tolist()]

    def __call__(self, texts):
        return self.shape(self.rank(self.tidy(texts)))
"""
TEST = """
import pytest
from pytest_mlpatterns import ClosedLoop

@pytest.fixture
def perf_model():
    return "ranking:Ranking"

@pytest.fixture
def perf_payload():
    return [f"word{n % 7} other and text number {n}" for n in range(50)]

@pytest.mark.perf(load=ClosedLoop(2), budget="60s")
def test_ranking(perf):
    perf.assert_no_regression()
"""
WORK = {
    "loop": "sum(range(20))",
    "lookup": '"item400" in ITEMS',
    "copy": "copy.copy(ITEMS[:500])",
    "log": 'LOG.info("item %s of %d", "one", 2)',
    "sort": "sorted(ITEMS[:60], key=len)",
    "json": "json.dumps(ITEMS[:30])",
    "regex": 're.sub("[aeiou]", "", "a text about an item of the catalogue")',
    "deepcopy": "copy.deepcopy({'a': [1, 2, 3]})",
}
TIMED = """
import time
service = Ranking()
tried = []
for _ in range(300):
    began = time.process_time()
    {calls}
    tried.append(time.process_time() - began)
print(sorted(tried)[75])
"""
PLACES = ("tidy", "rank", "shape")
TOLERANCE = 0.02


@dataclass(frozen=True)
class Change:
    """What a version does further: a kind of work, a place, and its share of the CPU; 0 for none."""

    kind: str
    place: str
    share: float

    def source(self, times: int) -> str:
        """The service with this change."""
        calls = {place: f"further({times})" if place == self.place and self.share else "pass" for place in PLACES}
        return SERVICE.format(work=WORK[self.kind], **calls)


def cpu_s(source: str, calls: str) -> float:
    """CPU seconds of a call, the lower quartile of 300, in a process of its own."""
    words = [sys.executable, "-c", source + TIMED.format(calls=calls)]
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def drawn(number: int, seed: int) -> Change:
    """The change with this number; shares are uniform on the log scale."""
    source = random.Random(1000 * seed + number)
    share = math.exp(source.uniform(math.log(0.01), math.log(0.2)))
    return Change(source.choice(list(WORK)), source.choice(PLACES), share)


def times_of(change: Change) -> int:
    """How often the work makes this share of a request's CPU."""
    plain = Change(change.kind, change.place, 0.0).source(0)
    whole = cpu_s(plain, 'service(["word1 other and text number 1"])')
    return max(1, round(change.share * whole / (cpu_s(plain, "further(50)") / 50)))


def by_pytest(directory: Path) -> dict[str, object]:
    """What pytest finds in the working tree beside HEAD: by times, and with a count of what these left open."""
    words = [
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--perf-against=HEAD",
        "--perf-count=auto",
        "--perf-json=out.json",
    ]
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", *words], cwd=directory, capture_output=True, check=False)
    (result,) = json.loads((directory / "out.json").read_text(encoding="utf-8"))["results"]
    is_counted = any(verdict["metric"] == "instructions" for verdict in result["verdicts"])
    why = result["not_compared"].get("instructions per request", "")
    at_last = {"times": "open" if is_counted else result["kind"], "at_last": result["kind"], "not_counted": why}
    return {**at_last, "pytest_s": round(time.monotonic() - began)}


def committed(directory: Path) -> None:
    """Make the directory a repository of what it has."""
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@localhost"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "the service"]):
        subprocess.run([*git, *words], cwd=directory, check=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--changes", type=int, default=20)
    parser.add_argument("--unchanged", type=int, default=5)
    parser.add_argument("--loops", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--times", action="store_true")
    given = parser.parse_args()
    found: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place, "project").resolve()
        directory.mkdir()
        sys.path.insert(0, str(directory))
        service = Service("ranking:Ranking", root=directory)
        unchanged = Change("loop", "tidy", 0.0)
        (directory / "ranking.py").write_text(unchanged.source(0), encoding="utf-8")
        (directory / "test_ranking.py").write_text(TEST, encoding="utf-8")
        (directory / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        committed(directory)
        with busy(given.loops):
            before = count(service, directory)
            cases = [drawn(number, given.seed) for number in range(given.changes)] + [unchanged] * given.unchanged
            for change in cases:
                times = times_of(change) if change.share else 0
                (directory / "ranking.py").write_text(change.source(times), encoding="utf-8")
                after = count(service, directory, requests=before.requests)
                ratio = after.per_request.value / before.per_request.value - 1
                line: dict[str, object] = {
                    "kind": change.kind if change.share else "unchanged",
                    "share": round(change.share, 4),
                    "counted": round(ratio, 4),
                    "count": "fails" if after.low / before.high - 1 > TOLERANCE else "passes",
                    "named": any(name.startswith("further ") for name in after.calls),
                    "load": round(os.getloadavg()[0], 1),
                    "count_s": round(after.seconds),
                    **(by_pytest(directory) if given.times else {}),
                }
                found.append(line)
                print(json.dumps(line), flush=True)
    for line in sorted(found, key=lambda one: str(one["share"])):
        print(" | ".join(str(value) for value in line.values()))


if __name__ == "__main__":
    main()
