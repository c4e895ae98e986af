"""The first test that ``new`` writes: it is valid Python, and says how to load and what to send."""

import ast
import runpy
from pathlib import Path

from support.each_row import each_row

from pytest_mlpatterns.cli.new_command import first_test
from pytest_mlpatterns.cli.subject import InputKind, SampleInputs, Subject, SubjectKind

GUESS = SampleInputs(is_guess=True)
SUBJECTS = {
    "joblib": Subject(SubjectKind.JOBLIB, "models/digits.joblib", SampleInputs(InputKind.ARRAY, 64), "predict"),
    "pickle": Subject(SubjectKind.PICKLE, "/tmp/digits.pkl", SampleInputs(InputKind.TEXT), ""),
    "frame": Subject(
        SubjectKind.JOBLIB, "a.joblib", SampleInputs(InputKind.RECORD, names=("age", "fare")), method="predict"
    ),
    "onnx": Subject(SubjectKind.ONNX, "a.onnx", GUESS),
    "torchscript": Subject(SubjectKind.TORCHSCRIPT, "a.pt", GUESS),
    "exported": Subject(SubjectKind.EXPORTED, "a.pt2", GUESS),
    "model": Subject(SubjectKind.MODEL, "shop.models:Ranker", GUESS),
    "app": Subject(SubjectKind.APP, "shop:app", SampleInputs(InputKind.FILE, file="ünï.json"), path="/classify"),
    "app by GET": Subject(SubjectKind.APP, "shop:app", SampleInputs(InputKind.GET), path="/health"),
    "url": Subject(SubjectKind.URL, "http://127.0.0.1:8000/predict", SampleInputs(InputKind.UNKNOWN, is_guess=True)),
    "lines": Subject(SubjectKind.MODEL, "shop:f", SampleInputs(InputKind.FILE, file="data/inputs.jsonl")),
    "list": Subject(SubjectKind.MODEL, "shop:f", SampleInputs(InputKind.FILE, file="data/inputs.json")),
}


@each_row("subject", SUBJECTS.values())
@each_row("folder", ["", "tests"])
def test_text_is_a_test_of_python_that_uses_all_of_its_imports(subject: Subject, folder: str) -> None:
    text = first_test(subject, folder)
    tree = ast.parse(text)
    imported = {
        (alias.asname or alias.name).partition(".")[0]
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assert imported <= used
    assert {"perf_payload"} < defined
    assert {"perf_model", "perf_target"} & defined
    assert any(name.startswith("test_") for name in defined)
    assert max(map(len, text.splitlines())) <= 120


def test_subject_survives_the_way_to_another_process() -> None:
    for subject in SUBJECTS.values():
        assert Subject.from_json(subject.to_json()) == subject


def test_first_test_of_an_estimator() -> None:
    assert (
        first_test(SUBJECTS["joblib"], "tests")
        == '''\
"""How fast digits.joblib answers, and whether it gets slower."""

import random
from pathlib import Path

import joblib
import pytest

FILE = Path(__file__).parents[1] / "models" / "digits.joblib"


class Model:
    """Built once in every process that serves it."""

    def __init__(self):
        self.model = joblib.load(FILE)

    def __call__(self, batch):
        return self.model.predict(batch)


@pytest.fixture
def perf_model():
    return Model


@pytest.fixture
def perf_payload():
    # Made up: replace them by inputs as your users send them.
    numbers = random.Random(0)
    return [[numbers.random() for _ in range(64)] for _ in range(16)]


@pytest.mark.perf(concurrency=4)
def test_model(perf):
    perf.assert_rtm_below("1s")  # write the limit of your service; pytest --perf-help has more
'''
    )


def test_first_test_of_an_application_sends_what_its_file_holds_to_its_path() -> None:
    text = first_test(SUBJECTS["app"])
    for part in (
        '"""How fast shop:app answers, and whether it gets slower."""\n\nimport json\nfrom pathlib import Path\n\n',
        'def perf_target():\n    return App("shop:app")\n',
        '    file = Path(__file__).parent / "ünï.json"\n    return json.loads(file.read_text())\n',
        'def as_clients_send_it(body):\n    return {"path": "/classify", "json": body}\n',
        "@pytest.mark.perf(concurrency=4, request=as_clients_send_it)\ndef test_app(perf):\n",
    ):
        assert part in text


def test_first_test_of_an_onnx_model_runs_it(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 3]) for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "graph", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, tmp_path / "a.onnx")
    (tmp_path / "test_a.py").write_text(first_test(SUBJECTS["onnx"]), encoding="utf-8")
    found = runpy.run_path(str(tmp_path / "test_a.py"))["Model"]()
    assert found([[1.0, 2.0, 3.0]]).tolist() == [[1.0, 2.0, 3.0]]
