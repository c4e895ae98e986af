"""Checks for fields of values that users build: each returns the plain value, or raises a SettingError that names the
field."""

from __future__ import annotations

from numbers import Integral, Real


def plain_number(value: object) -> int | float | None:
    """A number, also of numpy's, as Python's own ``int`` or ``float``; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    return int(value) if isinstance(value, Integral) else float(value)
