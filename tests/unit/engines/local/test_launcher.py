"""The local engine: the HTTP face of a model, how models get into processes, how those start, and how they fail."""

import asyncio
import importlib.util
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import psutil
import pytest
from support import TESTS
from support.each_row import each_row
from support.fault_run import await_true
from support.services.deploy import deployed
from support.services.models import Factor
from support.services.processes import survivors

from pytest_mlpatterns import Batched, DeploymentError, ModelLoadError, Replicated, SettingError, Single
from pytest_mlpatterns.records.addressing import Balance
from pytest_mlpatterns.serving.http.app import ModelApp
from pytest_mlpatterns.serving.http.model_caller import ModelCaller
from pytest_mlpatterns.serving.model import UnusableModelError, pack, service_plan

pytestmark = pytest.mark.usefixtures("no_process_is_left")

HERE = sys.modules[__name__]
PREDICT = "/v1/models/m:predict"


def double(batch: list[Any]) -> list[Any]:
    return [2 * value for value in batch]


async def double_later(batch: list[Any]) -> list[Any]:
    await asyncio.sleep(0)
    return double(batch)


class LaterDouble:
    async def __call__(self, batch: list[Any]) -> list[Any]:
        return await double_later(batch)


class OnlyPredicts:
    """As estimators of scikit-learn are."""

    def predict(self, batch: list[Any]) -> list[Any]:
        return double(batch)


ONLY_PREDICTS = OnlyPredicts()


def fail(batch: list[Any]) -> list[Any]:
    raise ValueError(f"bad input {batch[0]}")


def app_of(model: Callable[[list[Any]], Any], name: str, max_body_bytes: int) -> ModelApp:
    return ModelApp(ModelCaller(model), name, max_body_bytes)


def ask(
    app: ModelApp, body: bytes | AsyncIterator[bytes] | None = None, method: str = "POST", path: str = PREDICT
) -> httpx.Response:
    async def request() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return await client.request(method, path, content=body)

    return asyncio.run(request())


async def pieces_of(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


class TestFace:
    @pytest.mark.parametrize("model", [double, double_later, LaterDouble(), lambda batch: tuple(double(batch))])
    def test_predictions_are_the_outputs_in_order(self, model: Callable[[list[Any]], Any]) -> None:
        response = ask(app_of(model, "m", 1000), b'{"instances": [1, 2.5, "ab"]}')
        assert response.status_code == 200
        assert response.json() == {"predictions": [2, 5.0, "abab"]}
        assert response.headers["content-type"] == "application/json"

    @each_row(
        "body",
        [b"", b"{", b"[1]", b"{}", b'{"inputs": [1]}', b'{"instances": []}', b'{"instances": 1}', b'{"instances": {}}'],
    )
    def test_a_body_of_another_form_is_400_and_says_what_is_expected(self, body: bytes) -> None:
        response = ask(app_of(double, "m", 1000), body)
        assert response.status_code == 400
        assert "JSON" in response.json()["error"] or '{"instances": [...]}' in response.json()["error"]

    @each_row(
        ("method", "path", "status"),
        ("GET", "/v1/models/m", 200),
        ("GET", "/v2/health/ready", 200),
        ("GET", "/v2/health/live", 200),
        ("GET", PREDICT, 405),
        ("PUT", PREDICT, 405),
        ("POST", "/v1/models/m", 405),
        ("GET", "/v1/models/other", 404),
        ("POST", "/v1/models/other:predict", 404),
        ("GET", "/", 404),
    )
    def test_every_other_address_has_its_status(self, method: str, path: str, status: int) -> None:
        caller = ModelCaller(double)
        response = ask(ModelApp(caller, "m", 1000), None, method, path)
        assert response.status_code == status
        assert ("error" in response.json()) == (status >= 400)
        assert caller.requests == 0

    def test_wrong_path_is_answered_with_the_right_one(self) -> None:
        assert PREDICT in ask(app_of(double, "m", 1000), None, "GET", "/predict").json()["error"]

    def test_the_status_of_the_model_has_its_name(self) -> None:
        status = ask(app_of(double, "m", 1000), None, "GET", "/v1/models/m").json()
        assert status["name"] == "m"
        assert status["model_version_status"][0]["state"] == "AVAILABLE"

    @pytest.mark.parametrize("streamed", [False, True])
    @pytest.mark.parametrize(("surplus", "status"), [(0, 200), (1, 413)])
    def test_a_body_over_the_limit_is_413(self, streamed: bool, surplus: int, status: int) -> None:
        body = b'{"instances": ["%s"]}' % (b"x" * 100)
        app = app_of(lambda batch: batch, "m", len(body) - surplus)
        response = ask(app, pieces_of(body, 7) if streamed else body)
        assert response.status_code == status
        if status == 413:
            assert str(len(body) - surplus) in response.json()["error"]

    @each_row(
        ("model", "words"),
        (fail, "the model raised ValueError: bad input 1"),
        (lambda batch: batch[:1], "returned 1 output for 2 inputs"),
        (lambda _: [object(), 2], "outputs that cannot be sent"),
        (lambda _: [1j, 2], "outputs that cannot be sent"),
    )
    def test_a_failing_model_is_500_and_says_how(self, model: Callable[[list[Any]], Any], words: str) -> None:
        response = ask(app_of(model, "m", 1000), b'{"instances": [1, 2]}')
        assert response.status_code == 500
        assert words in response.json()["error"]

    def test_the_first_different_tracebacks_are_kept(self) -> None:
        caller = ModelCaller(fail)
        app = ModelApp(caller, "m", 1000)
        for number in (1, 1, 2, 3, 4, 5):
            ask(app, b'{"instances": [%d]}' % number)
        assert [text.splitlines()[-1] for text in caller.tracebacks] == [
            f"ValueError: bad input {n}" for n in (1, 2, 3)
        ]
        assert all("in fail" in text for text in caller.tracebacks)

    def test_predict_requests_are_counted_with_any_result(self) -> None:
        caller = ModelCaller(double)
        app = ModelApp(caller, "m", 1000)
        ask(app, b'{"instances": [1]}')
        ask(app, b"nonsense")
        ask(app, None, "GET", "/v2/health/ready")
        assert caller.requests == 2


class TestPacking:
    @each_row("model", ["module", "module:", ":name", "a b:c", "module:name(1)", ""])
    def test_text_that_is_no_import_string_is_refused(self, model: str) -> None:
        with pytest.raises(SettingError, match=r"package\.module:attribute"):
            pack(model)

    @pytest.mark.parametrize("model", [None, 3, [double]])
    def test_model_that_cannot_be_called_is_refused(self, model: object) -> None:
        with pytest.raises(SettingError, match=type(model).__name__) as caught:
            pack(model)
        assert "predict" not in str(caught.value)

    def test_model_with_predict_is_refused_with_what_to_return(self) -> None:
        with pytest.raises(SettingError) as caught:
            pack(OnlyPredicts())
        assert str(caught.value) == (
            "perf_model is OnlyPredicts, expected a callable that takes a list of inputs, a class of such, or an "
            'import string "package.module:attribute"; return model.predict'
        )
        assert pack(OnlyPredicts().predict).load()([1]) == [2]

    def test_loaded_model_with_predict_is_refused_with_what_to_write(self) -> None:
        said = "is OnlyPredicts, which cannot be called with a batch; "
        with pytest.raises(TypeError) as caught:
            pack(OnlyPredicts).load()
        assert str(caught.value) == (
            "OnlyPredicts: class OnlyPredicts has no __call__(batch); "
            "give it a __call__ that returns self.predict(batch)"
        )
        with pytest.raises(TypeError) as caught:
            pack(f"{__name__}:ONLY_PREDICTS").load()
        assert str(caught.value) == f"{__name__}:ONLY_PREDICTS {said}write {__name__}:ONLY_PREDICTS.predict"
        assert pack(f"{__name__}:ONLY_PREDICTS.predict").load()([1]) == [2]

    def test_error_of_an_import_string_names_what_is_missing(self) -> None:
        with pytest.raises(UnusableModelError) as caught:
            pack("nomodule.inside:thing").load()
        assert str(caught.value) == '"nomodule.inside:thing": no module nomodule on sys.path'
        with pytest.raises(
            UnusableModelError, match=r"no module support\.servces on sys\.path, did you mean support\.serv"
        ):
            pack("support.servces.models:Factor").load()
        with pytest.raises(UnusableModelError) as caught:
            pack("support.services.models:Factr").load()
        assert str(caught.value) == (
            '"support.services.models:Factr": support.services.models has no attribute Factr, did you mean Factor?'
        )

    def test_other_errors_of_imports_are_the_user_s(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "needs_other.py").write_text("import no_such_package\n")
        (tmp_path / "lacks_attribute.py").write_text("import os\nos.no_such_name\n")
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(ModuleNotFoundError, match="no_such_package"):
            pack("needs_other:model").load()
        with pytest.raises(AttributeError, match="no_such_name"):
            pack("lacks_attribute:model").load()

    def test_pickling_error_of_a_model_says_where_to_put_it(self) -> None:
        def model(_batch: list[Any]) -> list[Any]:
            raise pickle.PicklingError("Can't pickle <function w>: it's not the same object as test.w")

        error = ask(app_of(model, "m", 1000), b'{"instances": [1]}').json()["error"]
        assert error.endswith(
            "as test.w; put the model in a module: code of a test file is sent by value, so other processes "
            "cannot import it"
        )

    def test_missing_model_names_both_fixtures(self) -> None:
        with pytest.raises(SettingError) as caught:
            service_plan(Single(), None)
        assert str(caught.value) == (
            "there is no model; define a fixture perf_model that returns a callable, a class or "
            '"package.module:attribute", or give model=; for a service that exists already, define a fixture '
            "perf_target"
        )

    def test_model_that_cannot_be_pickled_is_refused_with_the_reason_and_the_fix(self) -> None:
        lock = threading.Lock()

        def locked(batch: list[Any]) -> list[Any]:
            with lock:
                return batch

        with pytest.raises(SettingError, match=r"locked cannot be sent to another process: TypeError.*import string"):
            pack(locked, [HERE])

    @each_row(
        ("model", "name"), [(double, "double"), (Factor, "Factor"), (Factor(3), "Factor"), ("a.b:C.d", "a.b:C.d")]
    )
    def test_a_model_has_a_name(self, model: object, name: str) -> None:
        assert pack(model).name == name

    def test_a_module_that_was_replaced_is_not_sent_by_value(self) -> None:
        stranger = type(sys)("stranger")
        assert pack(double, [stranger, HERE]).load()([1]) == [2]

    def test_a_class_is_built_and_anything_else_is_taken_as_it_is(self) -> None:
        assert pack(Factor).load()([1]) == [2]
        assert pack(Factor(3)).load()([1]) == [3]
        assert pack("support.services.models:Factor").load()([1]) == [2]


def make_module_that_cannot_be_imported(directory: Path) -> ModuleType:
    """As test files of the user: loaded from a directory that no other process searches."""
    path = directory / "hidden_models.py"
    path.write_text(
        "FACTOR = 2\n"
        "def times(value):\n    return FACTOR * value\n"
        "class Hidden:\n"
        "    def __init__(self):\n        self.ready = True\n"
        "    def __call__(self, batch):\n        return [times(value) for value in batch if self.ready]\n"
    )
    spec = importlib.util.spec_from_file_location("hidden_models", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.processes
class TestModelsInProcesses:
    @pytest.mark.parametrize("model", [double_later, "support.services.models:Holder.Inner.double"])
    def test_a_model_answers_from_its_process(self, model: object, tmp_path: Path) -> None:
        """Further kinds: tests/live/runs/test_model_kinds.py."""
        with deployed(model, tmp_path, by_value=[HERE], payload=[1]) as deployment:
            assert [deployment.predict(value) for value in (1, 2.5)] == [2, 5.0]
            assert deployment.stats().replica_requests == (3,)
            assert deployment.cold_start_ns > 0

    def test_a_class_of_a_test_file_goes_by_value_with_all_that_it_uses(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        module = make_module_that_cannot_be_imported(tmp_path)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        with deployed(module.Hidden, tmp_path, by_value=[module]) as deployment:
            assert deployment.predict(21) == 42
            assert deployment.model_name == "Hidden"
            assert deployment.cold_start_ns is None

    def test_a_model_may_print_as_it_likes(self, tmp_path: Path) -> None:
        def chatty(batch: list[Any]) -> list[Any]:
            sys.stdout.write(f"asked {batch}\n" * 1000)
            sys.stdout.flush()
            os.write(1, b"and more\n")
            return batch

        with deployed(chatty, tmp_path, by_value=[HERE], payload=["hello"]) as deployment:
            assert deployment.predict("hi") == "hi"
            assert deployment.stats().replica_requests == (2,)
            assert "asked ['hi']" in deployment.log_tail()
            assert "and more" in deployment.log_tail()

    def test_tracebacks_of_the_model_come_with_the_statistics(self, tmp_path: Path) -> None:
        with deployed(fail, tmp_path, by_value=[HERE]) as deployment:
            with pytest.raises(DeploymentError, match="the model raised ValueError: bad input 7"):
                deployment.predict(7)
            (traceback,) = deployment.stats().tracebacks
            assert traceback.splitlines()[-1] == "ValueError: bad input 7"


class RaisesAtLoad:
    def __init__(self) -> None:
        raise FileNotFoundError("weights.bin")

    def __call__(self, batch: list[Any]) -> list[Any]:
        return batch


class ExitsAtLoad(RaisesAtLoad):
    def __init__(self) -> None:
        sys.exit("no licence")


class KillsItselfAtLoad(RaisesAtLoad):
    def __init__(self) -> None:
        sys.stderr.write("allocating 512 GiB\n")
        sys.stderr.flush()
        os.kill(os.getpid(), signal.SIGKILL)


class HangsAtLoad(RaisesAtLoad):
    def __init__(self) -> None:
        sys.stderr.write("downloading\n")
        sys.stderr.flush()
        threading.Event().wait()


class CannotBeCalled:
    def predict(self, batch: list[Any]) -> list[Any]:
        return batch


def hang(batch: list[Any]) -> list[Any]:
    sys.stderr.write("thinking\n")
    sys.stderr.flush()
    threading.Event().wait()
    return batch


def kill_itself(batch: list[Any]) -> list[Any]:
    os.kill(os.getpid(), signal.SIGKILL)
    return batch


def exit_at_once(_batch: list[Any]) -> list[Any]:
    sys.exit("enough")


def assert_given_up(model: object, limits: Callable[..., float], *words: str, directory: Path) -> None:
    """A start with these time limits, for each step the time that is left, fails with these words."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pytest_mlpatterns.system.child._GRACE_S", -0.9)
        patch.setattr("pytest_mlpatterns.engines.local.processes.left_s", limits)
        patch.setattr("pytest_mlpatterns.serving.readiness.left_s", limits)
        with (
            pytest.raises(DeploymentError) as caught,
            deployed(model, directory, by_value=[HERE], payload=[1], timeout="1s"),
        ):
            pass
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "startup_timeout" in str(caught.value)


@pytest.mark.processes
class TestModelsThatFail:
    @pytest.mark.parametrize(
        ("model", "words"),
        [
            (ExitsAtLoad, ("ExitsAtLoad failed to load", "SystemExit: no licence")),
            (KillsItselfAtLoad, ("ended its process while loading", "SIGKILL", "allocating 512 GiB")),
            (CannotBeCalled, ("perf_model CannotBeCalled: class CannotBeCalled has no __call__(batch)",)),
            (
                "support.services.models:Fixe",
                ('perf_model "support.services.models:Fixe": support.services.models has no attribute Fixe',),
            ),
        ],
        ids=["exits", "killed", "not-callable", "no-attribute"],
    )
    def test_model_that_cannot_be_built_is_reported_with_its_traceback(
        self, model: object, words: tuple[str, ...], tmp_path: Path
    ) -> None:
        """Those that raise: tests/live/plugin/test_setup_errors.py."""
        with pytest.raises(ModelLoadError) as caught, deployed(model, tmp_path, by_value=[HERE]):
            pass
        assert all(word in str(caught.value) for word in words), str(caught.value)
        assert "pytest_mlpatterns/serve" not in str(caught.value)

    def test_a_model_that_hangs_while_it_loads_is_given_up_at_the_time_limit(self, tmp_path: Path) -> None:
        def has_begun() -> bool:
            return any("downloading" in log.read_text() for log in tmp_path.glob("*.log"))

        def left_s(*_: object) -> float:  # the limit passes while the model hangs, however late its process starts
            await_true(has_begun, 60, "the model does not load")
            return 0.001

        words = "HangsAtLoad is still loading after 1.00 s", "downloading"
        assert_given_up(HangsAtLoad, left_s, *words, directory=tmp_path)

    def test_a_model_that_hangs_at_its_first_inference_is_given_up_at_the_time_limit(self, tmp_path: Path) -> None:
        left = iter([60.0, 60.0, 1.5])  # to load, to be healthy, to answer
        words = "hang is not done with its first inference after 1.00 s", "thinking"
        assert_given_up(hang, lambda *_: next(left), *words, directory=tmp_path)

    @pytest.mark.parametrize(
        ("model", "error", "said"),
        [
            (exit_at_once, ModelLoadError, "exit_at_once failed on its first inference.*SystemExit: enough"),
            (kill_itself, DeploymentError, "kill_itself.*ended with signal SIGKILL"),
        ],
    )
    def test_a_model_that_ends_its_process_on_its_first_inference_is_reported(
        self, model: Any, error: type[DeploymentError], said: str, tmp_path: Path
    ) -> None:
        with pytest.raises(error, match=f"(?s){said}"), deployed(model, tmp_path, by_value=[HERE], payload=[1]):
            pass

    def test_one_replica_that_fails_ends_the_others(self, tmp_path: Path) -> None:
        class FailsSecond:
            def __init__(self) -> None:
                with (Path(directory) / "first").open("x"):
                    pass

            def __call__(self, batch: list[Any]) -> list[Any]:
                return batch

        directory = str(tmp_path)
        with (
            pytest.raises(ModelLoadError, match="FileExistsError"),
            deployed(FailsSecond, tmp_path, Replicated(2), by_value=[HERE]),
        ):
            pass

    def test_a_parent_that_is_killed_during_the_load_leaves_no_process(self, tmp_path: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(TESTS), "LOADING": str(tmp_path / "pid")}
        command = [sys.executable, "-m", "support.services.loading", str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as parent:
            try:
                pid = int(parent.stdout.readline())
            finally:
                parent.kill()
        assert survivors([pid], 15) == set()


@pytest.mark.processes
class TestTopologies:
    def test_replicas_have_ports_of_their_own_and_take_turns(self, tmp_path: Path) -> None:
        with deployed(double, tmp_path, Replicated(2), by_value=[HERE], payload=[1]) as deployment:
            assert len(set(deployment.addresses)) == len(set(deployment.pids)) == 2
            assert deployment.endpoint.balance is Balance.ROUND_ROBIN
            assert deployment.stats().replica_requests == (1, 1)
            assert [deployment.predict(value) for value in range(5)] == [0, 2, 4, 6, 8]
            assert sorted(deployment.stats().replica_requests) == [3, 4]

    def test_least_outstanding_is_for_the_load_to_balance(self, tmp_path: Path) -> None:
        pattern = Replicated(3, balance="least-outstanding")
        with deployed(double, tmp_path, pattern, by_value=[HERE]) as deployment:
            assert len(set(deployment.addresses)) == len(set(deployment.pids)) == 3
            assert deployment.endpoint.balance is Balance.LEAST_OUTSTANDING

    def test_a_gateway_spreads_the_requests_of_one_caller_with_least_outstanding(self, tmp_path: Path) -> None:
        pattern = Batched(max_batch_size=2) | Replicated(2, balance="least-outstanding")
        with deployed(double, tmp_path, pattern, by_value=[HERE], payload=[1]) as deployment:
            before = deployment.stats()
            assert [deployment.predict(value) for value in range(6)] == [0, 2, 4, 6, 8, 10]
            assert deployment.stats().since(before).replica_requests == (3, 3)

    def test_a_shared_socket_is_one_address_of_several_processes(self, tmp_path: Path) -> None:
        pattern = Replicated(2, balance="shared-socket")
        with deployed(double, tmp_path, pattern, by_value=[HERE], payload=[1]) as deployment:
            assert len(deployment.addresses) == 1
            assert len(set(deployment.pids)) == 2
            for value in range(6):
                with httpx.Client(base_url=deployment.url, trust_env=False) as client:  # a connection each
                    response = client.post(deployment.path, json={"instances": [value]})
                assert response.json() == {"predictions": [2 * value]}
            assert sum(deployment.stats().replica_requests) == 7

    @pytest.mark.parametrize("pattern", [Replicated(2), Replicated(2, balance="shared-socket")], ids=str)
    def test_every_process_listens_on_the_loopback_address_only(self, pattern: Replicated, tmp_path: Path) -> None:
        with deployed(double, tmp_path, pattern, by_value=[HERE]) as deployment:
            listening = {
                (connection.laddr.ip, connection.laddr.port)
                for pid in deployment.pids
                for connection in psutil.Process(pid).net_connections(kind="all")
                if connection.status == psutil.CONN_LISTEN
            }
            assert listening == set(deployment.addresses)
            assert {host for host, _ in listening} == {"127.0.0.1"}

    def test_the_body_limit_is_that_of_the_server(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("pytest_mlpatterns.engines.local.launcher.MAX_BODY_BYTES", 50)
        with deployed(double, tmp_path, by_value=[HERE]) as deployment:
            assert deployment.predict(1) == 2
            with pytest.raises(DeploymentError, match="413"):
                deployment.predict("x" * 100)
