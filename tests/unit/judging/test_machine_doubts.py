"""What the machine explains of launches that are slower than an entry: by what it did in these minutes, and no more."""

import dataclasses
from functools import partial
from typing import Any

from msgspec.structs import replace
from support.each_row import each_row
from support.synthetic import MS, SETUP, S
from test_baseline_comparison import BEFORE, make_launch

from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.analysis.statistics.alpha_spending import SequentialPlan
from pytest_mlpatterns.analysis.verdicts.verdicts import judge_limit
from pytest_mlpatterns.config.assertions import Limit
from pytest_mlpatterns.config.settings import NoisePolicy, read_settings
from pytest_mlpatterns.judging.compared_metrics import ComparedMetric, compared_metrics
from pytest_mlpatterns.judging.look import Look
from pytest_mlpatterns.judging.machine_doubts import (
    change_in,
    doubt_of,
    excuses,
    explains,
    is_within,
    left_open,
    unless_explained,
)
from pytest_mlpatterns.records.launch import Estimate, Launch, Taken
from pytest_mlpatterns.records.verdict import Outcome, Verdict


def launched(launches: list[Launch], beside: list[Launch] | None = None, *, taken: Taken | None = None) -> Look:
    entry = replace(BEFORE, taken=taken or Taken())
    looks = SequentialPlan(first=1, last=8)
    return Look(Metrics(tuple(launches)), entry, looks, SETUP.load.in_flight, beside=beside or ())


def compared(name: str) -> ComparedMetric:
    (found,) = compared_metrics([METRICS[name]], read_settings({}, {}, {}).tolerance, 0.01, requested=False)
    return replace(found, tolerance=found.stored_tolerance)


def made(count: int = 3, **change: Any) -> list[Launch]:
    return [make_launch(seed, **change) for seed in range(count)]


def of_many_cores(launch: Launch) -> Launch:
    assert launch.usage is not None
    return replace(launch, usage=dataclasses.replace(launch.usage, machine_cores=64))


@each_row(
    ("name", "launches", "taken", "why"),
    [
        ("rtm", made(rtm_ns=4 * MS), Taken(), ""),
        ("rtm", made(machine=1.5), Taken(), "a fixed workload takes 1."),
        ("cpu_per_request", made(machine=1.5), Taken(), "a fixed workload takes 1."),
        ("throughput", made(machine=1.5), Taken(), "a fixed workload takes 1."),
        ("rtm", made(machine=1.5, rtm_ns=6 * MS), Taken(), ""),  # three times as long
        ("rtm", made(rtm_ns=6 * MS, others_cores=1.2), Taken(), "other processes used 1.2 of the 2 cores"),
        ("rtm", made(rtm_ns=60 * MS, others_cores=1.2), Taken(), ""),
        ("rtm", made(rtm_ns=4.5 * MS, throttled=0.3), Taken(), "a CPU limit of the container stopped it for 30"),
        ("rtm", made(rtm_ns=6 * MS, throttled=0.3), Taken(), ""),
        # what was there at the recording explains nothing
        ("rtm", made(rtm_ns=6 * MS, others_cores=1.2), Taken(others_cores=1.2), ""),
        ("rtm", made(rtm_ns=6 * MS, others_cores=1.85), Taken(others_cores=1.75), ""),  # 2/0.15 over 2/0.25
        ("rtm", made(rtm_ns=4.5 * MS, steal_cores=0.042), Taken(steal_ratio=0.021), ""),
        # but CPU time beside neighbours differs from minute to minute
        ("cpu_per_request", made(cpu_cores=1.1, others_cores=0.85), Taken(others_cores=0.85), "other processes used"),
        ("cpu_per_request", made(cpu_cores=1.4, others_cores=0.55), Taken(others_cores=0.55), ""),
        # 2 % of steal explain 2 %, once 1.5 times and 8 ms (s01, s17)
        ("rtm", made(rtm_ns=12 * MS, steal_cores=0.042), Taken(), ""),
        ("rtm", made(rtm_ns=4.5 * MS, steal_cores=0.042), Taken(), ""),
        ("cpu_per_request", made(cpu_cores=1.3, steal_cores=0.042), Taken(), ""),
        # nor do neighbours on a machine with idle cores explain more beside it
        ("rtm", [of_many_cores(one) for one in made(rtm_ns=9 * MS, others_cores=1.0, steal_cores=1.3)], Taken(), ""),
        # a process that a CPU limit stops uses no CPU time meanwhile
        ("cpu_per_request", made(cpu_cores=1.3, throttled=0.3), Taken(), ""),
        ("cpu_per_request", made(cpu_cores=0.95, throttled=0.3), Taken(), "a CPU limit of the container stopped it"),
        # a tail needs a sign of its size (s07)
        ("p95", made(12, slow=0.2, machine=1.07), Taken(), ""),
        ("p95", made(12, machine=1.6), Taken(), "a fixed workload takes 1."),
        # a process that a CPU limit stops waits for the next period of 100 ms
        ("p95", made(12, slow=0.2, throttled=0.3), Taken(), "a CPU limit of the container stopped it for 30"),
        ("p95", made(12, slow=0.2, throttled=0.3), Taken(throttled_ratio=0.3), ""),
    ],
)
def test_a_sign_of_the_machine_explains_at_most_what_it_can_do(
    name: str, launches: list[Launch], taken: Taken, why: str
) -> None:
    found = explains(launched(launches, taken=taken), compared(name))
    assert found.startswith(why)
    assert bool(found) is bool(why)


def test_a_sign_counts_in_the_minutes_that_it_explains() -> None:
    slow, busy = made(rtm_ns=6 * MS), made(rtm_ns=6 * MS, others_cores=1.2)
    assert explains(launched(slow, busy), compared("rtm"))
    assert not explains(launched(busy, slow), compared("rtm"))


def test_a_sign_that_explains_less_than_one_side_may_explain_another() -> None:
    busy = launched(made(rtm_ns=60 * MS, others_cores=1.2))
    assert not explains(busy, compared("rtm"), Metrics(tuple(made(rtm_ns=60 * MS))))
    assert explains(busy, compared("rtm"), Metrics(tuple(made(rtm_ns=6 * MS))))


def test_a_failure_is_doubted_where_the_machine_may_be_as_much_slower() -> None:
    # moments of which one half takes 1.8 times as long: the mean of few has an error
    changing = [*made(4, rtm_ns=4.7 * MS), *made(4, rtm_ns=4.7 * MS, machine=1.8)]
    for launches, doubted in ((changing, True), (made(8, rtm_ns=4.7 * MS), False), (made(8, rtm_ns=12 * MS), False)):
        look, metric = launched(launches), compared("rtm")
        failed = Verdict("rtm", "baseline", Outcome.FAIL, "slower", Estimate(0.5, 0.4, 0.6), 0.1, 3 * MS, 4.7 * MS)
        assert ("takes up to" in doubt_of(failed, look, metric)) is doubted
        assert doubt_of(replace(failed, outcome=Outcome.PASS), look, metric) == ""


def test_a_sign_on_one_launch_of_many_is_none() -> None:
    one_of_twelve = [*made(11, rtm_ns=4.5 * MS), *made(1, rtm_ns=4.5 * MS, others_cores=1.2)]
    assert not excuses(launched(one_of_twelve), METRICS["rtm"])
    assert excuses(launched(made(others_cores=1.2)), METRICS["rtm"])


def test_what_is_not_known_of_the_launches_is_not_within_the_tolerance() -> None:
    few = launched(made(1))
    assert change_in(few, compared("p99")) is None
    assert not is_within(None)
    assert is_within(change_in(few, compared("rtm")))


@each_row(
    ("doubted", "stands", "quiet", "is_open"),
    [
        (True, [], [], True),
        (False, [], [], False),
        (True, ["rtm"], [], False),
        (True, [], made(2, rtm_ns=6 * MS), False),  # two launches on a quiet machine show it too
        (True, [], made(1, rtm_ns=6 * MS), True),
        (True, [], made(2), True),
    ],
)
def test_a_failure_that_the_machine_explains_is_open_unless_quiet_launches_fail_too(
    doubted: bool, stands: list[str], quiet: list[Launch], is_open: bool
) -> None:
    busy = launched(made(rtm_ns=6 * MS, others_cores=1.2))
    (excuse,) = excuses(busy, METRICS["rtm"])
    failed = Verdict("rtm", "baseline", Outcome.FAIL, "slower")
    look = replace(busy, stands=frozenset(stands))
    (found,) = left_open(look, [failed], [compared("rtm")], excuse=excuse if doubted else None, quiet=quiet)
    assert found.outcome is (Outcome.INCONCLUSIVE if is_open else Outcome.FAIL)
    assert found.by_machine is is_open


@each_row(
    ("name", "limit", "launches", "why"),
    [
        ("rtm", 2 * MS, made(), ""),
        ("rtm", 2 * MS, made(others_cores=1.2), "other processes used 1.2 of the 2 cores"),
        ("rtm", 0.0, made(others_cores=1.2), "other processes used 1.2 of the 2 cores"),
        ("rtm", 2 * MS, made(rtm_ns=60 * MS, others_cores=1.2), ""),
        ("rtm", 4 * MS, made(others_cores=1.2), "kept"),
        ("p95", 2 * MS, made(12, rtm_ns=20 * MS, throttled=0.3), "a CPU limit of the container stopped it for 30"),
        # a limit of which the service uses most is reached by itself
        ("p95", 2 * MS, made(12, rtm_ns=20 * MS, throttled=0.3, cpu_cores=1.4), ""),
        ("rtm", 2 * MS, made(throttled=0.5, cpu_cores=1.4), ""),
        ("rtm", 2 * MS, made(throttled=0.5), "a CPU limit of the container stopped it for 50"),
        # neighbours stretch no time in which it waits, or in which another process works for it
        ("rtm", 20 * MS, made(rtm_ns=60 * MS, cpu_cores=0.02, others_cores=1.7), ""),
        ("rtm", 40 * MS, made(rtm_ns=90 * MS, cpu_cores=0.1, others_cores=1.2), ""),
        ("throughput", 30.0, made(rtm_ns=90 * MS, cpu_cores=0.1, others_cores=1.2), ""),
        ("cold_start", 0.4 * S, made(rtm_ns=90 * MS, cpu_cores=0.1, others_cores=1.2), "other processes used 1.2 of"),
        # nor do they on a machine of many cores, where its host takes some time
        ("rtm", 2 * MS, [of_many_cores(one) for one in made(others_cores=1.0, steal_cores=1.3)], ""),
        ("throughput", 1e3, made(others_cores=1.2), "other processes used 1.2 of the 2 cores"),
        ("throughput", 1e6, made(rtm_ns=60 * MS, others_cores=1.2), ""),
        ("cpu_per_request", 1.6 * MS, made(cpu_cores=0.7, others_cores=1.2), "other processes used 1.2 of the 2 cores"),
        ("cpu_per_request", 0.6 * MS, made(cpu_cores=0.7, others_cores=1.2), ""),
        ("peak_memory", 1.0, made(others_cores=1.2), ""),
    ],
)
def test_a_limit_is_missed_only_beyond_what_others_took(
    name: str, limit: float, launches: list[Launch], why: str
) -> None:
    metrics, asked = Metrics(tuple(launches)), Limit(METRICS[name], limit)
    measured = metrics.interval_of(asked.metric)
    assert measured is not None
    judge = partial(judge_limit, asked.metric, measured)
    found = unless_explained(metrics, asked, judge, noise=NoisePolicy.DOUBT)
    trusted = unless_explained(metrics, asked, judge, noise=NoisePolicy.TRUST)
    if why == "kept":
        assert (found.outcome, trusted.outcome) == (Outcome.PASS, Outcome.PASS)
        return
    assert found.outcome is (Outcome.INCONCLUSIVE if why else Outcome.FAIL)
    assert f"but {why}" in found.reason if why else found.by_machine is False
    assert trusted.outcome is Outcome.FAIL


@each_row(("limit_s", "is_open"), [(1.0, True), (0.05, False)])
def test_others_stretch_the_total_time_as_they_stretch_each_request(limit_s: float, is_open: bool) -> None:
    launches = [replace(one, requests=100) for one in made(rtm_ns=14 * MS, others_cores=1.2)]
    metrics, asked = Metrics(tuple(launches)), Limit(METRICS["total_time"], limit_s * S)
    measured = Estimate(1.4 * S, 1.3 * S, 1.5 * S)
    found = unless_explained(metrics, asked, partial(judge_limit, asked.metric, measured), noise=NoisePolicy.DOUBT)
    assert found.by_machine is is_open
