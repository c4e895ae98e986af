"""Environment variables on patterns: what is taken, how they print, and which processes get them."""

import pickle
from collections.abc import Callable, Iterator, Mapping

import pytest
from support.each_row import each_row

from pytest_mlpatterns import (
    Batched,
    Cached,
    Ensemble,
    Microservice,
    Pattern,
    Pipeline,
    Queued,
    Replicated,
    SettingError,
    Single,
)
from pytest_mlpatterns.patterns.arguments import Variables, read_variables
from pytest_mlpatterns.patterns.pattern import Node, ProcessGroup, describe_env, with_env

A, B, AGAIN = {"A": "1"}, {"B": "2"}, {"A": "3"}
SPACES = f"{{{{{{}}{50_000 * ' '}{{}}}}}}"


def processes(node: Node) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Role and variables of each process group."""
    if isinstance(node, ProcessGroup):
        yield node.role, dict(node.env)
        yield from processes(node.inside)
    for inside in getattr(node, "inside", ()) if not isinstance(node, ProcessGroup) else ():
        yield from processes(inside)


@each_row(
    ("pattern", "expected"),
    (Single(env=A), [("service", A)]),
    (Replicated(3, env=A), [("replica", A)]),
    (Cached(env=A), [("service", A)]),
    (Batched(env=A), [("service", A)]),
    (Microservice(2, env=A), [("service", {}), ("service", A)]),
    (Queued(env=A), [("service", {}), ("worker", A)]),
    (Pipeline(["a:f", "b:g"], env=A), [("service", A)]),
    (Pipeline(["a:f", "b:g"], processes=True, env=A), [("service", {}), ("stage f", A), ("stage g", A)]),
    (Ensemble(["a:f", "model"], env=A), [("service", {}), ("model f", A), ("model model", A)]),
    (Cached(env=A) | Microservice(env=B), [("service", A), ("service", {**A, **B})]),
    (Cached(env=A) | Microservice(env=AGAIN), [("service", A), ("service", AGAIN)]),
    (Microservice(env=A) | Cached(env=AGAIN), [("service", {}), ("service", AGAIN)]),
    (Cached(env=A) | Batched(env=AGAIN), [("service", AGAIN)]),
    (Cached() | Replicated(2, env=A), [("service", {}), ("replica", A)]),
    (Single(env=A) | Cached() | Queued(env=B), [("service", A), ("worker", {**A, **B})]),
    (Pipeline(["a:f", "model"]) | Batched(env=A), [("service", A)]),
    (
        Pipeline(["a:f", "model"], processes=True) | Batched(env=A),
        [("service", {}), ("stage f", {}), ("stage model", A)],
    ),
)
def test_processes_get_the_variables_of_the_patterns_around_them(
    pattern: Pattern, expected: list[tuple[str, Mapping[str, str]]]
) -> None:
    assert list(processes(with_env(pattern.plan()))) == expected


@each_row(
    ("make", "message"),
    (
        lambda: Replicated(4, env={"OMP_NUM_THREADS": 1}),  # type: ignore[dict-item]
        'Replicated(env=...) sets OMP_NUM_THREADS to 1, expected text; write env={"OMP_NUM_THREADS": "1"}',
    ),
    (
        lambda: Single(env={"A": True}),  # type: ignore[dict-item]
        'Single(env=...) sets A to True, expected text; write env={"OMP_NUM_THREADS": "1"}',
    ),
    (
        lambda: Single(env={"API_TOKEN": ["hidden"]}),  # type: ignore[dict-item]
        'Single(env=...) sets API_TOKEN to list, expected text; write env={"OMP_NUM_THREADS": "1"}',
    ),
    (
        lambda: Cached(env={"": "1"}),
        "Cached(env=...) names the variable '', expected letters, digits and underscores, and no digit first; ",
    ),
    (lambda: Cached(env={"A=B": "1"}), "Cached(env=...) names the variable 'A=B', expected letters, "),
    (lambda: Batched(env={"1A": "1"}), "Batched(env=...) names the variable '1A', expected letters, "),
    (lambda: Batched(env={1: "1"}), "Batched(env=...) names the variable 1, expected "),  # type: ignore[dict-item]
    (
        lambda: Queued(env={"A": "1\0"}),
        "Queued(env=...) sets A to text that no variable can hold, expected at most 100,000 bytes without a NUL",
    ),
    (lambda: Queued(env={"A": 100_001 * "x"}), "Queued(env=...) sets A to text that no variable can hold, "),
    (lambda: Microservice(env={"A": "\ud800"}), "Microservice(env=...) sets A to text that no variable can hold, "),
    (
        lambda: Pipeline(["a:f", "b:g"], env="A=1"),  # type: ignore[arg-type]
        "Pipeline(env=str), expected a mapping of environment variables to text; write env=",
    ),
    (
        lambda: Ensemble(["a:f", "b:g"], env=None),  # type: ignore[arg-type]
        "Ensemble(env=None), expected a mapping of environment variables to text; write env=",
    ),
)
def test_impossible_variables_are_refused(make: Callable[[], Pattern], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        make()
    assert str(caught.value).startswith(message)


@each_row(
    ("env", "text"),
    ({"OMP_NUM_THREADS": "1"}, "OMP_NUM_THREADS=1"),
    ({"B": "x y", "A": ""}, "A=, B=x y"),
    ({"TOKENIZERS_PARALLELISM": "false"}, "TOKENIZERS_PARALLELISM=false"),
    ({"KEYBOARD": "us", "COMPASS": "n", "AUTHOR": "me"}, "AUTHOR=me, COMPASS=n, KEYBOARD=us"),
    ({"HF_TOKEN": "hf_1", "API_KEYS": "k"}, "API_KEYS=***, HF_TOKEN=***"),
    (
        {"AWS_SECRET_ACCESS_KEY": "s", "DB_PASS": "p", "apikey": "k"},
        "AWS_SECRET_ACCESS_KEY=***, DB_PASS=***, apikey=***",
    ),
    ({"STORE": "redis://me:secret@host/1"}, "STORE=redis://***@host/1"),
)
def test_credentials_are_not_printed(env: dict[str, str], text: str) -> None:
    pattern = Single(env=env)
    assert describe_env(pattern) == text
    hidden = [value for name, value in env.items() if f"{name}=***" in text] + ["secret@"]
    assert not any(value in printed for value in hidden if len(value) > 1 for printed in (str(pattern), repr(pattern)))


def test_a_composition_names_the_pattern_of_each_variable() -> None:
    assert describe_env(Cached() | Batched()) == ""
    assert (
        describe_env(Cached(env=A) | Batched() | Microservice(env={**B, **A})) == "cached: A=1; microservice: A=1, B=2"
    )


def test_patterns_with_variables_are_values() -> None:
    env = {"B": "2", "A": "1"}
    pattern = Replicated(4, env=env)
    env["A"] = "5"
    assert pattern == Replicated(4, env={"A": "1", "B": "2"}) != Replicated(4)
    assert len({pattern, Replicated(4, env={"A": "1", "B": "2"}), Replicated(4)}) == 2
    assert pickle.loads(pickle.dumps(pattern)) == pattern
    assert (str(pattern), pattern.env["A"], dict(pattern.env)) == (
        "replicated(replicas=4,env={A:1,B:2})", "1", {"A": "1", "B": "2"}
    )  # fmt: skip
    assert repr(Single(env=env)) == "Single(env={'A': '5', 'B': '2'})"


@each_row("value", ["", "a,b", "f(x)", "{[", "it's", '"', "ü€😀", "\\x41", "a:b", "None", "1", "***", "|"])
def test_any_value_is_read_as_it_was_printed(value: str) -> None:
    assert read_variables(Variables((("A", value), ("B", "2"))).text) == {"A": value, "B": "2"}


@each_row("text", ["", "{", "1", "{A}", "{A:1,,}", "{A:1 'x'}", SPACES.format("A", "B"), SPACES.format("A:", "'")])
def test_other_text_is_no_mapping(text: str) -> None:
    assert read_variables(text) == text
