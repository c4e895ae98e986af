"""REST wires of a real service: right answers for public clients, metadata, compression, nothing that crashes it."""

import gzip
import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import msgpack
import msgpack_numpy
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from support.services.deploy import deployed
from support.synthetic import PROPERTY

from pytest_mlpatterns import Deployment
from pytest_mlpatterns.errors import DeploymentError
from pytest_mlpatterns.serving.processes import ForeignProcesses
from pytest_mlpatterns.wire import Wire, codec_of
from pytest_mlpatterns.wire.compression import compressed
from pytest_mlpatterns.wire.open_inference import HEAD_LENGTH

pytestmark = pytest.mark.processes

INFER = "/v2/models/answer/infer"
PREDICT = "/v1/models/answer:predict"


def answer(batch: list[Any]) -> list[Any]:
    """Twice a number or array; the sum and the difference of two; text reversed; what goes wrong, where asked for."""

    def one(value: Any) -> Any:
        if isinstance(value, dict):
            return {"sum": value["a"] + value["b"], "difference": value["a"] - value["b"]}
        if isinstance(value, str | bytes):
            return value[::-1]
        if isinstance(value, list):
            return [2 * number for number in value]
        if np.ndim(value) == 1 and len(value) and value[0] == 666:
            return object()
        if np.ndim(value) == 1 and len(value) and value[0] == 667:
            raise ValueError("a bad number")
        return 2 * value

    return [one(value) for value in batch]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    import sys

    with deployed(answer, tmp_path_factory.mktemp("service"), by_value=[sys.modules[__name__]]) as deployment:
        yield deployment


@pytest.fixture(scope="module")
def client(service: Deployment) -> httpx.Client:
    return service.client


def v2(**changed: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]} | changed]}


@pytest.fixture(scope="module")
def triton(service: Deployment) -> Iterator[Any]:
    from tritonclient import http

    with http.InferenceServerClient(service.url.removeprefix("http://")) as found:
        yield found


class TestTritonClient:
    @pytest.mark.parametrize(
        ("dtype", "binary_in", "binary_out"),
        [
            *itertools.product(("?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f4", "f8"), *[(True, False)] * 2),
            ("f2", True, True),  # tritonclient sends and reads FP16 as binary data only
        ],
    )
    def test_numbers_of_every_type(self, triton: Any, dtype: str, binary_in: bool, binary_out: bool) -> None:
        from tritonclient import http
        from tritonclient.utils import np_to_triton_dtype

        array = np.array([[1, 0, 1], [0, 1, 0]], dtype=dtype)
        tensor = http.InferInput("INPUT", array.shape, np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array, binary_data=binary_in)
        wanted = http.InferRequestedOutput("OUTPUT", binary_data=binary_out)
        result = triton.infer("answer", [tensor], outputs=[wanted], request_id="7")
        found = result.as_numpy("OUTPUT")
        assert np.array_equal(found, 2 * array)
        assert found.shape == array.shape
        assert result.get_response()["id"] == "7"

    @pytest.mark.parametrize("binary", [True, False])
    def test_several_inputs_and_outputs(self, triton: Any, binary: bool) -> None:
        from tritonclient import http

        a, b = np.array([[5, 6]], dtype=np.int32), np.array([[1, 2]], dtype=np.int32)
        inputs = [http.InferInput(name, array.shape, "INT32") for name, array in (("a", a), ("b", b))]
        for tensor, array in zip(inputs, (a, b), strict=True):
            tensor.set_data_from_numpy(array, binary_data=binary)
        result = triton.infer("answer", inputs)
        assert result.as_numpy("sum").tolist() == [[6, 8]]
        assert result.as_numpy("difference").tolist() == [[4, 4]]

    @pytest.mark.parametrize("binary", [True, False])
    def test_bytes(self, triton: Any, binary: bool) -> None:
        from tritonclient import http

        array = np.array([b"abc", b"", b"xy"], dtype=np.object_)
        tensor = http.InferInput("text", array.shape, "BYTES")
        tensor.set_data_from_numpy(array, binary_data=binary)
        assert triton.infer("answer", [tensor]).as_numpy("output-0").tolist() == [b"cba", b"", b"yx"]

    @pytest.mark.parametrize("coding", ["gzip", "deflate"])
    def test_compression(self, triton: Any, coding: str) -> None:
        from tritonclient import http
        from tritonclient.utils import InferenceServerException

        array = np.ones((1, 1000), dtype=np.float32)
        tensor = http.InferInput("x", array.shape, "FP32")
        tensor.set_data_from_numpy(array)
        how = {"request_compression_algorithm": coding, "response_compression_algorithm": coding}
        if coding == "gzip":
            assert np.array_equal(triton.infer("answer", [tensor], **how).as_numpy("output-0"), 2 * array)
        else:
            with pytest.raises(InferenceServerException, match="Content-Encoding 'deflate', expected one of"):
                triton.infer("answer", [tensor], **how)

    def test_health_and_metadata(self, triton: Any) -> None:
        assert triton.is_server_live()
        assert triton.is_server_ready()
        assert triton.is_model_ready("answer")
        assert triton.is_model_ready("answer", "1")
        assert not triton.is_model_ready("other")
        extensions = triton.get_server_metadata()["extensions"]
        assert extensions == ["binary_tensor_data", "model_configuration", "statistics"]
        assert triton.get_model_metadata("answer")["versions"] == ["1"]

    def test_the_list_of_models(self, triton: Any, client: httpx.Client) -> None:
        model = {"name": "answer", "version": "1", "state": "READY", "reason": ""}
        assert triton.get_model_repository_index() == [model]
        assert client.get("/v2/repository/index").status_code == 405

    def test_errors_come_in_the_form_of_the_protocol(self, triton: Any) -> None:
        from tritonclient import http
        from tritonclient.utils import InferenceServerException

        tensor = http.InferInput("x", [1, 1], "FP32")
        tensor.set_data_from_numpy(np.array([[667]], dtype=np.float32))
        with pytest.raises(InferenceServerException, match="the model raised ValueError: a bad number"):
            triton.infer("answer", [tensor])
        with pytest.raises(InferenceServerException, match="nothing is served here"):
            triton.infer("other", [tensor])


def test_metadata_knows_the_tensors_and_the_configuration_those_of_one_input_once_there_was_one(tmp_path: Any) -> None:
    with deployed(lambda batch: [{"double": 2 * x} for x in batch], tmp_path) as deployment:
        path = "/v2/models/lambda"
        assert deployment.client.get(path).json()["inputs"] == []
        assert deployment.client.get(f"{path}/config").json()["input"] == []
        assert deployment.client.post(f"{path}/versions/1/infer", json=v2()).status_code == 200
        known = deployment.client.get(f"{path}/versions/1").json()
        found = deployment.client.get(f"{path}/versions/1/config").json()
    assert known["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
    assert known["outputs"] == [{"name": "double", "datatype": "FP32", "shape": [-1, 2]}]
    assert (found["name"], found["platform"], found["backend"]) == ("lambda", "python", "python")
    assert found["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [2]}]
    assert found["output"] == [{"name": "double", "data_type": "TYPE_FP32", "dims": [2]}]
    assert found["max_batch_size"] > 0
    assert found["model_transaction_policy"] == {"decoupled": False}


def test_the_statistics_count_answers_failures_and_their_time(tmp_path: Any) -> None:
    with deployed(lambda batch: [1 / x[0] for x in batch], tmp_path) as deployment:
        path = "/v2/models/lambda"
        (before,) = deployment.client.get(f"{path}/stats").json()["model_stats"]
        assert deployment.client.post(f"{path}/infer", json=v2()).status_code == 200
        body = {"instances": [[0]]}
        assert deployment.client.post("/v1/models/lambda:predict", json=body).status_code == 500
        (found,) = deployment.client.get("/v2/models/stats").json()["model_stats"]
    assert (before["inference_count"], before["last_inference"]) == (0, 0)
    assert (found["name"], found["version"]) == ("lambda", "1")
    assert (found["inference_count"], found["execution_count"]) == (1, 1)
    assert found["last_inference"] > 0
    times = found["inference_stats"]
    parts = [times[part]["ns"] for part in ("compute_input", "compute_infer", "compute_output")]
    assert times["success"]["count"] == times["fail"]["count"] == 1
    assert times["success"]["ns"] >= sum(parts)
    assert min(*parts, times["fail"]["ns"]) > 0
    assert times["queue"] == {"count": 1, "ns": 0}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2", 200),
        ("/health", 200),
        ("/v2/health/live", 200),
        ("/v2/models/answer/ready", 200),
        ("/v2/models/other", 404),
    ],
)
def test_what_get_asks(client: httpx.Client, path: str, status: int) -> None:
    assert client.get(path).status_code == status
    assert client.delete(path).status_code == (405 if status == 200 else 404)


def test_users_of_msgpack_numpy_get_arrays(client: httpx.Client) -> None:
    body = msgpack.packb({"instances": [np.ones(3, dtype="f4"), "abc", [1, 2]]}, default=msgpack_numpy.encode)
    response = client.post(PREDICT, content=body, headers={"content-type": "application/x-msgpack"})
    assert response.headers["content-type"] == "application/msgpack"
    array, text, numbers = msgpack.unpackb(response.content, object_hook=msgpack_numpy.decode)["predictions"]
    assert (array.dtype, array.tolist(), text, numbers) == (np.float32, [2, 2, 2], "cba", [2, 4])


@pytest.mark.parametrize("coding", ["gzip", "zstd", "br"])
@pytest.mark.parametrize("path", [PREDICT, INFER])
def test_requests_and_answers_are_compressed_as_the_client_does(client: httpx.Client, path: str, coding: str) -> None:
    array = np.zeros((1, 1000), dtype=np.float32)
    wire = Wire.parse("rest+json" if path == PREDICT else "rest+binary")
    body = compressed(codec_of(wire).encode_inputs(array), coding)
    headers = dict(body.headers) | {"accept-encoding": coding}
    with client.stream("POST", path, content=body.joined(), headers=headers) as response:
        raw = b"".join(response.iter_raw())
    assert response.status_code == 200
    assert response.headers["content-encoding"] == coding
    assert len(raw) < 400
    assert int(response.headers["content-length"]) == len(raw)


def test_short_answers_and_those_of_clients_that_take_no_compression_are_plain(client: httpx.Client) -> None:
    for headers, instances in (({"accept-encoding": "gzip"}, [1]), ({"accept-encoding": "identity"}, [[1] * 1000])):
        response = client.post(PREDICT, json={"instances": instances}, headers=headers)
        assert response.status_code == 200
        assert "content-encoding" not in response.headers


def test_a_decompression_bomb_is_refused(client: httpx.Client) -> None:
    bomb = gzip.compress(b"\0" * 100 * 2**20)
    response = client.post(INFER, content=bomb, headers={"content-encoding": "gzip"})
    assert response.status_code == 413
    assert response.json()["error"].startswith("the body is over the limit of 67108864 bytes when it is decompressed")


@pytest.mark.parametrize(
    ("path", "content", "headers", "status", "error"),
    [
        (INFER, b"{}", {}, 400, 'the body is not {"inputs": [...]}'),
        (INFER, b"", {}, 400, "the body is not JSON"),
        (INFER, b"{}", {HEAD_LENGTH: "5"}, 400, "Inference-Header-Content-Length is 5"),
        (INFER, b"{}", {"content-encoding": "gzip"}, 400, "the body is not gzip"),
        (INFER, b"{}", {"content-encoding": "lzma"}, 415, "Content-Encoding 'lzma', expected one of zstd, br, gzip"),
        (INFER, json.dumps(v2(data=[666, 2])).encode(), {}, 500, "the model returned outputs that cannot be sent: "),
        (PREDICT, b"\xc1", {"content-type": "application/msgpack"}, 400, "the body is not MessagePack"),
    ],
)
def test_what_cannot_be_answered_is_told_in_the_form_of_the_protocol(
    client: httpx.Client, path: str, content: bytes, headers: dict[str, str], status: int, error: str
) -> None:
    response = client.post(path, content=content, headers=headers)
    assert response.status_code == status
    assert list(response.json()) == ["error"]
    assert response.json()["error"].startswith(error)


@PROPERTY
@given(data=st.data())
def test_whatever_comes_the_service_answers_and_lives(client: httpx.Client, data: st.DataObject) -> None:
    path, text = data.draw(st.sampled_from([(INFER, "rest+binary"), (PREDICT, "rest+msgpack"), (PREDICT, "rest+json")]))
    body = codec_of(Wire.parse(text)).encode_inputs([np.arange(4, dtype="f4")])
    content = bytearray(body.joined())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    headers = dict(body.headers)
    if data.draw(st.booleans()):
        headers["content-encoding"] = data.draw(st.sampled_from(["gzip", "zstd", "br", "identity"]))
    response = client.post(path, content=bytes(content), headers=headers)
    assert response.status_code in (200, 400, 500)  # 500: the model cannot double what it was given
    assert response.status_code == 200 or "error" in response.json()


def test_outputs_of_different_shapes_are_told_to_a_client_that_has_no_form_for_them(client: httpx.Client) -> None:
    response = client.post(INFER, json=v2(datatype="BYTES", data=["a", "bc"], shape=[2]))
    assert response.status_code == 200
    request = {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 1], "data": [1, 2]}],
        "outputs": [{"name": "y"}],
    }
    assert client.post(INFER, json=request).json()["outputs"][0]["data"] == [2.0, 4.0]


WIRES = [f"rest+{codec}{coding}" for codec in ("json", "binary", "msgpack") for coding in ("", "+gzip", "+zstd", "+br")]


@contextmanager
def over_wire(service: Deployment, wire: Wire, path: str) -> Iterator[Deployment]:
    """The same service, asked over another wire."""
    client = Deployment(replace(service.endpoint, wire=wire, path=path), ForeignProcesses())
    yield client
    client.close()


@pytest.mark.parametrize("text", WIRES)
def test_predict_asks_over_the_wire_of_the_deployment(service: Deployment, text: str) -> None:
    wire = Wire.parse(text)
    with over_wire(service, wire, codec_of(wire).path("answer")) as client:
        found = client.predict(np.arange(600, dtype=np.float32))
        assert np.asarray(found).tolist() == list(range(0, 1200, 2))
        if wire.codec != "json":
            assert found.dtype == np.float32
        assert client.predict("abc") == "cba"


def test_predict_says_what_cannot_be_sent(service: Deployment) -> None:
    expected = r"predict\(NoneType\) cannot be sent over rest\+binary: no tensor can"
    with over_wire(service, Wire.parse("rest+binary"), INFER) as client, pytest.raises(DeploymentError, match=expected):
        client.predict(None)
