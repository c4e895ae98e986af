"""The gRPC face of a model, asked by public clients: tritonclient, and channels of grpcio with nothing but bytes."""

import os
import signal
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import psutil
import pytest
from support.services.deploy import make_start_options
from support.services.processes import our_children

from pytest_mlpatterns import (
    Batched,
    Cached,
    Deployment,
    DeploymentError,
    Ensemble,
    Microservice,
    Pattern,
    Pipeline,
    Queued,
    Replicated,
    SettingError,
    Single,
    Wire,
)
from pytest_mlpatterns.engines.engine import launch
from pytest_mlpatterns.serving.model import StartOptions, service_plan
from pytest_mlpatterns.wire.grpc_call import message_class
from pytest_mlpatterns.workload.payload import read_payload

pytestmark = pytest.mark.processes

GRPC = Wire.parse("grpc")

with warnings.catch_warnings():  # it imports a package of its own under an old name
    warnings.simplefilter("ignore")
    triton: Any = pytest.importorskip("tritonclient.grpc", reason="a public client, of the test extra")


class Echo:
    """Gives back what it gets, or does what the first input asks for."""

    def __call__(self, batch: list[Any]) -> Any:
        first = batch[0]
        if isinstance(first, dict):
            return [{name: value for name, value in row.items() if name != "drop"} for row in batch]
        if isinstance(first, np.ndarray) and first.dtype == np.float64 and first.size == 1:
            if first.flat[0] == 13:
                raise ValueError("thirteen")
            if first.flat[0] == 14:
                return [object()]
        return batch


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    before = our_children()
    deployment = started(Echo, tmp_path_factory.mktemp("echo"))
    yield deployment
    deployment.close()
    assert our_children() <= before


@pytest.fixture
def client(echo: Deployment) -> Iterator[Any]:
    with triton.InferenceServerClient(address_of(echo)) as made:
        yield made


@pytest.fixture
def channel(echo: Deployment) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(address_of(echo)) as made:
        yield made


def address_of(deployment: Deployment) -> str:
    return "{}:{}".format(*deployment.addresses[0])


def started(
    model: object, directory: Path, pattern: Pattern | None = None, payload: list[Any] | None = None
) -> Deployment:
    inputs = None if payload is None else read_payload(payload, GRPC)
    startup = StartOptions(make_start_options(directory).timeout_ns, inputs, directory, wire=GRPC)
    return launch(service_plan(pattern or Single(), model), startup)


def ask(client: Any, array: np.ndarray[Any, Any], datatype: str | None = None, **more: Any) -> Any:
    given = triton.InferInput("x", list(array.shape), datatype or triton_type(array))
    given.set_data_from_numpy(array)
    return client.infer("Echo", [given], **more)


def triton_type(array: np.ndarray[Any, Any]) -> str:
    from tritonclient.utils import np_to_triton_dtype

    return str(np_to_triton_dtype(array.dtype))


@pytest.mark.covered_processes
class TestTritonclient:
    @pytest.mark.parametrize("dtype", ["?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"])
    def test_arrays_of_every_type_come_back(self, client: Any, dtype: str) -> None:
        array = np.arange(24).reshape(4, 3, 2).astype(dtype)
        np.testing.assert_array_equal(ask(client, array).as_numpy("output-0"), array, strict=True)

    def test_bytes_come_back(self, client: Any) -> None:
        array = np.array([[b"a", b""], [b"\xff\x00\x01", "ß".encode()]], dtype=object)
        np.testing.assert_array_equal(ask(client, array, "BYTES").as_numpy("output-0"), array)

    def test_several_tensors_are_dictionaries_of_the_rows(self, client: Any) -> None:
        inputs = []
        for name, array in (("a", np.ones((2, 3), "f4")), ("b", np.array([[1], [2]])), ("drop", np.zeros((2, 1)))):
            inputs.append(triton.InferInput(name, list(array.shape), triton_type(array)))
            inputs[-1].set_data_from_numpy(array)
        result = client.infer("Echo", inputs, request_id="seven", outputs=[triton.InferRequestedOutput("b")])
        assert result.get_response().id == "seven"
        assert [tensor.name for tensor in result.get_response().outputs] == ["b"]
        np.testing.assert_array_equal(result.as_numpy("b"), [[1], [2]])

    def test_typed_contents_are_answered_by_typed_contents(self, channel: grpc.Channel) -> None:
        from tritonclient.grpc import service_pb2

        request = service_pb2.ModelInferRequest(model_name="Echo")
        tensor = request.inputs.add(name="x", datatype="INT32", shape=[2, 2])
        tensor.contents.int_contents.extend([1, 2, 3, 4])
        infer = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            service_pb2.ModelInferRequest.SerializeToString,
            service_pb2.ModelInferResponse.FromString,
        )
        answer = infer(request)
        assert list(answer.outputs[0].contents.int_contents) == [1, 2, 3, 4]
        assert list(answer.outputs[0].shape) == [2, 2]

    def test_health_and_metadata(self, client: Any) -> None:
        ask(client, np.ones((2, 3), "f2"))
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("Echo")
        assert client.is_model_ready("Echo", "1")
        assert client.get_server_metadata().name == "pytest-mlpatterns"
        metadata = client.get_model_metadata("Echo")
        assert (metadata.name, list(metadata.versions), metadata.platform) == ("Echo", ["1"], "python")
        assert metadata.inputs[0].name == "x"
        assert next(iter(metadata.inputs[0].shape)) == -1

    def test_what_triton_adds(self, client: Any) -> None:
        ask(client, np.ones((2, 3), "f2"))
        config = client.get_model_config("Echo").config
        assert (config.name, config.backend, config.max_batch_size > 0) == ("Echo", "python", True)
        assert [one.name for one in config.input] == ["x"]
        shape = client.get_model_metadata("Echo").inputs[0].shape
        assert list(config.input[0].dims) == list(shape)[1:]
        assert not config.model_transaction_policy.decoupled
        (model,) = client.get_model_repository_index().models
        assert (model.name, model.version, model.state) == ("Echo", "1", "READY")
        (before,) = client.get_inference_statistics("Echo").model_stats
        ask(client, np.ones((2, 3), "f2"))
        (after,) = client.get_inference_statistics("Echo").model_stats
        assert after.inference_count == before.inference_count + 1
        assert after.inference_stats.compute_infer.ns > before.inference_stats.compute_infer.ns

    @pytest.mark.parametrize(("name", "version"), [("other", ""), ("Echo", "2")])
    def test_another_model_or_version_is_not_found(self, client: Any, name: str, version: str) -> None:
        given = triton.InferInput("x", [1], "FP64")
        given.set_data_from_numpy(np.ones(1))
        for ask_for in (
            lambda: client.infer(name, [given], model_version=version),
            lambda: client.get_model_metadata(name, version),
            lambda: client.get_model_config(name, version),
            lambda: client.get_inference_statistics(name, version),
            lambda: client.is_model_ready(name, version),
        ):
            with pytest.raises(triton.InferenceServerException, match="NOT_FOUND"):
                ask_for()

    @pytest.mark.parametrize(
        ("value", "code", "text"),
        [
            (13.0, "INTERNAL", "the model raised ValueError: thirteen"),
            (14.0, "INTERNAL", "the model returned outputs that cannot be sent"),
        ],
    )
    def test_what_goes_wrong_in_the_model_is_internal(self, client: Any, value: float, code: str, text: str) -> None:
        with pytest.raises(triton.InferenceServerException, match=text) as caught:
            ask(client, np.array([[value]]))
        assert code in caught.value.status()

    def test_what_is_no_request_is_an_invalid_argument(self, client: Any) -> None:
        with pytest.raises(triton.InferenceServerException, match="no dimension") as caught:
            ask(client, np.array(1.0))
        assert "INVALID_ARGUMENT" in caught.value.status()

    def test_callers_at_the_same_time_get_their_own_answers(self, client: Any) -> None:
        def one(number: int) -> bool:
            return bool((ask(client, np.full((1, 9), number, "i4")).as_numpy("output-0") == number).all())

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(one, range(100)))


class TestHealth:
    def test_health_is_checked(self, channel: grpc.Channel) -> None:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            lambda name: message_class("grpc.health.v1.HealthCheckRequest")(service=name).SerializeToString(),
            message_class("grpc.health.v1.HealthCheckResponse").FromString,
        )
        for name in ("", "Echo", "inference.GRPCInferenceService"):
            assert check(name).status == 1
        with pytest.raises(grpc.RpcError) as caught:
            check("other")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND

    def test_health_is_watched_until_the_watcher_goes(self, channel: grpc.Channel) -> None:
        watch = channel.unary_stream(
            "/grpc.health.v1.Health/Watch", None, message_class("grpc.health.v1.HealthCheckResponse").FromString
        )
        answers = watch(b"")
        assert next(answers).status == 1
        answers.cancel()


class TestDeployment:
    @pytest.mark.parametrize(
        "pattern",
        [
            Replicated(2, balance="shared-socket"),
            Microservice(),
            Microservice(wire="rest+json"),
            Cached() | Batched() | Queued(),
            Pipeline(stages=["model", Echo]),
            Ensemble(models=["model", Echo], combine=sum),
            Cached() | Batched() | Replicated(2),
        ],
        ids=str,
    )
    def test_every_pattern_answers(self, tmp_path: Path, pattern: Pattern) -> None:
        before = our_children()
        with closing(started(Echo, tmp_path, pattern, [np.ones(3, "f4")])) as deployment:
            assert deployment.cold_start_ns
            times = 2 if isinstance(pattern, Ensemble) else 1
            for number in range(4):
                array = np.full(3, number, "f4")
                np.testing.assert_array_equal(deployment.predict(array), array * times)
            assert deployment.client.get("/v2/health/live").status_code == 200
        assert our_children() <= before

    def test_functional_requests_are_calls(self, echo: Deployment) -> None:
        np.testing.assert_array_equal(echo.predict(np.ones((2, 2), "f2")), np.ones((2, 2)))
        assert echo.predict("text") == "text"
        assert echo.predict({"a": np.int8(1), "b": "x"}) == {"a": 1, "b": "x"}
        assert echo.client.get("/v2/health/ready").status_code == 200
        assert echo.client.get("/elsewhere").status_code == 404
        layers = {layer.layer: layer for layer in echo.stats().layers}
        assert layers["wire"].counters["requests"] >= 3

    def test_errors_come_back_with_their_texts(self, echo: Deployment) -> None:
        with pytest.raises(DeploymentError, match="answered 500: the model raised ValueError: thirteen"):
            echo.predict(np.array([13.0]))
        assert "thirteen" in "\n".join(echo.stats().tracebacks)
        with pytest.raises(DeploymentError, match="cannot be sent over grpc"):
            echo.predict(object())
        response = echo.client.post("/v2/models/other/infer", content=b"")
        assert response.status_code == 400

    @pytest.mark.covered_processes
    def test_a_full_queue_is_unavailable_and_says_when_to_try_again(self, tmp_path: Path) -> None:
        with (
            closing(started(slow, tmp_path, Queued(capacity=1))) as deployment,
            grpc.insecure_channel(address_of(deployment)) as channel,
        ):
            infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            request = message_class("inference.ModelInferRequest")(
                inputs=[{"name": "x", "datatype": "FP64", "shape": [1], "contents": {"fp64_contents": [1.0]}}]
            ).SerializeToString()
            calls = [infer.future(request) for _ in range(20)]
            refused = [call for call in calls if call.exception() is not None]
            assert refused
            assert {call.code() for call in refused} == {grpc.StatusCode.UNAVAILABLE}
            assert dict(refused[0].trailing_metadata())["grpc-retry-pushback-ms"].endswith("000")

    def test_a_message_over_the_limit_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("pytest_mlpatterns.engines.local.launcher.MAX_BODY_BYTES", 1000)
        with closing(started(Echo, tmp_path)) as deployment, pytest.raises(DeploymentError, match="answered 429"):
            deployment.predict(np.ones(1000))

    def test_answers_that_are_fetched_later_have_no_form(self, tmp_path: Path) -> None:
        with pytest.raises(SettingError, match="do not exist over grpc"):
            started(Echo, tmp_path, Queued(wait=False))

    def test_an_unreachable_server_is_an_error_of_httpx(self, tmp_path: Path) -> None:
        deployment = started(Echo, tmp_path)
        client = deployment.client
        os.kill(deployment.pids[0], signal.SIGKILL)
        psutil.wait_procs([psutil.Process(deployment.pids[0])] if psutil.pid_exists(deployment.pids[0]) else [], 10)
        with pytest.raises(httpx.TransportError):
            client.get("/v2/health/ready")
        with pytest.raises(DeploymentError, match="service"):
            deployment.predict(np.ones(1))
        deployment.close()


def slow(batch: list[Any]) -> list[Any]:
    threading.Event().wait(0.05)
    return batch
