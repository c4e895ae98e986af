"""Commands, addresses and variables without what may be a credential, and with all else."""

import shlex
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.each_row import each_row
from support.synthetic import PROPERTY, make_setup

from pytest_mlpatterns import App, Command, Prometheus, SettingError, Url
from pytest_mlpatterns.credentials import address_without_credentials, names_credential, public_words
from pytest_mlpatterns.patterns.arguments import Variables, _quoted
from pytest_mlpatterns.records.setup import Setup
from pytest_mlpatterns.system.environment_facts import _of_variables

SECRET = "s3cr3t/Value+=="
HIDES = [
    (["serve", "--api-key", SECRET, "--port", "3"], ["serve", "--api-key", "***", "--port", "3"]),
    ([f"--api-key={SECRET}"], ["--api-key=***"]),
    (["-H", f"Authorization: Bearer {SECRET}"], ["-H", "Authorization: ***"]),
    ([f"--header=Authorization: Bearer {SECRET}"], ["--header=Authorization: Bearer ***"]),
    ([f"X-Api-Key:{SECRET}"], ["X-Api-Key:***"]),
    (["env", f"HF_TOKEN={SECRET}", "serve"], ["env", "HF_TOKEN=***", "serve"]),
    (["--password", "two words"], ["--password", "***"]),
    (["--password=two words"], ["--password=***"]),
    (["sh", "-c", f"KEY={SECRET} serve --token {SECRET} -n 2"], ["sh", "-c", "KEY=*** serve --token *** -n 2"]),
    (["--config", f'{{"api_key": "{SECRET}", "n": 2}}'], ["--config", '{"api_key": "***", "n": 2}']),
    (["--db", "redis://user:s3cr3t@host/0"], ["--db", "redis://***@host/0"]),
    ([f"http://host/?api_key={SECRET}&n=2"], ["http://host/?api_key=***&n=2"]),
    (["postgres://u:p@s3cr3t@h/db"], ["postgres://***@h/db"]),
    (["postgres://u:p#s3@cr3t@h/db?to=a@b"], ["postgres://***@h/db?to=a@b"]),
    (["-H", f"Authorization: Token {SECRET}"], ["-H", "Authorization: ***"]),
    ([f"--header=Authorization: Token {SECRET} x"], ["--header=Authorization: ***"]),
    ([f"--header=Authorization:Token {SECRET}"], ["--header=Authorization:***"]),
    (["sh", "-c", f"curl -H 'Authorization: Token {SECRET}' -n"], ["sh", "-c", "curl -H 'Authorization: ***' -n"]),
    (["--headers", f'{{"Authorization":"Token {SECRET}","n": 2}}'], ["--headers", '{"Authorization":"***","n": 2}']),
    (["sh", "-c", f'x "{{\\"api_key\\": \\"{SECRET}\\"}}"'], ["sh", "-c", 'x "{\\"api_key\\": ***}"']),
    (["sh", "-c", "serve --api-key=a,s3cr3t -n 2"], ["sh", "-c", "serve --api-key=*** -n 2"]),
    (["sh", "-c", "KEY=a,s3cr3t serve --token a,s3cr3t"], ["sh", "-c", "KEY=*** serve --token ***"]),
    (["--api-key=a,s3cr3t"], ["--api-key=***"]),
    (["--api-key=-s3cr3t"], ["--api-key=***"]),
    ([f"https://h/?sig={SECRET}&n=2"], ["https://h/?sig=***&n=2"]),
    (["GITHUB_PAT=s3", "DBPASS=s3", "MYKEY=s3"], ["GITHUB_PAT=***", "DBPASS=***", "MYKEY=***"]),
    (["--jwt", "s3cr3t", "apiKey=s3", "APIKEY=s3"], ["--jwt", "***", "apiKey=***", "APIKEY=***"]),
    (["curl", "-u", "me:s3cr3t", "--user=me:s3cr3t"], ["curl", "-u", "***", "--user=***"]),
    (["sh", "-c", "curl -u 'me:s3 cr3t' --user me:s3 x"], ["sh", "-c", "curl -u *** --user *** x"]),
    (["--api-key", "K1", "K2", "K3", "--n", "K4"], ["--api-key", "***", "***", "***", "--n", "K4"]),
    (["--api-key", "K1", "m/llama", "K2"], ["--api-key", "***", "m/llama", "K2"]),
    (["--api-key", "1234567", "--token", "12345678"], ["--api-key", "***", "--token", "***"]),
]
KEEPS = [
    ["vllm", "serve", "m", "--tokenizer", "slow", "--max-num-batched-tokens", "8192", "--eos-token-id=2"],
    ["uvicorn", "auth.service:app", "--ssl-key-file", "k.pem", "--api-key-env", "NAME"],
    ["python", "token_server.py:app", "--model", "keys", "--password"],
    ["--token", "--port", "3"],
    ["--max-num-batched-tokens", "16k", "--max-num-batched-tokens=8K", "--init-new-token-ratio", "0.7"],
    ["--speculative-token-map", "m.pt", "--skip-special-tokens", "true", "--add-token=False", "--token-bias", ".5"],
    ["--num-key-value-heads", "8", "--max-keys", "100", "--sort-key", "name", "--disable-auth", "svc:app"],
    ["--hf-overrides", '{"num_key_value_heads": 8, "head_key": true, "n": 2}'],
    ["monkey=3", "--monkey", "see", "--cookie-domain", "h", "compass=n"],
    ["docker", "-u", "1000:1000", "--user=me", "sh", "-c", "x -u 1:1 --user http://h"],
    ["http://h:80?to=a@b", "serve", "--n", "1"],
]


@each_row(("words", "public"), HIDES)
def test_values_that_may_be_credentials_are_replaced(words: list[str], public: list[str]) -> None:
    assert [*public_words(words)] == public
    assert [*public_words(public)] == public


@each_row("words", KEEPS)
def test_other_values_stay(words: list[str]) -> None:
    assert [*public_words(words)] == words


@PROPERTY
@given(st.lists(st.text(max_size=60), max_size=6))
def test_any_words_give_as_many_words(words: list[str]) -> None:
    assert len(public_words(words)) == len(words)
    assert public_words(public_words(words)) == public_words(words)


def test_commands_differ_in_all_but_their_credentials() -> None:
    line = "serve --api-key {} --model {} --port {{port}}"
    first, second = Command(line.format("a1", "m")), Command(line.format("b2", "m"))
    assert str(first) == str(second) == "Command('serve --api-key *** --model m --port {port}')"
    assert str(Command(line.format("a1", "n"))) != str(first)
    assert str(Command(shlex.split(line.format("a1", "m")))) == str(first)
    assert repr(Command(line.format("a1", "m"), env={"API_KEY": "a1"})) == str(first)
    assert "a1" not in repr(App("service:app", env={"API_KEY": "a1"}))
    assert str(Command("serve --port {port}  --x 'a b'")) == "Command(\"serve --port {port}  --x 'a b'\")"


def test_no_message_about_a_command_or_an_address_has_a_credential() -> None:
    for wrong in ("serve --api-key {}", "serve --api-key {} && x {{port}}", "serve --api-key {} '{{port}}"):
        with pytest.raises(SettingError) as refused:
            Command(wrong.format("s3cr3t"))
        assert "--api-key ***" in str(refused.value)
        assert "s3cr3t" not in str(refused.value)
    with pytest.raises(SettingError) as refused:
        Command(["serve", "--api-key", "s3cr3t"])
    assert "s3cr3t" not in str(refused.value)
    with pytest.raises(SettingError) as refused:
        Url("http://user:s3cr3t@host/?token=s3cr3t")
    assert "s3cr3t" not in str(refused.value)
    assert str(Url("http://host/?token=s3cr3t&n=2")) == "http://host/?token=***&n=2"
    assert str(Command("serve {port}", path="/p?key=s3cr3t")) == "Command('serve {port}', path='/p?key=***')"


def test_no_repr_shows_a_credential() -> None:
    assert repr(Url("http://h:1/p?api_key=s3cr3t", pid=3)) == "Url('http://h:1/p?api_key=***', pid=3)"
    assert repr(Prometheus("/m?token=s3cr3t", queue_depth="n")) == "Prometheus('/m?token=***', queue_depth='n')"
    metrics = Prometheus("http://u:s3cr3t@h/m")
    for target in (Url("http://h", metrics=metrics), App("a:b", path="/p?key=s3cr3t", metrics="/m?key=s3cr3t")):
        assert "s3cr3t" not in repr(target)


@each_row(
    "make",
    lambda: Url("h:1/p?api_key=s3cr3t"),
    lambda: Url("http://u:" + "s3cr3t" * 60 + "@h/p"),
    lambda: App("a:b", path="p?key=s3cr3t"),
    lambda: Prometheus("p?key=s3cr3t"),
)
def test_no_refusal_of_an_address_shows_a_credential(make: Callable[[], object]) -> None:
    with pytest.raises(SettingError) as refused:
        make()
    assert "s3cr3t" not in str(refused.value)


@pytest.mark.parametrize(
    "line", ["serve --api-key s3cr3t --port {port}", "serve --token price '{port}'", "serve --x '{port}'"]
)
def test_an_entry_of_an_earlier_version_stays_comparable_and_shows_none(line: str) -> None:
    then = make_setup().to_json() | {"pattern": f"Command({line!r}, path='/x')"}
    now = make_setup().to_json() | {"pattern": str(Command(line, path="/x"))}
    assert Setup.from_json(now).differences(Setup.from_json(then)) == ()
    assert Setup.from_json(then).to_json() == now
    assert "s3cr3t" not in str(Setup.from_json(then))


def test_variables_of_the_environment_that_may_hold_one_are_named_only() -> None:
    assert _of_variables({"OMP_PASSWORD": "s3cr3t", "OMP_NUM_THREADS": "2"}) == {
        "OMP_PASSWORD": "***",
        "OMP_NUM_THREADS": "2",
    }
    assert not names_credential("TOKENIZERS_PARALLELISM")


VARIABLES = [
    ("MAX_TOKENS", "auto", True),
    ("VLLM_MAX_NUM_BATCHED_TOKENS", "all", True),
    ("NUM_KEYS", "many", True),
    ("TOKENIZER", "slow", True),
    ("TOKENIZERS_PARALLELISM", "false", True),
    ("TOKENS_PER_STEP", "as many as fit", True),
    ("KEYS_COUNT", "all", True),
    ("EOS_TOKEN_ID", "2", True),
    ("CACHE_KEY", "by-input", True),
    ("TOKEN_FILE", "/run/token", True),
    ("HF_TOKEN", "hf_a1b2", False),
    ("MAX_TOKEN", "a1b2c3", False),
    ("TOKENS", "a1b2,c3d4", False),
    ("API_KEY", "1234567", False),
    ("API_KEYS", "a1b2", False),
    ("MY_SECRET", "1234", False),
    ("MAX_PASSWORD", "1234", False),
    ("PGPASS", "a1b2", False),
]


@each_row(("name", "value", "shown"), VARIABLES)
def test_a_number_of_tokens_is_no_credential_and_a_token_is(name: str, value: str, *, shown: bool) -> None:
    expected = value if shown else "***"
    assert Variables(((name, value),)).text == f"{{{name}:{_quoted(expected)}}}"
    assert public_words([f"{name}={value}"]) == (f"{name}={expected}",)


@each_row(
    "text", ["key" * 30_000, "-" * 100_000, "key " * 30_000, "a=" * 50_000, "://a:b#" * 30_000, "key=a,b" * 30_000]
)
def test_a_long_text_takes_no_long_time(text: str) -> None:
    shown = "key=***,b" * 29_999 + "key=***" if "key=a" in text else text
    assert address_without_credentials(text) == shown
