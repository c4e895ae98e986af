"""The order of the patterns: declared metrics in, places, scores and words out."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace
from support.each_row import each_row
from support.synthetic import FEW, capacity, changed, launch_values, make_setup, result, verdict

from pytest_mlpatterns.analysis.capacity.scaling import NOT_MEASURED
from pytest_mlpatterns.analysis.choice.criteria import parse_criteria
from pytest_mlpatterns.analysis.choice.ranking import DRIFT_SD, Unmeasured, rank
from pytest_mlpatterns.analysis.statistics.intervals import LAUNCH_SD, estimate
from pytest_mlpatterns.records.launch import Capacity, Noise
from pytest_mlpatterns.records.result import RankedPattern, Ranking, TestResult
from pytest_mlpatterns.records.verdict import Outcome

MS = 1e6
GROUP = "test_perf.py::test_shop"
Values = float | tuple[float, float, float]


def measured(
    pattern: str, *, group: str = GROUP, launches: int = 3, spread: float = 0.01, **metrics: Values
) -> TestResult:
    """A pattern with these metrics, each with an interval of ± ``spread`` where it gives none."""
    estimates = {
        name: value if isinstance(value, tuple) else (value, value / (1 + spread), value * (1 + spread))
        for name, value in metrics.items()
    }
    return result(
        f"{group}[{pattern}]",
        group=group,
        setup=make_setup(pattern=pattern),
        metrics=estimates,
        launches={name: ((value[0], 0.01),) * launches for name, value in estimates.items()},
        requests=1000,
    )


def ranked(results: Sequence[TestResult], text: str) -> Ranking:
    (found,) = rank(results, parse_criteria(text, "--perf-rank"))
    return found


def rows(ranking: Ranking) -> Mapping[str, RankedPattern]:
    return {row.pattern: row for row in ranking.rows}


SHOP = (
    measured("single", rtm=20 * MS, nmrt=100.0, asl=0.5),
    measured("cached", rtm=5 * MS, nmrt=400.0, asl=0.25),
    measured("batched", rtm=10 * MS, nmrt=200.0, asl=0.5),
    measured("replicated", rtm=10.1 * MS, nmrt=198.0, asl=0.5),
)
EQUAL = "rtm=1,nmrt=1,asl=1"
FAST = measured("cached", rtm=5 * MS, peak_memory=800 * 2.0**20)
SMALL = measured("single", rtm=20 * MS, peak_memory=200 * 2.0**20)
EXACT = tuple(
    measured(name, spread=1e-6, rtm=value * MS, response_bytes=size)
    for name, value, size in (("a", 10.0, 100.0), ("b", 10.3, 101.0), ("c", 12.0, 101.0))
)
SAME = replace(EXACT[1], metrics=EXACT[0].metrics)
SLOWER = changed(SHOP[1], passed=False, verdicts=(verdict(Outcome.FAIL, against="baseline"),))
NMRTS = tuple(measured(name, rtm=10 * MS, nmrt=rate) for name, rate in (("first", 900.0), ("second", 300.0)))
OPEN = changed(
    measured("cached", rtm=10 * MS), capacities=(capacity(150.0, at_least=True), capacity(90.0, at_least=True))
)
"""Its NMRT is only known to be at least so much."""
WIRES = tuple(
    replace(measured("single", rtm=time * MS), test=wire, setup=make_setup(pattern="single", wire=wire))
    for wire, time in (("rest+json", 2.0), ("rest+msgpack", 1.0))
)


class TestOrder:
    def test_a_score_is_the_weighted_product_of_shares_of_the_best(self) -> None:
        ranking = ranked(SHOP, "rtm=0.5,nmrt=0.25,asl=0.25")
        found = rows(ranking)
        assert ranking.sentence == "cached first; then batched, replicated and single"
        assert order(ranking) == [("cached", 1), ("batched", 2), ("replicated", 3), ("single", 4)]
        assert found["cached"].score is not None
        assert found["cached"].score[0] == pytest.approx(1.0)
        assert found["single"].parts == {
            "rtm": (pytest.approx(1 / 4), 0.5),
            "nmrt": (pytest.approx(1 / 4), 0.25),
            "asl": (pytest.approx(1 / 2), 0.25),
        }
        assert found["single"].score is not None
        assert found["single"].score[0] == pytest.approx(0.25**0.5 * 0.25**0.25 * 0.5**0.25)

    @each_row(
        ("results", "text", "sentence"),
        ((FAST, SMALL), "rtm=3,peak_memory=1", "cached first; then single"),
        ((FAST, SMALL), "rtm=1,peak_memory=3", "single first; then cached"),
        ((FAST, SMALL), "rtm=1,peak_memory=1", "cached and single not distinguishable"),
        (
            (measured("a", rtm=(10 * MS, 6 * MS, 17 * MS)), measured("b", rtm=(14 * MS, 8 * MS, 24 * MS))),
            "rtm=1",
            "a and b not distinguishable",
        ),
        # within the drift of the machine there is no difference, and sizes do not drift
        (EXACT, "rtm=1", "a and b first, not distinguishable; then c"),
        (EXACT[:2], "response_bytes=1", "a first; then b"),
        ((EXACT[0], SAME), "response_bytes=1", "a and b not distinguishable"),
        # a regression, and few failed requests, are no reason not to choose a pattern
        ((SHOP[0], SLOWER), EQUAL, "cached first; then single"),
        ((SHOP[0], changed(SHOP[1], failed_requests={"503": 50})), EQUAL, "cached first; then single"),
        # nothing can be chosen without the weighted metric, or if none keeps a requirement
        (EXACT[:2], "nmrt=1", "no pattern can be chosen"),
        (SHOP, f"{EQUAL},rtm<1ms", "no pattern can be chosen"),
        # a capacity that is only a lower bound leaves the first place open, and meets a requirement below it
        ((*NMRTS, OPEN), "nmrt=1", "first and cached first, not distinguishable; then second"),
        ((OPEN, SHOP[0]), "rtm=1,nmrt>=140", "cached first; single excluded"),
        ((OPEN, SHOP[0]), "rtm=1,nmrt>=200", "cached first, if it keeps nmrt>=200; single excluded"),
        ((measured("a", rtm=MS, hsx=0.9), measured("b", rtm=MS, hsx=0.5)), "rtm=1,hsx>=80%", "a first; b excluded"),
        # the last run of a test counts, and wires are named where they differ
        ((*SHOP[1:3], measured("cached", rtm=100 * MS)), "rtm=1", "batched first; then cached"),
        (WIRES, "rtm=1", "single, rest+msgpack first; then single, rest+json"),
    )
    def test_the_sentence_names_the_first_and_what_cannot_be_told_apart(
        self, results: Sequence[TestResult], text: str, sentence: str
    ) -> None:
        assert ranked(results, text).sentence == sentence

    def test_values_too_small_to_matter_do_not_win(self) -> None:
        """An ASL of nearly nothing is no better than one of a percent, and no error at all than one in a thousand."""
        idle = measured("idle", rtm=20 * MS, asl=0.0001)
        quick = measured("quick", rtm=10 * MS, asl=0.01)
        found = rows(ranked([idle, quick], "rtm=1,asl=1"))
        assert found["idle"].parts["asl"][0] == pytest.approx(found["quick"].parts["asl"][0])
        assert found["quick"].rank == 1
        clean = measured("clean", rtm=20 * MS, error_rate=(0.0, 0.0, 0.002))
        faulty = measured("faulty", rtm=20 * MS, error_rate=(0.04, 0.03, 0.05))
        score = rows(ranked([clean, faulty], "rtm=1,error_rate=1"))["faulty"].score
        assert score[0] == pytest.approx(math.sqrt(0.001 / 0.04))


class TestRequirements:
    def test_a_pattern_that_does_not_keep_one_is_excluded_with_its_figures(self) -> None:
        ranking = ranked(SHOP, f"{EQUAL},rtm<15ms,nmrt>=150")
        assert ranking.sentence == "cached first; then batched and replicated; single excluded"
        assert ranking.requirements == ("rtm<15ms", "nmrt>=150")
        single, cached = (rows(ranking)[name] for name in ("single", "cached"))
        assert single.excluded == (
            "median latency 20.0 ms (19.8 ms to 20.2 ms) is not below 15.0 ms; "
            "capacity (NMRT) 100 req/s (99.0 req/s to 101 req/s) is not at least 150 req/s"
        )
        assert (single.rank, single.score, single.parts) == (None, None, {})
        assert cached.score[0] == pytest.approx(1.0), "the best is sought among those that can be chosen"
        unknown = rows(ranked([measured("single", rtm=1 * MS), *SHOP[1:]], "rtm=1,nmrt>=150"))["single"]
        assert unknown.excluded == "capacity (NMRT) is not known, and nmrt>=150 is required"
        (nothing, _) = ranked(EXACT[:2], "nmrt=1").rows
        assert nothing.excluded == "not known: any of the weighed metrics"

    def test_an_interval_that_straddles_the_limit_is_said(self) -> None:
        ranking = ranked(SHOP, f"{EQUAL},rtm<5.02ms,asl<0.9")
        assert ranking.sentence == "cached first, if it keeps rtm<5.02ms; single, batched and replicated excluded"
        assert rows(ranking)["cached"].doubts == (
            "median latency 5.00 ms (4.95 ms to 5.05 ms) may or may not be below 5.02 ms",
        )

    def test_patterns_that_may_be_first_are_named_with_their_open_requirements(self) -> None:
        level = [measured(name, rtm=10 * MS, asl=0.5) for name in ("a", "b", "c")]
        ranking = ranked(
            [level[0], replace(level[1], metrics={**level[1].metrics, "asl": (0.5, 0.3, 0.7)}), level[2]],
            "rtm=1,asl<0.6,rtm<10.05ms",
        )
        assert ranking.sentence == (
            "a, b and c not distinguishable, if a keeps rtm<10.05ms, b keeps asl<0.6 and rtm<10.05ms "
            "and c keeps rtm<10.05ms"
        )


class TestWhatIsNoEvidence:
    @each_row(
        ("changes", "why"),
        ({"interrupted": True}, "interrupted"),
        ({"passed": False}, "its test failed"),
        (
            {"failed_requests": {"503": 51}},
            "51 of 1,000 requests failed (503: 51), expected at most 5.0 %; "
            "the times of the others alone would mislead",
        ),
        (
            {"passed": False, "verdicts": (verdict(Outcome.FAIL, against="limit"),)},
            "its test failed: rtm against its limit: fail",
        ),
    )
    def test_an_invalid_result_is_excluded_with_the_reason(self, changes: Mapping[str, object], why: str) -> None:
        bad = changed(SHOP[1], **changes)
        ranking = ranked([SHOP[0], bad], EQUAL)
        assert ranking.sentence == "single first; cached excluded"
        assert rows(ranking)["cached"].excluded == why

    def test_a_pattern_that_the_load_generator_limited_may_be_better_than_its_figures(self) -> None:
        limited = changed(SHOP[1], generator={"limited": True})
        ranking = ranked([SHOP[0], limited], EQUAL)
        assert [one.pattern for one in ranking.rows if one.doubts] == ["cached"]
        assert rows(ranking)["cached"].doubts[0].startswith("the load generator was the limit, so it may be better")

    def test_what_a_service_refuses_beyond_its_capacity_does_not_exclude_it_but_time_outs_do(self) -> None:
        refuses = changed(SHOP[0], failed_requests={"503": 600}, overload=True)
        late = changed(SHOP[1], failed_requests={"-2": 600}, overload=True)
        found = rows(ranked([refuses, late], EQUAL))
        assert found[str(refuses.setup.pattern)].excluded is None
        assert "600 of 1,000 requests failed" in str(found[str(late.setup.pattern)].excluded)


class TestMissing:
    def test_a_pattern_without_a_metric_that_others_have_is_excluded(self) -> None:
        ranking = ranked([measured("single", rtm=1 * MS), *SHOP[1:3]], EQUAL)
        assert rows(ranking)["single"].excluded == "not known: capacity (NMRT), CPU share (ASL)"
        assert ranking.sentence == "cached first; then batched; single excluded"

    def test_a_metric_that_nobody_has_is_left_out_of_the_weights(self) -> None:
        ranking = ranked([measured("a", rtm=1 * MS), measured("b", rtm=2 * MS)], "rtm=0.3,asl=0.5,nmrt=0.2")
        assert ranking.weights == {"rtm": 1.0}
        assert ranking.notes == (
            "not known under any pattern, and left out of the weights: CPU share (ASL), capacity (NMRT); "
            "pytest --perf-rank searches for NMRT",
        )
        assert ranking.sentence == "a first; then b"

    @pytest.mark.parametrize(("disturbed", "who"), [(1, "single was"), (2, "single and cached were"), (4, "all were")])
    def test_a_disturbed_measurement_is_said(self, disturbed: int, who: str) -> None:
        noisy = [changed(result, noise=(Noise("others used 1.4 of the 2 cores"),)) for result in SHOP[:disturbed]]
        (note,) = ranked([*noisy, *SHOP[disturbed:]], EQUAL).notes
        assert note == (
            f"the machine was disturbed while {who} measured; measure again when it is quiet before you choose"
        )

    def test_a_test_that_gave_no_result_is_not_forgotten(self) -> None:
        absent = [Unmeasured(f"{GROUP}[{name}]", GROUP, name) for name in ("queued", "cached")]
        (ranking,) = rank(SHOP[:2], parse_criteria("rtm=1", "--perf-rank"), absent)
        assert ranking.sentence == "cached first; then single; queued excluded"
        assert rows(ranking)["queued"].excluded == "not measured: its test failed"
        (alone,) = rank([], parse_criteria("rtm=1", "--perf-rank"), absent)
        assert (alone.sentence, len(alone.rows)) == ("no pattern can be chosen", 2)


class TestOpenEnd:
    """NMRT that is only known to be at least so much."""

    OTHER = measured("single", rtm=10 * MS, nmrt=300.0)

    def test_a_lower_bound_counts_as_its_value_and_may_be_better(self) -> None:
        ranking = ranked([self.OTHER, OPEN], "nmrt=1")
        assert ranking.sentence == "single and cached not distinguishable"
        cached = rows(ranking)["cached"]
        assert cached.parts["nmrt"][0] == pytest.approx(0.5)
        assert cached.doubts == (
            "capacity (NMRT) is at least 150 req/s, more is not known (two doublings gained less than 10 %); "
            "it counts as that much",
        )

    def test_a_search_under_an_objective_is_another(self) -> None:
        slow = changed(
            measured("cached", rtm=10 * MS), capacities=(capacity(9.0, at_least=True, objective="p95<50.0ms"),)
        )
        ranking = ranked([slow, self.OTHER], "rtm=1,nmrt(p95<50ms)>=5")
        assert ranking.sentence == "cached first; single excluded"
        assert rows(ranking)["cached"].doubts == ()


class TestGroups:
    def test_each_test_with_several_patterns_has_its_own_ranking(self) -> None:
        alone = measured("single", group="test_perf.py::test_alone", rtm=1 * MS)
        other = [
            measured(name, group="test_perf.py::test_other", rtm=time * MS) for name, time in (("a", 2.0), ("b", 1.0))
        ]
        found = rank([other[0], *SHOP, alone, other[1]], parse_criteria("rtm=1", "--perf-rank"))
        assert [ranking.group for ranking in found] == ["test_perf.py::test_other", GROUP]

    def test_a_ranking_travels_as_json(self) -> None:
        data = json.loads(json.dumps(ranked(SHOP, f"{EQUAL},rtm<15ms").to_json(), allow_nan=False))
        assert set(data) == {"group", "weights", "requirements", "sentence", "rows", "notes"}
        assert data["rows"][0] | {"score": None, "parts": None} == {
            "test": f"{GROUP}[cached]",
            "pattern": "cached",
            "rank": 1,
            "score": None,
            "parts": None,
            "excluded": None,
            "doubts": [],
        }
        assert data["rows"][0]["parts"]["rtm"] == [1.0, pytest.approx(1 / 3)]


@pytest.mark.simulation
class TestCalibration:
    """Simulated pairs: launches of declared spread, and a machine that drifts between one test and the next."""

    @staticmethod
    def told_apart(factor: float, pairs: int = 120) -> tuple[int, int]:
        """How often the first of two patterns, and how often the second, which is worse by a factor, is ahead."""
        rng = np.random.default_rng(7)
        found: Counter[str] = Counter()
        for _ in range(pairs):
            results = []
            for pattern, true in (("a", 10 * MS), ("b", 10 * MS * factor)):
                values = launch_values(rng, true * math.exp(rng.normal(0, DRIFT_SD)), 2)
                estimated = estimate(values, LAUNCH_SD)
                results.append(measured(pattern, launches=2, rtm=(estimated.value, estimated.low, estimated.high)))
            found[ranked(results, "rtm=1").sentence.partition(";")[0]] += 1
        return found["a first"], found["b first"]

    def test_the_same_are_seldom_told_apart(self) -> None:
        assert sum(self.told_apart(1.0)) <= 10

    def test_a_fifth_is_nearly_always_seen_and_never_the_wrong_way_round(self) -> None:
        ahead, behind = self.told_apart(1.2)
        assert ahead >= 110
        assert behind == 0


METRIC_VALUES = st.fixed_dictionaries(  # above the floors, below which changes do not count
    {
        "rtm": st.floats(1 * MS, 1000 * MS),
        "throughput": st.floats(10, 10_000),
        "asl": st.floats(0.05, 1.0),
        "peak_memory": st.floats(2.0**24, 2.0**33),
    }
)
GROUPS = st.lists(METRIC_VALUES, min_size=2, max_size=5)
WEIGHTS = st.dictionaries(
    st.sampled_from(["rtm", "throughput", "asl", "peak_memory"]), st.floats(0.01, 10), min_size=1, max_size=4
)


def patterns(values: Sequence[Mapping[str, float]]) -> list[TestResult]:
    return [measured(f"p{number}", **metrics) for number, metrics in enumerate(values)]


def text_of(weights: Mapping[str, float], scale: float = 1.0) -> str:
    return ",".join(f"{name}={weight * scale!r}" for name, weight in weights.items())


def order(ranking: Ranking) -> list[tuple[str, int | None]]:
    return [(row.pattern, row.rank) for row in ranking.rows]


@pytest.mark.simulation
class TestProperties:
    @FEW
    @given(GROUPS, WEIGHTS)
    def test_neither_the_order_of_weights_nor_that_of_tests_matters(
        self, values: list[dict[str, float]], weights: dict[str, float]
    ) -> None:
        forwards = rows(ranked(patterns(values), text_of(weights)))
        backwards = rows(ranked(patterns(values)[::-1], text_of(dict(reversed(weights.items())))))
        for name, row in forwards.items():
            assert row.score == pytest.approx(backwards[name].score)

    @FEW
    @given(GROUPS, WEIGHTS, st.sampled_from(["rtm", "throughput", "peak_memory"]), st.floats(1.5, 1000))
    def test_the_unit_of_a_metric_does_not_matter(
        self, values: list[dict[str, float]], weights: dict[str, float], name: str, factor: float
    ) -> None:
        converted = [{**metrics, name: metrics[name] * factor} for metrics in values]
        once, other = (rows(ranked(patterns(one), text_of(weights))) for one in (values, converted))
        for pattern, row in once.items():
            assert row.score == pytest.approx(other[pattern].score)

    @FEW
    @given(GROUPS, METRIC_VALUES, WEIGHTS)
    def test_another_alternative_does_not_change_the_order_of_those_that_were_there(
        self, values: list[dict[str, float]], another: dict[str, float], weights: dict[str, float]
    ) -> None:
        before = ranked(patterns(values), text_of(weights))
        after = ranked([*patterns(values), measured("another", **another)], text_of(weights))
        scores = {row.pattern: row.score[0] for row in before.rows if row.score}
        assume(len({round(score, 9) for score in scores.values()}) == len(scores))
        assert [name for name, _ in order(before)] == [name for name, _ in order(after) if name != "another"]

    @FEW
    @given(GROUPS, WEIGHTS, st.data())
    def test_a_dominated_pattern_is_never_ahead_of_its_better(
        self, values: list[dict[str, float]], weights: dict[str, float], data: st.DataObject
    ) -> None:
        better = values[0]
        worse = {
            name: value * (1 / factor if name == "throughput" else factor)
            for name, value in better.items()
            for factor in [data.draw(st.floats(1.05, 10))]
        }
        ranking = ranked([measured("worse", **worse), *patterns(values)], text_of(weights))
        places = [name for name, _ in order(ranking)]
        assert places.index("p0") < places.index("worse")

    @FEW
    @given(GROUPS, WEIGHTS)
    def test_places_scores_and_intervals_agree(self, values: list[dict[str, float]], weights: dict[str, float]) -> None:
        found = ranked(patterns(values), text_of(weights)).rows
        previous = math.inf
        for row in found:
            assert 0 < row.score[1] <= row.score[0] <= row.score[2]
            assert row.score[0] <= min(previous, 1 + 1e-9)
            assert row.score[0] == pytest.approx(math.prod(share**weight for share, weight in row.parts.values()))
            previous = row.score[0] + 1e-12
        assert [row.rank for row in found] == [*range(1, len(found) + 1)]


class TestIndices:
    def test_weights_of_sc_and_pc_decide_between_patterns(self) -> None:
        grows = measured("grows", sc=3.0, pc=100.0)
        lean = measured("lean", sc=0.03, pc=200.0)
        found = rows(ranked([grows, lean], "sc=0.4, pc=0.6"))
        assert found["grows"].rank == 1
        assert found["lean"].parts == {"sc": (pytest.approx(0.01), 0.4), "pc": (pytest.approx(1.0), 0.6)}
        assert rows(ranked([grows, lean], "pc=1"))["lean"].rank == 1

    def test_an_index_that_one_pattern_lacks_excludes_it_and_says_what_to_measure(self) -> None:
        priceless = changed(measured("single", pc=100.0), missing_indices={"sc": "the test has no price; set it"})
        other = measured("batched", pc=100.0)
        found = rows(ranked([measured("cached", sc=1.0, pc=100.0), priceless, other], "sc=1,pc=1,sc>=0.1"))
        assert found["single"].excluded == "SC (the test has no price; set it) is not known, and sc>=0.1 is required"
        found = rows(ranked([measured("cached", sc=1.0, pc=100.0), priceless, other], "sc=1,pc=1"))
        assert found["single"].excluded == "not known: SC (the test has no price; set it)"
        assert found["batched"].excluded == f"not known: SC ({NOT_MEASURED})"

    def test_an_index_that_all_lack_is_left_out_and_said(self) -> None:
        ranking = ranked([measured("cached", pc=2.0), measured("single", pc=1.0)], "sc=1,pc=1,nmrt=1")
        assert ranking.weights == {"pc": 1.0}
        assert ranking.notes == (
            "not known under any pattern, and left out of the weights: SC, capacity (NMRT); "
            "pytest --perf-rank searches for NMRT; "
            f"SC: {NOT_MEASURED}",
        )

    @each_row(
        ("searches", "why"),
        ((), "CPU share (ASL) at NMRT (the test does not search for NMRT; call perf.measure_nmrt() in it)"),
        ((capacity(),), "CPU share (ASL) at NMRT"),
        (
            (capacity(at_least=True),),
            "CPU share (ASL) at NMRT (NMRT is only known as a lower bound: two doublings gained less than 10 %)",
        ),
    )
    def test_the_load_at_nmrt_needs_a_search_that_found_it(self, searches: tuple[Capacity, ...], why: str) -> None:
        lacks = changed(measured("single", rtm=MS), capacities=searches)
        found = rows(ranked([measured("cached", rtm=MS, asl_at_nmrt=0.5), lacks], "rtm=1,asl_at_nmrt=1"))
        assert found["single"].excluded == f"not known: {why}"
