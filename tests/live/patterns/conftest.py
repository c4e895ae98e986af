"""No process outlives a test, nor the load generator of its file."""

from collections.abc import Iterator

import pytest
from support.services.processes import our_children


@pytest.fixture(autouse=True)
def _no_process_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "generator" in request.fixturenames:
        request.getfixturevalue("generator").close()
    assert our_children() == set()
