"""Which Ray a run uses: options, ini, environment; and the runtime environment of the nodes."""

import sys
from pathlib import Path

import pytest
from support.each_row import each_row

from pytest_mlpatterns.engines.ray.messages import RayJob
from pytest_mlpatterns.engines.ray.settings import read_ray_job
from pytest_mlpatterns.errors import MissingExtraError, SettingError

ROOT = Path("/project")


def read(options: dict[str, object] | None = None, *, root: Path = ROOT, **given: dict[str, object]) -> RayJob:
    environ = {name: str(value) for name, value in given.get("environ", {}).items()}
    return read_ray_job(options or {}, given.get("ini", {}), environ, root=root)


def test_without_an_address_the_run_starts_a_ray_of_its_own() -> None:
    job = read()
    assert (job.address, job.source, job.runtime_env, job.root, job.run) == (None, "", {}, ROOT, "")
    assert job.subject == "Ray did not start"


@each_row(
    ("option", "ini", "environ", "address", "source"),
    ("a:1", "b:2", "c:3", "a:1", "--perf-ray-address"),
    (None, "b:2", "c:3", "b:2", "ini key perf_ray_address"),
    (None, "", "c:3", "c:3", "RAY_ADDRESS"),
    ("local", "", "c:3", None, "--perf-ray-address"),
    (None, "", "", None, ""),
)
def test_the_option_counts_before_the_ini_file_and_that_before_the_environment(
    option: str | None, ini: str, environ: str, address: str | None, source: str
) -> None:
    job = read({"ray-address": option}, ini={"ray-address": ini}, environ={"RAY_ADDRESS": environ})
    assert (job.address, job.source) == (address, source)


def test_an_address_that_is_none_is_refused_with_its_source() -> None:
    with pytest.raises(SettingError, match="ini key perf_ray_address=nowhere, expected host:port"):
        read(ini={"ray-address": "nowhere"})
    assert read({"ray-address": "a:1"}).subject == "--perf-ray-address=a:1: Ray did not connect"


def test_a_pytest_that_serves_a_revision_belongs_to_a_run() -> None:
    assert (
        read(environ={"MLPATTERNS_RAY_RUN": "mlpatterns-1764146400-0123abcd"}).run == "mlpatterns-1764146400-0123abcd"
    )


@pytest.mark.parametrize("name", ["env.json", "env.yaml", "env.yml"])
def test_a_runtime_environment_is_json_or_a_file(name: str, tmp_path: Path) -> None:
    written = '{"working_dir": "."}'
    (tmp_path / name).write_text(written, encoding="utf-8")
    for text in (written, name, str(tmp_path / name)):
        assert read({"ray-runtime-env": text}, root=tmp_path).runtime_env == {"working_dir": "."}


@each_row(
    ("text", "message"),
    ("pip", "--perf-ray-runtime-env is 'pip', expected a JSON object or the path of a .json or .yaml file; write"),
    ("{", "expected a JSON object or the path of a .json or .yaml file; it cannot be read: "),
    ("list.json", r"; list.json is \[1\]"),
    ("numbers.yaml", r"; numbers.yaml is \{1: 2\}"),
    ("broken.yaml", "; broken.yaml cannot be read: "),
    ("none.json", "--perf-ray-runtime-env names the file none.json, which cannot be read: No such file"),
)
def test_what_is_no_runtime_environment_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[1]", encoding="utf-8")
    (tmp_path / "numbers.yaml").write_text("1: 2", encoding="utf-8")
    (tmp_path / "broken.yaml").write_text("a: [", encoding="utf-8")
    with pytest.raises(SettingError, match=message):
        read({"ray-runtime-env": text}, root=tmp_path)


def test_a_yaml_file_needs_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "env.yaml").write_text("pip: [numpy]", encoding="utf-8")
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(MissingExtraError, match=r"with a \.yaml file needs the package pyyaml"):
        read({"ray-runtime-env": "env.yaml"}, root=tmp_path)
