"""Import strings such as ``package.module:attribute``, by which users name a model or an application.

``pkgutil.resolve_name`` loads them in the process that serves; here only their form is checked.
"""

from __future__ import annotations

import re

__all__ = ["is_import_string"]


def is_import_string(value: object) -> bool:
    """Whether a value names an attribute of a module; an attribute may be nested, as in ``module:Class.method``."""
    if not isinstance(value, str) or value.count(":") != 1:
        return False
    return all(name.isidentifier() for name in re.split("[.:]", value))
