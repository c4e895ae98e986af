"""What a model file or an application says about the inputs that it takes."""

import sys
from pathlib import Path
from typing import Any

import pytest
from support.each_row import each_row

from pytest_mlpatterns.cli.subject import InputKind, SampleInputs, Subject, SubjectKind, requested
from pytest_mlpatterns.cli.subject_probe import answer, probe
from pytest_mlpatterns.errors import SettingError


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
    assert found == Subject(SubjectKind.JOBLIB, file, SampleInputs(InputKind.ARRAY, 2), "predict")


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


SHOP = """
count = 3

def rank(batch):
    return batch

class Api:
    def openapi(self):
        return {}

app = Api()

async def served(scope, receive, send):
    pass

class Wrapped:
    async def __call__(self, scope, receive, send):
        pass

wrapped = Wrapped()
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
def test_application_gets_what_its_path_takes(shop: str, kind: SubjectKind | None) -> None:
    found = probe(kind, f"{shop}:app", "/predict")
    assert (found.kind, found.path, found.inputs.kind) == (SubjectKind.APP, "/predict", InputKind.UNKNOWN)
    assert probe(kind, f"{shop}:app").inputs.kind is InputKind.GET


@pytest.mark.parametrize("name", ["served", "wrapped"])
def test_application_of_no_known_framework_is_one_by_what_it_takes(shop: str, name: str) -> None:
    assert probe(None, f"{shop}:{name}").kind is SubjectKind.APP


@each_row(
    ("name", "words"),
    ("no_such_module_here:x", "there is no module no_such_module_here here"),
    ("shop_of_probe:ranc", "did you mean rank?"),
    ("shop_of_probe:count", "is int, expected a model"),
)
def test_name_that_leads_nowhere_is_refused(shop: str, name: str, words: str) -> None:
    with pytest.raises(SettingError, match=words.replace("?", r"\?")):
        probe(None, name)


def test_error_of_the_user_module_is_its_own(tmp_path: Path, shop: str) -> None:
    (tmp_path / f"{shop}.py").write_text("import missing_part_of_shop\n", encoding="utf-8")
    with pytest.raises(ModuleNotFoundError, match="missing_part_of_shop"):
        probe(None, f"{shop}:rank")


@pytest.mark.parametrize(("path", "kind", "found"), [("", InputKind.GET, "/"), ("/x", InputKind.UNKNOWN, "/x")])
def test_requests_of_a_service_are_guessed(path: str, kind: InputKind, found: str) -> None:
    subject = requested(SubjectKind.URL, "http://127.0.0.1", path)
    assert (subject.inputs.kind, subject.inputs.is_guess, subject.path) == (kind, True, found)


@each_row(
    ("name", "words"),
    ("math:sqrt", None),
    ("math:nothing", "has no attribute"),
    ("missing.joblib", "cannot be loaded: FileNotFoundError"),
)
def test_answer_is_what_was_found_or_why_not(name: str, words: str | None) -> None:
    found = answer(SubjectKind.JOBLIB if name.endswith(".joblib") else None, name, "")
    if isinstance(found, str):
        assert words is not None
        assert words in found
    else:
        assert (found.name, words) == (name, None)
