"""Protobuf descriptors of the Open Inference Protocol (V2), of gRPC health and of gRPC reflection.

The ``.proto`` files beside this module are compiled into ``descriptors.binpb`` (``make protos``), which any installed
version of protobuf reads: there is no generated code that asks for one version. The descriptors live in a private pool,
because protobuf refuses a second registration of the same names, and other packages (tritonclient, for example)
register theirs in the default pool.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from pytest_mlpatterns.wire.grpc_call import SERVICE

if TYPE_CHECKING:
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message import Message

__all__ = ["HEALTH", "REFLECTION", "SERVICES", "message_class", "pool"]

HEALTH = "grpc.health.v1.Health"
REFLECTION = "grpc.reflection.v1.ServerReflection"
SERVICES = (SERVICE, HEALTH, REFLECTION)
"""Full names of the services. Reflection has an older name too, with the same messages."""


@cache
def pool() -> DescriptorPool:
    """The private pool with all descriptors."""
    from google.protobuf.descriptor_pb2 import FileDescriptorSet
    from google.protobuf.descriptor_pool import DescriptorPool

    private = DescriptorPool()
    for file in FileDescriptorSet.FromString(files(__package__).joinpath("descriptors.binpb").read_bytes()).file:
        private.AddSerializedFile(file.SerializeToString())
    return private


@cache
def message_class(name: str) -> type[Message]:
    """The class of a message by its full name, such as ``inference.ModelInferRequest``."""
    from google.protobuf.message_factory import GetMessageClass

    return GetMessageClass(pool().FindMessageTypeByName(name))
