"""Import strings such as ``package.module:attribute``, by which users name a model or an application.

``pkgutil.resolve_name`` loads them in the process that serves; here only their form is checked.
"""

from __future__ import annotations

import re

__all__ = ["is_import_string", "meant_import_string"]


def is_import_string(value: object) -> bool:
    """Whether a value names an attribute of a module; an attribute may be nested, as in ``module:Class.method``."""
    if not isinstance(value, str) or value.count(":") != 1:
        return False
    return all(name.isidentifier() for name in re.split("[.:]", value))


def meant_import_string(text: str) -> str:
    """The question whether the last dot of a dotted name was meant as a colon; empty for another text."""
    module, _, attribute = text.rpartition(".")
    meant = f"{module}:{attribute}"
    return f'did you mean "{meant}"?' if is_import_string(meant) else ""
