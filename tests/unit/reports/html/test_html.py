"""The HTML report as text: what stands in it, that it loads nothing, and that what users wrote stays text.

How it looks and works in a browser is tested in test_html_page.py. The golden file is the page without its style.
"""

import base64
import hashlib
import re
from importlib.resources import files
from urllib.parse import unquote

import pytest
from msgspec.structs import replace
from support.each_row import each_row
from support.golden import LIKELY, check_golden
from support.histories import CHANGES
from support.profiles import slower_normalize
from support.reported import HOSTILE, Reader, everything, report
from support.synthetic import ENVIRONMENT, LAYERS, SETUP, capacity, counterpart, make_setup, result, verdict

from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.records.launch import Busy, Estimate
from pytest_mlpatterns.records.result import FailedTest
from pytest_mlpatterns.records.verdict import Kind, OpenBy, Outcome, Unjudged, Verdict, WhyOpen
from pytest_mlpatterns.reports.files.result_file import Results
from pytest_mlpatterns.reports.html.fragments import anchors_of, state_of
from pytest_mlpatterns.reports.html.page import history_section, html_report, overview_section, patterns_section
from pytest_mlpatterns.reports.html.test_page import details_section
from pytest_mlpatterns.reports.text.failure import failure_text
from pytest_mlpatterns.reports.text.undecided import open_step


def test_the_page_of_everything() -> None:
    page = report(everything())
    page = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    page = re.sub(r'content="default-src[^"]*"', "", page)
    page = re.sub(r"Written by pytest-mlpatterns [^<]+", "Written by pytest-mlpatterns", page)
    check_golden("report.html", re.sub(r"(?<=[>\w])(?=<(?!/|b>|wbr))", "\n", page))


def test_the_policy_lets_the_page_use_its_style_run_nothing_and_load_nothing() -> None:
    text = report(everything())
    (policy,) = (
        attributes["content"]
        for _, attributes in Reader(text).tags
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    (style,) = re.findall(r"<style>(.*?)</style>", text, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert "script" not in {tag for tag, _ in Reader(text).tags}
    assert "style" not in {name for _, attributes in Reader(text).tags for name in attributes}


def test_new_changes_of_the_history_are_on_the_page_of_the_run() -> None:
    worse, other = (
        {**change.to_json(), "sentence": f"sentence {number} {HOSTILE}", "command": "bisect it" if number == 0 else ""}
        for number, change in enumerate(CHANGES[:2])
    )
    results = [result(worse["test"])]
    other |= {"test": "t.py::deselected", "is_confirmed": False}
    part = Reader(str(history_section({"changes": [worse, other]}, results, "perf-history.html")))
    assert part.attributes("href") == ["#test_perf.py::test_digits[cached|batched]", "perf-history.html"]
    assert part.text.count("bisect it") == 1
    assert "sentence 1" in part.text
    assert "img" not in {tag for tag, _ in part.tags}


def test_the_page_of_a_run_links_to_a_page_of_the_history_only_if_the_run_has_one() -> None:
    assert history_section({}, ()) is None
    assert history_section({"changes": []}, ()) is None
    assert "This run made no change known." in str(history_section({"changes": []}, (), "perf-history.html"))
    results = Results((result(),), ENVIRONMENT, "2026-11-24", {}, history={"place": "h.jsonl", "changes": []})
    assert 'href="perf-history.html"' in html_report(results, "perf-history.html")
    assert "perf-history" not in html_report(replace(results, history={}), "perf-history.html")


def test_nothing_in_the_page_has_an_address_elsewhere() -> None:
    page = Reader(report(everything()))
    assert all(address.startswith("#") for address in [*page.attributes("href"), *page.attributes("src")])
    assert not {"script", "link", "iframe", "img", "object", "embed", "base", "form"} & {tag for tag, _ in page.tags}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert "@import" not in report([])
    assert "url(" not in files("pytest_mlpatterns.reports.html").joinpath("report.css").read_text(encoding="utf-8")


def test_failed_tests_come_first_and_undecided_ones_next_in_the_overview_and_below() -> None:
    order = ["test_a", "test_c", "test_b", "test_d"]
    opened = verdict(Outcome.INCONCLUSIVE)
    page = report(
        [result("test_b"), result("test_a", passed=False), result("test_d"), result("test_c", verdicts=(opened,))]
    )
    for section in ('id="overview"', 'id="tests"'):
        text = page[page.index(section) :]
        places = [text.index(name.replace("_", "_<wbr>")) for name in order]
        assert places == sorted(places)


def test_a_search_that_found_only_a_bound_of_nmrt_shows_it_in_the_overview_and_below() -> None:
    bound = result(capacities=(capacity(228, at_least=True),))
    assert "≥228 req/s" in Reader(str(overview_section([bound]))).text
    below = Reader(str(details_section([bound]))).text
    assert "Capacity (NMRT)≥228 req/sa lower bound: two doublings gained less than 10 %" in below


def test_nmrt_under_an_objective_is_the_figure_of_the_overview_if_it_is_the_only_one() -> None:
    metrics = {**result().metrics, "nmrt(p95<50.0ms)": (400.0, 390.0, 410.0)}
    found = result(metrics=metrics, capacities=(capacity(objective="p95<50.0ms"),))
    shown = Reader(str(overview_section([found]))).text
    assert "400 req/s" in shown
    assert "≥" not in shown
    assert "≥" not in Reader(str(details_section([found]))).text


def test_the_link_to_a_test_is_its_id_so_that_it_holds_in_every_run() -> None:
    names = ["test_perf.py::test_digits[single]", "test_perf.py::test_digits[a b%]", "tests", "tests"]
    results = [result(name) for name in names]
    anchors = anchors_of(one.test for one in results)
    assert anchors == ["test_perf.py::test_digits[single]", "test_perf.py::test_digits[a_b%]", "::tests", "::tests~2"]
    page = Reader(report(results))
    links = [*page.attributes("href")]
    assert links.count("#test_perf.py::test_digits[single]") == 2  # in the overview and with the test itself
    assert links.count("#test_perf.py::test_digits[a_b%25]") == 2
    assert [id_ for id_ in page.attributes("id") if "::" in id_] == anchors


def test_text_of_users_stays_text() -> None:
    hostile = Reader(report(everything()))
    assert HOSTILE in hostile.text
    assert not {"img", "script"} & {tag for tag, _ in hostile.tags}


def test_ids_are_unique_and_every_reference_has_its_target() -> None:
    page = Reader(report(everything()))
    ids = page.attributes("id")
    assert len(ids) == len({*ids})
    targets = {unquote(address.removeprefix("#")) for address in page.attributes("href")}
    targets |= {name for names in page.attributes("aria-labelledby") for name in names.split()}
    assert targets <= {*ids}


def test_a_failure_stands_on_the_page_once_with_the_words_of_the_terminal() -> None:
    failed = verdict(Outcome.FAIL, against="revision", change=(0.96, 0.9, 1.02))
    results = [result("t::passes"), result("t::fails", passed=False, verdicts=(failed,), profile=slower_normalize())]
    page = report(results)
    text = Reader(page).text
    assert text.count(failed.reason) == 1
    assert failed.reason == failure_text([failed], results[1]).splitlines()[0]
    assert text.count("Digits.predict → normalize (model.py:41): 400 µs → 2.70 ms per request") == 1
    assert "mostly in sort" in text


def test_of_several_verdicts_the_first_that_failed_is_the_heading_and_comparisons_are_rows() -> None:
    limit = replace(verdict(Outcome.PASS, against="limit"), reason="median latency 4.12 ms is below 5.00 ms")
    slower = verdict(Outcome.FAIL, change=(0.3, 0.2, 0.4))
    errors = replace(verdict(Outcome.FAIL, "error_rate", change=(0.3, 0.2, 0.4)), reason="more requests fail")
    text = Reader(str(details_section([result(verdicts=(limit, slower, errors), passed=False)]))).text
    assert text.count(slower.reason) == text.count(limit.reason) == 1
    assert errors.reason not in text
    assert text.count("failed") == 3, "the test, and a row for each"


def test_a_limit_of_the_load_alone_says_so_beside_the_figures_of_a_comparison() -> None:
    limit = replace(verdict(Outcome.PASS, against="limit"), reason="median latency 4.12 ms is below 5.00 ms")
    beside = replace(verdict(Outcome.PASS, against="revision", change=(0.01, 0.0, 0.02)), present_value=3e6)
    text = Reader(str(details_section([result(verdicts=(limit, beside), reference=counterpart(kind="revision"))]))).text
    assert "median latency 4.12 ms is below 5.00 ms, measured alone" in text
    assert "7,406 requests in 8.6 s, measured alone" in text
    alone = Reader(str(details_section([result(verdicts=(limit,))]))).text
    assert "measured alone" not in alone


def test_what_broke_before_it_measured_stands_at_the_top_and_is_counted() -> None:
    broken = FailedTest("t::broken", "KeyError: 'x'", None, kind=Kind.TEST_ERROR)
    crashed = result(
        "t::crashed", passed=False, unjudged=Unjudged(Kind.TEST_ERROR, "ZeroDivisionError: division by zero")
    )
    text = Reader(html_report(Results((crashed, result()), ENVIRONMENT, "2026-11-24", {}, unmeasured=(broken,)))).text
    assert "2 broken tests" in text
    assert "1 passed" in text
    assert text.index("KeyError: 'x'") < text.index("Overview")
    assert text.count("ZeroDivisionError: division by zero") == 1


def test_a_single_test_needs_no_overview() -> None:
    assert 'id="overview"' not in report([result()])
    assert 'id="overview"' in report([result("a"), result("b")])


def test_the_page_of_no_results_says_so() -> None:
    page = Reader(report([]))
    assert "no perf test was measured" in page.text
    assert "svg" not in {tag for tag, _ in page.tags}


def test_what_is_probably_slower_and_a_busy_machine_stand_at_the_head_of_the_page() -> None:
    likely = result(verdicts=(LIKELY,), reference=counterpart(), busy=Busy(1.6, cores=2), probably_slower=("rtm",))
    page = report([likely])
    assert '<span class="state probable">1 probably slower</span>' in page
    assert "the machine was busy (1.6 of 2 cores): 1 of 1 test undecided" in page
    assert "the machine was busy: other processes used 1.6 of the 2 cores" in Reader(page).text


@pytest.mark.parametrize(
    ("date", "shown"), [("2026-11-24T12:00:00+00:00", "24 November 2026, 12:00 UTC"), ("some day", "some day")]
)
def test_the_date_is_written_for_people(date: str, shown: str) -> None:
    assert shown in Reader(html_report(Results((), ENVIRONMENT, date, {}))).text


@each_row(
    ("changes", "state"),
    ({}, "measured"),
    ({"verdicts": (verdict(Outcome.PASS),)}, "passed"),
    ({"verdicts": (verdict(Outcome.PASS), verdict(Outcome.INCONCLUSIVE))}, "undecided"),
    ({"verdicts": (verdict(Outcome.INCONCLUSIVE),), "probably_slower": ("rtm",)}, "probable"),
    ({"passed": False}, "failed"),
    ({"passed": False, "interrupted": True}, "interrupted"),
)
def test_a_test_comes_to_one_of_six(changes: dict[str, object], state: str) -> None:
    assert state_of(result(**changes)) == state  # type: ignore[arg-type]


class TestOverview:
    def test_columns_that_no_test_fills_are_left_out(self) -> None:
        bare = Reader(str(overview_section([result(metrics={"rtm": (1.0, 1.0, 1.0)})])))
        assert "Throughput" not in bare.text
        assert "Change" not in bare.text

    def test_a_change_is_that_of_rtm_against_what_the_test_was_compared_with(self) -> None:
        limit = verdict(Outcome.FAIL, against="limit", change=(0.5, 0.4, 0.6))
        slower = verdict(Outcome.FAIL, change=(0.3, 0.2, 0.4))
        faster = verdict(Outcome.PASS, change=(-0.3, -0.4, -0.2), against="revision")
        page = str(overview_section([result("a", verdicts=(limit, slower)), result("b", verdicts=(faster,))]))
        assert '<span class="worse">median +30.0 %</span>' in page
        assert '<span class="better">median -30.0 %</span>' in page
        assert "+50" not in page


class TestGroups:
    def test_tests_of_one_group_stand_side_by_side(self) -> None:
        one = [result(f"t::a[{name}]", setup=make_setup(name, "l", "w", "p")) for name in ("single", "cached")]
        page = str(patterns_section([*one, result("t::b")], ()))
        assert "<th>Index<th>single<th>cached<" in page
        assert "t::b" not in Reader(page).text

    def test_tests_without_a_group_have_no_sides(self) -> None:
        assert patterns_section([result("a"), result("b")], ()) is None
        assert patterns_section([result("a", group=""), result("b", group="")], ()) is None

    @each_row(
        ("setups", "labels"),
        ((("p", "l", "w"), ("q", "l", "w")), ["p", "q"]),
        ((("p", "l", "w"), ("p", "l", "v")), ["p, w", "p, v"]),
        ((("p", "l", "w"), ("p", "k", "w")), ["p, w, l", "p, w, k"]),
        ((("p", "l", "w"), ("p", "l", "w")), ["a[0]", "a[1]"]),
    )
    def test_labels_contain_only_what_distinguishes_the_tests(
        self, setups: tuple[tuple[str, str, str], ...], labels: list[str]
    ) -> None:
        members = [
            result(f"a[{number}]", setup=make_setup(pattern, load, wire, "x"))
            for number, (pattern, load, wire) in enumerate(setups)
        ]
        page = str(patterns_section(members, ()))
        assert re.findall(r"<th>([^<]*)", page[page.index("<thead>") : page.index("<tbody>")]) == ["Index", *labels]

    def test_a_group_with_nothing_in_common_is_not_shown(self) -> None:
        assert patterns_section([result("a[0]", metrics={}), result("a[1]", metrics={})], ()) is None

    @pytest.mark.parametrize(("wires", "shown"), [(("rest+json", "grpc"), True), (("grpc", "grpc"), False)])
    def test_sizes_are_compared_where_the_wires_differ(self, wires: tuple[str, str], shown: bool) -> None:
        members = [
            result(
                f"a[{number}]", setup=make_setup("single", "l", wire, "p"), metrics={"request_bytes": (9.0, 9.0, 9.0)}
            )
            for number, wire in enumerate(wires)
        ]
        assert (patterns_section(members, ()) is not None) is shown

    def test_nmrt_under_an_objective_is_compared_too(self) -> None:
        metrics = {"nmrt(p95<50.0ms)": (400.0, 390.0, 410.0)}
        page = Reader(str(patterns_section([result(f"a[{number}]", metrics=metrics) for number in (0, 1)], ())))
        assert "Capacity (NMRT) with p95<50.0ms" in page.text


class TestOneTest:
    def test_the_page_names_the_reference_and_the_set_up(self) -> None:
        text = Reader(str(details_section([result(reference=counterpart(), baseline_note="a note")]))).text
        assert "perf-baseline.json, 2026-11-20 (1a2b3c4)" in text
        assert "a note" in text
        assert "Baseline" in text

    def test_the_change_against_a_revision_is_between_what_was_measured_together(self) -> None:
        text = Reader(str(details_section([result(reference=counterpart(2e6, "revision"))]))).text
        assert "+100 %" in text

    @each_row(
        ("changes", "words"),
        ({}, "no limit and no baseline to compare with"),
        ({"passed": False}, "the test failed for a reason other than a verdict"),
        ({"failed_requests": {"500": 1200, "-1": 3}}, "1,203 (500: 1,200, time-out: 3)"),
        ({"location": None}, "pytest test_perf.py::test_digits"),
        ({"noise": ("the machine was busy",)}, "the machine was busy"),
        ({"launch_count": 1, "blocks": 1, "requests": 1}, "1 launch, 1 request in"),
        ({"setup": make_setup("p", "l", "w", "x", "model 2")}, "model 2"),
    )
    def test_the_part_of_a_test_shows_every_fact(self, changes: dict[str, object], words: str) -> None:
        assert words in Reader(str(details_section([result(**changes)]))).text  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("outcome", "words"),
        [
            (
                Outcome.FAIL,
                "Next: find the change that is slower; if it is intended, record it: pytest t --perf-baseline update",
            ),
            (
                Outcome.INCONCLUSIVE,
                "Next: measure longer: raise budget= and launches= in the marker of the test, or run pytest t",
            ),
        ],
    )
    def test_the_next_step_follows_from_the_verdict(self, outcome: Outcome, words: str) -> None:
        assert words in Reader(str(details_section([result("t", verdicts=(verdict(outcome),))]))).text

    def test_the_reason_of_an_open_verdict_and_the_next_step_are_those_of_the_terminal(self) -> None:
        left = WhyOpen(OpenBy.MACHINE, "other processes used 1.6 of the 2 cores")
        one = result("t", verdicts=(replace(verdict(Outcome.INCONCLUSIVE, change=(0.1, 0.0, 0.2)), why_open=left),))
        step = open_step(one)
        text = Reader(str(details_section([one]))).text
        assert step.why
        assert f"Why: {step.why}" in text
        assert f"Next: {step.lead} {step.command}" in text

    def test_the_command_that_accepts_a_change_names_the_file_of_the_results(self) -> None:
        slower = replace(verdict(Outcome.FAIL, change=(0.3, 0.2, 0.4)), against="revision")
        one = result("t", verdicts=(slower,), passed=False)
        named, alone = (Reader(str(details_section([one], file))).text for file in ("out.json", ""))
        assert "accept it: python -m pytest_mlpatterns accept out.json t --reason WHY" in named
        assert "in the marker of the test: accept=" in alone

    def test_each_failure_that_a_gate_let_pass_has_its_own_next_step(self) -> None:
        worse = tuple(replace(verdict(Outcome.FAIL, metric=name), against="baseline") for name in ("rtm", "throughput"))
        missed = [verdict(Outcome.FAIL, metric=name, against="limit") for name in ("rtm", "p95", "throughput")]
        limits = tuple(replace(one, asserted_at=f"t.py:{line}") for one, line in zip(missed, (12, 12, 14), strict=True))
        text = Reader(str(details_section([result("t", verdicts=(*limits, *worse), passed=False)]))).text
        for_limit = "find what is slow; if the limit is too tight, change it: t.py"
        assert f"Next (median latency): {for_limit}:12" in text
        assert f"Next (throughput): {for_limit}:14" in text
        assert "Next (median latency): find the change that is slower; if it is intended, record it" in text
        assert text.count("Next (") == 3

    def test_a_limit_is_changed_where_it_is_asserted(self) -> None:
        slow = replace(verdict(Outcome.FAIL, against="limit"), asserted_at="test_perf.py:12")
        shown = Reader(str(details_section([result("t", verdicts=(slow,), passed=False)]))).text
        assert "if the limit is too tight, change it: test_perf.py:12" in shown

    def test_every_compared_metric_has_both_values_the_change_the_outcome_and_the_tolerance(self) -> None:
        (shown, *_) = everything()
        page = str(details_section([shown]))
        rows = {name: cells for name, cells in rows_of(page).items() if len(cells) > 4}
        assert [*rows] == ["Median latency", "p99 latency", "Error rate", "Peak memory"]
        assert rows["p99 latency"] == [
            *("13.5 ms", "–", "9.00 ms", "+50.0 %", "suspected", "+10.0 % to +100 %", "20.0 %")
        ]
        assert rows["Error rate"][2:] == ["0.0 %", "+3.0 %", "failed", "+2.0 % to +4.0 %", "0.10 %"]
        assert "4 of 5 metrics compared; response size not recorded yet" in page

    def test_metrics_of_a_later_version_are_left_out(self) -> None:
        later = verdict(Outcome.FAIL, "sharpness", change=(0.1, 0.1, 0.1))
        figures = {"rtm": (1.0, 1.0, 1.0), "sharpness": (777.7, 777.7, 777.8)}
        text = Reader(str(details_section([result(metrics=figures, verdicts=(later,))]))).text
        assert "Median latency" in text
        assert "777" not in text

    def test_a_test_that_measured_nothing_has_no_figures(self) -> None:
        nothing = result(metrics={}, launches={}, latency=None, load_over_time=(), memory_over_time=())
        page = Reader(str(details_section([nothing])))
        assert "svg" not in {tag for tag, _ in page.tags}
        assert "Metric" not in page.text

    def test_of_many_tests_the_first_failures_are_open(self) -> None:
        results = [result(f"t[{number}]", passed=number % 2 == 0) for number in range(12)]
        tags = [attributes for tag, attributes in Reader(str(details_section(results))).tags if tag == "details"]
        assert ["open" in attributes for attributes in tags] == [number in (1, 3, 5) for number in range(12)]


def test_a_page_of_ten_compared_tests_is_small() -> None:
    judged = (verdict(Outcome.PASS, change=(0.01, -0.01, 0.02)),)
    page = report([result(f"t[{number}]", reference=counterpart(), verdicts=judged, group="t") for number in range(10)])
    assert 'class="figures indices"' in page
    assert len(page.encode()) < 80_000


def test_two_hundred_tests_make_a_page_of_a_sensible_size() -> None:
    """Beyond the first tests each further one adds as much as the one before it."""
    full = {"layers": LAYERS, "capacities": (capacity(),), "reference": counterpart(), "setup": SETUP}
    tests = [result(f"t[{number}]", **full) for number in range(20)]
    none, ten, twenty = (len(report(tests[:count])) for count in (0, 10, 20))
    assert twenty - ten == pytest.approx(ten - none, rel=0.5)
    assert ten + 19 * (twenty - ten) < 3_000_000


def test_the_underline_of_a_link_is_below_the_underscores_of_a_test_id() -> None:
    (offset,) = re.findall(r"a\.id \{ text-underline-offset: ([\d.]+)em", report([]))
    assert float(offset) > 0.3  # the underscore of a monospaced font is about 0.15 em below the baseline, 0.1 em thick


def rows_of(page: str) -> dict[str, list[str]]:
    """The rows of the table of metrics, as a reader sees them."""
    table = page[page.index('class="figures metrics') :].partition("</table>")[0]
    cells = [[re.sub(r"<[^>]+>", "", cell) for cell in row.split("<td>")[1:]] for row in table.split("<tr>")]
    return {row[0]: row[1:] for row in cells if row}


def test_every_figure_of_a_compared_test_is_from_the_measurement_of_its_change() -> None:
    judged = replace(
        verdict(Outcome.PASS, against="revision", change=(0.0066, -0.01, 0.02)),
        reference_value=4e6,
        present_value=4.0264e6,
    )
    compared = result(reference=counterpart(kind="revision"), verdicts=(judged,), launches={})
    page = report([compared, result("t::other", metrics={}, launches={})])
    assert METRICS["rtm"].show(compared.metrics["rtm"][0]) == "4.12 ms"  # what the test measured alone
    assert "4.12 ms" not in page
    assert '<td data-label="Median">4.03 ms' in page  # the overview
    assert rows_of(page)["Median latency"][::2][:2] == ["4.03 ms", "4.00 ms"]


def test_the_change_of_a_mean_is_in_the_row_of_the_mean() -> None:
    means = {**result().metrics, "latency_mean": (4.3e6, 4.2e6, 4.4e6)}
    judged = replace(
        verdict(Outcome.FAIL, change=(0.367, 0.3, 0.4)),
        reference_value=3.15e6,
        present_value=4.3e6,
        judged_by="latency_mean",
    )
    rows = rows_of(report([result(metrics=means, reference=counterpart(4.0e6), verdicts=(judged,), passed=False)]))
    assert rows["Median latency"] == ["4.12 ms", "4.05 ms to 4.19 ms", "4.00 ms", "+3.0 %"]  # not judged
    assert rows["Mean latency"][0::2][:2] == ["4.30 ms", "3.15 ms"]
    assert rows["Mean latency"][3:5] == ["+36.7 %", "failed"]


def test_a_growth_is_shown_from_the_longer_load_that_judged_it() -> None:
    leak = Verdict("memory_growth", "baseline", Outcome.FAIL, "leaks", Estimate(3.0, 2.0, 4.0), 0.5, 5.0, 71.4)
    shown = result(reference=counterpart(), verdicts=(leak,))
    shown = replace(shown, metrics={**shown.metrics, "memory_growth": (0.0, 0.0, 0.0)})
    row = rows_of(report([shown]))["Memory growth per request"]
    assert row == ["71.4 B", "–", "5.00 B", "+66.4 B", "failed", "–", "50.0 %"]
