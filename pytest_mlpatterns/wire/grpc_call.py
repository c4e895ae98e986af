"""Method names, message framing and descriptors of the Open Inference Protocol over gRPC.

The ``.proto`` files beside this module are compiled into ``descriptors.binpb`` (``make protos``), which any installed
version of protobuf reads: there is no generated code that asks for one version. The descriptors live in a private pool,
because protobuf refuses a second registration of the same names, and other packages (tritonclient, for example)
register theirs in the default pool. The load generator imports this module, which must not know tensors. Also:
``loadgen/http2.py`` sends a call of the load and reads its answer.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.protobuf.descriptor_pool import DescriptorPool

_INFER_PATH = re.compile(r"/v2/models/([^/]+)(?:/versions/[^/]+)?/infer")
SERVICE = "inference.GRPCInferenceService"
INFER_METHOD = f"/{SERVICE}/ModelInfer"
PREFIX_BYTES = 5  # Length of the prefix of a message: the compression flag and the length of the message
HEALTH = "grpc.health.v1.Health"


def model_in(path: str) -> str:
    """Name of the model in the path of a V2 inference request; empty if the path is not of that form."""
    found = _INFER_PATH.fullmatch(path)
    return "" if found is None else found[1]


def message_prefix(size: int) -> bytes:
    """Prefix of an uncompressed message of ``size`` bytes."""
    return size.to_bytes(PREFIX_BYTES, "big")


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
def message_class(name: str) -> Any:  # The descriptors give its fields: no checker of types knows them.
    """The class of a message by its full name, such as ``inference.ModelInferRequest``."""
    from google.protobuf.message_factory import GetMessageClass

    return GetMessageClass(pool().FindMessageTypeByName(name))
