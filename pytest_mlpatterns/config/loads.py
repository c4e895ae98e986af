"""The load of a test: which one its marker gives, how long it lasts, and what it cannot be combined with.

Takes plain mappings. An impossible combination raises a :class:`SettingError` that names the reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.wording import shown
from pytest_mlpatterns.workload.bulk import Bulk
from pytest_mlpatterns.workload.mix import Load, Mix
from pytest_mlpatterns.workload.schedule import ClosedLoop, ConstantRate

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LOAD_ARGUMENTS", "read_load", "require_combinable", "window_of"]

LOAD_ARGUMENTS = ("concurrency", "rate_rps", "load")
"""Marker arguments that define the load; a marker gives at most one of them."""
CLOSED_WINDOW_NS = 700_000_000
"""Measured window of one launch: many short launches show more than few long ones, since launches differ."""
OPEN_WINDOW_NS = 2_000_000_000
"""The same for an open loop, whose backlog takes time to show."""
DURING_WINDOW_NS = 4_000_000_000
"""The same beside a function: time before its steps, for what they do, and until the service is well again."""
_NOT_OF_BULK = {
    "cancel": "a data set is complete when every chunk is answered",
    "retries": "each chunk is sent once",
    "during": "the length of the window is not known beforehand",
}
"""Arguments that a load of a whole data set cannot have, and why."""


def read_load(marker: Mapping[str, Any]) -> Load:
    """The load of a marker; without one, a closed loop with one request in flight.

    Raises:
        SettingError: several loads, or something that is none.
    """
    given = [name for name in LOAD_ARGUMENTS if marker.get(name) is not None]
    if len(given) > 1:
        raise SettingError(f"perf({'=..., '.join(given)}=...) gives several loads, expected one; leave the others out")
    if given == ["load"]:
        load = marker["load"]
        if not isinstance(load, Load):
            raise SettingError(
                f"perf(load=...) is {shown(load)}, expected a schedule; write ClosedLoop(16), ConstantRate(200), "
                "PoissonRate(200), GammaRate(200), Bursts(100, 1000), Stages([('10s', 100)]), Trace('arrivals.csv'), "
                'Bulk(1000), Mix({"gold": PoissonRate(20), "bulk": ClosedLoop(4)})'
            )
        return load
    if given == ["rate_rps"]:
        return ConstantRate(marker["rate_rps"])
    return ClosedLoop(1 if marker.get("concurrency") is None else marker["concurrency"])


def window_of(
    load: Load, given_ns: int | None, marker: Mapping[str, Any], *, is_beside: bool = False
) -> tuple[int, bool]:
    """The length of the measured window, and whether it may get longer: nothing gave it, and the load has none.

    Args:
        given_ns: what marker, command line or ini file give; None if nothing does.
        is_beside: whether a function runs beside the load, whose length is known from the beginning.

    Raises:
        SettingError: the marker sets a length or a warm-up of a load that has its own.
    """
    if load.length_ns is None and not isinstance(load, Bulk):
        if given_ns is not None:
            return given_ns, False
        if is_beside:
            return DURING_WINDOW_NS, False
        return CLOSED_WINDOW_NS if load.closed else OPEN_WINDOW_NS, True
    for name in ("duration", "warmup"):
        if marker.get(name) is not None:
            raise SettingError(
                f"perf({name}=...) and {load}, expected one of them; the load has its own length, so leave {name}= out"
            )
    return (CLOSED_WINDOW_NS, not is_beside) if load.length_ns is None else (load.length_ns, False)


def require_combinable(load: Load, values: Mapping[str, Any]) -> None:
    """Refuse settings that a load cannot have.

    Args:
        values: settings by the name of their argument.

    Raises:
        SettingError: one of them; it names the reason.
    """
    if isinstance(load, Mix) and values["generators"] > 1:
        raise SettingError(
            f"perf(generators={values['generators']}) and {load}, expected one generator: several do not share classes "
            "of callers; write generators=1"
        )
    if isinstance(load, Bulk):
        if values["generators"] > 1:
            raise SettingError(
                f"perf(generators={values['generators']}) and {load}, expected one generator: several share no count "
                "of requests, and each input is sent once; write generators=1"
            )
        for name, why in _NOT_OF_BULK.items():
            if values[name] is not None:
                raise SettingError(f"perf({name}=...) and {load}, expected one of them: {why}; leave {name}= out")
