"""Prompts have the lengths that were asked for, and the same arguments give the same prompts."""

from statistics import fmean, stdev
from typing import Any

import pytest
from support.each_row import each_row

from pytest_mlpatterns import Prompts
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.workload.payload import read_payload


def words(asked: dict[str, Any]) -> list[str]:
    return str(asked["prompt"]).split()


def test_lengths_follow_mean_and_deviation() -> None:
    prompts = list(Prompts(input_tokens=(128, 32), output_tokens=(64, 16), count=2000))
    lengths, answers = [len(words(one)) for one in prompts], [one["max_tokens"] for one in prompts]
    assert (fmean(lengths), stdev(lengths)) == (pytest.approx(128, rel=0.02), pytest.approx(32, rel=0.05))
    assert (fmean(answers), stdev(answers)) == (pytest.approx(64, rel=0.02), pytest.approx(16, rel=0.05))
    assert all(one["ignore_eos"] for one in prompts)


def test_lengths_of_a_list_come_in_turn() -> None:
    prompts = list(Prompts(input_tokens=[3, 5], output_tokens=7, count=4, ignore_eos=False))
    assert [len(words(one)) for one in prompts] == [3, 5, 3, 5]
    assert [set(one) for one in prompts] == [{"prompt", "max_tokens"}] * 4


def test_a_drawn_prompt_is_never_shorter_than_the_prefix() -> None:
    drawn = Prompts(input_tokens=(40, 20), shared_prefix_tokens=30)
    assert min(len(prompt["prompt"].split()) for prompt in drawn) == 30


def test_all_prompts_share_their_prefix_and_nothing_else() -> None:
    first, second, *_ = map(words, Prompts(input_tokens=40, shared_prefix_tokens=30))
    assert first[:30] == second[:30]
    assert first[30:] != second[30:]


def test_the_same_arguments_give_the_same_payload_and_another_seed_another() -> None:
    digests = [read_payload(Prompts(count=8, seed=seed)).digest for seed in (1, 1, 2)]
    assert digests[0] == digests[1] != digests[2]


def test_a_chat_asks_with_the_message_of_a_user() -> None:
    (asked,) = Prompts(input_tokens=4, count=1, chat=True)
    (message,) = asked["messages"]
    assert message["role"] == "user"
    assert len(message["content"].split()) == 4


@pytest.mark.parametrize("per_word", [1, 2, 3])
def test_a_tokenizer_makes_lengths_exact(per_word: int) -> None:
    def tokens(text: str) -> int:
        return 1 + sum(per_word if len(word) > 3 else 1 for word in text.split())

    assert [tokens(str(one["prompt"])) for one in Prompts(input_tokens=50, count=5, tokens=tokens)] == [50] * 5


def test_a_tokenizer_that_never_reaches_a_length_is_named() -> None:
    with pytest.raises(SettingError, match=r"Prompts\(tokens=...\) counts .* and 3 are not reached"):
        list(Prompts(input_tokens=3, count=1, tokens=lambda text: 2 * len(text.split())))


@each_row(
    ("arguments", "said"),
    ({"input_tokens": 0}, "Prompts(input_tokens=...) is 0, expected tokens from 1"),
    ({"input_tokens": "128"}, "is '128', expected tokens from 1"),
    ({"output_tokens": (64, -1)}, "is (64, -1), expected tokens"),
    ({"output_tokens": (64,)}, "expected tokens"),
    ({"output_tokens": []}, "is [], expected tokens"),
    ({"output_tokens": [1.5]}, "expected tokens"),
    ({"shared_prefix_tokens": 200}, "but input_tokens is 128; expected a prefix that is no longer"),
    ({"shared_prefix_tokens": 9, "input_tokens": (8, 9)}, "but input_tokens is (8, 9)"),
    ({"count": 0}, "count"),
    ({"tokens": 5}, "expected a function that counts the tokens of a text"),
)
def test_wrong_arguments_are_refused_with_what_to_write(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingError) as caught:
        Prompts(**arguments)
    assert said in str(caught.value)
