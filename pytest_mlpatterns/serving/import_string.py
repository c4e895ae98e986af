"""Import strings such as ``package.module:attribute``, by which users name a model or an application.

``pkgutil.resolve_name`` loads them in the process that serves; here only their form is checked.
"""

import pkgutil
import re
import sys

from pytest_mlpatterns.wording import did_you_mean

_LIKENESS = 0.8
"""Least likeness of a module: of the hundreds that are installed, some have half of the letters of any name. A letter
left out of a name of four or more, or one changed in six, stays above."""


def is_import_string(value: object) -> bool:
    """Whether a value names an attribute of a module; an attribute may be nested, as in ``module:Class.method``."""
    if not isinstance(value, str) or value.count(":") != 1:
        return False
    return all(name.isidentifier() for name in re.split("[.:]", value))


def meant_import_string(text: str) -> str:
    """The question which import string was meant by a dotted name, or by a file and a name; empty for another text.

    ``text``: such as ``package.module.attribute`` or ``package/module.py:attribute``.
    """
    separator = ":" if ":" in text else "."
    module, _, attribute = text.removesuffix("()").rpartition(separator)
    meant = f"{module.removesuffix('.py').removeprefix('./').replace('/', '.')}:{attribute}"
    return f'did you mean "{meant}"?' if is_import_string(meant) and attribute != "py" else ""


def is_of_import_string(text: str, error: Exception) -> bool:
    """Whether an error reports that a name of this import string is missing, and not one that the user's code needs."""
    module, _, attribute = text.partition(":")
    if isinstance(error, ModuleNotFoundError):
        return error.name is not None and f"{module}.".startswith(f"{error.name}.")
    if not isinstance(error, AttributeError):
        return False
    return any(error.obj is one for one in _path_to(sys.modules.get(module), attribute))


def meant_name(text: str, error: Exception) -> str:
    """The question which name was meant instead of one that does not exist; empty if none is similar."""
    if not is_of_import_string(text, error):
        return ""
    if isinstance(error, ModuleNotFoundError):
        parent, dot, name = str(error.name).rpartition(".")
        paths = getattr(sys.modules.get(parent), "__path__", ()) if parent else sys.path
        known = [one.name for one in pkgutil.iter_modules(paths)]
        return did_you_mean(name, known, f"{parent}{dot}{{}}", likeness=_LIKENESS).rstrip()
    assert isinstance(error, AttributeError)
    return did_you_mean(str(error.name), dir(error.obj)).rstrip()


def _path_to(module: object, attribute: str) -> list[object]:
    """A module, and the objects on the way to one of its attributes."""
    found = [module]
    for name in attribute.split("."):
        if hasattr(found[-1], name):
            found.append(getattr(found[-1], name))
    return found
