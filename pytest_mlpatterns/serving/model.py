"""Sends a user's model to another process.

A model is a callable, a class that each process instantiates, or an import string. Code of a test file is pickled by
value, because other processes cannot import that file. All other code is imported by name.

How a deployment is started: what the user asked for, and the processor that it gets.
"""

from __future__ import annotations

import inspect
import io
import os
import pkgutil
import re
import shlex
import sys
import threading
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePath
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from msgspec import Struct

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.patterns.layer import Handler
from pytest_mlpatterns.patterns.pattern import (
    MODEL,
    LayerNode,
    ModelNode,
    Node,
    Pattern,
    ProcessGroup,
    name_of,
    with_env,
)
from pytest_mlpatterns.serving.import_string import (
    is_import_string,
    is_of_import_string,
    meant_import_string,
    meant_name,
)
from pytest_mlpatterns.serving.processes import Unusable
from pytest_mlpatterns.system.cpu_share import CpuShare, ReplicaCores, give_cpus
from pytest_mlpatterns.wire import REST_JSON, Wire
from pytest_mlpatterns.wording import shown
from pytest_mlpatterns.workload.own_client import ClientWire

if TYPE_CHECKING:
    from pytest_mlpatterns.records.count import RunUnder
    from pytest_mlpatterns.records.samples import Traced
    from pytest_mlpatterns.serving.deployment import Deployment
    from pytest_mlpatterns.workload.payload import Payload
    from pytest_mlpatterns.workload.request_builder import RequestBuilder


class StartOptions(Struct, frozen=True):
    """How a deployment is started."""

    timeout_ns: int  # start-up time limit in nanoseconds
    # its first input is sent before the deployment counts as ready; None: the health check is enough
    payload: Payload | None
    directory: Path  # for sockets and logs
    # top of the tree in which the user works, and of the tree from which code is imported instead; None: there is
    # one tree
    trees: tuple[Path, Path] | None = None
    wire: Wire = REST_JSON
    root: Path = Path()  # working directories of the user's own servers are relative to it
    ports: Mapping[str, int] = {}  # of the companions of the user's own server, by name
    setup: Callable[..., object] | None = None  # called with the client of each server before it is asked
    builder: RequestBuilder | None = None  # makes the requests for the user's own servers instead of the wire
    engine: str = "local"  # name of the engine that starts patterns
    cpus: float | None = None  # number of cores that the deployment gets; None for all
    replica_cores: ReplicaCores | None = None  # cores of its own for each replica, instead of ``cpus``; None for none
    # what the engine shares in this session, whose type it alone knows; None for an engine that shares nothing
    session: Any = None
    profiled: bool = False  # its processes permit a profiler of the same user to read them
    # since when its processes follow their allocations, which makes them slower
    traced: Traced = ""
    # how its processes are run while their work is counted, which makes them slower, too; None: by themselves
    under: RunUnder | None = None

    @property
    def is_slow(self) -> bool:
        """Whether its processes are made slower, and each of their answers may take as long as the start."""
        return bool(self.traced) or self.under is not None


_Started = TypeVar("_Started", bound="Deployment")


def start_with_cpus(cpus: float | None, start: Callable[[], _Started]) -> _Started:
    """Start a deployment; its end releases what it was given."""
    return start() if cpus is None else start_with_share(give_cpus(cpus), start)


def start_with_share(share: CpuShare, start: Callable[[], _Started]) -> _Started:
    """Start a deployment with what it was given; if it has cores for each replica, an engine enters
    :func:`pytest_mlpatterns.system.cpu_share.share_of_replica` for each.
    """
    with ended_on_error(share.release), share.current():
        return start()


@contextmanager
def ended_on_error(end: Callable[[], object]) -> Iterator[None]:
    """A start that has begun something: ``end`` ends it if the start fails."""
    try:
        yield
    except BaseException:
        end()
        raise


_REGISTRY = threading.RLock()
"""Held while modules are registered for pickling by value: two variants start side by side, and the registry is one."""


class NoModelError(SettingError):
    """A pattern is to serve a model, and there is none."""


class UnusableModelError(TypeError):
    """What the user names as a model is none."""

    def __init__(self, words: str, *, name: str = "", is_absent: bool = False) -> None:
        super().__init__(words)
        self.why: Unusable = Unusable(words, name, is_absent)


class ModelSource(Struct, frozen=True):
    """A model in a form that can be sent to another process: an import string or a pickle."""

    name: str
    import_string: str | None = None
    pickled: bytes | None = None

    def load(self) -> Handler:
        """Import or unpickle the model, and instantiate it if it is a class.

        Raises Exception: any error of the user's code.
        """
        if self.import_string is not None:
            found: Any = _imported(self.import_string)
        else:
            import cloudpickle

            found = cloudpickle.loads(self.pickled)
        model = found() if _is_built(found) else found
        if not callable(model) and not is_stepped(model):
            advice = ""
            if hasattr(model, "predict"):
                named = f"; write {self.name}.predict"
                advice = named if model is found else "; give it a __call__ that returns self.predict(batch)"
            if model is not found:
                words = f"{self.name}: class {type(model).__name__} has no __call__(batch){advice}"
            else:
                words = f"{self.name} is {type(model).__name__}, which cannot be called with a batch{advice}"
            raise UnusableModelError(words, name=self.name)
        return model  # type: ignore[no-any-return]


def _is_built(found: object) -> bool:
    """Whether a process builds the model by a call: a class, or a ``functools.partial`` of one with its arguments."""
    return isinstance(found, type) or (isinstance(found, partial) and isinstance(found.func, type))


def is_stepped(model: object) -> bool:
    """Whether a model has the methods ``start`` and ``step``, which the pattern ``Continuous`` calls."""
    return callable(getattr(model, "start", None)) and callable(getattr(model, "step", None))


def _imported(text: str) -> Any:
    """The object that an import string names."""
    module, _, attribute = text.partition(":")
    try:
        return pkgutil.resolve_name(text)
    except (ModuleNotFoundError, AttributeError) as error:
        if not is_of_import_string(text, error):
            raise  # the user's module needs something that is missing
        said, is_module = f'"{text}": {module} has no attribute {attribute}', isinstance(error, ModuleNotFoundError)
        if is_module:
            said = f'"{text}": no module {error.name} on sys.path'
        hint = meant_name(text, error)
        words = f"{said}, {hint}" if hint else said
        raise UnusableModelError(words, is_absent=is_module and not hint) from None


def pack(model: object, by_value: Sequence[ModuleType] = (), *, what: str = "perf_model") -> ModelSource:
    """Prepare a model for another process.

    ``model``: a callable that takes a list of inputs and returns the same number of outputs, a class of such callables,
    or ``"package.module:attribute"``.
    """
    if isinstance(model, PurePath) or (isinstance(model, str) and not model.endswith(".py") and os.path.isfile(model)):
        raise SettingError(
            f"{what} is the file {shown(str(model))}, expected a callable that takes a list of inputs, or a class that "
            f"loads one; python -m pytest_mlpatterns new {shlex.quote(str(model))} writes a test that loads it"
        )
    if isinstance(model, str):
        if not is_import_string(model):
            raise SettingError(
                f"{what} is {shown(model)}, expected an import string; "
                f"{meant_import_string(model) or 'write it as package.module:attribute'}"
            )
        return ModelSource(name=model, import_string=model)
    if not callable(model) and not is_stepped(model):
        advice = "; return model.predict" if hasattr(model, "predict") else ""
        raise SettingError(
            f"{what} is {type(model).__name__}, expected a callable that takes a list of inputs, "
            f'a class of such, or an import string "package.module:attribute"{advice}'
        )
    named = model.func if isinstance(model, partial) else model
    name = getattr(named, "__qualname__", type(named).__qualname__)
    fix = "give a class that builds it there, or an import string"
    return ModelSource(name=name, pickled=_pickled(model, by_value, f"{what} {name}", fix=fix))


def pack_inputs(inputs: Sequence[object], by_value: Sequence[ModuleType] = ()) -> bytes:
    """Prepare inputs for another process that calls a model with them."""
    return _pickled(list(inputs), by_value, "perf_payload", fix="give plain values")


def pack_figures(readers: object, by_value: Sequence[ModuleType] = ()) -> bytes:
    """Prepare what reads figures from answers for the load generator."""
    return _pickled(readers, by_value, "perf_figures", fix="give functions of plain values, at the top of a module")


class ServicePlan(Struct, frozen=True):
    """What an engine starts: the name under which the model is served, and the process tree with everything packed."""

    name: str
    root: ProcessGroup


def service_plan(
    pattern: Pattern, model: object | None, by_value: Sequence[ModuleType] = (), *, what: str = "perf_model"
) -> ServicePlan:
    """Pack a pattern, its model, and the user's callables in the pattern.

    ``model``: as :func:`pack` takes it; None if the pattern brings its own.
    """

    def packed(node: Node) -> Node:
        match node:
            case ModelNode(target):
                if not (isinstance(target, str) and target == MODEL):
                    return replace(node, target=pack(target, by_value, what=f"{pattern} member"))
                if model is None:
                    raise NoModelError(
                        "there is no model; define a fixture perf_model that returns a callable, a class or "
                        '"package.module:attribute", or give model=; for a service that exists already, define a '
                        "fixture perf_target"
                    )
                return replace(node, target=pack(model, by_value, what=what))
            case LayerNode(part, inside=inside):  # its callables travel as nodes inside
                fix = "give it fields of plain values, and let layer() build what cannot be pickled"
                data = _pickled(part.without_callables(), by_value, f"the pattern {part}", fix=fix)
                return replace(node, packed=data, inside=tuple(map(packed, inside)))
            case ProcessGroup(inside):
                return replace(node, inside=packed(inside))

    root = packed(with_env(pattern.plan()))
    assert isinstance(root, ProcessGroup)
    name = name_of(MODEL if model is None else model)
    return ServicePlan(re.sub(r"\W+", "", name) or MODEL, root)


def pack_client(client: object, by_value: Sequence[ModuleType], served: Wire) -> ClientWire:
    """Prepare a client of the user's own for another process.

    ``client``: a function of an input, an async one or one that yields, or a class with a method ``send``. ``served``:
    the wire over which a model that this package serves takes requests.
    """
    send = getattr(client, "send", None) if isinstance(client, type) else client
    if not callable(send):
        advice = f"; return {type(client).__name__} itself" if callable(getattr(client, "send", None)) else ""
        found = f"class {client.__name__} without send" if isinstance(client, type) else type(client).__name__
        raise SettingError(
            f"perf_client is {found}, expected a function send(input), or a class with send(self, input) and, if it "
            f"needs them, open and close{advice}"
        )
    name, methods = name_of(client), [send, getattr(client, "open", None), getattr(send, "__call__", None)]  # noqa: B004
    return ClientWire(
        name=name,
        packed=_pickled(client, by_value, f"perf_client {name}", fix="open its connections in a class with open()"),
        is_async=any(inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one) for one in methods),
        served=served,
        import_path=tuple(sys.path),
    )


@contextmanager
def sent_by_value(modules: Sequence[ModuleType]) -> Iterator[None]:
    """Meanwhile code of these modules, and their classes, are pickled by value."""
    import cloudpickle

    with _REGISTRY, ExitStack() as registered:
        for module in modules:
            if sys.modules.get(module.__name__) is module:
                cloudpickle.register_pickle_by_value(module)
                registered.callback(cloudpickle.unregister_pickle_by_value, module)
        yield


def _pickled(value: object, by_value: Sequence[ModuleType], what: str, *, fix: str) -> bytes:
    """Pickle a value of the user's; ``what`` it is and how to ``fix`` it are for the message if that fails."""
    with sent_by_value(by_value):
        try:
            return _dumps(value)
        except Exception as error:  # pickling runs the user's code, which may raise any error
            raise SettingError(
                f"{what} cannot be sent to another process: {type(error).__name__}: {error}; {fix}"
            ) from error


def _dumps(model: object) -> bytes:
    """Pickle with the file names of code objects, so that tracebacks show the user's lines."""
    import cloudpickle

    plain = cloudpickle.Pickler.dispatch_table[CodeType]

    def reduce_code(code: CodeType) -> tuple[object, tuple[object, ...]]:
        return _code_of, (*plain(code), code.co_filename)

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # not typed
        dispatch_table: ClassVar = ChainMap({CodeType: reduce_code}, cloudpickle.Pickler.dispatch_table)

    output = io.BytesIO()
    Pickler(output).dump(model)
    return output.getvalue()


def _code_of(make: Callable[..., CodeType], arguments: tuple[object, ...], filename: str) -> CodeType:
    """Rebuild a code object that :func:`_dumps` has pickled."""
    return make(*arguments).replace(co_filename=filename)
