"""Cascades under load: as many inputs go on as the first model is unsure about."""

import random
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.deployed import Checked, callers_for, deployed

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
