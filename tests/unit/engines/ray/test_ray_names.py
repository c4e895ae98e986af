"""Pure parts of the Ray cluster: addresses, names of runs, descriptions of nodes, paths in a runtime environment."""

import platform
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.each_row import each_row
from support.fake_ray import node_facts
from support.synthetic import PROPERTY

from pytest_mlpatterns.engines.ray.cluster import describe
from pytest_mlpatterns.engines.ray.session import (
    age_of,
    applications_by_run,
    base_of,
    belongs_to,
    brings_code,
    new_run,
    not_sent,
    part_of,
    removed_note,
    with_absolute_paths,
)
from pytest_mlpatterns.engines.ray.settings import checked_address, host_and_port, require_reachable, why_refused
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.system.import_redirect import Stray

NOW = 1_764_146_400


@pytest.mark.parametrize("address", ["auto", "10.0.0.1:6379", " head:6379 ", "[::1]:6379"])
def test_an_address_is_taken_as_it_is(address: str) -> None:
    assert checked_address(address, "RAY_ADDRESS") == address.strip()


def test_local_asks_for_a_ray_of_ones_own() -> None:
    assert checked_address("local", "RAY_ADDRESS") is None


@each_row(
    ("address", "text"),
    ("ray://10.0.0.1:10001", "RAY_ADDRESS=ray://10.0.0.1:10001: Ray Client is not supported, since the load would"),
    ("10.0.0.1", "RAY_ADDRESS=10.0.0.1, expected host:port of a cluster, or auto; write 10.0.0.1:6379"),
    ("10.0.0.1:0", "expected host:port"),
    ("10.0.0.1:99999", "expected host:port"),
    (":6379", "expected host:port"),
    ("http://10.0.0.1:8265", "expected host:port"),
    ("", "expected host:port"),
)
def test_what_is_no_address_is_refused(address: str, text: str) -> None:
    with pytest.raises(SettingError) as caught:
        checked_address(address, "RAY_ADDRESS")
    assert text in str(caught.value)


def test_host_and_port_of_an_address_of_version_6() -> None:
    assert host_and_port("[::1]:6379", "RAY_ADDRESS") == ("::1", 6379)


@each_row(
    ("source", "way_out"),
    ("RAY_ADDRESS", "or unset it for a Ray of this run's own"),
    ("--perf-ray-address", "or leave it out for a Ray of this run's own"),
)
def test_where_nothing_listens_nothing_is_attached_to(source: str, way_out: str) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # bound and not listening: a connection is refused
        address = f"127.0.0.1:{reserved.getsockname()[1]}"
        with pytest.raises(SettingError) as caught:
            require_reachable(address, source)
    assert str(caught.value).startswith(f"{source}={address}: nothing answers there within 5s (")
    assert str(caught.value).endswith(f"start Ray there (ray start --head), {way_out}")


def test_where_something_listens_an_address_is_reachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        require_reachable(f"127.0.0.1:{server.getsockname()[1]}", "RAY_ADDRESS")
        with server.accept()[0] as connection:
            assert connection.recv(1) == b""


@PROPERTY
@given(st.integers(1_000_000_000, 9_000_000_000), st.integers(0, 10_000))
def test_an_application_is_found_again_by_its_run(now_s: int, number: int) -> None:
    run = new_run(now_s)
    part = part_of(run)
    assert base_of(run) == base_of(part) == base_of(f"{part}-{number}") == run
    assert applications_by_run([f"{run}-{number}", f"{part}-{number}"]) == {
        run: [f"{run}-{number}", f"{part}-{number}"]
    }
    assert belongs_to(f"{part}-{number}", run)
    assert belongs_to(f"{part}-{number}", part)
    assert not belongs_to(f"{run}-{number}", part)
    assert age_of(run, now_s + 60) == 60


@PROPERTY
@given(st.text())
def test_names_of_others_are_never_ours(name: str) -> None:
    assert applications_by_run([name]) == {}


@each_row(
    "name",
    "default",
    "mlpatterns",
    "mlpatterns-1-0123abcd-1",
    "my-mlpatterns-1764146400-0123abcd-1",
    "mlpatterns-1764146400-0123abcd",
)
def test_a_name_that_only_resembles_ours_is_left_out(name: str) -> None:
    assert applications_by_run([name]) == {}


def test_a_name_that_is_none_of_ours_has_no_run_and_no_age() -> None:
    with pytest.raises(ValueError, match="'default' is no name of a run"):
        base_of("default")
    assert age_of("default", NOW) == 0


@each_row(
    ("age_s", "applications", "note"),
    (5, 1, "1 application of a run that began 5 s ago and was killed was removed from the Ray cluster"),
    (180, 2, "2 applications of a run that began 3 min ago and was killed were removed from the Ray cluster"),
    (7200, 2, "2 applications of a run that began 2 h ago and was killed were removed from the Ray cluster"),
    (259200, 2, "2 applications of a run that began 3 d ago and was killed were removed from the Ray cluster"),
    (0, 1, "1 application of a run that began 0 s ago and was killed was removed from the Ray cluster"),
)
def test_a_note_says_whose_applications_were_removed(age_s: int, applications: int, note: str) -> None:
    assert removed_note(new_run(NOW), applications, NOW + age_s) == note


def test_nodes_are_described_by_kind_the_most_frequent_first() -> None:
    small = [node_facts(number, processor="Apple M1", cores=1.0, architecture="arm64") for number in (1, 2)]
    large = [node_facts(number) for number in (3, 4, 5)]
    gpu = node_facts(6, gpu="NVIDIA H100")
    assert describe([*small, *large, gpu]) == (
        "3 × AMD EPYC 7B13, 16 cores, x86_64 + 2 × Apple M1, 1 core, arm64 + "
        "1 × AMD EPYC 7B13, 16 cores, x86_64, NVIDIA H100"
    )
    assert describe(reversed([*small, *large, gpu])) == describe([*small, *large, gpu])


def test_paths_in_a_runtime_environment_are_relative_to_the_root(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").touch()
    given_env = {
        "working_dir": ".",
        "py_modules": ["package", "s3://bucket/package.zip", json_module],
        "pip": "requirements.txt",
        "conda": "base",
        "env_vars": {"A": "."},
    }
    assert with_absolute_paths(given_env, tmp_path) == {
        "working_dir": str(tmp_path),
        "py_modules": [str(tmp_path / "package"), "s3://bucket/package.zip", json_module],
        "pip": str(tmp_path / "requirements.txt"),
        "conda": "base",
        "env_vars": {"A": "."},
    }
    assert with_absolute_paths({"working_dir": "gcs://1.zip", "pip": ["numpy"]}, tmp_path) == {
        "working_dir": "gcs://1.zip",
        "pip": ["numpy"],
    }


json_module = __import__("json")


@each_row(
    ("runtime_env", "brings"),
    [({}, False), ({"pip": ["a"]}, False), ({"working_dir": "."}, True), ({"py_modules": ["a"]}, True)],
)
def test_which_runtime_environment_brings_code(runtime_env: dict[str, object], brings: bool) -> None:
    assert brings_code(runtime_env) is brings


@each_row(
    ("raised", "text"),
    (
        "Version mismatch: The cluster was started with:\n    Ray: 2.51.0\n    Python: 3.11.9\n"
        "This process on 10.0.0.2 was started with:\n    Ray: 2.60.0\n    Python: 3.12.3\n",
        "the cluster runs Ray 2.51.0 and Python 3.11.9, this environment has Ray 2.60.0 and Python {python}; "
        "install the same versions on both sides",
    ),
    (
        "No node info found matching attributes: '' when trying to resolve node to connect to.",
        "this machine is no node of that cluster, and a Ray driver has to run on one; run pytest on a node, as a "
        "Ray job (ray job submit -- pytest)",
    ),
    (
        "Could not find any running Ray instance. Please specify the one to connect to",
        "no Ray runs on this machine; start one (ray start --head), or unset it for a Ray of this run's own",
    ),
    ("something else", "Ray cannot connect: Failed to connect\nsomething else"),
)
def test_why_a_driver_cannot_connect(raised: str, text: str) -> None:
    try:
        raise ConnectionError("Failed to connect") from RuntimeError(raised)
    except ConnectionError as error:
        found = why_refused(error, "RAY_ADDRESS", "2.60.0")
    assert found == text.format(python=platform.python_version())


def test_a_module_of_the_present_tree_on_a_node_without_the_revision_says_how_to_send_it() -> None:
    error = not_sent(Stray("pkg.model", "/no/such/project/pkg/model.py"))
    assert str(error).startswith("the reference side loaded pkg.model from the working tree, /no/such/project/pkg/")
    assert str(error).endswith('perf_ray_runtime_env = {"working_dir": "."}')
