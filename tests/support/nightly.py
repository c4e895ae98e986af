"""Parameters of tests that run with ``ALL=1`` only."""

from typing import Any

import pytest


def rarer(*cases: Any) -> list[Any]:
    """These cases, marked ``nightly``; a tuple has the arguments of one case."""
    return [pytest.param(*(one if isinstance(one, tuple) else (one,)), marks=pytest.mark.nightly) for one in cases]
