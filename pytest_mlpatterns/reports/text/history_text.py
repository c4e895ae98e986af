"""A change of a history in one sentence. Pure: values → text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.metrics.definitions import is_known_metric, metric_named
from pytest_mlpatterns.records.change import ChangeForm
from pytest_mlpatterns.units import format_percent, format_percents

if TYPE_CHECKING:
    from pytest_mlpatterns.records.change import Change

__all__ = ["change_sentence"]

_DIGITS = 7
"""Letters of a commit in a sentence."""


def change_sentence(change: Change) -> str:
    """What changed, by how much, where and when: ``RTM +4.2 % (+3.1 to +5.3 %) near d4e5f6a (a1b2c3d..d4e5f6a), …``.

    Args:
        change: of one metric of one test, which the sentence does not name.
    """
    value, low, high = (factor - 1 for factor in change.factor)
    label = metric_named(change.metric).label if is_known_metric(change.metric) else change.metric
    old, new = (at.commit[:_DIGITS] for at in (change.old, change.new))
    place = f"over {old}..{new}" if change.form is ChangeForm.DRIFT else f"near {new} ({old}..{new})"
    form = " drift" if change.form is ChangeForm.DRIFT else ""
    doubt = "" if change.is_confirmed else "; new, unconfirmed"
    shown = f"{format_percent(value, signed=True)} ({format_percents(low, high)})"
    return f"{label}{form} {shown} {place}, {change.date[:10]}{doubt}"
