"""Import strings, and what was meant by a text that is almost one."""

import pytest
from support.each_row import each_row

from pytest_mlpatterns import SettingError
from pytest_mlpatterns.serving.import_string import is_import_string, meant_import_string
from pytest_mlpatterns.serving.model import pack


@each_row(
    ("text", "meant"),
    ("shop.model.predict", 'did you mean "shop.model:predict"?'),
    ("model.predict", 'did you mean "model:predict"?'),
    ("shop/model.py:predict", 'did you mean "shop.model:predict"?'),
    ("./model.py:predict", 'did you mean "model:predict"?'),
    ("shop.model:predict()", 'did you mean "shop.model:predict"?'),
    ("shop/model.py", ""),
    ("predict", ""),
    ("no colon", ""),
    ("a.b:c.d:e", ""),
    ("a.", ""),
    (".a", ""),
)
def test_a_dotted_name_or_a_file_may_be_meant_as_an_import_string(text: str, meant: str) -> None:
    assert not is_import_string(text)
    assert meant_import_string(text) == meant
    with pytest.raises(SettingError) as refused:
        pack(text)
    assert str(refused.value).endswith(meant or "write it as package.module:attribute")
