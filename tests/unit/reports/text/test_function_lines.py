"""The functions in the text of a failure, from declared profiles."""

from typing import Any

from msgspec.structs import replace
from support.each_row import each_row
from support.profiles import FRAMES, nothing_stands_out, present_alone, slower_normalize
from support.splits import AFTER, BEFORE, split, with_splits
from support.synthetic import MS, US, counterpart, make_setup, result, verdict

from pytest_mlpatterns.records.launch import Estimate
from pytest_mlpatterns.records.profile import FunctionChange, NativeChange, ProfileRecord
from pytest_mlpatterns.records.setup import Setup
from pytest_mlpatterns.records.verdict import Outcome, Verdict
from pytest_mlpatterns.reports.text.failure import failure_text, next_step
from pytest_mlpatterns.reports.text.summary_table import summary_lines
from pytest_mlpatterns.reports.text.terminal_text import text_of
from pytest_mlpatterns.reports.text.where import (
    cause_ns,
    function_texts,
    missing_profile,
    profile_texts,
    where_sentence,
    where_texts,
)

MADE = "profiled 500 times a second by py-spy 0.4.2, 2.1 % slower meanwhile (±1.3 %)"


def failing(metric: str = "rtm", **changes: Any) -> Verdict:
    return replace(Verdict(metric, "revision", Outcome.FAIL, f"{metric} is worse"), **changes)


def lines(record: ProfileRecord | None, *verdicts: Verdict) -> list[str]:
    of, judged = result(profile=record), verdicts or (failing(),)
    return [*function_texts(of, judged), *profile_texts(of, judged)]


def changed(**changes: Any) -> ProfileRecord:
    """A profile with one function that is described otherwise."""
    (usual,) = slower_normalize().changes
    return replace(slower_normalize(), changes=(replace(usual, **changes),))


def test_a_function_has_its_callers_its_figures_and_its_line() -> None:
    assert lines(slower_normalize()) == [
        "Digits.predict → normalize (model.py:41): 400 µs → 2.70 ms per request, +2.30 ms (±200 µs) of +2.34 ms",
        "mostly in sort (numpy/_core/fromnumeric.py), line 44: order = np.sort(values)",
        MADE,
    ]


@each_row(
    ("changes", "expected"),
    ({"inside": ""}, "mostly line 44: order = np.sort(values)"),
    ({"inside": "", "source": ""}, "mostly line 44"),
    ({"line": 0, "source": ""}, "mostly in sort (numpy/_core/fromnumeric.py)"),
    ({"line": 0, "inside": ""}, MADE),
)
def test_what_is_not_known_of_a_line_is_left_out(changes: dict[str, Any], expected: str) -> None:
    assert lines(changed(**changes))[1] == expected


def test_a_function_that_only_one_side_has() -> None:
    assert "normalize (model.py:41): not seen → 2.70 ms per request" in lines(changed(before_ns=0.0, kind="new"))[0]
    assert "normalize (model.py:41): 400 µs → not seen, " in lines(changed(now_ns=0.0, kind="gone"))[0]


def test_a_function_that_was_elsewhere() -> None:
    assert "normalize (model.py:41, was old.py): " in lines(changed(was="old.py", kind="moved"))[0]


def test_the_whole_is_left_out_if_noise_made_it_smaller_than_the_part() -> None:
    assert lines(changed(of_ns=1_000_000.0))[0].endswith("per request, +2.30 ms (±200 µs)")


def test_a_layer_has_no_file() -> None:
    assert lines(changed(chain=(8,), inside=""))[0].startswith("wire: encode: 400 µs → ")


def test_if_no_function_stands_out_the_nearest_is_given() -> None:
    nearest = "no function stands out (largest: normalize (model.py:41) +100 µs (±200 µs))"
    assert lines(nothing_stands_out())[0] == nearest
    assert lines(replace(nothing_stands_out(), largest=None))[0] == "no function stands out"


THREADS = NativeChange(0, 3, 12_000, 1_710_000, ("onnxruntime", "OpenMP"))


@each_row(
    ("native", "line"),
    (THREADS, "onnxruntime and OpenMP: 0 → 3 busy native threads, 12.0 µs → 1.71 ms of CPU per request"),
    (replace(THREADS, libraries=()), "0 → 3 busy native threads, 12.0 µs → 1.71 ms of CPU per request"),
    (
        NativeChange(3, 3, 1_200_000, 2_400_000, ("onnxruntime",)),
        "onnxruntime: 3 busy native threads, 1.20 ms → 2.40 ms of CPU per request",
    ),
)
def test_native_threads_stand_in_place_of_functions_that_are_as_fast_as_before(native: NativeChange, line: str) -> None:
    record = replace(nothing_stands_out(), native=native)
    assert lines(record)[0] == line
    assert not any("no function stands out" in text for text in lines(record))
    assert cause_ns(result(profile=record)) == native.now_ns - native.before_ns


def test_native_threads_stand_behind_a_function_that_got_slower() -> None:
    found = lines(replace(slower_normalize(), native=THREADS))
    assert [text.partition(" ")[0] for text in found] == ["Digits.predict", "mostly", "onnxruntime", "profiled"]
    assert cause_ns(result(profile=replace(slower_normalize(), native=THREADS))) == 2_300_000


def test_a_profile_that_was_asked_for_and_is_missing_is_said_once() -> None:
    missing = ProfileRecord(note="no profile: py-spy did not begin within 10 s")
    passed = result(profile=missing)
    assert missing_profile(passed) == missing.note
    summary = "\n".join(map(text_of, summary_lines([passed], 120)))
    assert summary.count(missing.note) == 1
    assert missing_profile(result(profile=missing, verdicts=(failing(),))) == "", "the failure says it"
    assert missing_profile(result(profile=slower_normalize())) == missing_profile(result()) == ""


def test_notes_and_a_profile_that_could_not_be_made_are_given() -> None:
    assert lines(replace(slower_normalize(), notes=("a note",)))[2:] == ["a note", MADE]
    assert lines(ProfileRecord(note="no profile: py-spy is missing")) == ["no profile: py-spy is missing"]
    assert lines(replace(slower_normalize(), slowdown=None))[-1] == "profiled 500 times a second by py-spy 0.4.2"
    assert lines(replace(slower_normalize(), slowdown=(0.99, 0.9, 1.1)))[-1].endswith(
        ", 1.0 % faster meanwhile (±10.0 %)"
    )
    assert (
        lines(replace(slower_normalize(), slowdown=(1.6, 0.8, 3.2)))[-1]
        == "profiled 500 times a second by py-spy 0.4.2"
    )
    assert lines(replace(slower_normalize(), rate_hz=0.0))[-1].startswith("mostly ")


@each_row(
    "verdict",
    failing(against="baseline"),
    failing(against="limit"),
    failing(outcome=Outcome.PASS),
    failing("peak_memory"),
    failing("error_rate"),
    failing("cold_start"),
)
def test_other_verdicts_have_no_functions(verdict: Verdict) -> None:
    assert lines(slower_normalize(), verdict) == []


@each_row("metric", ["rtm", "p95", "throughput", "cpu_per_request", "output_tokens"])
def test_times_and_rates_have_functions(metric: str) -> None:
    assert lines(slower_normalize(), failing(metric))


def test_a_profile_of_one_side_compares_nothing() -> None:
    assert lines(present_alone()) == lines(None) == []


def with_profile(record: ProfileRecord, now: Any = AFTER) -> Any:
    return with_splits(
        {"rtm": BEFORE}, {"rtm": now}, kind="revision", setup=make_setup("single", "closed(1)"), profile=record
    )


def test_the_first_line_names_the_function_of_the_part_that_leads() -> None:
    found = with_profile(slower_normalize())
    assert where_texts(found, [failing()])[0] == (
        "+12.7 ms: model on CPU +11.7 ms in normalize (model.py:41), queue wait +1.00 ms"
    )
    assert where_sentence(found, [failing()]).startswith("where: +12.7 ms: model on CPU +11.7 ms in normalize")
    assert len(where_texts(found, [failing()])) == 4


def test_the_line_of_a_function_is_whole_in_a_failure() -> None:
    source = "order = numpy.sort(numpy.concatenate([values, earlier])).astype(values.dtype)"
    shown = " ".join(failure_text([failing()], with_profile(changed(source=source))).split())
    assert f"line 44: {source}" in shown


@each_row(
    "record",
    nothing_stands_out(),
    changed(chain=(8,)),
    changed(change=Estimate(-1.0, -2.0, -0.5)),
    changed(change=Estimate(60.0 * MS, 50.0 * MS, 70.0 * MS)),  # far more than the part
)
def test_a_part_of_the_model_names_no_layer_nothing_faster_and_nothing_elsewhere(record: ProfileRecord) -> None:
    assert where_texts(with_profile(record), [failing()])[0].startswith("+12.7 ms: model on CPU +11.7 ms, ")


def test_the_wire_names_its_layer() -> None:
    now = split({"wire": 9 * MS, "model_cpu": 9 * MS, "queue_wait": 1 * MS, "server": 500 * US, "socket": 1.5 * MS})
    wire = FunctionChange((8,), 100_000.0, 9 * MS, Estimate(8.9 * MS, 8 * MS, 9.8 * MS), 8.9 * MS, "slower")
    named = replace(slower_normalize(), changes=(wire,))
    assert FRAMES[8].function == "wire: encode"
    assert where_texts(with_profile(named, now), [failing()])[0] == "+8.80 ms: wire +8.80 ms in wire: encode"


def test_without_a_split_the_function_comes_first() -> None:
    assert where_sentence(result(profile=slower_normalize()), [failing()]).startswith("where: Digits.predict → ")


@each_row(
    ("metric", "commit", "setup", "named"),
    ("rtm", "1a2b3c4", make_setup("single"), True),
    ("throughput", "1a2b3c4d5e6f", make_setup("single"), True),
    ("rtm", "", make_setup("single"), False),
    ("peak_memory", "1a2b3c4", make_setup("single"), False),
    ("rtm", "1a2b3c4", replace(make_setup("single"), engine="ray"), False),
)
def test_after_a_baseline_the_next_step_names_the_command_that_names_functions(
    metric: str, commit: str, setup: Setup, named: bool
) -> None:
    slower = verdict(Outcome.FAIL, metric, against="baseline")
    compared = result(verdicts=(slower,), setup=setup, reference=replace(counterpart(), recorded_commit=commit))
    command = [line for line in next_step([slower], compared) if "--perf-against" in line]
    assert bool(command) is named
    if named:
        assert command[0].endswith(f"--perf-against {commit}")
