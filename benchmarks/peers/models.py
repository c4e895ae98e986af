"""The models that every service of this benchmark serves, ours and the peers': a batch in, a batch out."""

from __future__ import annotations

import time
from typing import Any


def identity(batch: list[Any]) -> list[Any]:
    """Costs nothing."""
    return batch


def fixed_cost(batch: list[Any]) -> list[Any]:
    """Costs 5 ms a call for any batch; the call sleeps, so that cores are not what is measured."""
    time.sleep(0.005)
    return batch


MODELS = {model.__name__: model for model in (identity, fixed_cost)}
