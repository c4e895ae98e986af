"""Starting deployments of small models in tests."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from pytest_mlpatterns import Deployment, Pattern, Single
from pytest_mlpatterns.engines.local.launcher import launch
from pytest_mlpatterns.serving.model import StartOptions, service_plan
from pytest_mlpatterns.units import parse_duration
from pytest_mlpatterns.workload.payload import read_payload


def make_start_options(directory: Path, payload: list[Any] | None = None, timeout: str = "60s") -> StartOptions:
    """A patient start; the first of ``payload`` is asked, where there is one."""
    return StartOptions(parse_duration(timeout), None if payload is None else read_payload(payload), directory)


@contextmanager
def deployed(
    model: object,
    directory: Path,
    pattern: Pattern | None = None,
    *,
    by_value: Sequence[ModuleType] = (),
    payload: list[Any] | None = None,
    timeout: str = "60s",
) -> Iterator[Deployment]:
    """A running deployment of a model, under ``Single()`` where no pattern is given."""
    deployment = launch(
        service_plan(pattern or Single(), model, by_value), make_start_options(directory, payload, timeout)
    )
    try:
        yield deployment
    finally:
        deployment.close()
