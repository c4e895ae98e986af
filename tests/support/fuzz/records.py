"""Files that the package writes and reads back, with members changed and text mutated."""

import contextlib
import functools
import io
import json
import random
import tempfile
from pathlib import Path
from typing import Any

from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.baseline.file import read_baselines, write_baselines
from pytest_mlpatterns.baseline.lookup import BaselineLookup
from pytest_mlpatterns.cli import main
from pytest_mlpatterns.config.run_settings import BaselineMode, read_run_settings
from pytest_mlpatterns.errors import BaselineFileError, HistoryError
from pytest_mlpatterns.history.file import History
from support import TESTS
from support.fuzz import Area
from support.fuzz.files import DIRECTORY
from support.fuzz.hostile import deep_list, octets
from support.history_lines import history_line
from support.synthetic import ENVIRONMENT, SETUP

BASELINE: dict[str, Any] = {
    "format": "pytest-mlpatterns-baseline",
    "version": 1,
    "tests": {
        "test_a.py::test_one": {
            "box": {
                "setup": {"pattern": "single", "load": "closed(1)", "wire": "rest+json", "payload": "sha256:0"},
                "metrics": {"rtm": [[1000, 0.01], [1100, 0.02]], "throughput": [[1234.5, 0.01]]},
                "versions": {"numpy": "2.0.0"},
                "commit": "1a2b3c4",
                "date": "2026-11-24",
                "anchor": {"metrics": {"rtm": [[900, 0.01]]}, "commit": None, "date": "2026-01-31", "updates": 4},
                "sorting_ns": [701500, 698200],
                "latency": [[1.0, 3100000], [50.0, 4120000], [99.9, 9870000]],
                "counts": {"1": [300, 8, [[4096000, 150], [4128768, 142]]]},
                "disturbed": ["8 of 7,406 requests failed (500: 8)"],
            }
        }
    },
}
MEMBERS: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, -5, 2**63, 10**30, 10**400, 1e308, -1e308, 1e-300, float("nan"), float("inf"), 0.5),
    *("", "x", "\ud800", "\x1b[2J\x1b]0;owned\x07", "\u202e", "<script>alert(1)</script>", "9" * 400, "x" * 5000),
    *("2026-11-24", "pass", "rtm", "single", [], {}, [[]], [None], [1, 2], [[1, 2]], {"": 0}, {"rtm": [[1, 2]]}),
    *(deep_list(40), deep_list(600)),
)


@functools.cache
def _results() -> str:
    return (TESTS / "golden" / "results.json").read_text(encoding="utf-8")


def changed(draw: random.Random, data: Any) -> Any:
    """The data with one to three members replaced, removed, moved or renamed."""
    for _ in range(draw.choice((1, 1, 2, 3))):
        holder: Any = data
        while True:
            keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            if not keys:
                break
            key = draw.choice(keys)
            if isinstance(holder[key], dict | list) and holder[key] and draw.random() < 0.85:
                holder = holder[key]
                continue
            how = draw.random()
            if how < 0.7:
                holder[key] = json.loads(json.dumps(draw.choice(MEMBERS)))  # a copy, which may be changed in its turn
            elif how < 0.8:
                del holder[key]
            elif isinstance(holder, dict):
                holder[draw.choice(("\ud800", "", "x", "rtm", "\x1b[2J", "p99.9", "x" * 300))] = holder[key]
            else:
                holder.insert(0, holder[key])
            break
    return data


def a_baseline(draw: random.Random) -> bytes:
    text = json.dumps(BASELINE)
    if draw.random() < 0.25:
        return octets(draw, (text.encode(),))
    return json.dumps(changed(draw, json.loads(text))).encode()


def use_baseline(content: bytes) -> None:
    """Read it, look tests up in it, and write it again beside a new entry."""
    with tempfile.TemporaryDirectory(dir=DIRECTORY) as directory:
        path = Path(directory, "perf-baseline.json")
        path.write_bytes(content)
        entries = read_baselines(path)
        options = {"baseline": str(BaselineMode.CHECK), "baseline-file": str(path)}
        run = read_run_settings(options, {}, invoked_in=path.parent, root=path.parent)
        lookup = BaselineLookup(run, ENVIRONMENT, entries)
        for test in entries:
            lookup.match(test, SETUP)
        write_baselines(path, entries)
        assert read_baselines(path).keys() == entries.keys()


def a_result_file(draw: random.Random) -> tuple[str, bytes]:
    command = draw.choice(("export", "rank", "report"))
    if draw.random() < 0.25:
        return command, octets(draw, (_results().encode(),))
    return command, json.dumps(changed(draw, json.loads(_results()))).encode()


def use_result_file(case: tuple[str, bytes]) -> None:
    """Run the command line on it: exit code 0, or 2 and one line."""
    command, content = case
    with tempfile.TemporaryDirectory(dir=DIRECTORY) as directory:
        path = Path(directory, "results.json")
        path.write_bytes(content)
        more = {"rank": [",".join(f"{name}=1" for name in METRICS)], "export": ["--format=openmetrics"]}
        assert_one_line_at_most([command, str(path), *more.get(command, ()), "-o", str(Path(directory, "out"))])


def assert_one_line_at_most(arguments: list[str]) -> None:
    """The command line ends with exit code 0, or with 2 and one line."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = main(arguments)
    printed = said.getvalue().splitlines()
    assert (code, len(printed)) in ((0, 0), (2, 1)), (code, printed)
    assert all(line.isprintable() and len(line) < 3000 for line in printed), printed


def a_history(draw: random.Random) -> bytes:
    """A few lines, one of which is damaged, or bytes."""
    lines = [history_line(number).to_text() for number in range(3)]
    if draw.random() < 0.25:
        return octets(draw, ("\n".join(lines).encode(),))
    lines[draw.randrange(3)] = json.dumps(changed(draw, json.loads(lines[0])))
    return "\n".join(lines).encode()


def use_history(content: bytes) -> None:
    """Read it, add a line, and read that."""
    with tempfile.TemporaryDirectory(dir=DIRECTORY) as directory:
        path = Path(directory, "history.jsonl")
        path.write_bytes(content)
        history = History(path, path.name)
        before = history.read()
        assert all(warning.isprintable() for warning in before.warnings), before.warnings
        history.append([history_line(3)])
        assert history_line(3).to_text() in {line.to_text() for line in history.read().lines}


AREAS = (
    Area("baselines", 30_000, a_baseline, use_baseline, (BaselineFileError,)),
    Area("results", 20_000, a_result_file, use_result_file, ()),
    Area("histories", 20_000, a_history, use_history, (HistoryError,)),
)
