"""The clients of KServe's Python SDK ask our servers, over REST (V1, V2) and gRPC."""

import asyncio

import numpy as np
import pytest
from kserve import InferInput, InferRequest
from kserve.inference_client import InferenceGRPCClient, InferenceRESTClient, RESTConfig


@pytest.fixture
def perf_model():
    return lambda batch: [2 * np.asarray(row) for row in batch]


@pytest.fixture
def perf_payload():
    return [np.ones(3, dtype=np.float32)]


def request_for(model):
    tensor = InferInput(name="x", shape=[2, 3], datatype="FP32")
    tensor.set_data_from_numpy(np.arange(6, dtype=np.float32).reshape(2, 3), binary_data=False)
    return InferRequest(model_name=model, infer_inputs=[tensor])


def doubled(answer):
    return answer.outputs[0].as_numpy().tolist() == [[0, 2, 4], [6, 8, 10]]


def test_rest(perf_deploy):
    async def ask(deployment):
        client, model = InferenceRESTClient(RESTConfig(protocol="v2")), deployment.model_name
        assert await client.is_server_ready(deployment.url)
        assert await client.is_server_live(deployment.url)
        assert await client.is_model_ready(deployment.url, model)
        assert doubled(await client.infer(deployment.url, request_for(model), model_name=model))
        older = InferenceRESTClient(RESTConfig(protocol="v1"))
        answer = await older.infer(deployment.url, {"instances": [[1, 2, 3]]}, model_name=model)
        assert answer == {"predictions": [[2, 4, 6]]}

    with perf_deploy("single", wire="rest+binary") as deployment:
        asyncio.run(ask(deployment))


def test_grpc(perf_deploy):
    async def ask(deployment):
        host, port = deployment.addresses[0]
        client = InferenceGRPCClient(f"{host}:{port}")
        assert await client.is_server_ready()
        assert await client.is_server_live()
        assert await client.is_model_ready(deployment.model_name)
        assert doubled(await client.infer(request_for(deployment.model_name)))
        await client.close()

    with perf_deploy("single", wire="grpc") as deployment:
        asyncio.run(ask(deployment))
