"""V2 over gRPC as bytes: every datatype there and back, raw contents as views, and what others read in them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.each_row import each_row
from support.synthetic import FEW, PROPERTY

from pytest_mlpatterns import wire
from pytest_mlpatterns.wire import Wire, WireError, codec_of
from pytest_mlpatterns.wire.grpc_call import (
    HEALTH,
    INFER_METHOD,
    SERVICE,
    message_class,
    message_prefix,
    model_in,
    pool,
)
from pytest_mlpatterns.wire.open_inference_grpc import (
    PROTOBUF,
    call_message,
    encode_answer,
    outputs_in,
    read_call,
    split_raw,
)
from pytest_mlpatterns.wire.tensors import DTYPES

Request: Any = message_class("inference.ModelInferRequest")
Response: Any = message_class("inference.ModelInferResponse")
TYPED = {
    "BOOL": ("bool_contents", [True, False]),
    "INT8": ("int_contents", [-128, 127]),
    "INT16": ("int_contents", [-300, 300]),
    "INT32": ("int_contents", [-(2**31), 2**31 - 1]),
    "INT64": ("int64_contents", [-(2**63), 2**63 - 1]),
    "UINT8": ("uint_contents", [0, 255]),
    "UINT16": ("uint_contents", [0, 65_535]),
    "UINT32": ("uint_contents", [0, 2**32 - 1]),
    "UINT64": ("uint64_contents", [0, 2**64 - 1]),
    "FP32": ("fp32_contents", [0.5, float("nan")]),
    "FP64": ("fp64_contents", [0.1, float("-inf")]),
    "BYTES": ("bytes_contents", [b"", b"\xff\x00x"]),
}


def there_and_back(values: Any) -> list[Any]:
    found = PROTOBUF.decode_inputs(PROTOBUF.encode_inputs(values).joined(), {})
    back = PROTOBUF.decode_outputs(PROTOBUF.encode_outputs(values).joined(), {})
    assert len(found) == len(back) == len(values)
    for one, other in zip(found, back, strict=True):
        assert_same(one, other)
    return found


def assert_same(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert list(one) == list(other)
        for name in one:
            assert_same(one[name], other[name])
    elif isinstance(one, str | bytes):
        assert one == other
        assert type(one) is type(other)
    else:
        np.testing.assert_array_equal(one, other, strict=True)


class TestThereAndBack:
    @each_row("datatype", DTYPES)
    def test_arrays_keep_type_and_shape(self, datatype: str) -> None:
        array = np.arange(24).reshape(2, 3, 4).astype(DTYPES[datatype])
        for values in (array, list(array), [array[0], array[1][::-1][::-1]]):
            for one, other in zip(there_and_back(values), array, strict=True):
                assert_same(one, other)

    @each_row(
        "values",
        [b"a", b"", b"\xff\x00\xff"],
        ["a", "", "ß\U0001f600"],
        [{"image": np.ones((2, 2), "f2"), "name": "x"}, {"image": np.zeros((2, 2), "f2"), "name": "y"}],
        [{"only": np.ones(3, "f4")}],
        [np.ones(2, "f4"), np.ones(3, "f4")],
        [{"a": np.ones(2)}, {"a": np.ones(3)}],
    )
    def test_other_values_too(self, values: list[Any]) -> None:
        for one, other in zip(there_and_back(values), values, strict=True):
            assert_same(one, other)

    def test_numbers_in_raw_contents_are_views(self) -> None:
        data = PROTOBUF.encode_inputs([np.arange(1000, dtype="f4").view("u1")]).joined()  # others, where aligned
        (found,) = PROTOBUF.decode_inputs(data, {})
        assert not found.flags.owndata
        assert np.shares_memory(found, np.frombuffer(data, np.uint8))

    def test_the_grpc_wire_has_the_protobuf_codec(self) -> None:
        assert codec_of(Wire.parse("grpc")) is PROTOBUF
        assert PROTOBUF.path("m") == "/v2/models/m/infer"

    def test_what_no_tensor_can_hold_is_refused(self) -> None:
        with pytest.raises(WireError, match="object"):
            PROTOBUF.encode_inputs([object()])


class TestCalls:
    def test_the_name_of_the_model_goes_into_the_message(self) -> None:
        body = PROTOBUF.encode_inputs([np.ones(3, "f4")])
        message = call_message(body.parts, "digits")
        assert message[:5] == message_prefix(len(message) - 5)
        call = read_call(message[5:])
        assert call.model_name == "digits"
        assert call.model_version == ""
        assert call.request.identity is None
        assert call.request.binary
        assert call.request.specification == ({"name": "input-0", "datatype": "FP32", "shape": [-1, 3]},)

    @each_row(
        ("path", "model"), [("/v2/models/m/infer", "m"), ("/v2/models/m/versions/1/infer", "m"), ("/predict", "")]
    )
    def test_the_model_is_the_one_in_the_path(self, path: str, model: str) -> None:
        assert model_in(path) == model
        assert INFER_METHOD == "/inference.GRPCInferenceService/ModelInfer"

    @each_row("datatype", TYPED)
    def test_typed_contents_are_taken_and_given(self, datatype: str) -> None:
        field, values = TYPED[datatype]
        request = Request(id="7")
        tensor = request.inputs.add(name="x", datatype=datatype, shape=[2])
        getattr(tensor.contents, field).extend(values)
        call = read_call(request.SerializeToString())
        assert [np.asarray(found).tobytes() for found in call.request.inputs] == [
            np.asarray(value, DTYPES.get(datatype)).tobytes() for value in values
        ]
        answer = Response.FromString(encode_answer(call.request, call.request.inputs, "m"))
        assert (answer.model_name, answer.model_version, answer.id) == ("m", "1", "7")
        (given,) = answer.outputs
        assert (given.datatype, list(given.shape)) == (datatype, [2])
        assert repr(list(getattr(given.contents, field))) == repr(values)
        assert not answer.raw_output_contents

    def test_typed_text_is_given_as_bytes(self) -> None:
        request = read_call(Request(inputs=[typed("FP32", [1.0])]).SerializeToString()).request
        answer = Response.FromString(encode_answer(request, ["ß"], "m"))
        assert list(answer.outputs[0].contents.bytes_contents) == ["ß".encode()]
        assert answer.outputs[0].parameters["content_type"].string_param == "str"

    def test_half_floats_have_no_typed_contents_so_that_all_are_raw(self) -> None:
        request = read_call(Request(inputs=[typed("FP32", [1.0])]).SerializeToString()).request
        answer = Response.FromString(encode_answer(request, [{"a": np.float16(2), "b": 1.0}], "m"))
        assert len(answer.raw_output_contents) == 2
        assert answer.raw_output_contents[0] == np.float16(2).tobytes()

    def test_outputs_that_are_wanted_are_given_and_the_only_one_by_any_name(self) -> None:
        message = Request(outputs=[{"name": "b"}], inputs=[typed("FP32", [1.0])])
        call = read_call(message.SerializeToString())
        answer = encode_answer(call.request, [{"a": 1.0, "b": 2.0}], "m")
        assert [tensor["name"] for tensor in outputs_in(answer)] == ["b"]
        answer = encode_answer(call.request, np.ones((1, 4), "f4"), "m")
        assert outputs_in(answer) == ({"name": "b", "datatype": "FP32", "shape": [-1, 4]},)
        with pytest.raises(WireError, match="outputs b are requested, but the model has a, c"):
            encode_answer(call.request, [{"a": 1.0, "c": 2.0}], "m")


def typed(kind: str, values: list[Any], **more: Any) -> dict[str, Any]:
    contents = {TYPED[kind][0]: values}
    return {"name": "x", "datatype": kind, "shape": [len(values)], "contents": contents, **more}


def raw(datatype: str, shape: list[int], **more: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": datatype, "shape": shape, **more}


@each_row(
    ("message", "text"),
    ({}, '"inputs" is empty, expected at least one tensor'),
    ({"inputs": [raw("FP32", [0])], "raw_input_contents": [b""]}, "the first dimension is 0"),
    ({"inputs": [raw("FP32", [1])], "raw_input_contents": [b"\0" * 4] * 2}, "2 raw contents for 1 inputs"),
    ({"inputs": [raw("FP32", [2])], "raw_input_contents": [b"\0" * 4]}, "tensor 'x': 4 bytes for FP32 of shape"),
    ({"inputs": [raw("FP32", [-1])], "raw_input_contents": [b"\0" * 4]}, r"shape \[-1\], expected whole numbers"),
    ({"inputs": [raw("FP32", [])], "raw_input_contents": [b"\0" * 4]}, "it has no dimension"),
    ({"inputs": [raw("BF16", [1])], "raw_input_contents": [b"\0" * 2]}, "datatype 'BF16', expected one of"),
    ({"inputs": [raw("FP16", [1], contents={})]}, "datatype 'FP16' has no typed contents; send raw ones"),
    ({"inputs": [typed("FP32", [1.0])], "raw_input_contents": [b"\0" * 4]}, "both raw and typed contents"),
    ({"inputs": [typed("INT32", [300], datatype="INT8")]}, "contents out of the range of INT8"),
    ({"inputs": [typed("UINT32", [256], datatype="UINT8")]}, "contents out of the range of UINT8"),
    ({"inputs": [typed("FP32", [1.0], shape=[2])]}, "4 bytes for FP32"),
    (
        {"inputs": [raw("FP32", [1], parameters={"shared_memory_region": {"string_param": "r"}})]},
        "it is in shared memory, which is not supported",
    ),
    (
        {
            "inputs": [typed("FP32", [1.0])],
            "outputs": [{"name": "y", "parameters": {"classification": {"int64_param": 3}}}],
        },
        "output 'y' asks for a classification",
    ),
    ({"inputs": [typed("FP32", [1.0])], "parameters": {"rows": {"int64_param": 9}}}, "parameter rows is 9"),
)
def test_what_is_no_request_is_refused(message: dict[str, Any], text: str) -> None:
    with pytest.raises(WireError, match=text):
        read_call(Request(**message).SerializeToString())


def test_parameters_without_a_value_are_ignored() -> None:
    message = Request(inputs=[typed("FP32", [1.0], parameters={"empty": {}})], parameters={"empty": {}})
    assert read_call(message.SerializeToString()).request.inputs == [1.0]


def test_empty_typed_contents_beside_raw_ones_are_none_as_mlserver_sends_them() -> None:
    message = Request(inputs=[raw("UINT8", [2], contents={})], raw_input_contents=[b"\1\2"])
    assert read_call(message.SerializeToString()).request.inputs == [1, 2]


def test_ragged_outputs_are_refused_to_clients_of_others() -> None:
    request = read_call(Request(inputs=[typed("FP32", [1.0, 2.0])]).SerializeToString()).request
    with pytest.raises(WireError, match="do not fit one tensor"):
        encode_answer(request, [[1], [1, 2]], "m")


class TestSplitting:
    @FEW
    @given(st.lists(st.binary(max_size=300), max_size=4), st.text(max_size=200), st.integers(0, 3))
    def test_raw_contents_are_found_wherever_they_are(self, contents: list[bytes], text: str, inputs: int) -> None:
        message = Request(model_name=text, raw_input_contents=contents, inputs=[{"name": text}] * inputs)
        after = Request(id=text, raw_input_contents=contents)
        rest, found = split_raw(message.SerializeToString() + after.SerializeToString(), 7)
        assert [bytes(one) for one in found] == contents * 2
        assert Request.FromString(bytes(rest)) == Request(model_name=text, id=text, inputs=[{"name": text}] * inputs)

    @PROPERTY
    @given(st.binary(max_size=60))
    def test_noise_is_refused_or_read(self, data: bytes) -> None:
        try:
            found = read_call(data)
        except WireError:
            return
        assert found.request.inputs

    @each_row(
        "data",
        [b"\x80", b"\xff" * 11, b"\x3a\x05ab", b"\x3a", b"\x3b", b"\x3e\x00", b"\x09abc", b"\x0dab", b"\x0a\x01\xff"],
    )
    def test_what_breaks_off_is_refused(self, data: bytes) -> None:
        with pytest.raises(WireError, match=r"is truncated|not protobuf|not a ModelInferRequest"):
            read_call(data)

    def test_other_kinds_of_fields_are_passed_by(self) -> None:
        others = b"\x79" + b"8" * 8 + b"\x7d" + b"4" * 4 + b"\x78\x96\x01"
        rest, found = split_raw(others + Request(raw_input_contents=[b"x"]).SerializeToString() + others, 7)
        assert bytes(rest) == others * 2
        assert found == [b"x"]


class TestDefinitions:
    @each_row(
        "name",
        "InferParameter",
        "InferTensorContents",
        "ModelInferRequest",
        "ModelInferRequest.InferInputTensor",
        "ModelInferRequest.InferRequestedOutputTensor",
        "ModelInferResponse",
        "ModelInferResponse.InferOutputTensor",
        "ModelMetadataResponse.TensorMetadata",
        "ModelReadyRequest",
        "ServerMetadataResponse",
    )
    def test_descriptors_equal_those_of_tritonclient(self, name: str) -> None:
        theirs = pytest.importorskip("tritonclient.grpc.service_pb2", reason="a public client, of the test extra")
        outer, _, inner = name.partition(".")
        other = getattr(theirs, outer).DESCRIPTOR
        other = other.nested_types_by_name[inner] if inner else other
        ours = pool().FindMessageTypeByName(f"inference.{name}")
        assert fields_of(ours) == fields_of(other)

    @pytest.mark.processes
    def test_the_shipped_descriptor_set_is_what_protoc_makes_of_the_shipped_files(self, tmp_path: Path) -> None:
        from google.protobuf.descriptor_pb2 import FileDescriptorSet

        shipped = Path(wire.__file__).parent
        sources = sorted(path.name for path in shipped.glob("*.proto"))
        compiled = tmp_path / "descriptors.binpb"
        protoc = [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--descriptor_set_out={compiled}", *sources]
        subprocess.run(protoc, cwd=shipped, check=True, timeout=60)
        found, expected = (
            FileDescriptorSet.FromString(path.read_bytes()) for path in (shipped / "descriptors.binpb", compiled)
        )
        assert found == expected, "run make protos"
        services = [f"{file.package}.{service.name}" for file in found.file for service in file.service]
        assert services == [HEALTH, SERVICE]

    @pytest.mark.processes
    @pytest.mark.parametrize("order", ["ours, theirs", "theirs, ours"])
    def test_another_copy_of_them_in_the_same_process_does_not_clash(self, order: str) -> None:
        script = f"""
            import importlib
            def ours():
                from pytest_mlpatterns.wire.grpc_call import message_class
                return message_class("inference.ModelInferRequest")
            def theirs():
                return importlib.import_module("tritonclient.grpc.service_pb2").ModelInferRequest
            one, other = [make() for make in ({order})]
            assert one is not other
            data = one(model_name="m", raw_input_contents=[b"abc"]).SerializeToString()
            assert other.FromString(data).raw_input_contents[0] == b"abc"
        """
        lines = "\n".join(line[12:] for line in script.splitlines())
        subprocess.run([sys.executable, "-c", lines], check=True, timeout=60)


def fields_of(descriptor: Any) -> dict[str, tuple[int, int, str | None]]:
    return {
        field.name: (field.number, field.type, field.message_type and field.message_type.full_name)
        for field in descriptor.fields
    }
