"""Tensors through every codec: what goes comes back, of every type and shape; what is no message is refused."""

import contextlib
import json
import math
from typing import Any

import msgpack
import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from support.each_row import each_row
from support.synthetic import FEW, PROPERTY

from pytest_mlpatterns.wire import Body, Wire, WireError, codec_of, decode_answer, encode_request, pack, unpack
from pytest_mlpatterns.wire.open_inference import HEAD_LENGTH, encode_answer, read_request

BINARY, MSGPACK, V1 = (codec_of(Wire.parse(text)) for text in ("rest+binary", "rest+msgpack", "rest+json"))
V2 = codec_of(Wire(), "/v2/models/any/infer")
TENSORS = {"binary": BINARY, "msgpack": MSGPACK, "v2": V2}


def arrays(*, nan: bool = True, shape: Any = None) -> st.SearchStrategy[Any]:
    """Arrays of every type that a tensor can hold, of up to three dimensions, some of them empty."""

    def of(dtype: str) -> st.SearchStrategy[Any]:
        numbers = {} if nan or "f" not in dtype else {"allow_nan": False, "allow_infinity": False}
        return arrays_of.arrays(
            np.dtype(dtype),
            arrays_of.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4) if shape is None else shape,
            elements=numbers or None,
        )

    return st.sampled_from(("?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8")).flatmap(of)


def same(found: Any, given: Any) -> bool:
    """Whether two arrays are of the same type, shape and elements, to the bit."""
    found, given = np.asarray(found), np.asarray(given)
    return (found.dtype, found.shape, found.tobytes()) == (given.dtype, given.shape, given.tobytes())


def through(codec: Any, values: Any, kind: str = "inputs") -> list[Any]:
    """The values after the way out and back."""
    body: Body = getattr(codec, f"encode_{kind}")(values)
    decoded: list[Any] = getattr(codec, f"decode_{kind}")(body.joined(), dict(body.headers))
    return decoded


@pytest.mark.parametrize("kind", ["inputs", "outputs"])
@pytest.mark.parametrize("codec", ["binary", "msgpack"])
@FEW
@given(array=arrays())
def test_an_array_comes_back_to_the_bit(codec: str, kind: str, array: Any) -> None:
    (found,) = through(TENSORS[codec], [array], kind)
    assert same(found, array)


@PROPERTY
@given(array=arrays(nan=False))
def test_an_array_comes_back_from_json_with_its_type(array: Any) -> None:
    (found,) = through(V2, [array])
    assert np.asarray(found).dtype == array.dtype
    assert np.array_equal(found, array)


def test_json_has_null_for_what_is_no_number() -> None:
    (found,) = through(V2, [np.array([1.5, np.nan], dtype=np.float32)])
    assert found.dtype == np.float32
    assert (found[0], math.isnan(found[1])) == (1.5, True)


def test_json_refuses_infinity_at_its_place() -> None:
    with pytest.raises(WireError, match=r"^output 1 has -infinity at \[0\]\[2\] of tensor output-0, which JSON cannot"):
        V2.encode_outputs(np.array([[[0, 1, 2]], [[3, 4, -np.inf]]], dtype=np.float32))
    with pytest.raises(WireError, match=r"^input 0 has infinity of tensor b, which JSON cannot carry"):
        V2.encode_inputs([{"a": 1.0, "b": math.inf}])
    with pytest.raises(WireError, match=r"^input 1 has infinity at \[1\], which JSON cannot carry"):
        V2.encode_inputs([[1.0], [1.0, math.inf]])


@pytest.mark.parametrize("codec", TENSORS)
@FEW
@given(data=st.data(), count=st.integers(1, 5))
def test_a_batch_comes_back_row_by_row(codec: str, data: st.DataObject, count: int) -> None:
    shape = data.draw(arrays_of.array_shapes(min_dims=0, max_dims=2, max_side=3))
    batch = data.draw(arrays(nan=False, shape=(count, *shape)))
    for values in (batch, list(batch)):
        found = through(TENSORS[codec], values, "outputs")
        assert len(found) == count
        assert all(same(one, other) for one, other in zip(found, batch, strict=True))


@pytest.mark.parametrize("codec", TENSORS)
@FEW
@given(rows=st.lists(st.dictionaries(st.text(min_size=1), arrays(nan=False), min_size=1, max_size=3), min_size=1))
def test_named_arrays_of_any_shapes_come_back(codec: str, rows: list[dict[str, Any]]) -> None:
    found = through(TENSORS[codec], rows)
    assert [[*row] for row in found] == [[*row] for row in rows]
    assert all(same(one[name], other[name]) for one, other in zip(found, rows, strict=True) for name in one)


@pytest.mark.parametrize("codec", ["binary", "msgpack"])
@PROPERTY
@given(values=st.lists(st.binary(max_size=9), min_size=1) | st.lists(st.text(max_size=9), min_size=1))
def test_bytes_and_text_come_back_as_what_they_are(codec: str, values: list[Any]) -> None:
    assert through(TENSORS[codec], values) == values


@PROPERTY
@given(st.lists(st.text(max_size=9), min_size=1))
def test_text_comes_back_from_json(values: list[str]) -> None:
    assert through(V2, values) == values


@each_row(
    "values",
    [["a", "bc"], ["d", ""]],
    [np.array([b"a", b"bc"]), np.array([b"", b"d"])],
    np.array(["one", "two"]),
    np.array(["one", "two"], dtype=object),  # as labels of scikit-learn are
    [np.array([], dtype="U1").reshape(0, 2)],
)
@each_row("codec", ["binary", "v2"])
def test_arrays_of_text_and_bytes_come_back(codec: str, values: Any) -> None:
    found = through(TENSORS[codec], values)
    assert [np.asarray(one).tolist() for one in found] == [np.asarray(one).tolist() for one in values]


@each_row(
    ("values", "dtype"),
    [([1, 2], np.int64), ([1, 2.5], np.float64), ([True, False], np.bool_), ([[1, 2.5], [3, 4]], np.float64)],
)
@each_row("codec", ["binary", "v2"])
def test_plain_numbers_become_those_of_numpy(codec: str, values: Any, dtype: Any) -> None:
    found = through(TENSORS[codec], values)
    assert [np.asarray(one).tolist() for one in found] == values
    assert all(np.asarray(one).dtype == dtype for one in found)


@each_row(
    "values",
    [np.ones(2), np.ones(3)],
    [np.ones(2), {"a": np.ones(2)}],
    [{"a": np.ones(2)}, {"b": np.ones(2)}],
    [np.ones(2, dtype="f4"), np.ones(2, dtype="f8")],
    ["text", b"bytes"],
    [{"a": 1}, {"a": [1, 2], "b": 2}],
)
@each_row("codec", TENSORS)
def test_inputs_that_differ_come_back_each_as_it_is(codec: str, values: list[Any]) -> None:
    found = through(TENSORS[codec], values)
    for one, other in zip(found, values, strict=True):
        if isinstance(other, dict):
            assert [*one] == [*other]
            assert all(same(one[name], other[name]) for name in other)
        else:
            assert one == other if isinstance(other, str | bytes) else same(one, other)


@each_row("array", [np.arange(6).reshape(2, 3).T, np.arange(6)[::2], np.arange(3, dtype=">f4")])
@each_row("codec", ["binary", "v2"])
def test_arrays_of_other_layouts_come_back_equal(codec: str, array: Any) -> None:
    (found,) = through(TENSORS[codec], [array])
    assert np.array_equal(found, array)
    assert found.dtype == array.dtype.newbyteorder("=")


def test_numbers_are_not_copied_on_the_way() -> None:
    array = np.ones(1000, dtype=np.float32)
    body = BINARY.encode_inputs([array])
    assert np.shares_memory(np.frombuffer(body.parts[1], np.float32), array)
    whole = body.joined()
    (found,) = BINARY.decode_inputs(whole, dict(body.headers))
    assert np.shares_memory(found, np.frombuffer(whole, np.uint8))
    assert found.flags.aligned
    assert not found.flags.writeable


def test_numbers_that_lie_askew_are_copied_to_where_they_can_be_used() -> None:
    head = b'{"inputs":[{"name":"x","datatype":"FP64","shape":[1,2],"parameters":{"binary_data_size":16}}]} '
    padded = head + b" " * ((1 - len(head)) % 8)
    (found,) = BINARY.decode_inputs(padded + np.array([1.5, 2.5]).tobytes(), {HEAD_LENGTH: str(len(padded))})
    assert found.flags.aligned
    assert found.tolist() == [1.5, 2.5]


@each_row(
    ("value", "reason"),
    (None, "no tensor can hold NoneType"),
    (object(), "no tensor can hold object"),
    (1j, "no tensor can hold complex"),
    (np.array([1j]), "no tensor can hold an array of complex128"),
    (np.array([1, None]), "no tensor can hold an array of object"),
    (np.array(["2026-01-01"], dtype="M8[D]"), "no tensor can hold an array of datetime64"),
    (np.longdouble(1.5), "no tensor can hold "),
    (np.zeros(1, dtype=[("a", "i4")]), "no tensor can hold an array of "),
    ([1, [2, 3]], "list cannot be converted to an array: "),
    (["a", 1], "text or bytes beside something else"),
    ({"a": object()}, "no tensor can hold object"),
    ({1: 2}, "dictionaries need names that are text"),
    ({}, "dictionaries need names that are text, at least one"),
    (2**70, "no tensor can hold int"),
    ("\ud800", "text that UTF-8 cannot encode"),
)
def test_what_no_tensor_can_hold_is_refused_by_what_it_is(value: Any, reason: str) -> None:
    with pytest.raises(WireError) as caught:
        [part for column in [BINARY.encode_inputs([value])] for part in column.parts]
    assert str(caught.value).startswith(reason)


def test_what_has_an_array_of_its_own_kind_goes_as_that() -> None:
    class Foreign:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            return np.array([1.5, 2.5])

    class Broken:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            raise RuntimeError("it is on another device")

    assert through(BINARY, [Foreign()])[0].tolist() == [1.5, 2.5]
    assert through(MSGPACK, [Foreign()])[0].tolist() == [1.5, 2.5]
    with pytest.raises(WireError, match="Broken cannot be converted to an array: it is on another device"):
        BINARY.encode_inputs([Broken()])


def test_json_cannot_hold_bytes_that_are_no_text() -> None:
    assert through(V2, [b"text"]) == [b"text"]
    with pytest.raises(WireError, match=r"JSON cannot hold bytes that are not UTF-8 text: .*; use rest\+binary"):
        V2.encode_inputs([b"\xff"])


class TestMessagePack:
    @PROPERTY
    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text()
            | st.binary(),
            lambda inner: st.lists(inner, max_size=3)
            | st.dictionaries(st.text() | st.integers(0, 9), inner, max_size=3),
            max_leaves=10,
        )
    )  # fmt: skip
    def test_plain_values_come_back(self, value: Any) -> None:
        assert through(MSGPACK, [value]) == [value]
        assert through(MSGPACK, [value], "outputs") == [value]

    def test_arrays_inside_of_other_values_come_back(self) -> None:
        ((name, found),) = through(MSGPACK, [("name", {"a": [np.ones(2, dtype="f2")]})])
        assert name == "name"
        assert same(found["a"][0], np.ones(2, dtype="f2"))

    @pytest.mark.parametrize("array", [np.array([b"a", b"bc"]), np.array(["a", "bc"]), np.array([1j]), np.float16(1.5)])
    def test_every_type_that_needs_no_pickle_comes_back(self, array: Any) -> None:
        assert same(through(MSGPACK, [array])[0], array)

    @each_row("value", [object(), 2**70, np.array([None]), np.zeros(1, dtype=[("a", "i4")]), "\ud800"])
    def test_what_it_cannot_hold_is_refused(self, value: Any) -> None:
        with pytest.raises(WireError, match="MessagePack cannot encode the values: "):
            MSGPACK.encode_inputs([value])

    def test_sets_and_ranges_are_lists(self) -> None:
        assert through(MSGPACK, [{3}, range(3)]) == [[3], [0, 1, 2]]

    def test_users_of_msgpack_numpy_are_understood_and_understand(self) -> None:
        import msgpack_numpy

        message = {"instances": [np.arange(6, dtype="f4").reshape(2, 3), np.float32(1.5)]}
        array, number = MSGPACK.decode_inputs(msgpack.packb(message, default=msgpack_numpy.encode), {})
        assert same(array, message["instances"][0])
        assert same(number, np.float32(1.5))
        answer = msgpack.unpackb(MSGPACK.encode_outputs([array]).joined(), object_hook=msgpack_numpy.decode)
        assert same(answer["predictions"][0], array)

    @each_row(
        "array",
        {b"nd": True},
        {b"nd": True, b"type": "O", b"kind": b"O", b"shape": [1], b"data": b"\x80\x04N."},
        {b"nd": True, b"type": [["a", "<i4"]], b"kind": b"V", b"shape": [1], b"data": b"0000"},
        {b"nd": True, b"type": "<f4", b"kind": b"", b"shape": [2], b"data": b"0000"},
        {b"nd": True, b"type": "<f4", b"kind": b"", b"shape": [2**70 >> 8], b"data": b"0000"},
        {b"nd": True, b"type": "<f4", b"kind": b"", b"shape": "a", b"data": b"0000"},
        {b"nd": True, b"type": "<f4", b"kind": b"", b"shape": [1], b"data": "text"},
        {b"nd": False, b"type": "<f4", b"data": b""},
        {b"nd": True, b"type": "S0", b"kind": b"", b"shape": [1], b"data": b""},
        {b"nd": True, b"type": "nonsense", b"kind": b"", b"shape": [1], b"data": b""},
    )
    def test_an_array_that_is_none_is_refused_and_nothing_unpickled(self, array: dict[bytes, Any]) -> None:
        with pytest.raises(WireError, match="malformed array: "):
            MSGPACK.decode_inputs(msgpack.packb({"instances": [array]}), {})

    @each_row("body", [b"", b"\xc1", b"\x81", b"\xdf\xff\xff\xff\xff", b"\x81\x90\x01", b"\xa1a\xa1a"])
    def test_what_is_no_message_is_refused(self, body: bytes) -> None:
        with pytest.raises(WireError, match="the body is not MessagePack"):
            MSGPACK.decode_inputs(body, {})

    @each_row("message", [1, [], {}, {"instances": []}, {"instances": {}}, {"instances": 1}])
    def test_a_message_without_instances_or_predictions_is_refused(self, message: Any) -> None:
        with pytest.raises(WireError, match=r'the body is not \{"instances": '):
            MSGPACK.decode_inputs(msgpack.packb(message), {})
        with pytest.raises(WireError, match=r'the body is not \{"predictions": '):
            MSGPACK.decode_outputs(msgpack.packb({**message, "predictions": 1} if message == {} else message), {})


def make_tensor(**changed: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]} | changed


def make_binary(size: Any = 8, **changed: Any) -> dict[str, Any]:
    tensor = make_tensor(parameters={"binary_data_size": size}) | changed
    del tensor["data"]
    return tensor


class TestMalformed:
    @each_row(
        ("message", "reason"),
        ([], 'the body is not {"inputs": '),
        ({}, 'the body is not {"inputs": '),
        ({"inputs": {}}, 'the body is not {"inputs": '),
        ({"inputs": []}, '"inputs" is empty'),
        ({"inputs": [1]}, '"inputs" holds something else than tensors with a name'),
        ({"inputs": [{"name": 1}]}, '"inputs" holds something else'),
        ({"inputs": [make_tensor()], "id": 5}, "id is 5, expected text"),
        ({"inputs": [make_tensor()], "parameters": []}, "parameters are [], expected an object"),
        ({"inputs": [make_tensor(parameters=1)]}, "parameters are 1, expected an object"),
        ({"inputs": [make_tensor(datatype="BF16")]}, "tensor 'x': datatype 'BF16', expected one of BOOL, "),
        ({"inputs": [make_tensor(datatype=None)]}, "tensor 'x': datatype None, expected text"),
        ({"inputs": [make_tensor(shape=None)]}, "tensor 'x': shape None, expected a list of whole numbers"),
        ({"inputs": [make_tensor(shape=[1, -2])]}, "tensor 'x': shape [1, -2], expected"),
        ({"inputs": [make_tensor(shape=[1, 2.0])]}, "tensor 'x': shape [1, 2.0], expected"),
        ({"inputs": [make_tensor(shape=[True, 2])]}, "tensor 'x': shape [True, 2], expected"),
        ({"inputs": [make_tensor(shape=[])]}, "tensor 'x': it has no dimension, expected a first one"),
        ({"inputs": [make_tensor(shape=[0, 2], data=[])]}, "the first dimension is 0, expected at least one input"),
        ({"inputs": [make_tensor(shape=[1, 3])]}, "tensor 'x': 8 bytes for FP32 of shape [1, 3], expected 12"),
        ({"inputs": [make_tensor(shape=[1] * 40 + [2])]}, "tensor 'x': a tensor of 41 dimensions, expected at most"),
        ({"inputs": [make_tensor(shape=[2**63, 0], data=[])]}, "tensor 'x': shape "),
        ({"inputs": [make_tensor(data="text")]}, "tensor 'x': no data, expected a list"),
        ({"inputs": [make_tensor(data=None)]}, "tensor 'x': no data"),
        ({"inputs": [make_tensor(data=["a", "b"])]}, "tensor 'x': data of str"),
        ({"inputs": [make_tensor(data=[1, [2]])]}, "tensor 'x': data cannot be converted to an array: "),
        ({"inputs": [make_tensor(data=[{}, {}])]}, "tensor 'x': data cannot be converted to an array: "),
        ({"inputs": [make_tensor(data=[True, False])]}, "tensor 'x': data of bool, which is not FP32"),
        ({"inputs": [make_tensor(datatype="INT32", data=[1.5, 2])]}, "tensor 'x': data of float64, which is not INT32"),
        (
            {"inputs": [make_tensor(datatype="UINT8", data=[256, 2])]},
            "tensor 'x': data of int64, which is not UINT8 or",
        ),
        ({"inputs": [make_tensor(datatype="UINT8", data=[-1, 2])]}, "tensor 'x': data of int64, which is not UINT8 or"),
        ({"inputs": [make_tensor(datatype="BOOL", data=[2, 0])]}, "tensor 'x': data of int64, which is not BOOL"),
        ({"inputs": [make_tensor(datatype="BYTES", data=[1, 2])]}, "tensor 'x': an element of BYTES is not text"),
        ({"inputs": [make_tensor(datatype="BYTES", data=["a"])]}, "tensor 'x': 1 elements of shape [1, 2], expected 2"),
        (
            {"inputs": [make_tensor(datatype="BYTES", data=["a\0", "b"])]},
            "tensor 'x': an element of BYTES ends with NUL",
        ),
        (
            {"inputs": [make_tensor(), make_tensor(name="y", shape=[2, 1])]},
            "the first dimensions of the tensors differ",
        ),
        (
            {"inputs": [make_tensor(parameters={"shared_memory_region": "r"})]},
            "tensor 'x': it is in shared memory, which is not supported",
        ),
        ({"inputs": [make_binary()]}, "tensor 'x': binary_data_size is 8, but the body has 0 more bytes"),
        ({"inputs": [make_binary("8")]}, "tensor 'x': binary_data_size is '8'"),
        ({"inputs": [make_binary(-1)]}, "tensor 'x': binary_data_size is -1"),
        ({"inputs": [make_binary(True)]}, "tensor 'x': binary_data_size is True"),
        ({"inputs": [make_tensor()], "parameters": {"rows": 0}}, "parameter rows is 0"),
        ({"inputs": [make_tensor()], "parameters": {"rows": 2}}, "parameter rows is 2"),
        ({"inputs": [make_tensor()], "parameters": {"rows": 1}}, "tensor 'x', expected its row number"),
        ({"inputs": [make_tensor(name="5:")], "parameters": {"rows": 1}}, "tensor '5:', expected its row number"),
        (
            {"inputs": [make_tensor(name="0:"), make_tensor(name="0:")], "parameters": {"rows": 2}},
            "a row without a tensor",
        ),
        ({"inputs": [make_tensor()], "outputs": {}}, 'the body is not {"outputs": '),
        (
            {"inputs": [make_tensor()], "outputs": [{"name": "y", "parameters": {"classification": 3}}]},
            "output 'y' asks for a classification",
        ),
    )
    def test_a_message_that_is_none_is_refused_by_what_is_wrong(self, message: Any, reason: str) -> None:
        with pytest.raises(WireError) as caught:
            read_request(orjson.dumps(message), {})
        assert str(caught.value).startswith(reason)

    @each_row("length", ["", "x", "-1", "1e3", "999999", "٣"])
    def test_a_head_that_does_not_end_in_the_body_is_refused(self, length: str) -> None:
        with pytest.raises(WireError, match="Inference-Header-Content-Length is "):
            read_request(orjson.dumps({"inputs": [make_tensor()]}), {HEAD_LENGTH: length})

    @each_row(
        ("data", "reason"),
        (b"\1\0\0\0a", "5 bytes are too few for 2 elements of BYTES"),
        (b"\1\0\0\0a\2\0\0\0b", "an element of BYTES of 2 bytes, where 1 are left"),
        (b"\1\0\0\0a\1\0\0\0bc", "1 bytes after the last element of BYTES"),
        (b"\xff\xff\xff\xffaaaa", "an element of BYTES of 4294967295 bytes"),
        (b"\1\0\0\0\xff\1\0\0\0b", "text that is not UTF-8"),
    )
    def test_bytes_that_are_not_so_many_elements_are_refused(self, data: bytes, reason: str) -> None:
        tensor = make_binary(datatype="BYTES", parameters={"binary_data_size": len(data), "content_type": "str"})
        head = orjson.dumps({"inputs": [tensor]})
        with pytest.raises(WireError, match=reason):
            read_request(head + data, {HEAD_LENGTH: str(len(head))})

    def test_bytes_after_the_last_tensor_are_refused(self) -> None:
        head = orjson.dumps({"inputs": [make_binary()]})
        with pytest.raises(WireError, match="1 bytes after the last tensor"):
            read_request(head + b"123456789", {HEAD_LENGTH: str(len(head))})

    def test_one_long_element_does_not_make_an_enormous_array(self) -> None:
        elements = [b"a" * 2**20, *[b""] * 2**10]
        data = b"".join(len(element).to_bytes(4, "little") + element for element in elements)
        head = orjson.dumps({"inputs": [make_binary(len(data), datatype="BYTES", shape=[1, len(elements)])]})
        with pytest.raises(WireError, match="1025 elements of BYTES in one input, the longest of 1048576"):
            read_request(head + data, {HEAD_LENGTH: str(len(head))})

    @PROPERTY
    @given(data=st.data())
    def test_whatever_is_changed_in_a_message_it_is_read_or_refused(self, data: st.DataObject) -> None:
        codec = TENSORS[data.draw(st.sampled_from(sorted(TENSORS)))]
        body = codec.encode_inputs([{"a": np.ones((2, 3), dtype="f4"), "b": np.array([b"x", b"yz"])}])
        changed = bytearray(body.joined())
        for _ in range(data.draw(st.integers(1, 4))):
            changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
        cut = data.draw(st.integers(0, len(changed)) | st.just(len(changed)))
        with contextlib.suppress(WireError):  # what is refused is refused as this and nothing else
            assert codec.decode_inputs(bytes(changed[:cut]), dict(body.headers))

    @PROPERTY
    @given(body=st.binary(max_size=80).filter(lambda body: b"predictions" not in body), length=st.integers(0, 90))
    def test_random_bytes_are_refused(self, body: bytes, length: int) -> None:
        for codec in (*TENSORS.values(), V1):
            for decode in (codec.decode_inputs, codec.decode_outputs):
                with pytest.raises(WireError):
                    decode(body, {HEAD_LENGTH: str(length)})


class TestAnswers:
    def answer(self, found_outputs: Any, *, rows_allowed: bool = False, **asked: Any) -> dict[str, Any]:
        request = read_request(orjson.dumps({"inputs": [make_tensor()], **asked}), {})
        body = encode_answer(request, found_outputs, "digits", rows_allowed=rows_allowed)
        length = int(dict(body.headers).get(HEAD_LENGTH, body.size))
        found: dict[str, Any] = json.loads(body.joined()[:length])
        return found

    def test_an_answer_names_model_version_and_the_id_of_its_request(self) -> None:
        found = self.answer([np.array([1.5, 2.5])], id="abc")
        assert found == {
            "model_name": "digits",
            "model_version": "1",
            "id": "abc",
            "outputs": [{"name": "output-0", "datatype": "FP64", "shape": [1, 2], "data": [1.5, 2.5]}],
        }

    def test_the_only_output_goes_by_the_name_that_is_wanted(self) -> None:
        found = self.answer([1], outputs=[{"name": "label", "parameters": {"binary_data": True}}])
        assert found["outputs"] == [
            {"name": "label", "datatype": "INT64", "shape": [1], "parameters": {"binary_data_size": 8}}
        ]

    def test_of_several_outputs_those_are_sent_that_are_wanted_as_each_is_wanted(self) -> None:
        wanted = [{"name": "b"}, {"name": "a", "parameters": {"binary_data": True}}]
        found = self.answer([{"a": 1, "b": 2, "c": 3}], outputs=wanted)
        assert [(tensor["name"], "data" in tensor) for tensor in found["outputs"]] == [("b", True), ("a", False)]

    def test_an_output_that_the_model_has_not_is_named(self) -> None:
        with pytest.raises(WireError, match="outputs d are requested, but the model has a, b"):
            self.answer([{"a": 1, "b": 2}], outputs=[{"name": "d"}])

    def test_outputs_that_are_no_tensor_are_told_with_what_else_holds_them(self) -> None:
        outputs = [np.ones(2), np.ones(3)]
        with pytest.raises(WireError, match=r"2 outputs do not fit one tensor: shapes differ: \[2\], \[3\]; "):
            self.answer(outputs)
        assert len(self.answer(outputs, rows_allowed=True)["outputs"]) == 2

    def test_the_request_says_what_its_tensors_are(self) -> None:
        request = read_request(orjson.dumps({"inputs": [make_tensor(shape=[2, 1])]}), {})
        assert request.specification == ({"name": "x", "datatype": "FP32", "shape": [-1, 1]},)


@pytest.mark.parametrize("text", ["rest+json", "rest+binary", "rest+msgpack"])
@PROPERTY
@given(value=st.integers(-(2**53), 2**53))
def test_packed_with_its_length_a_body_needs_no_headers(text: str, value: int) -> None:
    codec = codec_of(Wire.parse(text))
    assert codec.decode_inputs(*unpack(pack(codec.encode_inputs([value])))) == [value]


def test_what_is_too_short_was_not_packed() -> None:
    with pytest.raises(WireError, match="3 bytes, expected at least 4"):
        unpack(b"abc")


@each_row("compression", ["", "+gzip", "+zstd", "+br"])
@each_row("codec", ["json", "binary", "msgpack"])
def test_a_wire_compresses_requests_and_takes_compressed_answers(codec: str, compression: str) -> None:
    wire = Wire.parse(f"rest+{codec}{compression}")
    inputs = [np.zeros(10_000, dtype=np.float32)]
    body = encode_request(wire, inputs)
    headers = dict(body.headers)
    assert headers.get("content-encoding") == headers.get("accept-encoding") == wire.compression
    plain = codec_of(wire).encode_inputs(inputs)
    assert body.size < plain.size / 20 if compression else body == plain
    answer = codec_of(wire).encode_outputs(inputs)
    if compression:
        from pytest_mlpatterns.wire.compression import compressed

        answer = compressed(answer, str(wire.compression))
    (found,) = decode_answer(wire, answer.joined(), dict(answer.headers))
    assert np.asarray(found).tolist() == inputs[0].tolist()
