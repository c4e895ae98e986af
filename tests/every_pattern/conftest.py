"""The load generator of these tests, and that no process outlives one."""

from collections.abc import Iterator

import pytest
from support.services.processes import our_children

from pytest_mlpatterns.loadgen.generator import Generator


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generator]:
    generator = Generator(tmp_path_factory.mktemp("generator") / "generator.log")
    yield generator
    generator.close()


@pytest.fixture(autouse=True)
def _no_process_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "generator" in request.fixturenames:
        request.getfixturevalue("generator").close()
    assert our_children() == set()
