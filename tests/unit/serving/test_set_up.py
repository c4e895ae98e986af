"""``perf_setup``: called with a client of each server, and what it raises."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace
from support.each_row import each_row
from support.services.deploy import make_start_options

from pytest_mlpatterns import DeploymentError
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.measurement.system_under_test import checked_setup
from pytest_mlpatterns.serving.readiness import set_up

DEPLOYMENT: Any = SimpleNamespace(client_of=lambda number: f"client {number}", log_tail=lambda: "| no such provider")


async def waits(client: object) -> None:
    """Would never be awaited."""


def test_it_is_called_with_the_client_of_a_server(tmp_path: Path) -> None:
    clients: list[object] = []
    options = replace(make_start_options(tmp_path), setup=clients.append)
    assert set_up(DEPLOYMENT, 1, "App('a:b')", options=options) > 0
    assert clients == ["client 1"]


def test_what_it_raises_is_shown_with_its_line_and_what_the_service_printed(tmp_path: Path) -> None:
    def creates(client: object) -> None:
        raise KeyError("endpoint")

    options = replace(make_start_options(tmp_path), setup=creates)
    with pytest.raises(DeploymentError) as caught:
        set_up(DEPLOYMENT, 0, "App('a:b')", options=options)
    text = str(caught.value)
    assert text.startswith("App('a:b'): perf_setup failed:\nTraceback")
    assert 'raise KeyError("endpoint")' in text
    assert text.endswith("KeyError: 'endpoint'\nIt printed last:\n| no such provider")
    assert "readiness.py" not in text


@each_row(
    ("given", "expected"),
    (3, "3, expected a function; return one: def setup"),
    (waits, "waits, an async function, and calling it runs not"),
)
def test_what_is_no_plain_function_is_refused(given: object, expected: str) -> None:
    with pytest.raises(SettingError, match=f"perf_setup is {expected}"):
        checked_setup(given)
