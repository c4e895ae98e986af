"""``measure``: the figures of a model without pytest, also where ``__main__`` has no file, as in a notebook."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from support.each_row import each_row

from pytest_mlpatterns import App, SettingError, Single, Stages, Url, measure
from pytest_mlpatterns.loadgen.generator import Generator

QUICK = {"duration": "100ms", "warmup": "0s", "launches": 1}
CELL = """
from pytest_mlpatterns import ConstantRate, measure

factor = 2

class Model:
    def __call__(self, batch):
        return [factor * value for value in batch]

def check(inputs, outputs):
    assert outputs == [factor * value for value in inputs]

assert "__file__" not in globals()
load = ConstantRate(200)  # 20 requests are due, however slow the machine is: a median needs 7
metrics = measure(Model, [1, 2, 3], check=check, load=load, duration="100ms", warmup="0s", launches=1)
print(type(metrics).__name__, metrics.failures, len(metrics.launches), metrics.rtm_ns.value > 0)
"""


def double(batch: list[Any]) -> list[Any]:
    time.sleep(0.005)
    return [2 * value for value in batch]


@each_row(
    ("arguments", "words"),
    ({"concurency": 2}, r"measure\(concurency=...\) is not an argument of the marker; did you mean concurrency=\?"),
    ({"tolerance": 0.1}, r"measure\(tolerance=...\), expected what says how to measure"),
    ({"pattern": ["single", "cached"]}, r"measure\(pattern=\['single', 'cached'\]\), expected one pattern"),
    ({"wire": ["rest+json"]}, r"expected one wire"),
    ({"duration": "1ms"}, r"measure\(duration=...\) is '1ms', expected at least 100ms"),
    ({"launches": 0}, r"measure\(launches=0\), expected a whole number from 1 to 100"),
    ({"engine": "ray"}, "runs on this machine only"),
    ({"generators_on": "ray"}, "runs on this machine only"),
)
def test_argument_that_cannot_be_used_is_refused_before_anything_starts(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        measure(double, [1], **arguments)


def test_a_refused_target_leaves_no_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(Generator, "start", lambda _generator, _processes: None)
    with pytest.raises(SettingError, match=r"measure\(target=...\) is 'service:app'"):
        measure(double, [1], target="service:app")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_payload_is_needed() -> None:
    with pytest.raises(SettingError, match="has no payload"):
        measure(double)


@pytest.mark.processes
@pytest.mark.parametrize(
    ("model", "arguments", "words"),
    [
        (None, {}, "has no model, expected a callable"),
        (3, {}, "perf_model is int, expected a callable"),
        (None, {"target": "service:app"}, r"measure\(target=...\) is 'service:app'"),
        (None, {"target": App("service:app"), "pattern": "cached"}, r"measure\(pattern=cached\) beside target"),
        (None, {"target": Url("http://127.0.0.1:1/"), "cpus": 1}, r"measure\(cpus=1\) beside"),
    ],
)
def test_nothing_to_measure_is_refused(model: Any, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        measure(model, [1], **arguments)


@pytest.mark.processes
def test_metrics_of_a_model_under_a_pattern() -> None:
    load = Stages([("100ms", 2)], of="concurrency", start=2)  # both callers ask when the window opens
    metrics = measure(double, [1, 2], pattern=Single(env={"A": "1"}), load=load, launches=2, budget="10min")
    assert len(metrics.launches) == 2
    assert metrics.failures == {}
    assert metrics.requests >= 4
    assert metrics.peak_rss_bytes is not None


@pytest.mark.processes
def test_check_that_fails_ends_the_measurement() -> None:
    def refuse(inputs: list[Any], outputs: list[Any]) -> None:
        raise AssertionError(f"{inputs[0]} -> {outputs[0]}")

    with pytest.raises(AssertionError, match="1 -> 2"):
        measure(double, [1], check=refuse, **QUICK)


@pytest.mark.processes
def test_cell_of_a_notebook_is_measured(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CELL], capture_output=True, encoding="utf-8", check=False, cwd=tmp_path, timeout=300
    )
    assert done.stdout.split() == ["Metrics", "{}", "1", "True"], done.stderr


class StartsSlowly:
    def __init__(self) -> None:
        time.sleep(2)

    def __call__(self, batch: list[Any]) -> list[Any]:
        return batch


@pytest.mark.processes
def test_the_first_start_is_part_of_the_budget() -> None:
    found = measure(StartsSlowly, [1, 2, 3], **{**QUICK, "launches": 3}, budget="4.3s")
    assert len(found.launches) == 1, "two take more than 4.4 s, however quick the machine is"
