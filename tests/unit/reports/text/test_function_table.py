"""The functions of a profile as a text table, for the job summary."""

from msgspec.structs import replace
from support.profiles import present_alone, slower_normalize
from support.synthetic import result

from pytest_mlpatterns.records.profile import ProfileRecord
from pytest_mlpatterns.records.result import FailedTest
from pytest_mlpatterns.reports.files.ci_reports import job_summary
from pytest_mlpatterns.reports.text.where import function_table_lines


def test_each_function_has_its_time_on_both_sides_and_its_change() -> None:
    assert function_table_lines(slower_normalize()) == [
        "time per request                        before      now               change",
        "Digits.predict (model.py:30)           2.56 ms  4.95 ms   +2.39 ms (±242 µs)",
        "normalize (model.py:41)                 400 µs  2.70 ms   +2.30 ms (±200 µs)",
        "sort (numpy/_core/fromnumeric.py:900)     0 ns  2.28 ms   +2.28 ms (±190 µs)",
        "classify (model.py:61)                 2.10 ms  2.19 ms   +90.0 µs (±150 µs)",
        "dumps (json/__init__.py:183)           60.0 µs     0 ns  -60.0 µs (±11.0 µs)",
        "wire: decode                            120 µs   121 µs  +1.00 µs (±21.0 µs)",
    ]


def test_one_side_alone_has_its_times() -> None:
    assert function_table_lines(present_alone()) == [
        "time per request                 now",
        "Digits.predict (model.py:30)  482 µs",
        "normalize (model.py:41)       420 µs",
    ]


def test_a_change_that_is_not_known_is_a_dash() -> None:
    first, *_ = slower_normalize().functions
    unknown = replace(slower_normalize(), functions=(replace(first, change=None),))
    assert function_table_lines(unknown)[1].endswith("4.95 ms       –")


def test_without_a_profile_there_is_nothing() -> None:
    assert function_table_lines(None) == []
    assert function_table_lines(ProfileRecord(note="no time")) == []


def test_the_job_summary_folds_it_into_the_details_of_the_failed_test() -> None:
    failed = result(passed=False, profile=slower_normalize())
    text = job_summary([failed], [FailedTest(failed.test, "slower", None)], {})
    details = text[text.index("<details>") : text.index("</details>")]
    assert function_table_lines(slower_normalize())[2] in details
