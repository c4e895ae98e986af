"""A load generator for all tests of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_mlpatterns.loadgen.generator import Generator

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generator]:
    generator = Generator(tmp_path_factory.mktemp("generator") / "generator.log")
    yield generator
    generator.close()
