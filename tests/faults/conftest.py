"""What goes wrong on purpose: ``make faults`` runs it; ``make faults ALL=1`` runs the rarer variants too."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked ``all_faults``, unless the environment says ``ALL=1``."""
    if os.environ.get("ALL") == "1":
        return
    rare = [item for item in items if item.get_closest_marker("all_faults") is not None]
    if rare:
        items[:] = [item for item in items if item.get_closest_marker("all_faults") is None]
        config.hook.pytest_deselected(items=rare)
