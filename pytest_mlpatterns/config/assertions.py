"""The arguments of the assertions of ``perf``: each is read, or refused with what is expected, before anything starts.

This module must not know what is measured or judged.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.analysis.capacity.step_impact import USUAL_LIMIT, HurtLimit
from pytest_mlpatterns.analysis.metrics.definitions import (
    METRICS,
    comparable_metrics,
    is_comparable,
    is_known_metric,
    metric_named,
    own_metrics,
    priced_metric,
    which_metric,
    with_role,
)
from pytest_mlpatterns.analysis.metrics.metric import AtNmrt, FigureOfAnswers, Location, Metric, ResourceGrowth, Role
from pytest_mlpatterns.analysis.metrics.metric_makers import percentile_metric, stream_metric
from pytest_mlpatterns.analysis.statistics.intervals import min_samples
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.fields import plain_number, whole_number
from pytest_mlpatterns.records.objective import parse_objective
from pytest_mlpatterns.records.price import Price, parse_amount
from pytest_mlpatterns.units import SECOND_NS, Unit, parse_duration, parse_number, parse_ratio, parse_share
from pytest_mlpatterns.wording import count, did_you_mean, listed, shown

_UNHURT = "assert_unhurt"
_PERCENTILES = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0}
"""Percentiles that an assertion may limit, by their names."""
_HIGHEST_PEAK = 10.0  # Highest load, as a multiple of the NMRT


class Limit(Struct, frozen=True):
    """What an assertion asks of a metric."""

    metric: Metric
    value: float  # in the metric's unit
    source: str = ""  # where it stands, and its tolerance; empty if the test has it as it is


def percentile_of(quantity: str, percentile: object, where: str) -> Metric:
    """The metric of a percentile of ``latency``, ``ttft``, ``itl`` or ``tpot``."""
    if not isinstance(percentile, int | float) or isinstance(percentile, bool):
        given = shown(percentile)
        number = re.search(r"[1-9]\d?(\.\d+)?", percentile) if isinstance(percentile, str) else None
        example = "95" if number is None else number[0]
        raise SettingError(f"{where}: percentile is {given}, expected a number; write percentile={example}")
    try:
        min_samples(percentile)
    except ValueError as error:
        raise SettingError(f"{where.replace('...', f'percentile={shown(percentile)}')}: {error}") from None
    return percentile_metric(percentile) if quantity == "latency" else stream_metric(quantity, percentile)


def read_metric(name: object, where: str) -> Metric:
    """The metric that a limit names: ``throughput``, ``p95``, ``mean``, or a time with one of these, ``ttft:p95``."""
    spelled = "".join(name.split()).removeprefix("latency:") if isinstance(name, str) else ""
    metric = metric_named(spelled) if is_known_metric(spelled) else None
    if metric is None or not _has_limits(metric):
        known = [one.name for one in (METRICS | own_metrics()).values() if _has_limits(one)]
        hint = which_metric(spelled, ["mean", *known])
        raise SettingError(
            f"{where} limits {shown(name)}, {hint}expected p95, mean, ttft:p95, ttft:mean, or another metric that "
            "pytest --perf-help lists"
        )
    return metric


def directed(
    metric: Metric, better: Literal["lower", "higher"] | None, where: str, *, write: str, advice: str = ""
) -> Metric:
    """The metric with the direction of its limit, which only a figure of answers leaves open.

    ``better``: the direction; None if what was given has none. ``where``: how the message begins. ``write``: what gives
    the direction of the metric. ``advice``: how the message ends.
    """
    if better and isinstance(metric.kind, FigureOfAnswers):
        return replace(metric, better=better)
    if metric.better != better:
        raise SettingError(f"{where}expected {write}, since a {metric.better} {metric.label} is better{advice}")
    return metric


def _has_limits(metric: Metric) -> bool:
    """Whether a limit can be judged by what every test measures, a search for NMRT or a pass that counts."""
    return not metric.is_of_scaling and not isinstance(metric.kind, AtNmrt | Location | ResourceGrowth)


def read_limit(metric: Metric, limit: object, where: str, *, price: Price | None) -> Limit:
    """A limit of a metric, as its unit is read: a cost in the currency of the price, a share that a run can show."""
    if metric.unit is Unit.COST:
        return Limit(priced_metric(metric.name, price), _cost(limit, where, price))
    has_unit = metric.unit is not Unit.COUNT or not isinstance(metric.kind, FigureOfAnswers)
    value = metric.unit.read(limit, name=where if has_unit else f"{where}, of a figure without a unit,")
    if metric.counts_failures and value in (0, 1):
        why = "more than 0, which no run can show" if value == 0 else "less than 1, which is 100 %"
        advice = "" if value else "; perf.assert_no_failures() asserts that no request of this run failed"
        raise SettingError(f'{where.replace("...", shown(limit))}, expected {why}; write 0.01 or "1%"{advice}')
    return Limit(metric, value)


def _cost(limit: object, where: str, price: Price | None) -> float:
    amount, given = parse_amount(limit, name=where), where.replace("...", shown(limit))
    if price is None:
        raise SettingError(
            f"{given} without a price, expected what cores and memory cost; write for "
            f'example perf_price = "0.0425 {amount.currency} per core-hour, 0.0057 {amount.currency} per GiB-hour"'
        )
    if amount.currency != price.currency:
        raise SettingError(
            f"{given} at a price of {price}, expected an amount in {price.currency}; convert one of the two"
        )
    return amount.value


def read_replicas(replicas: object) -> int:
    """The number of replicas whose efficiency is asked for."""
    name = f"assert_scaling_efficiency_at_least(replicas={shown(replicas)})"
    return whole_number(replicas, name, least=2, expected="a whole number of replicas from 2, such as 2")


def read_cores_each(cpus_per_replica: object) -> int | None:
    """The number of cores of each replica."""
    if cpus_per_replica is None:
        return None
    name = f"measure_scaling(cpus_per_replica={shown(cpus_per_replica)})"
    return whole_number(cpus_per_replica, name, least=1, expected="a whole number of cores for each replica, such as 1")


def read_numbers(replicas: object) -> tuple[int, ...]:
    """The numbers of replicas, ascending."""
    name = f"measure_scaling(replicas={shown(replicas)})"
    if not isinstance(replicas, tuple | list | range | set | frozenset):
        raise SettingError(f"{name}, expected numbers of replicas; write replicas=(1, 2, 4)")
    numbers = sorted({whole_number(number, name, least=1, expected="whole numbers from 1") for number in replicas})
    if len(numbers) < 2 or numbers[0] != 1:
        raise SettingError(
            f"{name} has {count(len(numbers), 'number')}, expected at least two, and 1 among them, which the others "
            "are compared with; write replicas=(1, 2, 4)"
        )
    return tuple(numbers)


def require_goodput(share: object, rps: object, *, slo: str | None, at: float | None) -> str:
    """Check that an assertion on goodput has a rate, or a share and a load. Returns what each request keeps.

    ``share``: of the NMRT; None for a rate. ``rps``: requests per second at the load of the test; None for a share.
    ``at``: the load as a multiple of the NMRT; None for the load of the test.
    """
    if (share is None) is not (at is None) or (share is None) is (rps is None):
        raise SettingError(
            'assert_goodput_at_least(...) expected a rate at the load of the test (rps=8, slo="ttft<300ms"), or a '
            'share of the capacity (NMRT) at a multiple of it (0.9, at=2.0, slo="p95<200ms")'
        )
    if slo is None:
        raise SettingError('assert_goodput_at_least(...) expected what each request keeps; add slo="ttft<300ms"')
    return slo


def read_time_of(slo: str) -> float:
    """The time of an objective, within which an answer is in time."""
    objective = parse_objective(slo)
    if objective.is_of_streams:
        raise SettingError(f"slo is {shown(slo)}, expected a time of the whole answer under overload; write p95<2s")
    return float(objective.longest_ns)


def read_peak(given: object, name: str) -> float:
    """The highest load, as a multiple of the NMRT."""
    peak = parse_number(given, name=name, example="2.0")
    if not 1 < peak <= _HIGHEST_PEAK:
        raise SettingError(
            f"{name} is {given!r}, expected a multiple of the capacity (NMRT) above 1 and at most {_HIGHEST_PEAK:g}; "
            "write 2.0"
        )
    return peak


class UnhurtLimits(Struct, frozen=True):
    """What an assertion asks of a step."""

    step: str | None  # its name; None for each step
    hurt: HurtLimit  # when requests are hurt
    errors: float | None  # requests that may fail in each launch, from 1 on; or below 1 their share; None for any
    # time until it must be well again, in place of the limit of the percentile; None if it may not be hurt at all
    within_ns: int | None


def read_unhurt_limits(
    step: object, percentiles: Mapping[str, object], *, errors: object, within: object
) -> UnhurtLimits:
    """The arguments of the assertion."""
    if step is not None and not isinstance(step, str):
        raise SettingError(f'{_UNHURT}(step={shown(step)}), expected the name of a step; write step="reload"')
    if len(percentiles) > 1:
        raise SettingError(f"{_UNHURT}({', '.join(f'{name}=...' for name in percentiles)}), expected one percentile")
    hurt = USUAL_LIMIT
    for name, limit in percentiles.items():
        if name not in _PERCENTILES:
            hint = did_you_mean(name, [*_PERCENTILES, "step", "errors", "within"], "{}=")
            known = listed([f"{one}=" for one in _PERCENTILES], "or")
            raise SettingError(f"{_UNHURT}({name}={shown(limit)}), {hint}expected {known}")
        hurt = _hurt_limit(name, limit)
    return UnhurtLimits(
        step,
        hurt,
        None if errors is None else _errors(errors),
        None if within is None else parse_duration(within, name=f"{_UNHURT}(within=...)"),
    )


def _hurt_limit(name: str, limit: object) -> HurtLimit:
    """The limit of a percentile: ``"2x"`` of the one before, or a time."""
    said = f"{_UNHURT}({name}={shown(limit)})"
    if isinstance(limit, str) and limit.strip().endswith("x"):
        ratio = parse_number(limit.strip()[:-1], name=said, example='"2x"')
        if ratio <= 1:
            raise SettingError(f'{said}, expected a multiple above 1 of the {name} before the step; write "2x"')
        return HurtLimit(_PERCENTILES[name], ratio)
    if plain_number(limit) is not None:
        raise SettingError(f'{said}, expected "2x" for a multiple of the {name} before the step, or a time: "200ms"')
    return HurtLimit(_PERCENTILES[name], None, float(parse_duration(limit, name=said)))


def _errors(errors: object) -> float:
    found = f"{_UNHURT}(errors={shown(errors)})"
    if isinstance(errors, str) or (isinstance(errors, float) and 0 < errors < 1):
        share = parse_share(errors, name=found)
        if share in (0, 1):
            raise SettingError(f'{found}, expected a share above 0 and below 100 %, or errors=0; write "1%"')
        return share
    expected = 'a whole number of failed requests, or a share of them such as "1%"'
    return whole_number(errors, found, least=0, expected=expected)


def check_leak_limits(limit_bytes: int, longest_ns: int, *, limit: object, duration: object) -> None:
    """Refuse a limit that no run can show, and a load that is too short for any."""
    if limit_bytes == 0:
        why = "expected more than 0, which no run can show"
        raise SettingError(f'assert_no_leak({shown(limit)}), {why}; write "100 B"')
    if longest_ns < SECOND_NS:
        raise SettingError(f'assert_no_leak(duration={shown(duration)}), expected at least 1s; write "10s"')


def read_factor_metric(on: object, method: str) -> str:
    """The name of the metric that is compared."""
    known = with_role(Role.FACTOR)
    if not isinstance(on, str) or on not in known:
        expected = ", ".join(map(repr, known))
        raise SettingError(f"{method}(on={shown(on)}), expected one of {expected}")
    return on


def read_margin(by: object, name: str) -> float:
    """The margin as a factor of time."""
    if isinstance(by, str) and by.strip().endswith("%"):
        return 1 + parse_ratio(by, name=name)
    factor = parse_number(by, name=name, example='"10%"')
    if factor < 1:
        raise SettingError(
            f"{name} is {shown(by)}, expected a share as text or a factor of at least 1; "
            'write "10%", or 2.0 for twice the time'
        )
    return factor


def read_metrics(names: Sequence[str], argument: str) -> list[Metric]:
    """The metrics of a comparison, by name.

    ``argument``: where they come from, for messages; ``...`` in it is replaced.
    """
    known = comparable_metrics()
    for name in names if isinstance(names, list | tuple | set | frozenset) else [names]:
        if name is names or not is_comparable(name):
            hint = which_metric(name, [*known, *own_metrics()])
            found = argument.replace("...", shown(names))
            raise SettingError(f"{found}, {hint}expected a tuple of {', '.join(known)}")
    return [metric_named(name) for name in names]
