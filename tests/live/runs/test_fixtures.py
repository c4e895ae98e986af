"""The fixtures: targets, deployments, metrics and predictions."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.project import Project
from support.services.scripted import Request, ScriptedServer, Send, Step, answer

pytestmark = pytest.mark.processes

MEASURED = """
import os

import httpx
import psutil

from pytest_mlpatterns import DeploymentError, Estimate, Replicated

def positive(estimate):
    return isinstance(estimate, Estimate) and 0 < estimate.low <= estimate.value <= estimate.high

@pytest.mark.perf(duration="500ms", concurrency=2, pattern=Replicated())
def test_metrics(perf):
    metrics = perf.metrics
    assert metrics is perf.metrics  # measured once
    for name in ("rtm_ns", "throughput_rps", "asl_ratio", "cpu_ns_per_request", "peak_rss_bytes", "cold_start_ns",
                 "request_bytes", "response_bytes"):
        assert positive(getattr(metrics, name)), name
    # the model rests for 5 ms: no answer is faster, and two callers are never answered oftener than that
    assert metrics.rtm_ns.value >= 5_000_000
    assert metrics.latency_ns(75).value >= metrics.latency_ns(50).value == metrics.rtm_ns.value
    assert metrics.throughput_rps.value < 600  # with the answers that fall on an edge of the window
    assert metrics.error_ratio.value == metrics.error_ratio.low == 0 < metrics.error_ratio.high < 1
    assert 0 < metrics.asl_ratio.value <= 1.05
    assert metrics.cpu_ns_per_request.value < 1e9
    assert metrics.peak_rss_bytes.value > 2 * 2**20
    assert 1e6 < metrics.cold_start_ns.value < 60e9
    assert len(b'{"instances":[1]}') < metrics.request_bytes.value < 1000
    assert len(b'{"predictions":[2]}') < metrics.response_bytes.value < 1000
    assert sum(share.value for share in metrics.replica_share) == pytest.approx(1)
    assert len(metrics.replica_share) == 2 and all(0 < share.value < 1 for share in metrics.replica_share)
    assert metrics.generator.cpu_ns_per_request > 0
    assert metrics.generator.send_lag_ns(99) >= 0
    assert metrics.generator.limited is None
    with pytest.raises(AttributeError):
        metrics.rtm_ns = None

async def answers_later(batch):
    import asyncio

    await asyncio.sleep(0.5)
    return batch

@pytest.mark.perf(rate_rps=50, duration="300ms", model=answers_later)
def test_open_loop(perf):
    assert 14 <= perf.metrics.requests <= 16
    assert perf.metrics.rtm_ns.value >= 500_000_000

@pytest.mark.perf(pattern="microservice", duration="500ms")
def test_microservice(perf):
    metrics = perf.metrics
    assert positive(metrics.hop_ns)
    assert metrics.hop_ns.value < metrics.rtm_ns.value  # the model's 5 ms are no part of the hop
    assert [(layer.layer, layer.position) for layer in metrics.layers] == [("wire", -1), ("hop", 0), ("wire", 0)]
    layer = metrics.layers[1]
    assert (layer.layer, layer.position, layer.counters.get("errors", 0)) == ("hop", 0, 0)
    assert layer.counters["calls"] == sum(layer.histograms["hop_ns"].values()) > 0
    for name in ("cache_hit_ratio", "batch_size", "queue_depth", "queue_wait_ns", "replica_share", "bottleneck"):
        assert getattr(metrics, name) is None, name

def test_without_a_pattern_there_is_no_hop(perf):
    assert perf.metrics.hop_ns is None
    assert perf.metrics.replica_share is None
    (wire,) = perf.metrics.layers
    assert (wire.layer, wire.counters["requests"] > 0) == ("wire", True)

@pytest.mark.perf(pattern=["single", "microservice(replicas=2)", Replicated()])
def test_named(perf):
    assert perf.predict(4) == 8

def test_predict(perf):
    assert [perf.predict(value) for value in (1, 2.5)] == [2, 5.0]
    with pytest.raises(DeploymentError, match=r"answered 500: .*the model raised TypeError"):
        perf.predict(None)

def test_deploy(perf_deploy):
    with perf_deploy(Replicated()) as deployment:
        assert isinstance(deployment.client, httpx.Client)
        assert deployment.url.startswith("http://127.0.0.1:")
        assert deployment.model_name == "double"
        processes = [psutil.Process(pid) for pid in deployment.pids]
        assert len(processes) == 2 and os.getpid() not in deployment.pids
        assert deployment.client.get("/v2/health/ready").status_code == 200
        answer = deployment.client.post("/v1/models/double:predict", json={"instances": [1, 2]})
        assert answer.json() == {"predictions": [2, 4]}
        before = deployment.stats().replica_requests
        assert [deployment.predict(4), deployment.predict(5)] == [8, 10]
        assert sum(deployment.stats().replica_requests) == sum(before) + 2
    assert psutil.wait_procs(processes, timeout=10)[1] == []

def test_deploy_takes_a_pattern_by_name(perf_deploy):
    with perf_deploy("microservice") as deployment:
        assert len(deployment.pids) == 2
        assert deployment.predict(4) == 8
        (hop,) = deployment.stats().layers_named("hop")
        assert hop.counters["calls"] == deployment.stats().replica_requests[0] >= 1

def test_both(perf, perf_deploy):
    with perf_deploy() as deployment:
        assert deployment.predict(3) == perf.predict(3) == 6
        assert deployment.pids

@pytest.mark.perf(model=lambda batch: [value + 1 for value in batch], payload=[10])
def test_the_marker_wins_over_the_fixtures(perf):
    assert perf.predict(1) == 2

@pytest.mark.perf(model=lambda batch: [value + 1 for value in batch], payload=[10], startup_timeout="55s")
def test_the_marker_holds_for_deployments_too(perf_deploy):
    with perf_deploy() as deployment:
        assert deployment.predict(1) == 2

@pytest.mark.perf(model=lambda batch: [value + 1 for value in batch])
def test_what_is_said_here_wins_over_the_marker(perf_deploy):
    with perf_deploy(model=lambda batch: [-value for value in batch]) as deployment:
        assert deployment.predict(1) == -1
        assert deployment.model_name == "lambda"

@pytest.mark.perf(concurrency=1)
@pytest.mark.parametrize("callers", [pytest.param(3, marks=pytest.mark.perf(concurrency=3))])
def test_the_marker_of_a_parameter_is_the_closest(perf, callers):
    assert f"closed({callers})" in repr(perf)
"""


def test_what_a_test_can_ask(tmp_path: Path) -> None:
    run = Project().with_tests(MEASURED).run(tmp_path, "-v")
    assert (run.exit_code, run.outcomes["passed"]) == (0, 15)


@pytest.mark.parametrize(("name", "member"), [("pattern", "single"), ("wire", "rest+json")])
def test_a_list_that_comes_too_late_to_make_tests_fails_the_test(tmp_path: Path, name: str, member: str) -> None:
    project = Project().with_tests(
        f"""
        MARK = pytest.mark.perf({name}=[{member!r}])

        @pytest.mark.parametrize("number", [pytest.param(1, marks=MARK)])
        def test_it(perf, number): pass
        """
    )
    run = project.run(tmp_path)
    assert run.outcomes == {"failed": 1}
    assert f"perf({name}=[{member!r}]) comes too late to make one test each; give the list to" in run.out


def test_a_smoke_run_is_known_to_its_tests_and_says_so_where_one_reads_figures(tmp_path: Path) -> None:
    project = Project().with_tests(
        """
        def test_guarded(perf):
            assert perf.smoke
            assert perf.predict(4) == 8

        def test_reads(perf):
            assert perf.metrics.rtm_ns.value > 0
        """
    )
    run = project.run(tmp_path, "--perf-smoke")
    assert run.outcomes == {"passed": 1, "failed": 1}
    assert "this is a smoke run: put what reads figures under `if not perf.smoke:`" in run.failure("test_reads")


@pytest.fixture
def service() -> Iterator[str]:
    """A server that was there before; it answers as a service of the user's own might, and with 503 at /broken."""

    def script(request: Request) -> list[Step]:
        return [Send(answer(b'{"predictions": [7]}', 503 if b" /broken " in request.head else 200))]

    with ScriptedServer(script) as server:
        yield "http://{}:{}".format(*server.address)


def test_a_target_that_runs_already_is_measured(tmp_path: Path, service: str) -> None:
    project = Project().with_tests(
        f"""
        import os

        import httpx

        from pytest_mlpatterns import Url

        URL = "{service}"

        class TestPlain:
            @pytest.fixture
            def perf_target(self):
                return Url(URL + "/predict")

            def test_plain(self, perf):
                assert perf.predict("anything") == 7
                assert perf.metrics.rtm_ns.value > 0
                for name in ("asl_ratio", "cpu_ns_per_request", "peak_rss_bytes", "cold_start_ns", "replica_share"):
                    assert getattr(perf.metrics, name) is None, name
                perf.assert_rtm_below("60s")

            def test_cpu_of_an_unknown_process(self, perf):
                perf.assert_cpu_per_request_below("1s")

        class TestPid:
            @pytest.fixture
            def perf_target(self):
                return Url(URL + "/predict", pid=os.getppid())

            def test_pid(self, perf):
                assert perf.metrics.peak_rss_bytes.value > 2**20
                assert perf.metrics.asl_ratio.value >= 0

        class TestRequests:
            @pytest.fixture
            def perf_target(self):
                return Url(URL)

            @pytest.mark.perf(payload=[httpx.Request("GET", URL + "/items", headers={{"x-key": "1"}})])
            def test_requests(self, perf):
                assert perf.metrics.error_ratio.value == 0
                assert perf.metrics.requests > 0

        class TestBroken:
            @pytest.fixture
            def perf_target(self):
                return Url(URL + "/broken")

            def test_broken(self, perf): pass
        """
    )
    run = project.run(tmp_path, "--perf-json", "out.json")
    assert run.outcomes == {"passed": 3, "failed": 2}
    text = run.failure("TestPlain.test_cpu_of_an_unknown_process")
    assert f"CPU per request is not known for {service}/predict; name its process: Url(..., pid=...)" in text
    assert f"{service}/broken answered 503" in run.failure("TestBroken.test_broken")
    setups = {result["test"].rpartition("::")[2]: result["setup"] for result in run.json("out.json")["results"]}
    assert setups["test_plain"]["pattern"] == f"{service}/predict"
