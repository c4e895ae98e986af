"""Patterns by their names: what prints can be read again, and what cannot be read says what could."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.each_row import each_row
from support.synthetic import PROPERTY
from test_pattern import COMPOSED, ONE

from pytest_mlpatterns.config.lists import parse_pattern
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.patterns import (
    Batched,
    Cached,
    Ensemble,
    Microservice,
    Pattern,
    Pipeline,
    Queued,
    Replicated,
    Single,
)
from pytest_mlpatterns.units import parse_duration

NAMES = "batched, cached, continuous, limited, microservice, queued, replicated, single"


@PROPERTY
@given(ONE.filter(lambda pattern: not isinstance(pattern, Pipeline | Ensemble)) | COMPOSED)
def test_printed_pattern_is_read_as_the_same_pattern(pattern: Pattern) -> None:
    assert parse_pattern(str(pattern), "x") == pattern


@each_row(
    ("text", "pattern"),
    ("single", Single()),
    ("single()", Single()),
    (" Single ( ) ", Single()),
    ("CACHED", Cached()),
    ("Cached(max_entries=5, ttl='30s')", Cached(5, "30s")),
    ('cached(ttl="30s",)', Cached(ttl="30s")),
    ("cached(ttl=1.5 min)", Cached(ttl="1.5 min")),
    ("cached(ttl=None)", Cached()),
    ("cached(max_entries=10_000)", Cached()),
    ("queued(wait=False)", Queued(wait=False)),
    ("queued(broker=redis://127.0.0.1:6379/0,workers=2)", Queued(workers=2, broker="redis://127.0.0.1:6379/0")),
    ("queued(broker=redis://[::1]:6379/0,workers=2)", Queued(workers=2, broker="redis://[::1]:6379/0")),
    ("replicated(balance=shared-socket)", Replicated(balance="shared-socket")),
    ("Replicated(replicas=3, balance=two-choices)", Replicated(3, "two-choices")),
    ("cached|batched", Cached() | Batched()),
    ("Cached() | Batched(max_batch_size=8) | Microservice", Cached() | Batched(8) | Microservice()),
    ("cached\n| batched", Cached() | Batched()),
    ("single(env={OMP_NUM_THREADS:1})", Single(env={"OMP_NUM_THREADS": "1"})),
    ("""single(env={"A": "1", 'B': 'x,y', C : z w})""", Single(env={"A": "1", "B": "x,y", "C": "z w"})),
    ("single(env={A:1})|cached", Single(env={"A": "1"}) | Cached()),
    ("single(env={A:'\\x'})", Single(env={"A": "\\x"})),
)
def test_a_pattern_may_be_written_as_a_name_or_as_a_call(text: str, pattern: Pattern) -> None:
    assert parse_pattern(text, "x") == pattern


@each_row(
    ("text", "message"),
    ("cachd", f"names the pattern 'cachd', did you mean cached? expected one of {NAMES}, or several joined by |"),
    ("Repliccated(2)", "names the pattern 'Repliccated(2)', did you mean replicated? expected one of batched, "),
    ("zzz", f"names the pattern 'zzz', expected one of {NAMES}, or several joined by |"),
    ("", f"names the pattern '', expected one of {NAMES}"),
    ("cached||batched", "names the pattern '', expected one of"),
    ("cached(ttl=1s", "names the pattern 'cached(ttl=1s', did you mean cached? expected one of"),
    ("cached)ttl=1s(", "names the pattern 'cached)ttl=1s(', did you mean cached? expected one of"),
    ("cached batched", "names the pattern 'cached batched', "),
    ("cached-batched", "names the pattern 'cached-batched', "),
    ("Pipeline", "names 'Pipeline', which needs code; write the value: Pipeline(...)"),
    ("cached | ensemble(models=[a,b])", "names 'ensemble(models=[a,b])', which needs code; write the value: Ensem"),
    ("cached(size=3)", "gives 'size=3' to cached, allowed are: max_entries=, ttl=, store=, env=\n"),
    (
        "Replicated( 3 )",
        "gives '3' to replicated, allowed are: replicas=, balance=, env=, prefix_chars=; write replicated(replicas=3)",
    ),
    (
        "replicated(replicas=3,shared-socket)",
        "gives 'shared-socket' to replicated, allowed are: replicas=, balance=, env=, prefix_chars=; "
        "write replicated(balance=shared-socket)",
    ),
    ("single(1)", "gives '1' to single, allowed are: env="),
    ("single({A:1})", "gives '{A:1}' to single, allowed are: env=; write single(env={A:1})"),
    ("microservice(__class__=1)", "gives '__class__=1' to microservice, allowed are: replicas="),
)
def test_unreadable_text_is_refused_with_what_can_be_read(text: str, message: str) -> None:
    with pytest.raises(SettingError) as caught:
        parse_pattern(text, "--perf-patterns")
    assert f"{caught.value}\n".startswith(f"--perf-patterns {message}")


@PROPERTY
@given(st.timedeltas(min_value=timedelta(milliseconds=1), max_value=timedelta(days=100)))
def test_a_time_in_a_name_is_read_as_that_time(time: timedelta) -> None:
    for pattern, name in ((Batched(max_wait=time), "max_wait"), (Cached(ttl=time), "ttl")):  # type: ignore[arg-type]
        read = parse_pattern(str(pattern), "here")
        assert str(read) == str(pattern)
        assert parse_duration(getattr(read, name)) == parse_duration(time)


@each_row(
    ("text", "message"),
    ("replicated(replicas=1)", "Replicated(replicas=1), expected from 2; for one process write Single()"),
    ("cached(max_entries=many)", "Cached(max_entries='many'), expected a whole number from 1 to 100,000,000"),
    ("cached(ttl=30)", "Cached(ttl=...) is 30, expected a time with its unit"),
    ("cached(store={[]})", "Cached(store='{[]}'), expected 'memory://', "),
    ("queued(wait=no)", "Queued(wait='no'), expected True or False"),
    ("single(env=1)", "Single(env=str), expected a mapping of environment variables to text; write env={"),
    ("single(env={A})", "Single(env=str), expected a mapping of environment variables to text; write env={"),
    ("cached|single", "Single() in a composition, expected alone; leave it out"),
    ("replicated(replicas=64)|microservice", "replicated(replicas=64)|microservice asks for 128 processes, "),
    ("cached|queued(wait=False)", "cached|queued(wait=False): queued(wait=False) answers before there is a result"),
)
def test_refusal_of_a_pattern_names_where_it_was_given(text: str, message: str) -> None:
    with pytest.raises(SettingError) as caught:
        parse_pattern(text, "ini key perf_patterns")
    assert str(caught.value).startswith(f"ini key perf_patterns: {message}")


def read(text: str) -> Pattern | str:
    """The pattern, or what was said against it."""
    try:
        return parse_pattern(text, "here")
    except SettingError as error:
        return str(error)


@PROPERTY
@given(st.text(alphabet="cachedbt|(),=[]{}'\"0123 s:/\\\x00.-_", max_size=30) | st.text(max_size=20))
def test_any_text_is_a_pattern_or_refused_in_words(text: str) -> None:
    pattern = read(text)
    if isinstance(pattern, str):
        assert pattern.startswith("here")
    else:
        assert parse_pattern(str(pattern), "here") == pattern


@PROPERTY
@given(
    st.sampled_from(["max_entries", "ttl", "store"]),
    st.text(alphabet="0123456789abc[]{}()'\"\\.:-_ ", max_size=12) | st.text(max_size=12),
)
def test_any_value_is_taken_or_refused_in_words(field: str, value: str) -> None:
    pattern = read(f"cached({field}={value})")
    assert isinstance(pattern, Cached) or str(pattern).startswith("here")
