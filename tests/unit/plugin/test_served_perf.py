"""What stands for the fixture at another revision."""

import copy
from typing import NoReturn

import pytest

from pytest_mlpatterns.plugin.session import ServedPerf


class ServedError(Exception):
    """Ends a test that was served."""


def serve() -> NoReturn:
    raise ServedError


def test_a_fixture_may_set_attributes_and_what_asks_for_a_figure_is_served() -> None:
    perf = ServedPerf(serve)
    perf.name = "set by a fixture"  # type: ignore[attr-defined]
    assert perf.name == "set by a fixture"
    for ask in (lambda: perf.predict(1), lambda: perf.smoke, lambda: perf.assert_rtm_below("1s")):
        with pytest.raises(ServedError):
            ask()


def test_python_may_look_for_special_methods() -> None:
    assert not hasattr(ServedPerf(serve), "__wrapped__")
    assert isinstance(copy.copy(ServedPerf(serve)), ServedPerf)
