"""What profiles know of this package by name is compared with the modules, functions and classes themselves."""

from pathlib import Path
from types import ModuleType

import pytest
from msgspec.structs import replace
from support.each_row import each_row
from uvicorn.protocols.http import httptools_impl

import pytest_mlpatterns
from pytest_mlpatterns import loadgen, wire
from pytest_mlpatterns.engines import local
from pytest_mlpatterns.engines import ray as engines_ray
from pytest_mlpatterns.engines.local import upstream, worker
from pytest_mlpatterns.engines.ray import node_monitor
from pytest_mlpatterns.engines.ray.generator_host import GeneratorHost
from pytest_mlpatterns.patterns import (
    batched,
    cache_layer,
    cached,
    continuous,
    ensemble,
    model_thread,
    pipeline,
    queued,
)
from pytest_mlpatterns.patterns.pattern import Pattern
from pytest_mlpatterns.profiling import stack_times as threads
from pytest_mlpatterns.profiling.frame_names import MODEL, is_of_model, layer_of, place_of
from pytest_mlpatterns.profiling.py_spy import RawFrame
from pytest_mlpatterns.records.package_layers import LAYER_KINDS
from pytest_mlpatterns.serving import grpc, http, timed_model
from pytest_mlpatterns.serving.external import asgi_server
from pytest_mlpatterns.serving.grpc import server as grpc_server
from pytest_mlpatterns.serving.http import app, model_caller
from pytest_mlpatterns.serving.redis import cache as redis_cache
from pytest_mlpatterns.serving.redis import queue as redis_queue
from pytest_mlpatterns.serving.redis import queue_worker
from pytest_mlpatterns.system import child
from pytest_mlpatterns.wire import codec, compression, tensors

PACKAGE = Path(pytest_mlpatterns.__file__).parent


def path_of(module: ModuleType) -> str:
    """The path of a module in the package; of a package the folder, with a slash."""
    path = Path(module.__file__ or "")
    inside = path.parent if path.name == "__init__.py" else path
    return inside.relative_to(PACKAGE).as_posix() + ("/" if inside is not path else "")


def layer_at(module: ModuleType, function: str = "f") -> str:
    found = layer_of(RawFrame(function, module.__file__ or "", 1))
    return "" if found is None else found.function


def test_the_functions_around_a_model_have_these_names() -> None:
    assert callable(getattr(model_thread, model_thread.ROOT))
    assert callable(getattr(batched.BatchLayer, batched.WAKES))
    assert (threads.model_thread, threads.WAKES) == (model_thread, batched.WAKES)
    assert httptools_impl.RequestResponseCycle.run_asgi.__name__ == threads._ENTRY


def test_the_loops_and_servers_are_at_these_paths() -> None:
    assert set(threads._OUR_LOOPS) == set(map(path_of, (asgi_server, worker, queue_worker, model_thread, child)))
    assert set(threads._OUR_SERVERS) == set(map(path_of, (http, grpc, local, model_thread)))
    assert place_of(timed_model) == path_of(timed_model)
    assert is_of_model(RawFrame("f", timed_model.__file__, 1))


@each_row(
    "module", [asgi_server, worker, queue_worker, model_thread, child, app, grpc_server, timed_model, codec, cached]
)
def test_a_module_that_moved_is_known_at_its_new_place_only(module: ModuleType) -> None:
    """What a profile decides about the functions of a module changes with its file, so that no move passes unseen."""
    seen = RawFrame("f", module.__file__ or "", 1)
    moved = replace(seen, file=str(PACKAGE / "elsewhere.py"))

    def known(frame: RawFrame) -> tuple[object, ...]:
        return layer_of(frame), bool(threads.without_loops((frame,))), threads.is_of_server((frame,))

    assert known(seen) != known(moved)


@each_row(
    ("layer", "modules"),
    ("cached", (cached, cache_layer, redis_cache)),
    ("batched", (batched,)),
    ("continuous", (continuous,)),
    ("queued", (queued, redis_queue, queue_worker)),
    ("pipeline", (pipeline,)),
    ("ensemble", (ensemble,)),
    ("hop", (upstream,)),
    ("wire", (wire, tensors)),
    ("wire: compression", (compression,)),
    ("HTTP server", (app,)),
    ("gRPC server", (grpc_server,)),
    (MODEL, (timed_model,)),
    ("", (model_caller, model_thread)),
)
def test_a_module_belongs_to_its_layer(layer: str, modules: tuple[ModuleType, ...]) -> None:
    assert {layer_at(module) for module in modules} == {layer}


def test_every_pattern_with_a_layer_has_a_description_and_a_path() -> None:
    for kind in Pattern.__subclasses__():
        if kind.__module__.startswith(pytest_mlpatterns.__name__) and kind.layer is not Pattern.layer:
            module = __import__(kind.__module__, fromlist=["_"])
            assert layer_at(module) == kind.__name__.lower()
            assert kind.__name__.lower() in LAYER_KINDS


def test_every_path_of_a_description_is_that_of_a_module() -> None:
    modules = [path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")]
    for kind in LAYER_KINDS.values():
        for beginning in kind.paths:
            assert any(path.startswith(beginning) for path in modules), beginning


@pytest.mark.parametrize("verb", ["decode", "encode"])
def test_the_wire_has_functions_of_both_directions(verb: str) -> None:
    function = getattr(codec, f"{verb}_answer" if verb == "decode" else "encode_request")
    assert layer_at(codec, function.__name__) == f"wire: {verb}"


def test_the_actors_and_processes_on_nodes_have_these_names() -> None:
    ours = {f"ray::{kind.__name__}" for kind in (node_monitor.NodeMonitor, GeneratorHost)}
    assert ours <= set(node_monitor._ACTORS_OF_RAY)
    assert set(node_monitor._CHILDREN) == {f"from {one.__name__}." for one in (engines_ray, loadgen)}
