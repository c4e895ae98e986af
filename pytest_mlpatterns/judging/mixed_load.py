"""What tests ask of a mix: limits of one class of callers, and what a mix has no answer to.

It must not know how anything is measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.wording import did_you_mean, shown
from pytest_mlpatterns.workload.mix import Mix

if TYPE_CHECKING:
    from pytest_mlpatterns.analysis.metrics.metric import Metric
    from pytest_mlpatterns.workload.mix import Load

__all__ = ["of_class", "require_one_class"]


def of_class(metric: Metric, of: str, load: Load) -> Metric:
    """The metric that an assertion judges: of all requests, or of one class of callers.

    Args:
        metric: of all requests.
        of: the class; empty for all.
        load: of the test.

    Raises:
        SettingError: the load has no such class.
    """
    if of == "":
        return metric
    if not isinstance(load, Mix):
        raise SettingError(
            f"of={shown(of)} under {load}, which has no classes of callers; write "
            'perf(load=Mix({"gold": PoissonRate(20), "bulk": ClosedLoop(4)})), or leave of= out'
        )
    if not isinstance(of, str) or of not in load.names:
        hint = did_you_mean(of, load.names) if isinstance(of, str) else ""
        raise SettingError(f"of={shown(of)}, {hint}expected a class of callers: {', '.join(load.names)}")
    return metric.of_callers(of)


def require_one_class(load: Load, what: str) -> None:
    """Refuse what replaces the load of a test by another one, which has no classes of callers.

    Args:
        load: of the test.
        what: was asked, such as ``measure_nmrt(...)``.

    Raises:
        SettingError: the load is a mix.
    """
    if isinstance(load, Mix):
        raise SettingError(
            f"{what} under {load}, expected a load of one class of callers: it offers loads of its own, in which the "
            "classes would have no shares; write perf(concurrency=8) in a test of its own"
        )
