"""MLflow's scoring server as the target; and its client asks our server."""

import sys

import httpx
import mlflow
import numpy as np
import pandas
import pytest
from mlflow.pyfunc.scoring_server.client import ScoringServerClient
from sklearn.linear_model import LinearRegression

from pytest_mlpatterns import Command


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mlflow") / "model"
    rows = pandas.DataFrame({"a": [1.0, 2.0, 3.0], "b": [0.0, 1.0, 0.0]})
    mlflow.sklearn.save_model(LinearRegression().fit(rows, 2 * rows["a"]), folder, input_example=rows)
    return folder


class TestServer:
    @pytest.fixture
    def perf_target(self, model):
        command = ["{python}", "-m", "mlflow", "models", "serve", "-m", str(model), "--env-manager", "local"]
        return Command([*command, "--host", "127.0.0.1", "--port", "{port}"])

    @pytest.fixture
    def perf_payload(self):
        return [{"a": 1.0, "b": 5.0}, {"a": 2.0, "b": 5.0}]

    @pytest.mark.perf(wire="invocations", duration="1s", warmup="0s", launches=1, startup_timeout="3min")
    def test_scoring_server(self, perf):
        assert perf.predict({"a": 4.0, "b": 0.0}) == pytest.approx(8.0)
        perf.assert_error_rate_below("1%")


def test_client_of_our_server(perf_deploy):
    def doubled(batch):
        return [2 * row["a"] for row in batch]

    with perf_deploy("single", model=doubled, payload=[{"a": 1.0}], wire="invocations") as deployment:
        assert httpx.get(f"{deployment.url}/ping").status_code == 200
        client = ScoringServerClient("127.0.0.1", deployment.addresses[0][1])
        client.wait_server_ready()
        answer = client.invoke(pandas.DataFrame({"a": [1.0, 2.5]})).get_predictions()
        assert answer.iloc[:, 0].tolist() == [2.0, 5.0]
        assert np.isfinite(deployment.predict({"a": 3}))
        assert sys.version_info >= (3, 11)
