"""Records: values that travel keep what they carry, and say what differs."""

import pickle
from pathlib import Path

import execnet
import numpy as np
import pytest
from msgspec.structs import replace
from support.each_row import each_row
from support.synthetic import ENVIRONMENT, SETUP, make_setup

from pytest_mlpatterns.records.codec import plain
from pytest_mlpatterns.records.latency import LatencySplit, SplitPart
from pytest_mlpatterns.records.launch import GeneratorReport, Step
from pytest_mlpatterns.records.outcomes import Failure
from pytest_mlpatterns.records.samples import Samples, Window
from pytest_mlpatterns.records.setup import Environment, SystemDescription
from pytest_mlpatterns.records.telemetry import LayerStats


def test_records_are_frozen() -> None:
    with pytest.raises(AttributeError, match="immutable"):
        SETUP.pattern = "single"  # type: ignore[misc]


def test_every_failure_has_a_name_of_its_own_and_is_no_status() -> None:
    assert len({one.label for one in Failure}) == len(Failure)
    assert max(Failure) < 0


def test_a_set_up_names_every_difference_in_the_order_of_its_fields() -> None:
    other = make_setup("single", "closed(16)", "grpc", "sha256:0")
    names = ("pattern", "load", "wire", "payload")
    assert SETUP.differences(other) == tuple(f"{one}: {getattr(other, one)} → {getattr(SETUP, one)}" for one in names)


@each_row(
    ("before", "after", "differences"),
    (("cached", ""), ("cached(env={A:1})", "A=1"), ("env: none → A=1",)),
    (("single(env={A:1})", "A=1"), ("single(env={A:'2\\x7d',B:3})", "A=2}, B=3"), ("env: A=1 → A=2}, B=3",)),
    (
        ("cached(ttl=1s,env={A:1})|batched", "cached: A=1"),
        ("cached(ttl=1s)|batched(env={A:1})", "batched: A=1"),
        ("env: cached: A=1 → batched: A=1",),
    ),
    (
        ("cached(ttl=1s,env={A:1})", "A=1"),
        ("cached(ttl=2s)", ""),
        ("pattern: cached(ttl=1s,env={A:1}) → cached(ttl=2s)", "env: A=1 → none"),
    ),
)
def test_other_variables_are_named_once(
    before: tuple[str, str], after: tuple[str, str], differences: tuple[str, ...]
) -> None:
    then, now = (replace(SETUP, pattern=SystemDescription(text), env=env) for text, env in (before, after))
    assert now.differences(then) == differences


def test_a_machine_is_identified_by_what_stays_the_same() -> None:
    assert ENVIRONMENT.machine == "Test Processor 3000, 2 cores, x86_64, Python 3.11"
    newer = replace(ENVIRONMENT, versions={"numpy": "3.0.0"})
    assert newer.machine == ENVIRONMENT.machine
    assert Environment("Other", 2, "x86_64", "3.11").machine != ENVIRONMENT.machine


@pytest.mark.parametrize(("rates", "rate"), [((100.0, 400.0, 110.0), 110.0), ((100.0, 120.0), 110.0), ((), 0.0)])
def test_a_step_of_a_capacity_search_is_worth_the_median_of_its_windows(rates: tuple[float, ...], rate: float) -> None:
    assert Step(4, rates, 10.0, 0.0, None).rate_rps == rate


def test_samples_know_latency_lag_and_the_successes_of_a_window() -> None:
    samples = Samples(
        due_ns=np.array([0, 100, 200, 300]),
        sent_ns=np.array([0, 110, 200, 305]),
        done_ns=np.array([50, 160, 290, 400]),
        outcome=np.array([200, 200, 503, 204], dtype=np.int16),
        request=np.zeros(4, dtype=np.uint32),
        target=np.zeros(4, dtype=np.uint8),
        received_bytes=np.zeros(4, dtype=np.uint32),
    )
    assert samples.latency_ns.tolist() == [50, 60, 90, 100]
    assert samples.send_lag_ns.tolist() == [0, 10, 0, 5]
    assert samples.successes_in(Window(100, 301)).tolist() == [False, True, False, True]


def test_a_generator_report_gives_rate_and_core_share_of_one_process() -> None:
    report = GeneratorReport(cpu_ns=1_000_000_000, wall_ns=1_000_000_000, completed=5_000, connections=4, processes=2)
    assert (report.core_ns, report.rate_rps, report.core_share) == (2_000_000_000, 2_500, 0.5)
    assert GeneratorReport(cpu_ns=0, wall_ns=0, completed=0, connections=0).rate_rps == 0


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
