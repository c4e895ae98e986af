"""A price reads what it prints; anything else is refused with what was found and what is expected."""

import pytest
from hypothesis import given
from support.each_row import each_row
from support.result_strategies import PRICES
from support.synthetic import PROPERTY

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.records.price import Amount, Price, parse_amount, parse_price


@each_row(
    ("text", "price"),
    ("0.0425 USD per core-hour, 0.0057 USD per GiB-hour", Price(0.0425, 0.0057, "USD")),
    ("0.0057 USD per GiB-hour, 0.0425 USD per core-hour", Price(0.0425, 0.0057, "USD")),
    (" .04USD per core-hour ", Price(0.04, 0.0, "USD")),
    ("2 EUR per GiB-hour,0 EUR per core-hour", Price(0.0, 2.0, "EUR")),
)
def test_a_price_names_what_each_resource_costs(text: str, price: Price) -> None:
    assert parse_price(text) == price


@PROPERTY
@given(PRICES)
def test_a_price_survives_its_text(price: Price) -> None:
    assert parse_price(str(price)) == price


@each_row(
    ("text", "said"),
    (0.0425, "is 0.0425, expected an amount with its currency in letters per core-hour, per GiB-hour or both"),
    ("", "is '', expected an amount with its currency"),
    ("1 USD per core-hour, 0.01 $ per GiB-hour", "with the part '0.01 $ per GiB-hour', expected an amount with"),
    ("1 USD per core-hour,", "with the part '', expected an amount with"),
    ("1,000 JPY per core-hour", "with the part '1', expected an amount with"),
    ("1 USD per GB-hour", "is '1 USD per GB-hour', expected an amount with"),
    ("0.0425 per core-hour", "expected an amount with its currency"),
    ("0.0425 USD per hour", "expected an amount with its currency"),
    ("-1 USD per core-hour", "expected an amount with its currency"),
    ("1 USD per core-hour, 2 USD per core-hour", "expected one amount per core-hour; leave one out"),
    ("1 USD per core-hour, 2 EUR per GiB-hour", "expected one currency, found USD and EUR"),
    ("0 USD per core-hour", "expected an amount above 0"),
    (f"{'9' * 400} USD per core-hour", "expected amounts of at most 1,000,000,000"),
)
def test_what_is_no_price_is_refused(text: object, said: str) -> None:
    with pytest.raises(SettingError) as refused:
        parse_price(text, name="ini key perf_price")
    assert str(refused.value).startswith("ini key perf_price is ")
    assert said in str(refused.value)


def test_an_amount_has_a_currency() -> None:
    assert parse_amount("0.40 USD", name="limit") == Amount(0.4, "USD")
    for wrong in ("0.40", 0.4, "USD", "0.40 USD per core-hour"):
        with pytest.raises(SettingError, match="expected an amount with its currency in letters; write for example"):
            parse_amount(wrong, name="limit")
