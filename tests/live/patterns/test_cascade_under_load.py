"""Cascades under load: as many inputs go on as the first model is unsure about, and more of them are a regression."""

import random
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.deployed import Checked, callers_for, deployed
from support.project import Project
from support.repository import Repository

from pytest_mlpatterns import Cascade, InOrder
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.loadgen.generator import Generator

pytestmark = pytest.mark.processes

HERE = sys.modules[__name__]
SURE = 0.7


def guess(batch: list[Any]) -> list[Any]:
    return [{"by": "first", "of": one} for one in batch]


def think(batch: list[Any]) -> list[Any]:
    time.sleep(0.002)
    return [{"by": "second", "of": one} for one in batch]


def unsure(given: Any, _output: Any) -> bool:
    return bool(given["doubt"] > SURE)


def expected(one: Any) -> Any:
    return {"by": "second" if unsure(one, None) else "first", "of": one}


def test_the_share_that_goes_on_is_that_of_the_unsure_inputs(generator: Generator, tmp_path: Path) -> None:
    drawn = random.Random(7)
    inputs = [{"number": number, "doubt": drawn.random()} for number in range(500)]
    check = Checked(expected)
    pattern, plan = Cascade(guess, think, unsure), callers_for(InOrder(inputs), 3000, check)
    with deployed(pattern, think, plan, module=HERE, generator=generator, directory=tmp_path) as runner:
        metrics = Metrics((runner.measure(),))
    assert check.seen
    share = metrics.figure("escalation_share")
    assert share is not None
    part = 30 / metrics.requests  # of the inputs in turn a slow machine sees no whole number of rounds
    assert share.value == pytest.approx(sum(unsure(one, None) for one in inputs) / len(inputs), abs=0.01 + part)


REGRESSION = """
import pytest
from pytest_mlpatterns import Cascade

def guess(batch):
    return [number / {sharpness} for number in batch]

def think(batch):
    return batch

def unsure(given, output):
    return output > 50

@pytest.fixture
def perf_model():
    return lambda batch: batch

@pytest.fixture
def perf_payload():
    return list(range(100))

@pytest.mark.perf(pattern=Cascade(guess, think, unsure), concurrency=2, compare=("escalation_share",))
def test_cascade(perf):
    pass
"""


def test_a_first_model_that_is_unsure_more_often_is_a_regression_of_its_revision(tmp_path: Path) -> None:
    repository = Repository.made(tmp_path / "shop")
    repository.commit({"pytest.ini": "[pytest]\n", "test_perf.py": REGRESSION.format(sharpness=1.5)})
    run = Project().with_file("test_perf.py", REGRESSION.format(sharpness=1)).run(repository.top, "--perf-against=main")
    assert run.exit_code == 1
    assert "RegressionFailure: share of inputs that went on" in run.failure("test_cascade")
