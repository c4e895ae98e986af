"""A load generator for all tests of a file."""

from collections.abc import Iterator

import pytest

from pytest_mlpatterns.loadgen.generator import Generator


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generator]:
    generator = Generator(tmp_path_factory.mktemp("generator") / "generator.log")
    yield generator
    generator.close()
