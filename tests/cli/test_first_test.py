"""The first test that ``new`` writes: it is valid Python, and says how to load and what to send."""

from __future__ import annotations

import ast

import pytest

from pytest_mlpatterns.cli.first_test import first_test
from pytest_mlpatterns.cli.subject import InputKind, SampleInputs, Subject, SubjectKind

ROW = SampleInputs(InputKind.ARRAY, (64,), "float64")
IMAGE = SampleInputs(InputKind.ARRAY, (3, 8, 8))
IDS = SampleInputs(InputKind.ARRAY, (8,), "int64")
SUBJECTS = {
    "joblib": Subject(SubjectKind.JOBLIB, "models/digits.joblib", ROW, "predict"),
    "pickle": Subject(SubjectKind.PICKLE, "/tmp/digits.pkl", SampleInputs(InputKind.TEXT), ""),
    "frame": Subject(
        SubjectKind.JOBLIB, "a.joblib", SampleInputs(InputKind.RECORD, names=("age", "fare")), method="predict"
    ),
    "onnx": Subject(SubjectKind.ONNX, "a.onnx", ROW, tensors=(("x", ROW),)),
    "onnx of one": Subject(SubjectKind.ONNX, "a.onnx", IMAGE, tensors=(("x", IMAGE),), one_by_one=True),
    "onnx of several": Subject(
        SubjectKind.ONNX,
        "a.onnx",
        IDS,
        tensors=(("ids", IDS), ("image", IMAGE), ("text", SampleInputs(InputKind.TEXT))),
    ),
    "torchscript": Subject(SubjectKind.TORCHSCRIPT, "a.pt", IMAGE),
    "exported": Subject(SubjectKind.EXPORTED, "a.pt2", ROW, one_by_one=True),
    "scalar": Subject(SubjectKind.ONNX, "a.onnx", SampleInputs(InputKind.ARRAY), tensors=(("x", ROW),)),
    "model": Subject(SubjectKind.MODEL, "shop.models:Ranker", SampleInputs(is_guess=True)),
    "app": Subject(SubjectKind.APP, "shop:app", SampleInputs(InputKind.JSON, value={"text": "ünï"}), path="/classify"),
    "app by GET": Subject(SubjectKind.APP, "shop:app", SampleInputs(InputKind.GET), path="/health"),
    "url": Subject(SubjectKind.URL, "http://127.0.0.1:8000/predict", SampleInputs(InputKind.UNKNOWN, is_guess=True)),
    "lines": Subject(SubjectKind.MODEL, "shop:f", SampleInputs(InputKind.FILE, value="data/inputs.jsonl")),
    "list": Subject(SubjectKind.MODEL, "shop:f", SampleInputs(InputKind.FILE, value="data/inputs.json")),
}


@pytest.mark.parametrize("subject", SUBJECTS.values(), ids=SUBJECTS)
@pytest.mark.parametrize("folder", ["", "tests"])
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


def test_first_test_of_an_application() -> None:
    assert (
        first_test(SUBJECTS["app"])
        == '''\
"""How fast shop:app answers, and whether it gets slower."""

import pytest
from pytest_mlpatterns import App


@pytest.fixture
def perf_target():
    return App("shop:app")


@pytest.fixture
def perf_payload():
    # Made up: replace them by inputs as your users send them.
    return [{'text': 'ünï'}]


def as_clients_send_it(body):
    return {"path": "/classify", "json": body}


@pytest.mark.perf(concurrency=4, request=as_clients_send_it)
def test_app(perf):
    perf.assert_rtm_below("1s")  # write the limit of your service; pytest --perf-help has more
'''
    )


def test_arrays_are_sent_as_bytes() -> None:
    assert 'wire="rest+binary"' in first_test(SUBJECTS["torchscript"])
    assert 'wire="rest+binary"' not in first_test(SUBJECTS["joblib"])
