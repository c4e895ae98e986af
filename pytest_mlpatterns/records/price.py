"""The price of processors and memory, such as ``0.0425 USD per core-hour, 0.0057 USD per GiB-hour``; and an amount."""

import re
from decimal import Decimal

from msgspec import Struct

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.wording import shown

_AMOUNT = r"\s*(?P<number>[0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*(?P<currency>[A-Za-z]{2,8})"
_PART = re.compile(rf"{_AMOUNT}\s+per\s+(?P<unit>core|GiB)-hour\s*")
_MOST = 1e9  # Largest amount, in a currency of the user's
_EXAMPLE = '"0.0425 USD per core-hour, 0.0057 USD per GiB-hour"'


class Amount(Struct, frozen=True):
    """An amount of money."""

    value: float
    currency: str


class Price(Struct, frozen=True):
    """What an hour of one core and one of a GiB of memory cost; prints as :func:`parse_price` reads it."""

    per_core_hour: float
    per_gib_hour: float
    currency: str

    def __str__(self) -> str:
        amounts = {"core": self.per_core_hour, "GiB": self.per_gib_hour}
        return ", ".join(
            f"{_written(amount)} {self.currency} per {unit}-hour" for unit, amount in amounts.items() if amount
        )


def parse_price(text: object, *, name: str = "price") -> Price:
    """Read ``"0.0425 USD per core-hour, 0.0057 USD per GiB-hour"``; a resource that is not named costs nothing."""
    given = text.split(",") if isinstance(text, str) else [""]
    amounts: dict[str, float] = {}
    currency = ""
    for one in given:
        part = _PART.fullmatch(one)
        if part is None:
            found = f"{shown(text)} with the part {shown(one.strip())}" if given[1:] else shown(text)
            raise SettingError(
                f"{name} is {found}, expected an amount with its currency in letters per core-hour, per GiB-hour or "
                f"both; write for example {_EXAMPLE}"
            )
        if part["unit"] in amounts:
            raise SettingError(f"{name} is {shown(text)}, expected one amount per {part['unit']}-hour; leave one out")
        if currency and part["currency"] != currency:
            raise SettingError(
                f"{name} is {shown(text)}, expected one currency, found {currency} and {part['currency']}; "
                "convert one of the amounts"
            )
        amounts[part["unit"]], currency = _value(part, text, name), part["currency"]
    if not any(amounts.values()):
        raise SettingError(f"{name} is {shown(text)}, expected an amount above 0; write for example {_EXAMPLE}")
    return Price(amounts.get("core", 0.0), amounts.get("GiB", 0.0), currency)


def parse_amount(text: object, *, name: str) -> Amount:
    """Read an amount of money such as ``"0.40 USD"``."""
    match = re.fullmatch(rf"{_AMOUNT}\s*", text) if isinstance(text, str) else None
    if match is None:
        raise SettingError(
            f'{name} is {shown(text)}, expected an amount with its currency in letters; write for example "0.40 USD"'
        )
    return Amount(_value(match, text, name), match["currency"])


def _value(match: re.Match[str], text: object, name: str) -> float:
    value = float(match["number"])
    if value > _MOST:
        raise SettingError(f"{name} is {shown(text)}, expected amounts of at most {_MOST:,.0f}; use a larger currency")
    return value


def _written(amount: float) -> str:
    """All digits without an exponent, so that the same number is read again."""
    return format(Decimal(repr(amount)), "f")
