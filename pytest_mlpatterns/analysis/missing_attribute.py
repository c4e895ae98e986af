"""The error of an attribute that does not exist, with what to write instead; percentiles are the usual case."""

from __future__ import annotations

import re

from pytest_mlpatterns.wording import did_you_mean

__all__ = ["advice_on_missing", "missing_attribute"]

_PERCENTILE = re.compile(r"(?:^|_)p(?P<percent>\d{1,2})(?:_|$)")


def missing_attribute(owner: object, name: str, instead: str) -> AttributeError:
    """The error of an attribute that an object does not have.

    Args:
        owner: the object.
        name: the attribute.
        instead: what to write for a percentile, with ``{}`` for its number.
    """
    text = f"{type(owner).__name__!r} object has no attribute {name!r}"
    advice = advice_on_missing(type(owner), name, instead)
    return AttributeError(f"{text}; {advice}" if advice else text, name=name, obj=owner)


def advice_on_missing(kind: type, name: str, instead: str) -> str:
    """What to write instead of an attribute that the objects of a class do not have; empty if none is similar.

    Args:
        kind: the class.
        name: as of :func:`missing_attribute`.
        instead: likewise.
    """
    if found := _PERCENTILE.search(name):
        return f"use {instead.format(found['percent'])}"
    known = [one for one in dir(kind) if not one.startswith("_")]
    return "" if name.startswith("_") else did_you_mean(name, known).rstrip()
