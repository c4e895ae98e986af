"""The version of a model: an attribute of objects, and text in the source of what an import string names."""

import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from support.each_row import each_row

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.serving.model_version import model_version


class Versioned:
    perf_version = "2"

    def __call__(self, batch: list[int]) -> list[int]:
        return batch


def with_version(version: object) -> Any:
    def model(batch: list[int]) -> list[int]:
        return batch

    model.perf_version = version  # type: ignore[attr-defined]
    return model


@each_row(
    ("model", "version"),
    (Versioned, "2"),
    (Versioned(), "2"),
    (with_version("of May"), "of May"),
    (with_version(""), ""),
    (len, ""),
    ("not an import string", ""),
    ("no_such_package.module:attribute", ""),
    ("json:no_such_attribute", ""),
    ("math:sqrt", ""),
    ("__main__:model", ""),
    (None, ""),
)
def test_a_model_names_its_version_in_an_attribute(model: object, version: str) -> None:
    assert model_version(model) == version


@pytest.mark.parametrize("version", [2, 1.5, None, b"2"])
def test_a_version_of_a_model_that_is_no_text_is_refused(version: object) -> None:
    with pytest.raises(SettingError) as caught:
        model_version(with_version(version))
    assert str(caught.value) == (f"perf_model has perf_version {version!r}, expected text; write perf_version = '2'")


SOURCE = """
raise RuntimeError("loading this takes a minute and a GPU")

from .scores import VERSION, Scorer, score as imported, same
from shop_of_versions.scores import *
from . import scores
import shop_of_versions.scores as module

CURRENT = "7"

class Model:
    perf_version = "2"

    def __call__(self, batch): ...

class Typed:
    perf_version: str = CURRENT

class Heir(Model): ...

class Own(Model):
    perf_version = "3"

class OfAnother(Scorer): ...

class Without: ...

class Numbered:
    perf_version = 4

class Computed:
    perf_version = CURRENT + "1"

class Property:
    @property
    def perf_version(self): return "5"

def predict(batch): ...

predict.perf_version = "of May"

async def later(batch): ...

def plain(batch): ...

try:
    def guarded(batch): ...
    guarded.perf_version = "old"
except ImportError:
    pass
else:
    guarded.perf_version = "new"

made = Model()
alias = predict
loop = loop
made_of_another = Scorer()
made_by_function = predict([])
Model.predict.perf_version = "of a method"
"""
SCORES = """
from shop_of_versions.model import same

VERSION = "9"

class Scorer:
    perf_version = VERSION

def score(batch): ...

score.perf_version = "8"
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package whose modules cannot be imported; its name."""
    package = tmp_path / "shop_of_versions"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError\nfrom .scores import Scorer as Best\n", encoding="utf-8")
    (package / "model.py").write_text(dedent(SOURCE), encoding="utf-8")
    (package / "scores.py").write_text(dedent(SCORES), encoding="utf-8")
    (package / "broken.py").write_text("def model(:", encoding="utf-8")
    (package / "nested.py").write_text(f"model = {'(' * 9_000}1{')' * 9_000}", encoding="utf-8")
    (package / "binary.py").write_bytes(b"\0\xff")
    (package / "parts").mkdir()
    (package / "parts" / "deep.py").write_text("class Deep:\n    perf_version = 'deep'\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return package.name


VERSIONS = """
model:Model=2 model:Typed=7 model:Heir=2 model:Own=3 model:OfAnother=9 model:Without= model:later= model:plain=
model:guarded=new model:made=2 model:loop= model:made_of_another=9 model:made_by_function= model:Model.other=
model:imported=8 model:Scorer=9 model:same= model:scores= model:absent=
broken:model= nested:model= binary:model= absent:model= parts.deep:Deep=deep
"""


@each_row(
    ("name", "version"),
    *(one.split("=") for one in VERSIONS.split()),
    *(("model:predict", "of May"), ("model:alias", "of May"), ("model:Model.predict", "of a method")),
)
def test_the_source_of_an_import_string_has_its_version_unimported(shop: str, name: str, version: str) -> None:
    assert model_version(f"{shop}.{name}") == version
    assert shop not in sys.modules


def test_a_package_may_import_the_model_that_it_offers(shop: str) -> None:
    assert model_version(f"{shop}:Best") == "9"


@each_row(
    ("name", "found"),
    ("Numbered", "has perf_version 4, expected text; write"),
    ("Computed", "has perf_version = CURRENT + '1', expected text: the source is read, and nothing is imported"),
    ("Property", "has perf_version = a property, expected text: the source is read"),
)
def test_a_version_that_no_source_states_as_text_is_refused(shop: str, name: str, found: str) -> None:
    with pytest.raises(SettingError) as caught:
        model_version(f"{shop}.model:{name}")
    assert str(caught.value).startswith(f'perf_model "{shop}.model:{name}" {found}')
    assert str(caught.value).endswith("write perf_version = '2'")
