"""What a model file or an application says about the inputs that it takes."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from pytest_mlpatterns.cli.subject import InputKind, SampleInputs, Subject, SubjectKind
from pytest_mlpatterns.cli.subject_probe import main, probe, with_example
from pytest_mlpatterns.errors import SettingError

if TYPE_CHECKING:
    from pathlib import Path


def double(batch: list[Any]) -> list[Any]:
    return batch


class Named:
    """Looks like an estimator that was fitted on a frame."""

    feature_names_in_ = ("age", "fare")

    def predict(self, rows: list[Any]) -> list[Any]:
        return rows


def stored(path: Path, model: object, name: str = "model.joblib") -> str:
    import joblib

    joblib.dump(model, path / name)
    return str(path / name)


def test_estimator_says_how_many_numbers_it_takes(tmp_path: Path) -> None:
    from sklearn.linear_model import LinearRegression

    file = stored(tmp_path, LinearRegression().fit([[1.0, 2.0], [3.0, 5.0]], [1.0, 2.0]))
    found = probe(SubjectKind.JOBLIB, file)
    assert found == Subject(SubjectKind.JOBLIB, file, SampleInputs(InputKind.ARRAY, (2,), "float64"), "predict")


def test_pipeline_that_begins_with_text_takes_text(tmp_path: Path) -> None:
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(CountVectorizer(), MultinomialNB()).fit(["good", "bad"], [1, 0])
    assert probe(SubjectKind.PICKLE, stored(tmp_path, model, "a.pkl")).inputs == SampleInputs(InputKind.TEXT)


def test_columns_of_a_frame_have_names(tmp_path: Path) -> None:
    found = probe(SubjectKind.JOBLIB, stored(tmp_path, Named()))
    assert (found.inputs.kind, found.inputs.names) == (InputKind.RECORD, ("age", "fare"))


def test_function_in_a_file_is_called_itself(tmp_path: Path) -> None:
    found = probe(SubjectKind.JOBLIB, stored(tmp_path, double))
    assert (found.method, found.inputs.is_guess) == ("", True)


def test_file_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="holds a list, expected a model with predict"):
        probe(SubjectKind.JOBLIB, stored(tmp_path, [1]))


def test_pickle_is_read_without_joblib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    (tmp_path / "a.pkl").write_bytes(pickle.dumps(double))
    monkeypatch.setitem(sys.modules, "joblib", None)
    assert probe(SubjectKind.PICKLE, str(tmp_path / "a.pkl")).kind is SubjectKind.PICKLE
    with pytest.raises(ModuleNotFoundError):
        probe(SubjectKind.JOBLIB, "a.joblib")


def onnx_file(path: Path, *inputs: tuple[str, int, list[object]]) -> str:
    import onnx
    from onnx import helper

    given = [helper.make_tensor_value_info(*one) for one in inputs]
    nodes = [helper.make_node("Identity", [one[0]], [f"y{number}"]) for number, one in enumerate(inputs)]
    outputs = [helper.make_tensor_value_info(f"y{number}", *one[1:]) for number, one in enumerate(inputs)]
    graph = helper.make_graph(nodes, "g", given, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path / "a.onnx")
    return str(path / "a.onnx")


def test_onnx_model_says_its_tensors(tmp_path: Path) -> None:
    from onnx import TensorProto

    file = onnx_file(
        tmp_path,
        ("x", TensorProto.FLOAT, ["rows", 4]),
        ("n", TensorProto.INT64, ["rows", "length"]),
        ("s", TensorProto.STRING, [None]),
    )
    found = probe(SubjectKind.ONNX, file)
    assert dict(found.tensors) == {
        "x": SampleInputs(InputKind.ARRAY, (4,), "float32"),
        "n": SampleInputs(InputKind.ARRAY, (8,), "int64"),
        "s": SampleInputs(InputKind.TEXT),
    }
    assert not found.one_by_one


@pytest.mark.parametrize("rows", [1, 3])
def test_onnx_model_with_a_fixed_batch(tmp_path: Path, rows: int) -> None:
    from onnx import TensorProto

    file = onnx_file(tmp_path, ("x", TensorProto.FLOAT, [rows, 4]))
    if rows == 1:
        assert probe(SubjectKind.ONNX, file).one_by_one
    else:
        with pytest.raises(SettingError, match="takes batches of exactly 3"):
            probe(SubjectKind.ONNX, file)


class Tensor:
    """As much of a tensor as a description needs."""

    dtype = "torch.float32"

    def __init__(self, *shape: int) -> None:
        self.shape = shape

    def __len__(self) -> int:
        return self.shape[0]


class Torch:
    """Stands in for torch: what it loads is what a test put there."""

    def __init__(self, found: object) -> None:
        self.found = found
        self.jit = self.export = self

    def load(self, _file: str, map_location: str = "") -> Any:
        if isinstance(self.found, Exception):
            raise self.found
        return self

    def parameters(self) -> Any:
        return self.found

    @property
    def example_inputs(self) -> Any:
        return self.found


@pytest.mark.parametrize(
    ("weights", "shape"), [([Tensor(5), Tensor(10, 4)], (4,)), ([Tensor(8, 3, 7, 7)], (3, 224, 224)), ([], ())]
)
def test_torchscript_takes_what_its_first_layer_takes(
    monkeypatch: pytest.MonkeyPatch, weights: list[Tensor], shape: tuple[int, ...]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", Torch(weights))
    found = probe(SubjectKind.TORCHSCRIPT, "a.pt")
    assert (found.inputs.shape, found.inputs.is_guess) == (shape, True)


@pytest.mark.parametrize(
    ("example", "one_by_one"), [(((Tensor(1, 4),), {}), True), (((Tensor(2, 4),), {}), False), (None, False)]
)
def test_exported_program_has_its_example(monkeypatch: pytest.MonkeyPatch, example: object, one_by_one: bool) -> None:
    monkeypatch.setitem(sys.modules, "torch", Torch(example))
    found = probe(SubjectKind.EXPORTED, "a.pt2")
    assert found.one_by_one is one_by_one
    assert found.inputs.shape == ((4,) if example else ())


def test_weights_alone_are_refused_with_the_way_to_save_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", Torch(RuntimeError("PytorchStreamReader failed")))
    with pytest.raises(SettingError, match="save it so: torch"):
        probe(SubjectKind.TORCHSCRIPT, "a.pt")


SHOP = """
count = 3

def rank(batch):
    return batch

class Api:
    def openapi(self):
        return {"paths": {"/predict": {"post": {"requestBody": {"content": {"application/json": {"schema": {}}}}}}}}

app = Api()
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the current directory that no other test imports."""
    (tmp_path / "shop_of_probe.py").write_text(SHOP, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.delitem(sys.modules, "shop_of_probe", raising=False)
    return "shop_of_probe"


def test_model_of_the_current_directory(shop: str) -> None:
    found = probe(None, f"{shop}:rank")
    assert (found.kind, found.is_local) == (SubjectKind.MODEL, True)


def test_installed_model() -> None:
    assert not probe(None, "math:sqrt").is_local


@pytest.mark.parametrize("kind", [None, SubjectKind.APP])
def test_application_says_what_it_takes(shop: str, kind: SubjectKind | None) -> None:
    found = probe(kind, f"{shop}:app")
    assert (found.kind, found.path, found.inputs.kind) == (SubjectKind.APP, "/predict", InputKind.JSON)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such_module_here:x", "there is no module no_such_module_here here"),
        ("shop_of_probe:ranc", "did you mean rank?"),
        ("shop_of_probe:count", "is int, expected a model"),
    ],
)
def test_name_that_leads_nowhere_is_refused(shop: str, name: str, words: str) -> None:
    with pytest.raises(SettingError, match=words.replace("?", r"\?")):
        probe(None, name)


def test_error_of_the_user_module_is_its_own(tmp_path: Path, shop: str) -> None:
    (tmp_path / f"{shop}.py").write_text("import missing_part_of_shop\n", encoding="utf-8")
    with pytest.raises(ModuleNotFoundError, match="missing_part_of_shop"):
        probe(None, f"{shop}:rank")


@pytest.mark.parametrize(("path", "kind", "found"), [("", InputKind.GET, "/"), ("/x", InputKind.UNKNOWN, "/x")])
def test_service_without_a_description_is_guessed(path: str, kind: InputKind, found: str) -> None:
    subject = with_example(Subject(SubjectKind.URL, "http://127.0.0.1"), {}, path)
    assert (subject.inputs.kind, subject.inputs.is_guess, subject.path) == (kind, True, found)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("math:sqrt", None),
        ("math:nothing", "has no attribute"),
        ("missing.joblib", "cannot be loaded: FileNotFoundError"),
    ],
)
def test_answer_is_written_to_a_file(tmp_path: Path, name: str, words: str | None) -> None:
    kind = "joblib" if name.endswith(".joblib") else ""
    assert main([str(tmp_path / "subject.json"), kind, name, ""]) == 0
    found = json.loads((tmp_path / "subject.json").read_text(encoding="utf-8"))
    if words is None:
        assert Subject.from_json(found["subject"]).name == name
    else:
        assert words in found["error"]["text"]
