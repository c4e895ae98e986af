"""Metrics of other tools' histories: the name has the unit and the direction, as ``imported(time)``. Pure.

Times and sizes are converted when they are read. Of other values nothing is known but what the other tool writes beside
them, so that the unit is the label: ``imported(ops/sec, higher)``. No metric here is measured by this package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pytest_mlpatterns.analysis.metrics.metric import Metric
from pytest_mlpatterns.units import Unit, foreign_unit
from pytest_mlpatterns.wording import spelled

if TYPE_CHECKING:
    from pytest_mlpatterns.analysis.metrics.blocks import LaunchBlocks
    from pytest_mlpatterns.records.launch import LaunchValue

__all__ = ["IMPORTED", "imported_metric", "imported_name"]

IMPORTED = "imported "
"""Beginning of the machine of each series that comes from another tool."""
_BEGIN = "imported("
_HIGHER = ", higher"
"""End of a unit whose larger values are better."""
_LABELS = {Unit.DURATION: "time", Unit.SIZE: "size"}
"""Units that are converted, by what they measure."""
_UNITS = {label: unit for unit, label in _LABELS.items()}
_LONGEST_UNIT = 30
"""Longest unit of another tool, in letters; it is the label of a column."""
_UNNAMED = "value"
"""Label of a value without a unit."""


def imported_name(unit: str, *, higher: bool) -> str:
    """The name of the metric of another tool's value.

    Args:
        unit: as the other tool writes it, ``ns/iter``; may be empty.
        higher: whether larger values are better for the other tool.
    """
    known = foreign_unit(unit)
    plain = " ".join(spelled(unit).replace(",", " ").split())[:_LONGEST_UNIT].strip() or _UNNAMED
    label = plain if known is None else _LABELS[known.unit]
    return f"{_BEGIN}{label}{_HIGHER if higher else ''})"


def imported_metric(name: str) -> Metric | None:
    """The metric of a name that :func:`imported_name` gave; None for other names."""
    if not (name.startswith(_BEGIN) and name.endswith(")")):
        return None
    inside = name[len(_BEGIN) : -1]
    label = inside.removesuffix(_HIGHER)
    better: Literal["lower", "higher"] = "lower" if label == inside else "higher"
    return Metric(name, label, _never_measured, _UNITS.get(label, Unit.COUNT), better) if label else None


def _never_measured(_: LaunchBlocks) -> LaunchValue | None:
    """No launch of this package has a value of another tool."""
    return None
