"""Units: what users write is read exactly, what is printed changes its unit at the boundary, errors say the mend."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.each_row import each_row
from support.synthetic import PROPERTY

from pytest_mlpatterns.errors import UnitError
from pytest_mlpatterns.units import (
    Unit,
    format_duration,
    format_percent,
    format_percents,
    format_rate,
    format_size,
    parse_duration,
    parse_instructions,
    parse_number,
    parse_ratio,
    parse_size,
)
from pytest_mlpatterns.wording import shown


@each_row(
    ("text", "ns"),
    ("20ms", 20_000_000),
    ("1.5 s", 1_500_000_000),
    (" 7 us ", 7_000),
    ("7µs", 7_000),  # the micro sign
    ("7μs", 7_000),  # the Greek letter
    ("3ns", 3),
    (".5ms", 500_000),
    ("5.s", 5_000_000_000),
    ("2min", 120_000_000_000),
    ("1h", 3_600_000_000_000),
    ("0s", 0),
    (timedelta(milliseconds=20), 20_000_000),
    (timedelta(days=2, microseconds=1), 172_800_000_001_000),
)
def test_a_time_with_its_unit_is_read_in_whole_nanoseconds(text: object, ns: int) -> None:
    assert parse_duration(text) == ns
    assert isinstance(parse_duration(text), int)


@each_row(
    ("text", "size"),
    ("512MiB", 512 * 2**20),
    ("10 MB", 10_000_000),
    ("1kB", 1000),
    ("1KiB", 1024),
    ("2GB", 2 * 10**9),
    ("2GiB", 2 * 2**30),
    ("1TB", 10**12),
    ("0.5TiB", 2**39),
    ("7B", 7),
)
def test_a_size_with_its_unit_is_read_in_whole_bytes(text: str, size: int) -> None:
    assert parse_size(text) == size


@each_row(
    ("given", "share"), [("10%", 0.1), (" 2.5 % ", 0.025), (0.1, 0.1), ("0.1", 0.1), (0, 0.0), (1, 1.0), ("100%", 1.0)]
)
def test_a_ratio_is_a_share_or_a_percentage(given: object, share: float) -> None:
    assert parse_ratio(given) == pytest.approx(share)


@each_row(
    "wrong", [20, 20.5, True, None, "20", "ms", "", "-1ms", "1 parsec", "1e3 ms", "1,000 ms", "20ms 5s", b"20ms", "1 S"]
)
def test_a_time_without_a_known_unit_is_refused_with_an_example(wrong: object) -> None:
    with pytest.raises(UnitError) as caught:
        parse_duration(wrong, name="perf(duration=...)")
    message = str(caught.value)
    assert message.startswith(f"perf(duration=...) is {wrong!r}, expected a time with its unit")
    assert ('"20.5ms" or "20.5s"' if wrong == 20.5 else '"20ms" or "20s"') in message
    assert "ns, us, µs" in message


def test_a_negative_timedelta_is_refused() -> None:
    with pytest.raises(UnitError, match=r"timeout is .*timedelta.*, expected a time that is not negative"):
        parse_duration(timedelta(seconds=-1), name="timeout")


@each_row("wrong", [512, "512", "512 Mib", "512mb", "-5MiB", None])
def test_a_size_without_a_known_unit_is_refused_with_an_example(wrong: object) -> None:
    with pytest.raises(UnitError) as caught:
        parse_size(wrong, name="limit")
    message = str(caught.value)
    assert message.startswith(f"limit is {wrong!r}, expected a size with its unit")
    assert '"512MiB"' in message
    assert "KiB" in message


@each_row(
    "wrong",
    "x",
    "",
    -1,
    -0.5,
    True,
    None,
    "nan",
    "inf",
    float("nan"),
    float("inf"),
    [],
    pytest.param(10**400, id="beyond a float"),
)
def test_a_number_that_is_negative_or_none_at_all_is_refused(wrong: object) -> None:
    with pytest.raises(UnitError) as caught:
        parse_number(wrong, name="rps", example="500")
    assert str(caught.value) == f"rps is {shown(wrong)}, expected a number that is not negative; write 500"


@each_row("wrong", ["x", "x%", "-5%", "-5 %", "%", "nan%", -0.1, None])
def test_a_ratio_that_cannot_be_read_is_shown_as_it_was_given(wrong: object) -> None:
    with pytest.raises(UnitError) as caught:
        parse_ratio(wrong, name="tolerance")
    message = str(caught.value)
    assert message.startswith(f"tolerance is {wrong!r}, expected a")
    assert message.endswith('; write 0.05 or "5%"')


@pytest.mark.parametrize("parse", [parse_duration, parse_size])
def test_a_quantity_beyond_all_numbers_is_refused_as_unreadable(parse: object) -> None:
    unit = "s" if parse is parse_duration else "B"
    with pytest.raises(UnitError, match="limit is '999"):
        parse("9" * 400 + unit, name="limit")  # type: ignore[operator]


@each_row(
    ("ns", "text"),
    (0, "0 ns"),
    (0.5, "0.500 ns"),
    (1, "1.00 ns"),
    (9.994, "9.99 ns"),
    (9.996, "10.0 ns"),
    (999.4, "999 ns"),
    (999.5, "1.00 µs"),
    (1_000, "1.00 µs"),
    (9_996, "10.0 µs"),
    (999_499, "999 µs"),
    (999_500, "1.00 ms"),
    (20_040_000, "20.0 ms"),
    (999_499_999, "999 ms"),
    (999_500_000, "1.00 s"),
    (59_960_000_000, "60.0 s"),
    (999_400_000_000, "999 s"),
    (3_600_000_000_000, "3,600 s"),
    (-1_500, "-1.50 µs"),
)
def test_a_duration_prints_three_digits_and_changes_its_unit_at_the_boundary(ns: float, text: str) -> None:
    assert format_duration(ns) == text


@each_row(
    ("size", "text"),
    (0, "0 B"),
    (1, "1.00 B"),
    (999, "999 B"),
    (1023, "1,023 B"),
    (1023.488, "1.00 KiB"),
    (1024, "1.00 KiB"),
    (1023 * 2**10, "1,023 KiB"),
    (2**20 - 2**9, "1.00 MiB"),
    (2**20, "1.00 MiB"),
    (512 * 2**20, "512 MiB"),
    (2**30 - 2**19, "1.00 GiB"),
    (2**30, "1.00 GiB"),
    (2**40 - 2**29, "1.00 TiB"),
    (2**40, "1.00 TiB"),
    (5000 * 2**40, "5,000 TiB"),
)
def test_a_size_prints_three_digits_and_changes_its_unit_at_the_boundary(size: float, text: str) -> None:
    assert format_size(size) == text


@each_row(
    ("rps", "text"),
    (0, "0 req/s"),
    (0.5, "0.500 req/s"),
    (12.34, "12.3 req/s"),
    (999.4, "999 req/s"),
    (999.5, "1,000 req/s"),
    (1234.4, "1,234 req/s"),
    (1_234_567, "1,234,567 req/s"),
    (float("nan"), "nan req/s"),
)
def test_a_rate_prints_three_digits_and_whole_numbers_above_a_thousand(rps: float, text: str) -> None:
    assert format_rate(rps) == text


@each_row(
    ("ratio", "text"),
    *((0, "0.0 %"), (0.0001, "0.01 %"), (0.0094, "0.94 %"), (0.0095, "0.95 %"), (0.0096, "0.96 %")),
    *((0.00994, "0.99 %"), (0.00996, "1.0 %"), (0.123, "12.3 %"), (0.99949, "99.9 %"), (0.9996, "100 %")),
    *((12.5, "1250 %"), (-0.05, "-5.0 %")),
)
def test_a_percentage_keeps_its_digits_up_to_each_boundary(ratio: float, text: str) -> None:
    assert format_percent(ratio) == text


@pytest.mark.parametrize(("ratio", "text"), [(0.05, "+5.0 %"), (-0.05, "-5.0 %"), (0.0, "+0.0 %"), (0.004, "+0.40 %")])
def test_a_signed_percentage_always_has_its_sign(ratio: float, text: str) -> None:
    assert format_percent(ratio, signed=True) == text


@PROPERTY
@given(st.floats(min_value=1, max_value=1e15))
def test_a_printed_duration_reads_back_within_its_three_digits(ns: float) -> None:
    assert parse_duration(format_duration(ns).replace(",", "")) == pytest.approx(ns, rel=0.0051, abs=0.5)


@PROPERTY
@given(st.floats(min_value=1, max_value=1e15))
def test_a_printed_size_reads_back_within_its_three_digits(size: float) -> None:
    assert parse_size(format_size(size).replace(",", "")) == pytest.approx(size, rel=0.0051, abs=0.5)


@PROPERTY
@given(st.floats(min_value=0, max_value=100))
def test_a_printed_percentage_reads_back_within_its_last_digit(ratio: float) -> None:
    assert parse_ratio(format_percent(ratio)) == pytest.approx(ratio, rel=0.0502, abs=0.00005001)


@PROPERTY
@given(st.floats(min_value=0, max_value=2), st.floats(min_value=0, max_value=2))
def test_the_larger_percentage_never_prints_as_the_smaller(one: float, other: float) -> None:
    small, large = sorted((one, other))
    assert parse_ratio(format_percent(small)) <= parse_ratio(format_percent(large))


@PROPERTY
@given(st.floats(min_value=0, max_value=1e14), st.floats(min_value=0, max_value=1e14))
def test_the_larger_duration_never_prints_as_the_smaller(one: float, other: float) -> None:
    small, large = sorted((one, other))
    read = [parse_duration(format_duration(ns).replace(",", "")) for ns in (small, large)]
    assert read[0] <= read[1]


@PROPERTY
@given(st.integers(min_value=0, max_value=10**6), st.sampled_from(["ns", "us", "µs", "ms", "s", "min", "h"]))
def test_whole_times_of_any_unit_are_read_without_rounding(number: int, unit: str) -> None:
    scale = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "min": 60 * 10**9, "h": 3600 * 10**9}[unit]
    assert parse_duration(f"{number}{unit}") == number * scale
    assert parse_duration(f" {number} {unit} ") == number * scale


@each_row("unit", list(Unit))
def test_a_unit_reads_its_own_example(unit: Unit) -> None:
    assert unit.read(unit.example, name="a limit") > 0


@each_row(
    ("unit", "shown"),
    (Unit.DURATION, "2.00 µs"),
    (Unit.RATE, "2,000 req/s"),
    (Unit.RATIO, "200000 %"),
    (Unit.SIZE, "1.95 KiB"),
    (Unit.COST, "2,000"),
    (Unit.COUNT, "2,000"),
)
def test_a_unit_decides_how_a_value_prints(unit: Unit, shown: str) -> None:
    assert unit.show(2000) == shown
    assert " ".join(filter(None, unit.parts(2000))) == shown


@pytest.mark.parametrize(
    ("low", "text"), [(-0.01, "-1.0 to +20.0 %"), (0.15, "+15.0 to +20.0 %"), (-2, "-200 to +20.0 %")]
)
def test_an_interval_of_changes_has_its_unit_once(low: float, text: str) -> None:
    assert format_percents(low, 0.2) == text


@pytest.mark.parametrize(("unit", "factor"), [(Unit.DURATION, 2.0), (Unit.RATE, 0.5), (Unit.RATIO, 1), (Unit.SIZE, 1)])
def test_a_slower_machine_scales_times_and_rates_only(unit: Unit, factor: float) -> None:
    assert unit.scale(2.0) == factor


@each_row(("text", "number"), [("4.2M", 4.2e6), ("900 k", 9e5), ("1.5G", 1.5e9), (4_200_000, 4.2e6), ("420", 420.0)])
def test_instructions_are_a_number_with_or_without_a_unit(text: object, number: float) -> None:
    assert parse_instructions(text, name="limit") == pytest.approx(number)
    assert Unit.INSTRUCTIONS.read(Unit.INSTRUCTIONS.show(number), name="limit") == pytest.approx(number)
    for wrong in ("4.2 M instructions", "M", -1, "4,2M"):
        with pytest.raises(UnitError, match=r'"4\.2M"'):
            parse_instructions(wrong, name="limit")
