"""What is compared where answers stream: TTFT, TPOT and tokens per second, with a baseline and with a revision."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from support.declared_run import DeclaredRun
from support.each_row import each_row
from support.experiments import beside_the_file, declared_experiment, entry_of
from support.streams import stream_launch, streamed
from support.synthetic import MS, START_NS, S, launch, samples, usage

from pytest_mlpatterns.analysis.changes.series import USUAL_SCATTER
from pytest_mlpatterns.analysis.metrics.definitions import METRICS, metric_named, with_role
from pytest_mlpatterns.analysis.metrics.metric import Role
from pytest_mlpatterns.analysis.statistics.alpha_spending import BASELINE_ALPHA
from pytest_mlpatterns.analysis.statistics.log_ratio import LogRatio, PairedLaunch, VariantFigures
from pytest_mlpatterns.analysis.verdicts.tolerances import Tolerances
from pytest_mlpatterns.config.settings import read_settings
from pytest_mlpatterns.judging.basis import Basis
from pytest_mlpatterns.judging.budget import Budget, Spending
from pytest_mlpatterns.judging.compared_metrics import Chosen, ComparedMetric, compared_by_default, compared_metrics
from pytest_mlpatterns.judging.revision_comparison import judge_no_slower
from pytest_mlpatterns.judging.sequential import SequentialMeasurement
from pytest_mlpatterns.measurement.paired_blocks import block_ratios, stream_figures
from pytest_mlpatterns.records.baseline_entry import Entry
from pytest_mlpatterns.records.launch import Launch
from pytest_mlpatterns.records.samples import Window
from pytest_mlpatterns.records.verdict import LeftOut, Outcome, Verdict


def names(*, streams: bool, **marker: object) -> list[str]:
    return [metric.name for metric in compared_by_default(read_settings(marker, {}, {}), streams=streams)]


def test_streams_are_compared_by_their_tokens_in_place_of_whole_answers() -> None:
    whole, stream = names(streams=False), names(streams=True)
    assert whole[:2] == ["rtm", "throughput"]
    assert stream[:3] == ["ttft", "tpot", "output_tokens"]
    assert stream[3:] == [*whole[2:4], "ttft:p95", "tpot:p95", *whole[4:]]


def test_an_open_loop_sets_the_rate_of_its_tokens() -> None:
    assert "output_tokens" not in names(streams=True, rate_rps=5)
    assert names(streams=True, compare=("itl:p99", "rtm")) == ["itl:p99", "rtm"]


def launches(count: int, **changes: Any) -> list[Launch]:
    return [stream_launch(jitter=0.03, rate_rps=40, seed=seed, **changes) for seed in range(count)]


def entry(**changes: Any) -> Entry:
    return entry_of([stream_launch(jitter=0.03, rate_rps=40, seed=100 + seed, **changes) for seed in range(6)])


def judged(given: Iterable[Launch], before: Entry | None = None, **marker: object) -> tuple[dict[str, Verdict], Basis]:
    """A comparison in the default metrics, or in those of the marker."""
    experiment, given = declared_experiment(before or entry(), **{"launches": 8, **marker}), iter(given)
    runner: Any = SimpleNamespace(measure=lambda: next(given), want_requests=lambda _enough, **_how: None)
    measurement = SequentialMeasurement(runner, Spending(Budget(60 * S)), 8)

    def choice(streams: bool) -> Sequence[ComparedMetric]:
        metrics = compared_by_default(experiment.settings, streams=streams)
        return compared_metrics(metrics, experiment.settings.tolerance, BASELINE_ALPHA, requested=False)

    return beside_the_file(experiment, measurement, choice)


def failing(verdicts: dict[str, Verdict]) -> set[str]:
    return {name for name, verdict in verdicts.items() if verdict.outcome is Outcome.FAIL}


def test_unchanged_streams_pass_and_slower_tokens_fail_against_the_baseline() -> None:
    verdicts, _ = judged(launches(8))
    assert {"ttft", "tpot", "output_tokens"} <= set(verdicts)
    assert {one.outcome for one in verdicts.values()} == {Outcome.PASS}
    for change, metric in (({"ttft_ns": 60 * MS}, "ttft"), ({"gap_ns": 12 * MS}, "tpot")):
        assert metric in failing(judged(launches(8, **change))[0])


def lines(seed: int, first_ns: int) -> Launch:
    """Streams of 2 s, which begin after this time."""
    return stream_launch(ttft_ns=first_ns, gap_ns=50 * MS, chunks=41, jitter=0.03, rate_rps=20, seconds=4, seed=seed)


@each_row(
    ("first_ns", "marker", "failed"),
    (3 * MS, {}, set()),
    (3 * MS, {"compare": ("rtm", "ttft"), "tolerance": {"ttft": 0.10}}, {"ttft"}),
    (9 * MS, {}, {"ttft", "ttft:p95"}),
)
def test_a_first_token_later_by_less_than_a_thousandth_of_the_request_is_not_slower(
    first_ns: int, marker: dict[str, Any], failed: set[str]
) -> None:
    before = entry_of([lines(100 + seed, 2 * MS) for seed in range(6)])
    verdicts, _ = judged([lines(seed, first_ns) for seed in range(8)], before, **marker)
    assert failing(verdicts) == failed
    assert verdicts["ttft"].outcome is (Outcome.FAIL if failed else Outcome.PASS)
    assert ("changes up to 2.00 ms do not count" in verdicts["ttft"].reason) is (not failed)


def waiting(
    seed: int, slow: float = 0.0, times: float = 3.0, *, part: slice = slice(1), chunks: int = 20, count: int = 150
) -> Launch:
    """Streams that wait 200 ms for their first token and 20 ms for each further one; a share waits longer for some."""
    rng = np.random.default_rng(seed)
    due = START_NS + np.round(np.arange(count) * S / 40).astype(np.int64)
    gaps = np.tile([200 * MS, *[20 * MS] * (chunks - 1)], (count, 1)) * np.exp(rng.normal(0, 0.05, (count, chunks)))
    gaps[:, 0] *= np.exp(rng.normal(0, 0.15, count))
    gaps[:, part] *= np.where(rng.random((count, 1)) < slow, times, 1)
    arrived = np.cumsum(gaps * np.exp(rng.normal(0, 0.017)), axis=1).astype(np.int64)
    return launch(streamed(due.tolist(), arrived.tolist()), seconds=count / 40)


WAITED = entry_of([waiting(500 + number) for number in range(6)])


@pytest.mark.parametrize("seed", [7, 70_007])
def test_a_quarter_of_the_streams_that_wait_three_times_as_long_is_judged_by_the_mean(seed: int) -> None:
    verdicts, _ = judged([waiting(seed + number, slow=0.25) for number in range(8)], WAITED, rate_rps=40)
    assert (verdicts["ttft"].judged_by, verdicts["ttft"].outcome) == ("ttft_mean", Outcome.FAIL)


@pytest.mark.parametrize(("metric", "times", "part"), [("ttft:p95", 4.0, slice(1)), ("tpot:p95", 3.0, slice(1, None))])
def test_every_eleventh_stream_that_waits_longer_fails_by_the_tail(metric: str, times: float, part: slice) -> None:
    verdicts, _ = judged([waiting(7 + n, 0.09, times, part=part) for n in range(8)], WAITED, rate_rps=40)
    assert metric in failing(verdicts)


def test_unchanged_tails_of_streams_pass_and_an_older_entry_has_none() -> None:
    older = replace(WAITED, counts=tuple(replace(one, streams={}) for one in WAITED.counts))
    for before, known in ((WAITED, True), (older, False)):
        verdicts, basis = judged([waiting(7 + number) for number in range(8)], before, rate_rps=40)
        assert {one.outcome for one in verdicts.values()} == {Outcome.PASS}
        for tail, label in (("ttft:p95", "p95 TTFT"), ("tpot:p95", "p95 TPOT")):
            assert (tail in verdicts, label in basis.left_out) == (known, not known)
    assert str(basis.left_out["p95 TTFT"]) == "is not recorded yet"


def figures(**streams: float) -> VariantFigures:
    return VariantFigures(5e6, 200.0, None, requests=1000, failed=0, streams=streams)


@dataclass
class OfStreams(DeclaredRun):
    """Paired launches whose second variant has ``ratio`` times the TTFT of the first."""

    ratio: float

    def next_launch(self) -> tuple[PairedLaunch, Launch, Launch]:
        paired = PairedLaunch(
            LogRatio(0.0, 0.005),
            LogRatio(0.0, 0.005),
            None,
            figures(ttft=50e6),
            figures(ttft=50e6 * self.ratio),
            pairs=4,
            second_began=False,
            repeated=0,
            streams={"ttft": LogRatio(float(np.log(self.ratio)), 0.005)},
        )
        return paired, stream_launch(), stream_launch()


def test_a_launch_whose_percentile_failed_is_none_of_those_that_are_compared() -> None:
    slow = launches(8, ttft_ns=250 * MS)
    slow[1] = stream_launch(jitter=0.03, rate_rps=40, seed=1, ttft_ns=250 * MS, failing=8)  # of 120
    verdicts, _ = judged(slow, compare=("ttft:p95",))
    assert failing(verdicts) == {"ttft:p95"}
    assert "p95 TTFT 5" in verdicts["ttft:p95"].reason
    assert "nan" not in verdicts["ttft:p95"].reason


def test_a_tail_of_too_few_streams_is_left_out_with_the_window_that_it_needs() -> None:
    found, basis = judged(launches(8), compare=("ttft:p99", "tpot"))
    assert list(found) == ["tpot"]
    why = 'at 40.0 answers a second p99 TTFT needs 12.0 s (duration="13s")'
    assert basis.left_out == {"p99 TTFT": LeftOut(why, is_sentence=True)}


@pytest.mark.parametrize(("ratio", "outcome"), [(1.0, Outcome.PASS), (1.12, Outcome.FAIL)])
def test_a_revision_is_compared_by_pairs_of_blocks(ratio: float, outcome: Outcome) -> None:
    wanted = compared_metrics([METRICS["ttft"], METRICS["tpot"]], Tolerances(0.05), 0.025, requested=False)
    found = judge_no_slower(OfStreams(ratio), wanted, budget_ns=10**12)  # type: ignore[arg-type]
    assert [(verdict.metric, verdict.outcome) for verdict in found.verdicts] == [("ttft", outcome)]
    assert "TTFT 50.0 ms (main (1a2b3c4)) against" in found.verdicts[0].reason
    assert {name: str(why) for name, why in found.left_out.items()} == {"tpot": "is not known of both sides"}


def test_every_paired_metric_has_a_figure_and_a_ratio() -> None:
    paired = OfStreams(1.0)
    paired.measure(0)
    launch = paired.launches[0]
    for read in (launch.ratio, launch.first.figure):
        known = {name for name in with_role(Role.PAIRED) if read(name) is not None}
        assert known == {"rtm", "throughput", "ttft"}


@pytest.mark.parametrize(("every_ms", "closed", "rate"), [(100, False, 30), (50, True, 60)])
def test_the_figures_of_a_block_are_those_of_its_streams(every_ms: int, closed: bool, rate: float) -> None:
    due = [START_NS + number * every_ms * MS for number in range(1000 // every_ms)]
    block = streamed(due, [[30 * MS, 40 * MS, 50 * MS]] * len(due))
    window = Window(START_NS, START_NS + S)
    found = stream_figures(block, window, block.succeeded, closed=closed)
    times = {"ttft": 30 * MS, "ttft_mean": 30 * MS, "tpot": 10 * MS, "tpot_mean": 10 * MS}
    assert found == pytest.approx({**times, "output_tokens": rate})


def test_the_tokens_of_an_answer_at_the_end_of_a_block_count_by_the_share_of_its_time_there() -> None:
    """Two callers of 50 and 70 ms, three tokens each, none of which has come for the last 30 ms."""
    due = [START_NS + number * each * MS for each, count in ((50, 4), (70, 3)) for number in range(count)]
    block = streamed(due, [[40 * MS, 45 * MS, 50 * MS]] * 4 + [[60 * MS, 65 * MS, 70 * MS]] * 3)
    found = stream_figures(block, Window(START_NS, START_NS + 180 * MS), block.succeeded, closed=True)
    assert found["output_tokens"] == pytest.approx(3 * (1 / 0.05 + 1 / 0.07))


def test_a_block_whose_answers_came_whole_has_none() -> None:
    window = Window(START_NS, START_NS + S)
    whole = samples([START_NS], 5 * MS)
    assert stream_figures(whole, window, whole.succeeded, closed=True) == {}
    single = streamed([START_NS], [[5 * MS]])
    assert stream_figures(single, window, single.succeeded, closed=True)["tpot"] == 0.0


def test_a_failed_stream_is_in_no_figure() -> None:
    both = streamed([START_NS, START_NS + MS], [[30 * MS, 40 * MS], [MS, 2 * MS]], outcome=[200, -3])
    window = Window(START_NS, START_NS + S)
    assert stream_figures(both, window, both.succeeded, closed=True)["ttft"] == 30 * MS
    assert replace(both, stream=None).stream is None


def whole(launched: Launch) -> Launch:
    """The same answers, each sent at once when its last token is there."""
    return replace(launched, samples=replace(launched.samples, stream=None))


def test_a_service_that_no_longer_streams_fails_by_its_first_content_against_the_baseline() -> None:
    found, basis = judged(whole(one) for one in launches(8))
    assert failing(found) == {"ttft"}
    assert found["ttft"].reason.endswith("the answers no longer stream, so the first content is the whole answer")
    assert {"rtm", "throughput"} <= set(found)
    assert basis.left_out["median TPOT"] == LeftOut("is not known: the answers no longer stream")


def test_busy_neighbours_do_not_explain_that_a_service_no_longer_streams() -> None:
    busy = usage(0.5, 1.9, seconds=3.0, others_cores=1.2)
    verdicts, _ = judged(replace(whole(one), usage=busy) for one in launches(8))
    assert failing(verdicts) == {"ttft"}


def test_whole_answers_as_early_as_the_first_token_was_are_no_failure() -> None:
    early = {"chunks": 1}
    verdicts, _ = judged((whole(one) for one in launches(8, **early)), before=entry(**early))
    assert {verdict.outcome for verdict in verdicts.values()} == {Outcome.PASS}


def test_a_service_that_streams_now_is_compared_by_whole_answers_and_the_rest_is_named() -> None:
    recorded = entry()
    whole_answers = {name: one for name, one in recorded.metrics.items() if not metric_named(name).of_streams}
    verdicts, basis = judged(launches(8), before=replace(recorded, metrics=whole_answers))
    assert {verdict.outcome for verdict in verdicts.values()} == {Outcome.PASS}
    assert {"rtm", "throughput"} <= set(verdicts)
    assert {"median TTFT", "median TPOT", "output tokens"} <= set(basis.left_out)


def test_a_metric_more_divides_the_probability_of_a_false_alarm_again() -> None:
    def choice(streams: bool) -> Sequence[ComparedMetric]:
        settings = read_settings({}, {}, {})
        return compared_metrics(compared_by_default(settings, streams=streams), Tolerances(), 0.012, requested=False)

    def chosen(*, before: bool, now: bool) -> list[tuple[str, float]]:
        found = Chosen.of(choice, USUAL_SCATTER, before=before, now=now).compared
        return [(one.metric.name, round(one.alpha, 12)) for one in found if not one.is_guard]

    assert chosen(before=True, now=False) == [("ttft", 0.004), ("rtm", 0.004), ("throughput", 0.004)]
    assert chosen(before=False, now=True) == [("rtm", 0.006), ("throughput", 0.006)]
    assert chosen(before=True, now=True) == [("ttft", 0.004), ("tpot", 0.004), ("output_tokens", 0.004)]


def test_the_first_content_of_a_block_whose_answers_came_whole_is_the_answer() -> None:
    first = {"ttft": [8e6] * 8, "ttft_mean": [9e6] * 8, "tpot": [8e6] * 8}
    whole = {"rtm": [80e6] * 8, "latency_mean": [81e6] * 8}
    found = block_ratios(first, whole, [False] * 8)
    assert list(found) == ["ttft", "ttft_mean"]
    assert np.exp(found["ttft"].value) == pytest.approx(10)
    assert np.exp(found["ttft_mean"].value) == pytest.approx(9)
    streamed = {**whole, "ttft": [8e6] * 8, "ttft_mean": [9e6] * 8, "tpot": [0.0] * 8}
    assert set(block_ratios(first, streamed, [False] * 8)) == {"ttft", "ttft_mean"}
