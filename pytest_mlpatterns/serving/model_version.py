"""The version of a model, which the user writes in its attribute ``perf_version``.

It is known before anything is started. So the module that an import string names is not imported, as a model may take
long and much memory to load: its source is read instead, and text that stands there is the version.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.serving.import_string import is_import_string
from pytest_mlpatterns.wording import shown

_NAME = "perf_version"
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_WRITE = f"write {_NAME} = '2'"


def model_version(model: object) -> str:
    """The version of a model, from its attribute ``perf_version``; empty if it has none.

    ``model``: as the fixture ``perf_model`` returns it: an object, or an import string, whose source is read.
    """
    if not isinstance(model, str):
        return _text(getattr(model, _NAME, ""), "perf_model")
    if not is_import_string(model):
        return ""
    module, _, attribute = model.partition(":")
    stated = _Sources().stated(module, attribute)
    if stated is None:
        return ""
    if not isinstance(stated, ast.Constant):
        raise SettingError(
            f'perf_model "{model}" has {_NAME} = {ast.unparse(stated)[:100]}, expected text: the source is read, and '
            f"nothing is imported for it; {_WRITE}"
        )
    return _text(stated.value, f'perf_model "{model}"')


def _text(version: object, model: str) -> str:
    if not isinstance(version, str):
        raise SettingError(f"{model} has {_NAME} {shown(version)}, expected text; {_WRITE}")
    return version


class _Sources:
    """The names of modules and their meaning, without running them."""

    def __init__(self) -> None:
        self._asked: set[tuple[str, str]] = set()

    def stated(self, module: str, attribute: str) -> ast.expr | None:
        """What is assigned to the version of an attribute of a module, by this module or the one that it is imported
        from; None without a version, without a source, and for a name that leads to itself."""
        if (module, attribute) in self._asked:
            return None
        self._asked.add((module, attribute))
        file = _file_of(module)
        tree = None if file is None else _tree_of(file)
        if file is None or tree is None:
            return None
        scope = _Scope(tree.body, module if file.name == "__init__.py" else module.rpartition(".")[0])
        if (found := scope.versions.get(attribute)) is not None:
            return scope.resolved(found)
        return self._of_name(attribute, scope, module)

    def _of_name(self, attribute: str, scope: _Scope, module: str) -> ast.expr | None:
        """The version of what an attribute of a module is bound to."""
        name, _, rest = attribute.partition(".")
        bound = scope.names.get(name)
        if isinstance(bound, ast.ImportFrom):
            given = next(one.name for one in bound.names if (one.asname or one.name) == name)
            return self.stated(_imported_module(bound, scope.package), ".".join(filter(None, (given, rest))))
        if rest:
            return None
        if isinstance(bound, ast.ClassDef):
            return self._of_class(bound, scope, module)
        if isinstance(bound, ast.Call) and not isinstance(scope.names.get(ast.unparse(bound.func)), _FUNCTIONS):
            bound = bound.func  # an object has the version of its class
        return self.stated(module, ast.unparse(bound)) if isinstance(bound, ast.Name | ast.Attribute) else None

    def _of_class(self, class_: ast.ClassDef, scope: _Scope, module: str) -> ast.expr | None:
        """The version in the body of a class, or that it inherits."""
        own = _Scope(class_.body, scope.package)
        match own.names.get(_NAME):
            case ast.expr() as found:
                return scope.resolved(found)
            case ast.stmt():
                return ast.Name("a property")
        bases = (ast.unparse(base) for base in class_.bases if isinstance(base, ast.Name | ast.Attribute))
        return next((value for base in bases if (value := self.stated(module, base)) is not None), None)


class _Scope:
    """The names of a module or class.

    ``names``: what each name was last bound to: a definition, an import, or the value that was assigned. ``versions``:
    what was assigned to the attribute ``perf_version`` of a name.
    """

    def __init__(self, body: Sequence[ast.stmt], package: str) -> None:
        self.package: str = package
        self.names: dict[str, ast.AST] = {}
        self.versions: dict[str, ast.expr] = {}
        for statement in _flat(body):
            self._note(statement)

    def resolved(self, value: ast.expr) -> ast.expr:
        """A value, or the constant that it names."""
        found = self.names.get(value.id) if isinstance(value, ast.Name) else None
        return found if isinstance(found, ast.Constant) else value

    def _note(self, statement: ast.stmt) -> None:
        match statement:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                self.names[name] = statement
            case ast.ImportFrom(names=names):
                self.names.update({one.asname or one.name: statement for one in names})
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    self._assign(target, value)
            case ast.AnnAssign(target=target, value=ast.expr() as stated):
                self._assign(target, stated)

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            self.names[target.id] = value
        elif isinstance(target, ast.Attribute) and target.attr == _NAME:
            self.versions[ast.unparse(target.value)] = value


def _flat(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a body, and those in its ``if``, ``try`` and ``with``."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If | ast.Try | ast.With):
            for part in ("body", "orelse", "finalbody"):
                yield from _flat(getattr(statement, part, ()))


def _imported_module(statement: ast.ImportFrom, package: str) -> str:
    """The module that a statement in this package imports from."""
    if not statement.level:
        return statement.module or ""
    parents = package.split(".")
    kept = parents[: len(parents) - statement.level + 1]
    return ".".join([*kept, *([statement.module] if statement.module else [])])


def _tree_of(file: Path) -> ast.Module | None:
    """The syntax of a source; None if it has an error, which loading the model reports."""
    with (
        contextlib.suppress(OSError, SyntaxError, ValueError, RecursionError, MemoryError),
        tokenize.open(file) as source,
    ):
        return ast.parse(source.read())
    return None


def _file_of(module: str) -> Path | None:
    """The source of a module, found without importing its packages; None if there is none."""
    top, *names = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # a module that is loaded and has none, such as __main__
        return None
    if spec is None:
        return None
    file = Path(spec.origin) if spec.has_location and spec.origin else None
    places = [Path(place) for place in spec.submodule_search_locations or ()]
    for name in names:
        sources = [place / f"{name}{end}" for place in places for end in ("/__init__.py", ".py")]
        file = next((one for one in sources if one.is_file()), None)
        places = [place / name for place in places]
    return file if file is not None and file.suffix == ".py" else None
