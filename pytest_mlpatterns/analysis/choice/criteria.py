"""The criteria of ``--perf-rank`` for the choice of a pattern: weights of metrics, and hard requirements.

Pure. It must not know results.
"""

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from msgspec import Struct

from pytest_mlpatterns.analysis.metrics.definitions import METRICS, metric_named, which_metric
from pytest_mlpatterns.analysis.metrics.metric import AtNmrt, Metric, Nmrt, objective_of
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.records.objective import Objective
from pytest_mlpatterns.records.price import Amount, Price, parse_amount
from pytest_mlpatterns.units import Unit, parse_ratio
from pytest_mlpatterns.wording import shown, split_outside_brackets

_EXAMPLE = "rtm=0.5,nmrt=0.3,asl=0.2,p95<50ms"
_PART = re.compile(r"(?P<name>[^\s=<>()]+(?:\s*\((?P<objective>[^()]*)\))?)\s*(?P<sign><=|>=|=|<|>)(?P<value>[^=<>]*)")


class Requirement(Struct, frozen=True):
    """A limit that a pattern must meet to be chosen: below it if lower is better, at least it otherwise.

    ``text`` is the requirement as it was written, ``limit`` is in the metric's unit, ``currency`` belongs to a cost.
    """

    metric: str
    limit: float
    text: str
    currency: str = ""


@dataclass(frozen=True, slots=True)
class SelectionCriteria:
    """Weights by the name of the metric, which sum to 1, and hard requirements; ``source`` is for messages."""

    weights: Mapping[str, float]
    requirements: tuple[Requirement, ...] = ()
    source: str = field(default="--perf-rank", compare=False)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics that have a weight or a limit."""
        return (*self.weights, *(requirement.metric for requirement in self.requirements))

    @property
    def searches(self) -> tuple[Objective | None, ...]:
        """The searches for NMRT that the criteria need, by objective; None for NMRT alone."""
        searched = [one for one in map(metric_named, self.metrics) if isinstance(one.kind, Nmrt | AtNmrt)]
        return tuple(dict.fromkeys(map(objective_of, searched)))

    def check_currency(self, price: Price | None) -> None:
        """Refuse a limit of a cost in another currency than the price's; without a price (None) no pattern meets it."""
        for requirement in self.requirements:
            if price is not None and requirement.currency not in ("", price.currency):
                raise SettingError(
                    f"{self.source} requires {requirement.text} at a price of {price}, expected an amount in "
                    f"{price.currency}; convert one of the two"
                )


def parse_criteria(text: str, source: str) -> SelectionCriteria:
    """Read ``"rtm=0.5, nmrt=0.3, asl=0.2, p95<50ms"``.

    A weight is a number above 0 or a percentage; only its share of the sum counts. A requirement has the unit of its
    metric: ``rtm<20ms``, ``error_rate<1%``, ``peak_memory<512MiB``, ``nmrt>=400``, ``cost<0.40 USD``. NMRT
    under a latency objective is ``nmrt(p95<50ms)``.
    """
    weights: dict[str, float] = {}
    requirements: list[Requirement] = []
    for part in filter(None, map(str.strip, split_outside_brackets(text, ","))):
        match = _PART.fullmatch(part)
        if match is None:
            raise SettingError(
                f"{source} has {shown(part)}, expected a weight such as rtm=0.5 or a requirement such as rtm<20ms"
            )
        metric, value = _metric(match, source), match["value"].strip()
        given = weights if match["sign"] == "=" else [requirement.metric for requirement in requirements]
        if metric.name in given:
            what = "weighs" if match["sign"] == "=" else "limits"
            raise SettingError(f"{source} {what} {metric.name} twice, expected once; leave one out")
        if match["sign"] == "=":
            weights[metric.name] = _weight(metric, value, source)
        else:
            requirements.append(_requirement(metric, match["sign"], value, source=source))
    if not weights:
        raise SettingError(f"{source} is {shown(text)}, expected at least one weight; write for example {_EXAMPLE}")
    largest = max(weights.values())  # avoids an overflow of the sum
    total = sum(weight / largest for weight in weights.values())
    shares = {name: weight / largest / total for name, weight in weights.items()}
    return SelectionCriteria(shares, tuple(requirements), source)


def _metric(match: re.Match[str], source: str) -> Metric:
    name = re.sub(r"\s", "", match["name"]).lower()
    if match["objective"] is not None:
        try:
            return metric_named(name)
        except SettingError as error:
            raise SettingError(f"{source} has {shown(name)}: {error}") from None
        except KeyError:
            pass  # rejected below, with the names that exist
    if name not in METRICS:
        hint = which_metric(name, METRICS)
        raise SettingError(f"{source} names the metric {shown(name)}, {hint}expected one of {', '.join(METRICS)}")
    return METRICS[name]


def _weight(metric: Metric, value: str, source: str) -> float:
    with contextlib.suppress(SettingError):
        if weight := parse_ratio(value):
            return weight
    sign, hint = _sign(metric), ""
    with contextlib.suppress(SettingError):
        if value and _limit(metric, value, source).value:
            hint = f"; a requirement is written {metric.name}{sign}{value}"
    raise SettingError(
        f"{source} weighs {metric.name} with {shown(value)}, expected a number above 0, such as {metric.name}=0.5{hint}"
    )


def _requirement(metric: Metric, sign: str, value: str, *, source: str) -> Requirement:
    wanted = _sign(metric)
    if not sign.startswith(wanted[0]):
        raise SettingError(
            f"{source} requires {metric.name}{sign}{value}, but {metric.better} is better for {metric.label}; "
            f"write {metric.name}{wanted}{value or _example(metric)}"
        )
    amount = _limit(metric, value, source)
    return Requirement(metric.name, amount.value, f"{metric.name}{sign}{value}", amount.currency)


def _limit(metric: Metric, value: str, source: str) -> Amount:
    """A limit in the metric's unit; one of a cost has a currency."""
    name = f"{source}: the limit of {metric.name}"
    return (
        parse_amount(value, name=name) if metric.unit is Unit.COST else Amount(metric.unit.read(value, name=name), "")
    )


def _example(metric: Metric) -> str:
    return "0.40 USD" if metric.unit is Unit.COST else metric.unit.example


def _sign(metric: Metric) -> str:
    return "<" if metric.better == "lower" else ">="
