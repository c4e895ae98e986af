"""JSON from elsewhere: parsed within bounds, checked as jsonschema checks it, and refused in a sentence."""

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, validators
from support.damage import ENTRY, damaged
from support.each_row import each_row
from support.file_schemas import SCHEMAS, schema_text
from support.reported import RANKING
from support.synthetic import ENVIRONMENT, LAYERS, capacity, counterpart, result, verdict

from pytest_mlpatterns.baseline import file as baseline_file
from pytest_mlpatterns.cli import main
from pytest_mlpatterns.errors import ResultFileError
from pytest_mlpatterns.records.codec import checked
from pytest_mlpatterns.records.faults import fault
from pytest_mlpatterns.records.json_text import parsed
from pytest_mlpatterns.records.launch import Estimate
from pytest_mlpatterns.records.verdict import Outcome
from pytest_mlpatterns.reports.files.result_file import ResultFile, read_results, results_json

BASELINE: dict[str, Any] = {
    "format": baseline_file.FORMAT,
    "version": baseline_file.VERSION,
    "tests": {"test_a.py::test": {"box": ENTRY}},
}
RESULTS: dict[str, Any] = json.loads(
    results_json(
        [
            result(
                verdicts=(verdict(Outcome.FAIL, change=(0.3, 0.2, 0.4)),),
                passed=False,
                capacities=(capacity(objective="p95<50.0ms"),),
                layers=LAYERS,
                reference=counterpart(kind="revision"),
            )
        ],
        ENVIRONMENT,
        "2026-11-24",
        baseline={"mode": "check"},
        ranking=RANKING,
    )
)
FILES: dict[type, dict[str, Any]] = {baseline_file.BaselineFile: BASELINE, ResultFile: RESULTS}
STRICT = validators.extend(
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    ),
)
"""As our rule is: 1.0 is no integer."""


@pytest.mark.parametrize(("path", "kind"), SCHEMAS.items(), ids=[path.name for path in SCHEMAS])
def test_the_schemas_that_ship_are_those_of_the_types(path: Path, kind: type) -> None:
    text = path.read_text(encoding="utf-8")
    assert text == schema_text(kind), "make schemas writes it"
    schema = json.loads(text)
    Draft202012Validator.check_schema(schema)
    STRICT(schema).validate(FILES[kind])


@pytest.mark.parametrize("kind", FILES)
def test_what_is_converted_what_is_named_and_what_jsonschema_refuses_are_the_same(kind: type) -> None:
    chance, refused = random.Random(13), 0
    theirs = STRICT(json.loads(schema_text(kind)))
    for _ in range(60):
        text = json.dumps(damaged(FILES[kind], chance, chance.choice((1, 2))))
        if "\\ud800" in text or "NaN" in text or "Infinity" in text:
            continue
        found = fault(value := parsed(text), kind)
        assert (found == "") is theirs.is_valid(value), f"{found!r} of {text}"
        assert "\n" not in found
        refused += found != ""
        if found:
            with pytest.raises(ValueError, match="^" + re.escape(found) + "$"):
                checked(value, kind, text)
        else:
            assert isinstance(checked(value, kind, text), kind)
    assert refused > 15


@each_row(
    ("path", "value", "words"),
    (("metrics", "rtm", 0, 1), -1, ".metrics.rtm[0][1] is -1, expected at least 0"),
    (("anchor", "metrics", "rtm", 0, 0), 1e308, ".anchor.metrics.rtm[0][0] is 1e+308, expected at most 1e+18"),
    (("metrics", "rtm", 0, 0), True, ".metrics.rtm[0][0] is true, expected a number"),
    (("metrics", "rtm", 0, 0), 10**400, f".metrics.rtm[0][0] is 1{'0' * 59}… (401 characters), expected at most 1e+18"),
    (("metrics", "rtm"), [], ".metrics.rtm has 0 items, expected at least 1"),
    (("metrics", "rtm", 0), [1, 2, 3], ".metrics.rtm[0] has 3 items, expected at most 2"),
    (("metrics", "a b"), 5, '.metrics["a b"] is 5, expected a list'),
    (("commit",), "\ud800", '.commit has "\\ud800", half a surrogate pair, expected Unicode'),
    (("versions", "\ud800"), "1", '.versions has "\\ud800", half a surrogate pair, expected Unicode'),
    (("setup", "\x1b[2J"), "x", '.setup has the unknown member "\\u001b[2J"'),
    (("setup",), {}, ".setup lacks the member pattern"),
    (("date",), None, ".date is null, expected text"),
    (("commit",), [], ".commit is a list of 0, expected text or null"),
    (("counts", "001", 0), 1.0, '.counts["001"][0] is 1.0, expected a whole number'),
)
def test_a_fault_is_named_with_its_place_what_was_found_and_what_was_expected(
    path: tuple[str | int, ...], value: object, words: str
) -> None:
    data = json.loads(json.dumps(BASELINE))
    inner = data["tests"]["test_a.py::test"]["box"]
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    with pytest.raises(ValueError, match=r"\w") as caught:
        checked(data, baseline_file.BaselineFile, json.dumps(data))
    assert str(caught.value) == f'tests["test_a.py::test"].box{words}'


@each_row(
    ("text", "words"),
    ("[" * 100_000, "nested too deeply"),
    ('{"a":' * 100_000, "nested too deeply"),
    ("NaN", "NaN is no number of JSON"),
    ("[-Infinity]", "-Infinity is no number of JSON"),
    ("1" * 5000, "Exceeds the limit"),
    ("{", "Expecting property name"),
    ("", "Expecting value"),
)
def test_what_is_no_json_is_an_error_of_one_sentence(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        parsed(text)
    assert ";" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_whatever_is_changed_in_a_result_file_the_command_line_ends_with_its_own_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance, path, codes = random.Random(7), tmp_path / "results.json", set()
    commands = [
        ["report", str(path)],
        ["export", str(path), "--format=openmetrics"],
        ["rank", str(path), "rtm=0.5,nmrt=0.5,p95<50ms"],
    ]
    for number in range(90):
        path.write_text(json.dumps(damaged(RESULTS, chance, chance.choice((1, 1, 2)))), encoding="utf-8")
        code = main(commands[number % 3])
        out, err = capsys.readouterr()
        assert "\x1b" not in out + err
        assert code == 0 or (len(err.splitlines()) == 1 and err.startswith("ERROR: "))
        codes.add(code)
    assert codes == {0, 2}


@each_row(
    ("changes", "words"),
    ({"percentiles": []}, "no percentiles"),
    ({"percentiles": [[50, 2], [99, 1]]}, "do not ascend"),
    ({"histogram": {"edges_ns": [1, 2], "counts": [1, 1]}}, "one edge more than counts"),
    ({"histogram": {"edges_ns": [1, 2], "counts": [0]}}, "and a request"),
    ({"histogram": {"edges_ns": [2, 1], "counts": [1]}}, "edges that do not ascend"),
)
def test_members_of_a_result_fit_each_other(changes: dict[str, Any], words: str) -> None:
    data = json.loads(json.dumps(RESULTS))
    data["results"][0]["latency"].update(changes)
    with pytest.raises(ResultFileError, match=rf"is damaged: results\[0\].*{words}.*; measure again"):
        read_results(json.dumps(data))


def test_a_bound_that_is_infinite_can_be_written_and_read() -> None:
    change = (0.5, float("-inf"), float("inf"))
    text = results_json([result(verdicts=(verdict(Outcome.FAIL, change=change),))], ENVIRONMENT, "2026", baseline={})
    (read,) = read_results(text).results
    assert read.verdicts[0].change == Estimate(0.5, -1e18, 1e18)
