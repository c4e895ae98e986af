"""Every ini key in every style of pytest's configuration: as text, and as the types that TOML has."""

import json
from pathlib import Path

import pytest
from support.project import run_here

from pytest_mlpatterns.plugin.options import OPTIONS

pytestmark = pytest.mark.processes

TEXT = {
    "against": "main",
    "against-env": "true",
    "against-files": "data/a.csv 'b c.txt'",
    "baseline": "require",
    "baseline-file": "base.json",
    "baseline-from": "history",
    "budget": "20s",
    "compare": "rtm, p99",
    "cpus": "0.5",
    "duration": "1s",
    "engine": "local",
    "gate": "warn",
    "count": "off",
    "generators-on": "local",
    "history": "perf-history.jsonl",
    "history-fail": "new",
    "html": "out.html",
    "inconclusive": "fail",
    "json": "out.json",
    "noise": "trust",
    "patterns": "single, cached|batched",
    "price": "1 USD per core-hour",
    "profile": "off",
    "rank": "rtm=0.5, p95<50ms",
    "ray-address": "auto",
    "ray-runtime-env": '{"working_dir": "."}',
    "requests": "500",
    "settle": "fetch",
    "smoke": "true",
    "startup-timeout": "9s",
    "time": "10min",
    "tolerance": "rtm=0.05, p99=30%",
}
"""A value of each key, as every style can have it, and as it is read."""
NATIVE = {
    "against-env": "true",
    "against-files": '["data/a.csv", "b c.txt"]',
    "compare": '["rtm", "p99"]',
    "cpus": "0.5",
    "patterns": '["single", "cached|batched"]',
    "rank": '["rtm=0.5", "p95<50ms"]',
    "requests": "500",
    "ray-runtime-env": '{working_dir = "."}',
    "smoke": "true",
    "tolerance": '{rtm = 0.05, p99 = "30%"}',
}
"""The same values in TOML, if it has another type for them than text."""
STYLES = {
    "pytest.ini": "[pytest]",
    "pyproject.toml": "[tool.pytest.ini_options]",
    "pyproject.toml, native": "[tool.pytest]",
    "pytest.toml": "[pytest]",
}
CONFTEST = """
import json
from pytest_mlpatterns.plugin.options import given_ini

def pytest_configure(config):
    (config.rootpath / "found.json").write_text(json.dumps(given_ini(config)))
"""


def key(name: str) -> str:
    return f"perf_{name.replace('-', '_')}"


def configure(directory: Path, style: str, values: dict[str, str]) -> None:
    lines = [STYLES[style], *(f"{key(name)} = {value}" for name, value in values.items())]
    (directory / style.partition(",")[0]).write_text("\n".join(lines), encoding="utf-8")
    (directory / "conftest.py").write_text(CONFTEST, encoding="utf-8")
    (directory / "test_it.py").write_text("def test_nothing():\n    pass\n", encoding="utf-8")


def found(directory: Path, style: str, values: dict[str, str]) -> dict[str, str | None]:
    configure(directory, style, values)
    run = run_here(directory, "-W", "error")
    assert run.outcomes == {"passed": 1}, run.out
    read: dict[str, str | None] = json.loads((directory / "found.json").read_text(encoding="utf-8"))
    return read


QUOTED = {name: f"'''{value}'''" for name, value in TEXT.items()}


def test_each_key_has_a_value_here() -> None:
    assert TEXT.keys() == OPTIONS.keys()


@pytest.mark.parametrize("style", STYLES)
def test_a_key_can_be_text(tmp_path: Path, style: str) -> None:
    read = found(tmp_path, style, TEXT if style == "pytest.ini" else QUOTED)
    assert {name: read[name] for name in TEXT} == TEXT


@pytest.mark.parametrize("style", [style for style in STYLES if style != "pytest.ini"])
def test_a_key_can_have_its_type_of_toml(tmp_path: Path, style: str) -> None:
    read = found(tmp_path, style, {**QUOTED, **NATIVE})
    for name in ("against-env", "smoke"):
        read[name] = str(read[name]).lower()  # which pytest writes as True in one style
    assert {name: read[name] for name in TEXT} == {**TEXT, "against-files": "data/a.csv, 'b c.txt'"}


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("tolerance", "0.05", "0.05"),
        ("tolerance", "1", "1"),
        ("cpus", "2", "2"),
        ("rank", "{rtm = 0.5, nmrt = 0.5}", "rtm=0.5, nmrt=0.5"),
        ("compare", "[]", ""),
    ],
)
@pytest.mark.parametrize("style", ["pyproject.toml", "pyproject.toml, native"])
def test_numbers_and_tables_are_read_as_text(tmp_path: Path, style: str, name: str, value: str, read: str) -> None:
    assert found(tmp_path, style, {name: value})[name] == read


@pytest.mark.simulation
@pytest.mark.parametrize("style", STYLES)
def test_the_command_line_overrides_a_key(tmp_path: Path, style: str) -> None:
    configure(tmp_path, style, {"tolerance": "0.05", "smoke": "true"})
    assert run_here(tmp_path, "-o", "perf_tolerance=0.2").exit_code == 0
    assert json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["tolerance"] == "0.2"


NAMELESS = """
import pytest

@pytest.mark.perf(model="test_it:same", payload=[1], warmup="0s")
def test_perf(perf):
    assert perf.smoke

def same(batch):
    return batch
"""


def refused(directory: Path, style: str, line: str) -> str:
    """The one line on standard error of a run whose configuration is refused."""
    (directory / style.partition(",")[0]).write_text(f"{STYLES[style]}\n{line}\n", encoding="utf-8")
    (directory / "test_it.py").write_text(NAMELESS, encoding="utf-8")
    run = run_here(directory)
    assert run.exit_code == pytest.ExitCode.USAGE_ERROR
    (message,) = filter(None, run.errors)
    return message


@pytest.mark.simulation
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("perf_budget = 30", "ini key perf_budget is '30', expected a time with its unit; write for example"),
        ("perf_concurrency = 4", "perf_concurrency is not an ini key; concurrency is set in the marker: pytest.mark."),
        (
            "perf_zebra = 1",
            "perf_zebra is not an ini key; no loaded plugin has it; delete the line, or load that plugin",
        ),
    ],
)
def test_a_number_without_its_unit_and_an_unknown_key_are_refused_in_one_line(
    tmp_path: Path, style: str, line: str, words: str
) -> None:
    assert refused(tmp_path, style, line).startswith(f"ERROR: {words}")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("perf_duration = 3", "ini key perf_duration is '3', expected a time with its unit"),
        ("perf_tolerance = -1.0", "ini key perf_tolerance is '-1.0', expected a share that is not negative"),
        ("perf_tolerance = {rtx = 0.1}", "ini key perf_tolerance"),
        ("perf_inconclusive = true", "ini key perf_inconclusive is 'true', expected one of warn, fail, pass"),
        ("perf_price = [1]", "ini key perf_price is '1'"),
        ("perf_json = true", "ini key perf_json true is a truth value, expected the path of a file; name one"),
        ("perf_against_env = 3", "ini key perf_against_env is '3', expected true or false"),
    ],
)
def test_a_value_of_another_type_is_refused_in_one_line(tmp_path: Path, line: str, words: str) -> None:
    assert refused(tmp_path, "pyproject.toml, native", line).startswith(f"ERROR: {words}")


def test_a_run_takes_its_settings_from_native_toml(tmp_path: Path) -> None:
    settings = 'perf_smoke = true\nperf_tolerance = {rtm = 0.05}\nperf_patterns = ["single", "cached"]\nperf_cpus = 1\n'
    (tmp_path / "pyproject.toml").write_text(f"[tool.pytest]\n{settings}", encoding="utf-8")
    (tmp_path / "test_it.py").write_text(NAMELESS, encoding="utf-8")
    run = run_here(tmp_path)
    assert run.outcomes == {"passed": 2}
    assert "smoke run: 2 perf tests" in run.section("performance")


def test_a_key_that_a_conftest_file_adds_is_its_own(tmp_path: Path) -> None:
    configure(tmp_path, "pytest.ini", {"toleranc": "1"})
    own = "\ndef pytest_addoption(parser):\n    parser.addini('perf_toleranc', 'own')\n"
    (tmp_path / "conftest.py").write_text(CONFTEST + own, encoding="utf-8")
    run = run_here(tmp_path)
    assert run.exit_code == 0
    assert "perf_toleranc" not in run.out
