"""What the process of another revision is started with, without starting it."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.each_row import each_row
from support.fake_ray import FakeRay, cluster_facts, node_facts

from pytest_mlpatterns.config.settings import read_settings
from pytest_mlpatterns.engines.ray.engine import SharedRay
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.plugin import entry
from pytest_mlpatterns.plugin.engine_sessions import EngineSessions
from pytest_mlpatterns.plugin.other_revision import OtherRevision
from pytest_mlpatterns.revision.client import RevisionClient
from pytest_mlpatterns.revision.commits import Revision
from pytest_mlpatterns.revision.messages import InheritedOptions
from pytest_mlpatterns.revision.worktree import Worktree
from pytest_mlpatterns.serving.targets import Url

SETTINGS = read_settings({}, {}, {})
ONE_MACHINE = replace(cluster_facts(2), nodes=(node_facts(1, machine="here"), node_facts(2, machine="here")))


@pytest.fixture
def other(tmp_path: Path) -> OtherRevision:
    worktree = Worktree(Revision("0" * 40, "main", "", "0000000"), tmp_path, tmp_path, tmp_path, ())
    found = OtherRevision(None, worktree, tmp_path)  # type: ignore[arg-type]
    vars(found)["_inherited_options"] = InheritedOptions(("--perf-engine=ray",), {}, ())
    return found


def started_with(other: OtherRevision, cluster: FakeRay | None) -> tuple[str, ...]:
    session = None if cluster is None else SharedRay(cluster)  # type: ignore[arg-type]
    client: Any = other.client("t.py::test", SETTINGS, session)
    options: tuple[str, ...] = client._inherited_options.options
    return options


def test_a_test_without_a_cluster_has_the_options_of_the_run(other: OtherRevision) -> None:
    assert started_with(other, None) == ("--perf-engine=ray",)


def test_a_test_on_a_cluster_is_served_on_the_same_one(other: OtherRevision) -> None:
    cluster = FakeRay(facts=ONE_MACHINE, runtime_env={"working_dir": "."})
    assert started_with(other, cluster) == (
        "--perf-engine=ray",
        f"--perf-ray-address={ONE_MACHINE.address}",
        '--perf-ray-runtime-env={"working_dir": "."}',
    )


def test_a_cluster_without_the_code_of_both_revisions_is_refused(other: OtherRevision) -> None:
    with pytest.raises(SettingError, match=r"^--perf-against on a Ray cluster of several machines needs the code"):
        started_with(other, FakeRay(facts=cluster_facts(2)))


def test_the_process_of_a_test_begins_before_its_fixtures_are_made_and_serves_it(
    other: OtherRevision, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It collects the test, and imports the same libraries, in the time in which this process does."""
    started: list[RevisionClient] = []
    ended: list[RevisionClient] = []

    def note(seen: list[RevisionClient]) -> Callable[[RevisionClient], None]:
        return lambda client: seen.append(client)  # noqa: PLW0108 - a method, which list.append is not

    monkeypatch.setattr(RevisionClient, "start_process", note(started))
    monkeypatch.setattr(RevisionClient, "close", note(ended))
    with other.ahead("t.py::test", SETTINGS):
        assert other.client("t.py::test", SETTINGS) is started[0]
        assert other.client("t.py::test", SETTINGS) is not started[0]
        assert ended == []
    assert ended == started
    before_the_model = list(inspect.signature(entry.perf.__wrapped__).parameters)[:3]  # type: ignore[attr-defined]
    assert before_the_model == ["request", "_perf_ahead", "perf_model"]


@each_row(
    ("engine", "generators_on", "target", "serves", "takes_part"),
    ("local", "local", None, False, False),
    ("ray", "local", None, True, True),
    ("ray", "local", Url("http://127.0.0.1:1/"), False, False),
    ("ray", "ray", Url("http://127.0.0.1:1/"), False, True),
    ("local", "ray", None, False, True),
)
def test_a_cluster_takes_part_where_it_serves_or_sends(
    tmp_path: Path, *, engine: str, generators_on: str, target: Url | None, serves: bool, takes_part: bool
) -> None:
    engines = EngineSessions({}, {}, root=tmp_path, directory=tmp_path)
    ray = engines.of("ray")
    assert isinstance(ray, SharedRay)
    ray.ray = FakeRay({"alive_nodes": frozenset}, ONE_MACHINE)  # type: ignore[assignment]
    settings = read_settings({"engine": engine, "generators_on": generators_on}, {}, {})
    assert engines.serving(settings, target) is (ray if serves else None)
    use = engines.cluster_of(settings, target)
    assert (use is not None) is takes_part
    assert use is None or use.description == "2 × AMD EPYC 7B13, 16 cores, x86_64"
