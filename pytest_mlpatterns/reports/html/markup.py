"""HTML as values: text that is not markup is escaped when it is put into an element. Pure.

Text from users (test ids, errors, names of models) reaches a page only through :func:`tag` or :func:`data_script`, so
it cannot inject markup.
"""

from __future__ import annotations

import json
from html import escape

from pytest_mlpatterns.wording import HIDDEN, spelled

__all__ = ["Content", "Markup", "data_script", "tag"]


class Markup(str):
    """Text that is HTML already, made by the functions here or read from a file of the package."""

    __slots__ = ()


Content = str | None
"""Content of an element: :class:`Markup` stays as it is, other text is escaped, None is left out."""

_VOID = frozenset({"br", "hr", "input", "link", "meta", "wbr"})
_UNSAFE_IN_SCRIPT = {
    **{ord(sign): f"\\\\u{ord(sign):04x}" for sign in HIDDEN},
    **{ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"},
}
"""Hidden characters are spelled for the reader; they stand only inside of JSON's strings."""


def tag(element: str, /, *children: Content, **attributes: str | int | bool | None) -> Markup:
    """An element.

    Args:
        element: its name.
        children: its content in order; text that is not :class:`Markup` is escaped.
        attributes: an underscore stands for a dash, a last one for nothing (``class_``, ``aria_label``). True gives the
            name alone; None and False leave it out.
    """
    start = "".join(_attribute(name, value) for name, value in attributes.items())
    if element in _VOID:
        return Markup(f"<{element}{start}>")
    inside = "".join(
        child if isinstance(child, Markup) else escape(spelled(child)) for child in children if child is not None
    )
    return Markup(f"<{element}{start}>{inside}</{element}>")


def data_script(data: object, **attributes: str) -> Markup:
    """Plain values as JSON in a script element that browsers do not run and that no text in them can close."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).translate(_UNSAFE_IN_SCRIPT)
    return tag("script", Markup(text), type="application/json", **attributes)


def _attribute(name: str, value: str | int | bool | None) -> str:
    if value is None or value is False:
        return ""
    shown = name.rstrip("_").replace("_", "-")
    return f" {shown}" if value is True else f' {shown}="{escape(spelled(str(value)))}"'
