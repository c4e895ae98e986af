"""Records become plain values and come back, by the types of their fields."""

import pickle
from pathlib import Path

import execnet
import numpy as np
import pytest
from support.each_row import each_row

from pytest_mlpatterns.records.codec import plain
from pytest_mlpatterns.records.latency import LatencySplit, SplitPart
from pytest_mlpatterns.records.telemetry import LayerStats

SPLIT = LatencySplit("rtm", 2.0, 1.0, 7, (SplitPart("hop", "", 2.0, 1.0, 0.5),), {"model": 0.5})


def test_a_record_comes_back_from_another_process() -> None:
    assert LatencySplit.from_json(execnet.loads(execnet.dumps(SPLIT.to_json()))) == SPLIT
    assert pickle.loads(pickle.dumps(SPLIT)) == SPLIT


def test_numbers_of_numpy_and_paths_become_plain() -> None:
    found = plain({"share": np.float64(0.5), "count": np.int64(3), "file": Path("a") / "b.py"})
    assert found == {"share": 0.5, "count": 3, "file": str(Path("a", "b.py"))}
    assert {type(one) for one in found.values()} == {float, int, str}


def test_a_value_without_a_plain_one_is_refused() -> None:
    with pytest.raises(TypeError, match="object has no plain value"):
        plain({"what": object()})


def test_keys_of_a_histogram_are_numbers_again() -> None:
    layer = LayerStats(0, "batched", {"calls": 2}, {"sizes": {4: 2}}, {"depth": ((1, 2),)})
    assert LayerStats.from_json({**layer.to_json(), "histograms": {"sizes": {"4": 2}}}) == layer


@each_row(
    ("changes", "message"),
    ({"requests": 1.5}, r"LatencySplit: Expected `int`, got `float` - at `\$.requests`"),
    ({"parts": [{}]}, r"LatencySplit: .*missing required field `name` - at `\$.parts\[0\]`"),
    ({"metric": "rtt"}, r"LatencySplit: Invalid enum value 'rtt' - at `\$.metric`"),
)
def test_a_member_of_another_type_is_named_with_its_place(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LatencySplit.from_json({**SPLIT.to_json(), **changes})
