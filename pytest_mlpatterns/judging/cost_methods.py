"""The method of ``perf`` about what a request costs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.metrics.definitions import priced_metric
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.judging.verdict_log import at_the_call
from pytest_mlpatterns.records.price import parse_amount
from pytest_mlpatterns.wording import shown

if TYPE_CHECKING:
    from pytest_mlpatterns.analysis.metrics.definitions import Metric
    from pytest_mlpatterns.config.settings import Settings
    from pytest_mlpatterns.judging.experiment import Experiment
    from pytest_mlpatterns.records.price import Price

__all__ = ["CostMethods"]

_METRICS = {"used": "cost", "given": "given_cost"}
_NAME = "assert_cost_below"


class CostMethods(ABC):
    """What :class:`pytest_mlpatterns.judging.perf.Perf` offers about cost."""

    _experiment: Experiment

    @at_the_call
    def assert_cost_below(self, limit: object, *, cores: str = "used") -> None:
        """A million successful answers cost less than an amount such as ``"0.40 USD"``; the test needs a price.

        Args:
            limit: the amount, in the currency of the price.
            cores: ``"used"`` pays for the CPU time that the deployment used, ``"given"`` for all cores that ``cpus=``
                gave it, also while they are idle. Both pay for the peak memory.
        """
        settings = self._experiment.settings
        metric = priced_metric(_metric_name(cores, settings), settings.price)
        self._check_limit(metric, _limit(limit, settings.price))

    @abstractmethod
    def _check_limit(self, metric: Metric, limit: float) -> None:
        """Decide, and log the verdict."""


def _metric_name(cores: object, settings: Settings) -> str:
    """The name of the metric.

    Raises:
        SettingError: other cores, or those that were given without a limit.
    """
    if not isinstance(cores, str) or cores not in _METRICS:
        raise SettingError(f"{_NAME}(cores={shown(cores)}), expected 'used' or 'given'")
    if cores == "given" and settings.cpus is None:
        raise SettingError(
            f"{_NAME}(cores='given') without cpus=, expected how many cores the deployment gets; "
            "write for example perf(cpus=2)"
        )
    return _METRICS[cores]


def _limit(limit: object, price: Price | None) -> float:
    """The limit of a cost, such as ``"0.40 USD"``, in the currency of the price.

    Raises:
        SettingError: it cannot be read, there is no price, or the price has another currency.
    """
    amount = parse_amount(limit, name=f"{_NAME}(...)")
    if price is None:
        raise SettingError(
            f"{_NAME}({shown(limit)}) without a price, expected what cores and memory cost; write for "
            f'example perf_price = "0.0425 {amount.currency} per core-hour, 0.0057 {amount.currency} per GiB-hour"'
        )
    if amount.currency != price.currency:
        raise SettingError(
            f"{_NAME}({shown(limit)}) at a price of {price}, expected an amount in {price.currency}; "
            "convert one of the two"
        )
    return amount.value
