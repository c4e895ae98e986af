"""The messages of ``inference.GRPCInferenceService`` (Open Inference Protocol V2), health and reflection, as protobuf.

They live in a pool of descriptors of their own: a process that loads another copy of these definitions, as tritonclient
has one, is not disturbed. Nothing is generated, so any runtime of protobuf that is installed serves.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.wire.call import SERVICE

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import DescriptorProto
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message import Message

__all__ = ["HEALTH", "REFLECTION", "SERVICES", "message_class", "pool"]

HEALTH = "grpc.health.v1.Health"
REFLECTION = "grpc.reflection.v1.ServerReflection"

_INFERENCE = """
ServerLiveRequest:
ServerLiveResponse: live=1 bool
ServerReadyRequest:
ServerReadyResponse: ready=1 bool
ModelReadyRequest: name=1 string, version=2 string
ModelReadyResponse: ready=1 bool
ServerMetadataRequest:
ServerMetadataResponse: name=1 string, version=2 string, extensions=3 *string
ModelMetadataRequest: name=1 string, version=2 string
ModelMetadataResponse: name=1 string, versions=2 *string, platform=3 string, inputs=4 *TensorMetadata,
    outputs=5 *TensorMetadata
ModelMetadataResponse.TensorMetadata: name=1 string, datatype=2 string, shape=3 *int64
InferParameter: bool_param=1 |bool, int64_param=2 |int64, string_param=3 |string, double_param=4 |double,
    uint64_param=5 |uint64
InferTensorContents: bool_contents=1 *bool, int_contents=2 *int32, int64_contents=3 *int64, uint_contents=4 *uint32,
    uint64_contents=5 *uint64, fp32_contents=6 *float, fp64_contents=7 *double, bytes_contents=8 *bytes
ModelInferRequest: model_name=1 string, model_version=2 string, id=3 string, parameters=4 %InferParameter,
    inputs=5 *InferInputTensor, outputs=6 *InferRequestedOutputTensor, raw_input_contents=7 *bytes
ModelInferRequest.InferInputTensor: name=1 string, datatype=2 string, shape=3 *int64, parameters=4 %InferParameter,
    contents=5 InferTensorContents
ModelInferRequest.InferRequestedOutputTensor: name=1 string, parameters=2 %InferParameter
ModelInferResponse: model_name=1 string, model_version=2 string, id=3 string, parameters=4 %InferParameter,
    outputs=5 *InferOutputTensor, raw_output_contents=6 *bytes
ModelInferResponse.InferOutputTensor: name=1 string, datatype=2 string, shape=3 *int64, parameters=4 %InferParameter,
    contents=5 InferTensorContents
"""
_HEALTH = """
HealthCheckRequest: service=1 string
HealthCheckResponse: status=1 int32
"""  # the status is an enumeration, which lies on the wire as such a number
_REFLECTION = """
ServerReflectionRequest: host=1 string, file_by_filename=3 |string, file_containing_symbol=4 |string,
    list_services=7 |string
ServerReflectionResponse: valid_host=1 string, original_request=2 ServerReflectionRequest,
    file_descriptor_response=4 |FileDescriptorResponse, list_services_response=6 |ListServiceResponse,
    error_response=7 |ErrorResponse
FileDescriptorResponse: file_descriptor_proto=1 *bytes
ListServiceResponse: service=1 *ServiceResponse
ServiceResponse: name=1 string
ErrorResponse: error_code=1 int32, error_message=2 string
"""
SERVICES = {
    SERVICE: ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer"),
    HEALTH: ("Check", "Watch"),
    REFLECTION: ("ServerReflectionInfo",),
}
"""Services and their methods. Reflection is known by an older name too, under which it is the same."""
_STREAMS = {"Watch": (False, True), "ServerReflectionInfo": (True, True)}
"""Methods that take a stream, or answer with one."""
_MESSAGES = {
    HEALTH: ("HealthCheckRequest", "HealthCheckResponse"),
    REFLECTION: ("ServerReflectionRequest", "ServerReflectionResponse"),
}
_TYPES = {
    "double": 1,
    "float": 2,
    "int64": 3,
    "uint64": 4,
    "int32": 5,
    "bool": 8,
    "string": 9,
    "message": 11,
    "bytes": 12,
    "uint32": 13,
}  # numbers of FieldDescriptorProto.Type
_OPTIONAL, _REPEATED = 1, 3


@cache
def pool() -> DescriptorPool:
    """The definitions, in a pool of their own."""
    from google.protobuf.descriptor_pb2 import FileDescriptorProto
    from google.protobuf.descriptor_pool import DescriptorPool

    made = DescriptorPool()
    for service, text in ((SERVICE, _INFERENCE), (HEALTH, _HEALTH), (REFLECTION, _REFLECTION)):
        package, _, name = service.rpartition(".")
        file = FileDescriptorProto(name=f"{package.replace('.', '/')}.proto", package=package, syntax="proto3")
        nested: dict[str, DescriptorProto] = {}
        for line in text.strip().replace("\n    ", " ").split("\n"):
            whole, _, fields = line.partition(":")
            outer, _, inner = whole.rpartition(".")
            message = nested[outer].nested_type.add() if outer else file.message_type.add()
            message.name = inner
            nested[whole] = message
            _add_fields(message, f".{package}.{whole}", package, fields)
        described = file.service.add(name=name)
        for method in SERVICES[service]:
            takes, gives = _MESSAGES.get(service, (f"{method}Request", f"{method}Response"))
            streams, streamed = _STREAMS.get(method, (False, False))
            described.method.add(
                name=method,
                input_type=f".{package}.{takes}",
                output_type=f".{package}.{gives}",
                client_streaming=streams,
                server_streaming=streamed,
            )
        made.AddSerializedFile(file.SerializeToString())
    return made


@cache
def message_class(name: str) -> type[Message]:
    """The class of a message by its full name, such as ``inference.ModelInferRequest``."""
    from google.protobuf.message_factory import GetMessageClass

    return GetMessageClass(pool().FindMessageTypeByName(name))


def _add_fields(message: DescriptorProto, whole: str, package: str, fields: str) -> None:
    """``*`` marks a field that is repeated, ``%`` a map from text, ``|`` a member of the message's only oneof."""
    for text in filter(None, map(str.strip, fields.split(","))):
        names, _, kind = text.partition(" ")
        name, _, number = names.partition("=")
        mark, kind = (kind[0], kind[1:]) if kind[0] in "*%|" else ("", kind)
        field = message.field.add(
            name=name, number=int(number), label=_REPEATED if mark in "*%" and mark else _OPTIONAL
        )
        if mark == "%":
            entry = message.nested_type.add(name=f"{name.title()}Entry")
            entry.options.map_entry = True
            entry.field.add(name="key", number=1, label=_OPTIONAL, type=_TYPES["string"])
            _set_type(entry.field.add(name="value", number=2, label=_OPTIONAL), kind, package, whole)
            _set_type(field, f"{whole}.{entry.name}", package, whole)
            continue
        if mark == "|":
            if not message.oneof_decl:
                message.oneof_decl.add(name="choice")
            field.oneof_index = 0
        _set_type(field, kind, package, whole)


def _set_type(field: Any, kind: str, package: str, whole: str) -> None:
    if kind in _TYPES:
        field.type = _TYPES[kind]
        return
    field.type = _TYPES["message"]
    inside = _INSIDE.get(kind, "")
    field.type_name = kind if kind.startswith(".") else f".{package}.{inside}{kind}"


_INSIDE = {
    "TensorMetadata": "ModelMetadataResponse.",
    "InferInputTensor": "ModelInferRequest.",
    "InferRequestedOutputTensor": "ModelInferRequest.",
    "InferOutputTensor": "ModelInferResponse.",
}
"""Messages that are defined inside another."""
