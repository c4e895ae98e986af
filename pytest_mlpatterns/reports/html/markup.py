"""HTML as values: text that is not markup is escaped when it is put into an element. Pure.

Text from users (test ids, errors, names of models) reaches a page only through :func:`tag`, so it
cannot inject markup.
"""

from __future__ import annotations

from html import escape

from pytest_mlpatterns.wording import spelled

__all__ = ["Content", "Markup", "tag"]


class Markup(str):
    """Text that is HTML already, made by the functions here or read from a file of the package."""

    __slots__ = ()


Content = str | None
"""Content of an element: :class:`Markup` stays as it is, other text is escaped, None is left out."""

_VOID = frozenset({"meta", "wbr"})
_LEFT_OPEN = frozenset({"dd", "dt", "li", "td", "th", "tr"})
"""Elements that the next one, or the end of what they are in, ends."""
_SHAPES = frozenset({"line", "path", "rect"})
"""Elements of a drawing, which close themselves if they are empty."""


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
    if element in _SHAPES and not children:
        return Markup(f"<{element}{start}/>")
    inside = "".join(
        child if isinstance(child, Markup) else escape(spelled(child)) for child in children if child is not None
    )
    return Markup(f"<{element}{start}>{inside}" if element in _LEFT_OPEN else f"<{element}{start}>{inside}</{element}>")


def _attribute(name: str, value: str | int | bool | None) -> str:
    if value is None or value is False:
        return ""
    shown = name.rstrip("_").replace("_", "-")
    return f" {shown}" if value is True else f' {shown}="{escape(spelled(str(value)))}"'
