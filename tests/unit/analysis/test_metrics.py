"""Metrics over launches: each figure with its interval, what does not apply is None, what does not count is said."""

import copy
import inspect
import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from support.counted import counted_requests
from support.each_row import each_row
from support.streams import stream_launch, streamed
from support.synthetic import (
    LAYERS,
    MS,
    PROPERTY,
    START_NS,
    S,
    capacity,
    even_launch,
    launch,
    noisy_launch,
    samples,
    usage,
)

from pytest_mlpatterns.analysis.health.sustained import why_limited
from pytest_mlpatterns.analysis.metrics.definitions import GROWTHS, METRICS, SCALING_INDICES, metric_named
from pytest_mlpatterns.analysis.metrics.metric import LatencyPercentile
from pytest_mlpatterns.analysis.metrics.metric_makers import percentile_metric
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.analysis.metrics.pattern_metrics import Figure, ScalingIndices
from pytest_mlpatterns.errors import InvalidResultError
from pytest_mlpatterns.judging.perf import Perf
from pytest_mlpatterns.records.count import Count
from pytest_mlpatterns.records.launch import Capacity, Estimate, GeneratorReport, LaunchValue
from pytest_mlpatterns.records.outcomes import Failure, grpc_outcome
from pytest_mlpatterns.records.package_layers import derived_metrics
from pytest_mlpatterns.records.price import Price
from pytest_mlpatterns.records.samples import ResourceTrack
from pytest_mlpatterns.records.telemetry import LayerStats, PatternStats

CONTINUOUS = LayerStats(
    0,
    "continuous",
    {"steps": 300, "chunks": 900, "active_ns": 9 * S, "observed_ns": 3 * S},
    {"size": {2: 100, 3: 100, 4: 100}, "wait_ns": {MS: 40}, "step_ns": {9 * MS: 300}},
)
"""What continuous batching counted in one window."""
DUE = START_NS + np.arange(600) * 5 * MS


def test_launches_are_pooled_by_their_geometric_mean_and_the_median_is_rtm() -> None:
    metrics = Metrics((even_launch(latency_ns=4 * MS), even_launch(latency_ns=9 * MS)))
    found = metrics.rtm_ns
    assert found.value == pytest.approx(6 * MS)
    assert found.low < found.value < found.high
    assert metrics.latency_ns(50) == found
    uneven = Metrics((launch(samples(DUE, np.where(np.arange(600) % 3, MS, 7 * MS))),))
    assert (uneven.rtm_ns.value, uneven.mean_ns.value) == (pytest.approx(MS), pytest.approx(3 * MS)), "arithmetic"


def test_a_percentile_that_does_not_exist_is_refused() -> None:
    for wrong in (0, 100, -5, 0.99):
        with pytest.raises(ValueError, match="at least 1 and less than 100"):
            Metrics((even_launch(),)).latency_ns(wrong)


def test_usage_gives_load_cpu_and_memory() -> None:
    metrics = Metrics((even_launch(used=usage(busy_cores=0.5, rss_bytes=(7 * 2**20,))),))
    asl, cpu, memory = metrics.asl_ratio, metrics.cpu_ns_per_request, metrics.peak_rss_bytes
    assert asl.value == pytest.approx(0.25)
    assert cpu.value == pytest.approx(0.5 * S / 200, rel=0.01)
    assert memory.value == pytest.approx(7 * 2**20)


def test_sizes_and_the_cold_start_are_known() -> None:
    metrics = Metrics((even_launch(),))
    assert metrics.request_bytes.value == 200
    assert metrics.response_bytes.value == 150
    assert metrics.cold_start_ns.value == pytest.approx(900 * MS)


def test_requests_blocks_and_failures_add_up_over_launches() -> None:
    outcome = np.where(np.arange(600) % 100 == 0, 503, 200)
    outcome[1] = -1
    failing = launch(samples(DUE, MS, outcome=outcome))
    metrics = Metrics((failing, failing))
    assert metrics.requests == 1200
    assert metrics.blocks == 24
    assert metrics.failures == {503: 12, -1: 2}
    assert list(metrics.failures) == [503, -1]  # the most frequent first
    assert metrics.error_ratio.value == pytest.approx(14 / 1200)
    assert metrics.error_ratio.low < 14 / 1200 < metrics.error_ratio.high


def test_a_launch_of_few_requests_has_no_more_blocks_than_requests() -> None:
    metrics = Metrics((even_launch(rate_rps=2, latency_ns=400 * MS, seconds=3.0),) * 2)
    assert metrics.blocks == metrics.requests == 12


@pytest.mark.parametrize(("percentile", "needed"), [(99, 459), (95, 90), (90, 44)])
def test_a_percentile_is_told_from_just_enough_samples_on(percentile: float, needed: int) -> None:
    enough = launch(samples(DUE[:needed], MS))
    assert Metrics((enough,)).latency_ns(percentile).value == pytest.approx(MS)
    too_few = Metrics((launch(samples(DUE[: needed - 1], MS)),))
    with pytest.raises(InvalidResultError) as caught:
        too_few.latency_ns(percentile)
    message = str(caught.value)
    assert f"of {needed - 1} samples, expected at least {needed} for 99 % confidence" in message
    assert f"write requests={needed}, or measure longer" in message


def test_a_limit_on_rtm_is_compared_with_the_interval_that_reports_show() -> None:
    metrics = Metrics((noisy_launch(1), noisy_launch(2)))
    assert metrics.interval_of(METRICS["rtm"]) == metrics.rtm_ns
    assert metrics.interval_of(percentile_metric(95), 0.99) == metrics.latency_ns(95, 0.99)
    assert metrics.interval_of(METRICS["throughput"]) == metrics.estimate(METRICS["throughput"])
    assert metrics.interval_of(METRICS["ttft"]) is None


def test_modes_are_those_of_the_times_that_a_metric_ranks() -> None:
    times = np.where(np.arange(600) % 5 < 2, 190 * MS, 375 * MS)
    metrics = Metrics((launch(samples(DUE, times)),))
    modes = metrics.modes_of(METRICS["rtm"])
    assert (modes.low, modes.high, modes.low_share) == pytest.approx((190 * MS, 375 * MS, 0.4))
    assert metrics.modes_of(percentile_metric(99)) == modes
    assert metrics.modes_of(METRICS["ttft"]) is None
    assert metrics.modes_of(METRICS["throughput"]) is None
    assert Metrics((noisy_launch(1),)).modes_of(METRICS["rtm"]) is None


@pytest.mark.parametrize("figure", ["rtm_ns", "throughput_rps", "request_bytes", "response_bytes"])
def test_a_metric_without_success_raises_with_the_reason(figure: str) -> None:
    metrics = Metrics((launch(samples(DUE, MS, outcome=500)),))
    with pytest.raises(InvalidResultError, match="no request succeeded, so there is no "):
        getattr(metrics, figure)
    assert metrics.error_ratio.value == 1.0


def test_launches_without_a_value_leave_the_metric_to_the_others() -> None:
    broken = launch(samples(DUE, MS, outcome=500))
    metrics = Metrics((broken, even_launch(latency_ns=4 * MS)))
    assert len(metrics.launch_values(METRICS["rtm"])) == 1
    assert metrics.rtm_ns.value == pytest.approx(4 * MS)


def test_the_share_of_each_replica_is_its_mean_and_range_over_launches() -> None:
    launches = tuple(
        launch(samples(DUE, MS), stats=PatternStats(replica_requests=counts)) for counts in ((300, 100), (100, 100))
    )
    shares = Metrics(launches).replica_share
    assert [(share.value, share.low, share.high) for share in shares] == [(0.625, 0.5, 0.75), (0.375, 0.25, 0.5)]


@pytest.mark.parametrize("stats", [None, PatternStats(replica_requests=(400,)), PatternStats(replica_requests=(0, 0))])
def test_one_process_an_unknown_one_or_an_idle_pair_has_no_shares(stats: PatternStats | None) -> None:
    assert Metrics((launch(samples(DUE, MS), stats=stats),)).replica_share is None


def test_the_generator_tells_its_own_cost_and_lag() -> None:
    one = launch(samples(DUE, MS, lag_ns=np.arange(600)), cpu_ns=600 * 1000)
    generator = Metrics((one, one)).generator
    assert generator.cpu_ns_per_request == 1000
    assert generator.send_lag_ns(50) == pytest.approx(299.5)
    assert generator.limited is None
    assert Metrics((launch(samples([], []), cpu_ns=5),)).generator.cpu_ns_per_request == 5


@pytest.mark.parametrize(("share", "limited"), [(0.69, False), (0.71, True)])
def test_a_generator_that_is_most_of_a_core_may_be_the_limit(share: float, limited: bool) -> None:
    said = Metrics((launch(samples(DUE, MS), cpu_ns=int(share * 3 * S)),)).generator.limited
    assert (said is not None) is limited
    assert not limited or "71.0 % of a core" in str(said)


@each_row(
    ("latency_ns", "lag_ns", "open_loop", "limited"),
    (5 * MS, 990_000, True, False),  # a millisecond is always allowed
    (5 * MS, 1_010_000, True, True),
    (50 * MS, 4_900_000, True, False),  # a tenth of RTM too
    (50 * MS, 5_100_000, True, True),
    (5 * MS, 1_010_000, False, False),  # in a closed loop nothing is due by the clock
)
def test_a_generator_behind_its_schedule_says_so(latency_ns: int, lag_ns: int, open_loop: bool, limited: bool) -> None:
    late = launch(samples(DUE, latency_ns, lag_ns=lag_ns), open_loop=open_loop)
    said = Metrics((even_launch(), late)).generator.limited
    assert (said is not None) is limited
    assert not limited or "behind its schedule" in str(said)


def test_a_late_generator_of_only_failed_requests_says_so_too() -> None:
    late = launch(samples(DUE, 50 * MS, lag_ns=2 * MS, outcome=500), open_loop=True)
    said = Metrics((late,)).generator.limited
    assert "2.00 ms late, allowed are 1.00 ms" in said


def test_the_course_of_the_load_is_that_of_the_last_launch() -> None:
    first, last = even_launch(used=usage(busy_cores=0.2)), even_launch(used=usage(busy_cores=1.0))
    assert Metrics((first, last)).load_over_time()[0] == pytest.approx((0.25, 0.5, 0.5))


def test_every_metric_is_known_by_its_name_and_measures_a_lively_launch() -> None:
    indices = ScalingIndices(dict.fromkeys(SCALING_INDICES, (LaunchValue(0.9, 0.01),) * 2), {})
    counts = (Count((4e6, 4.1e6), low=4e6, high=4.1e6, requests=8, seconds=9.0),)
    price = Price(0.04, 0.005, "USD")
    metrics = Metrics((noisy_launch(1), noisy_launch(2)), (capacity(),), price, indices, counts=counts)
    streams = Metrics((stream_launch(jitter=0.1), stream_launch(jitter=0.1, seed=1)))
    held = np.arange(0, 1000, 10)
    grows = Metrics((replace(noisy_launch(1), track=ResourceTrack(held, held, held, held)),))
    shed = LayerStats(0, "limited", {"admitted": 9, "rejected": 1}, {"wait_ns": {MS: 9}})
    kept = LayerStats(1, "cascade", {"kept": 3, "escalated": 1}, {"first_ns": {MS: 4}, "second_ns": {9 * MS: 1}})
    asked = {"prefix_hits": 9, "prefix_misses": 1}
    spread = LayerStats(4, "replicated", asked, {"ahead": {0: 5, 1: 5}, "replica_ns": {MS: 10}})
    rarer = Metrics((replace(noisy_launch(1), stats=PatternStats(layers=(shed, kept, spread))),))
    of = dict.fromkeys(GROWTHS, grows)
    of["total_time"] = Metrics((replace(noisy_launch(1), requests=5),))
    of |= dict.fromkeys(derived_metrics(rarer.launches[0].stats), rarer)
    for name, metric in METRICS.items():
        assert metric.name == name
        found = (streams if metric.of_streams else of.get(name, metrics)).estimate(metric)
        assert found.low <= found.value <= found.high
        assert metric.show(found.value)


@each_row(
    ("percentile", "name", "label"),
    (50, "rtm", "median latency"),
    (50.0, "rtm", "median latency"),
    (99, "p99", "p99 latency"),
    (99.9, "p99.9", "p99.9 latency"),
    (99.99999, "p99.99999", "p99.99999 latency"),  # not named after the maximum
)
def test_a_percentile_is_named_as_people_write_it(percentile: float, name: str, label: str) -> None:
    metric = percentile_metric(percentile)
    assert (metric.name, metric.label, metric.kind) == (name, label, LatencyPercentile(percentile))


def test_rates_hits_and_batches_are_better_when_higher() -> None:
    assert " ".join(name for name, metric in METRICS.items() if metric.better == "higher") == (
        "throughput output_tokens output_tokens_per_user nmrt pc sc hsx hsxt hsxe hsxc cache_hit_ratio batch_size "
        "admitted_share prefix_hits"
    )


@each_row(
    ("figure", "value"),
    ("cache_hit_ratio", 0.75),
    ("cache_hit_ns", 20_000),
    ("cache_miss_ns", 4 * MS),
    ("batch_size", 4),
    ("batch_wait_ns", 2 * MS),
    ("queue_depth", 2),
    ("queue_wait_ns", MS),
    ("hop_ns", 200_000),
)
def test_telemetry_of_a_pattern_gives_a_metric_and_none_without_it(figure: str, value: float) -> None:
    knowing = launch(samples(DUE, MS), stats=PatternStats(layers=LAYERS))
    found = getattr(Metrics((knowing, knowing)), figure)
    assert found.value == pytest.approx(value)
    assert found.low <= found.value <= found.high
    for stats in (None, PatternStats(replica_requests=(5,)), PatternStats(layers=(LayerStats(0, "pipeline"),))):
        assert getattr(Metrics((launch(samples(DUE, MS), stats=stats),)), figure) is None


def test_continuous_batching_has_the_metrics_of_batches() -> None:
    metrics = Metrics((launch(samples(DUE, MS), stats=PatternStats(layers=(CONTINUOUS,))),))
    found = (metrics.batch_size, metrics.batch_wait_ns)
    assert [one.value for one in found if one is not None] == pytest.approx([3, MS])


def test_a_queue_that_was_always_empty_has_a_depth_of_nothing() -> None:
    empty = LayerStats(0, "queued", {"depth_ns": 0, "observed_ns": 3 * S})
    depth = Metrics((launch(samples(DUE, MS), stats=PatternStats(layers=(empty,))),)).queue_depth
    assert (depth.value, depth.low, depth.high) == (0, 0, 0)


def test_the_layers_are_those_of_the_last_launch() -> None:
    first, last = (launch(samples(DUE, MS), stats=PatternStats(layers=(layer,))) for layer in LAYERS[:2])
    assert Metrics((first, last)).layers == LAYERS[1:2]
    assert Metrics((last, even_launch())).layers == ()


@pytest.mark.parametrize(("layer", "spread"), [("pipeline", "stage"), ("ensemble", "model")])
def test_stages_and_models_tell_their_mean_time_and_the_slowest_is_the_bottleneck(layer: str, spread: str) -> None:
    histograms = {f"{spread}:shift": {MS: 3, 5 * MS: 1}, f"{spread}:sum": {3 * MS: 2}, f"{spread}:idle": {}}
    knowing = launch(samples(DUE, MS), stats=PatternStats(layers=(*LAYERS, LayerStats(3, layer, {}, histograms))))
    metrics = Metrics((knowing,))
    assert metrics.stage_ns == {"shift": 2 * MS, "sum": 3 * MS}
    assert metrics.bottleneck == "sum"
    without = Metrics((noisy_launch(1),))
    assert (without.stage_ns, without.bottleneck, without.straggler_share, without.replica_ns) == ({}, None, {}, {})


def test_an_ensemble_tells_how_often_each_model_was_the_last() -> None:
    histograms = {f"model:{name}": {MS: 4} for name in ("quick", "slow", "never")}
    layer = LayerStats(3, "ensemble", {"last:slow": 3, "last:quick": 1}, histograms)
    pipeline = LayerStats(4, "pipeline", {}, {"stage:shift": {MS: 4}})
    knowing = launch(samples(DUE, MS), stats=PatternStats(layers=(*LAYERS, layer, pipeline)))
    assert Metrics((knowing,)).straggler_share == {"quick": 0.25, "slow": 0.75, "never": 0.0}


def test_replicas_behind_a_gateway_have_their_own_times() -> None:
    layer = LayerStats(0, "replicated", {}, {"replica:2": {3 * MS: 2}, "replica:1": {MS: 1}, "replica:3": {}})
    knowing = launch(samples(DUE, MS), stats=PatternStats(layers=(layer,)))
    assert Metrics((knowing,)).replica_ns == {"1": MS, "2": 3 * MS}


def test_nmrt_is_pooled_over_the_searches_without_an_objective_and_that_under_one_is_a_metric_of_its_own() -> None:
    searches = (capacity(400), capacity(900), capacity(50, objective="p95<50.0ms"))
    metrics = Metrics((even_launch(),), searches)
    nmrt, concurrency = metrics.nmrt_rps, metrics.nmrt_concurrency
    assert nmrt.value == pytest.approx(600)
    assert (concurrency.value, concurrency.low, concurrency.high) == (4, 4, 4)
    metric = metric_named("nmrt(p95<50.0ms)")
    assert (metric.name, metric.label) == ("nmrt(p95<50.0ms)", "capacity (NMRT) with p95<50.0ms")
    assert metrics.estimate(metric).value == pytest.approx(50)
    assert Metrics((even_launch(),), (capacity(0.0),)).nmrt_rps is None


def test_a_search_that_went_to_its_end_counts_more_than_those_that_did_not() -> None:
    early, whole = capacity(900, at_least=True), capacity(400)
    for searches, rps, at_least in (((early,), 900, True), ((early, whole), 400, False), ((early, early), 900, True)):
        metrics = Metrics((even_launch(),), searches)
        assert metrics.nmrt_rps.value == pytest.approx(rps)
        assert metrics.only_at_least(METRICS["nmrt"]) is at_least
    assert Metrics((even_launch(),), (early,)).only_at_least(METRICS["rtm"]) is False


@pytest.mark.parametrize(("completed", "limited"), [(2090, False), (2110, True)])
def test_a_generator_close_to_its_ceiling_may_be_the_limit(completed: int, limited: bool) -> None:
    report = GeneratorReport(cpu_ns=0, wall_ns=3 * S, completed=completed, connections=8, ceiling_rps=1000.0)
    said = why_limited(report)
    assert (said is not None) is limited
    assert not limited or "703 req/s, over 70.0 % of the 1,000 req/s" in str(said)
    assert why_limited(replace(report, ceiling_rps=None)) is None


def test_launches_without_any_request_have_no_figure_but_a_reason() -> None:
    empty = Metrics((launch(samples([], [])),))
    for figure in ("rtm_ns", "throughput_rps", "error_ratio", "request_bytes"):
        with pytest.raises(InvalidResultError):
            getattr(empty, figure)


class TestLoadAtNmrt:
    def test_the_load_is_that_of_the_knees_of_the_searches(self) -> None:
        searches = (replace(capacity(), asl=LaunchValue(0.4, 0.01)), replace(capacity(), asl=LaunchValue(0.5, 0.01)))
        found = Metrics((noisy_launch(1),), searches).asl_at_nmrt_ratio
        assert found.value == pytest.approx(math.sqrt(0.4 * 0.5))
        assert found.low < 0.4
        assert found.high > 0.5

    @pytest.mark.parametrize(
        "searches",
        [(), (capacity(at_least=True),), (replace(capacity(), asl=None),), (capacity(objective="p95<50ms"),)],
        ids=["no search", "only a lower bound", "unknown processes", "under an objective"],
    )
    def test_the_load_is_not_known_without_a_search_that_found_the_knee(self, searches: tuple[Capacity, ...]) -> None:
        assert Metrics((noisy_launch(1),), searches).asl_at_nmrt_ratio is None


def test_each_figure_says_what_it_is() -> None:
    figures = [one for _, one in inspect.getmembers(Metrics, lambda one: isinstance(one, Figure))]
    words = {inspect.getdoc(one) for one in figures}
    assert len(words) == len(figures) > 20
    assert "CPU time of the deployment's process tree per successful answer." in words


def blank(kind: type) -> Any:
    return object.__new__(kind)


@each_row(
    ("kind", "name", "advice"),
    (Metrics, "p95", "use metrics.latency_ns(95)"),
    (Metrics, "p99_ns", "use metrics.latency_ns(99)"),
    (Metrics, "latency_p90", "use metrics.latency_ns(90)"),
    (Metrics, "throughput", "did you mean throughput_rps?"),
    (Perf, "assert_p95_below", "use assert_latency_below(..., percentile=95)"),
    (Perf, "p95", "use perf.metrics.latency_ns(95)"),
    (Perf, "assert_rtm_bellow", "did you mean assert_rtm_below?"),
    (Perf, "xyzzy", ""),  # the message of Python
)
def test_missing_name_says_what_to_write(kind: type, name: str, advice: str) -> None:
    with pytest.raises(AttributeError) as caught:
        getattr(blank(kind), name)
    assert str(caught.value) == f"{kind.__name__!r} object has no attribute {name!r}{advice and '; '}{advice}"
    assert not hasattr(blank(Metrics), "__array__")


def test_metrics_are_copied_and_pickled_as_before() -> None:
    metrics = Metrics((even_launch(),))
    assert copy.copy(metrics).requests == metrics.requests
    assert pickle.loads(pickle.dumps(metrics)).requests == metrics.requests


def test_estimate_is_not_compared_with_a_number() -> None:
    found: Any = Estimate(4.0, 3.0, 5.0)
    for compare in (lambda: found < 3, lambda: found <= 3, lambda: found > 3, lambda: found >= 3):
        with pytest.raises(
            TypeError, match=r"an Estimate is an interval and cannot be compared with 3; compare its \.v"
        ):
            compare()
    assert found == Estimate(4.0, 3.0, 5.0)


OUTCOMES = (200, 204, 299, 302, 404, 500, 503, grpc_outcome(14), *(failure.value for failure in Failure))
ANSWER = st.tuples(st.sampled_from(OUTCOMES), st.integers(0, 4), st.sampled_from([-1, 0, 1, 3, 2**31 - 1]))
"""Outcome, chunks and usage of an answer."""


def metrics_of(*launches: list[tuple[int, int, int]], received_bytes: int = 500) -> Metrics:
    """Launches of these answers, each due 10 ms after the one before."""
    made = []
    for answers in launches:
        due = [START_NS + 10 * MS * number for number in range(len(answers))]
        after = [[MS * (place + 1) for place in range(chunks)] for _, chunks, _ in answers]
        found = streamed(due, after, outcome=[one[0] for one in answers], output_tokens=[one[2] for one in answers])
        size = np.full(found.received_bytes.size, received_bytes, np.uint32)
        made.append(launch(replace(found, received_bytes=size), seconds=2))
    return Metrics(tuple(made))


@given(st.lists(st.lists(ANSWER, max_size=40), min_size=1, max_size=2))
@PROPERTY
def test_every_request_due_is_judged_failed_or_named(launches: list[list[tuple[int, int, int]]]) -> None:
    found = metrics_of(*([(200, 4, 3), *answers] for answers in launches))
    for metric, parts in counted_requests(found).items():
        assert sum(parts) == found.requests, f"{metric}: {parts} of {found.requests}"


@each_row("outcome", OUTCOMES)
def test_each_kind_of_outcome_counts_once(outcome: int) -> None:
    found = metrics_of([(200, 4, 3)] * 3 + [(outcome, chunks, usage) for chunks in (0, 1, 4) for usage in (-1, 0, 3)])
    assert found.requests == 12
    for metric, parts in counted_requests(found).items():
        assert sum(parts) == found.requests, metric
        assert parts.failed == (0 if 200 <= outcome < 300 else 9), metric


@each_row("failure", [failure for failure in Failure if failure.is_answer])
def test_an_answer_that_does_not_count_is_infinitely_late_and_brings_no_token(failure: Failure) -> None:
    good = [(200, 4, -1)] * 60
    found, whole = metrics_of(good + [(failure, 4, -1)] * 60), metrics_of(good)
    assert found.error_ratio.value == pytest.approx(0.5)
    for estimate in (found.latency_ns(90), found.ttft_ns(90), found.tpot_ns(90)):
        assert estimate.high == np.inf
    assert found.output_tokens_rps.value <= whole.output_tokens_rps.value
    assert found.goodput_rps("latency<1s").value == pytest.approx(whole.goodput_rps("latency<1s").value)


def test_a_launch_without_a_stream_is_counted_beside_one_with_streams() -> None:
    found = metrics_of([(200, 4, -1)] * 60, [(Failure.NO_STREAM, 0, -1)] * 60)
    ttft = found.ttft_ns(50)
    assert ttft.high == np.inf


@each_row(
    ("usage", "received_bytes", "tokens", "is_named"),
    (9, 500, 9, False),
    (500, 500, 500, False),
    (501, 500, 4, True),
    (2_000_000_000, 500, 4, True),
    (0, 500, 4, True),
    (2_000_000_000, 0, 2_000_000_000, False),
    (-1, 500, 4, False),
)
def test_an_impossible_usage_is_not_believed(usage: int, received_bytes: int, tokens: int, is_named: bool) -> None:
    found = metrics_of([(200, 4, usage)] * 20, received_bytes=received_bytes)
    assert found.output_tokens.value == tokens
    notes = [note for note in found.stream_notes() if "usage that cannot be" in note]
    assert bool(notes) == is_named
    assert not notes or notes[0].startswith("20 answers with a usage that cannot be")


def test_notes_name_what_some_answers_have_not() -> None:
    found = metrics_of([(200, 4, -1)] * 20 + [(200, 1, -1)] * 5 + [(200, 0, -1)] * 2)
    assert found.stream_notes() == [
        "answers of too few tokens are left out: of 27 answers 2 out of TTFT, 7 out of ITL and 7 out of TPOT"
    ]
    assert metrics_of([(200, 4, -1)] * 20).stream_notes() == []
    assert metrics_of([(200, 1, -1)] * 20).stream_notes() == []  # then there is no TPOT, which a report shows
