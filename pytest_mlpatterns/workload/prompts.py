"""Prompts of chosen lengths for language models, made of common English words, so that no tokenizer is needed.

Most tokenizers of English text have these words as one token each. With a tokenizer, lengths are exact. This
module sends nothing.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pytest_mlpatterns import fields
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.wording import shown

MAX_TOKENS = 1_000_000  # Longest prompt or answer
_MOST_PROMPTS = 100_000  # Most prompts of a payload; each is encoded before the load
_TEXT = (
    "time year people way day man thing woman life child world school state family student group country problem "
    "hand part place case week company system program question work number night point home water room mother "
    "area money story fact month lot right study book eye job word business issue side kind head house service "
    "friend father power hour game line end member law car city name team minute idea body back parent face "
    "level office door health person art war history party result change morning reason research girl guy moment "
    "air teacher force order good new first last long great little own other old big high small large next early "
    "young few public bad same able be have do say get make go know take see come think look want give use find "
    "tell ask seem feel try leave call "
)
WORDS = tuple(_TEXT.split())  # Common English words, one token each with most tokenizers

Lengths = int | tuple[float, float] | Sequence[int]
"""Tokens: a number, ``(mean, standard deviation)``, or a list that is used in turn."""


@dataclass(frozen=True)
class Prompts:
    """A payload of prompts: ``Prompts(input_tokens=(128, 32), output_tokens=(64, 16))``.

    Each is a mapping as the wire ``openai`` sends it: ``prompt`` or ``messages``, ``max_tokens`` and ``ignore_eos``.
    The same arguments give the same prompts.

    Args:
        input_tokens: length of the prompts: a number of tokens, a tuple of mean and standard deviation of a normal
            distribution, or a list of numbers that is used in turn. A drawn prompt is at least as long as the prefix.
        output_tokens: length of the answers, given in the same way.
        shared_prefix_tokens: tokens at the beginning that all prompts share, as a system prompt does; part of
            ``input_tokens``.
        count: number of prompts, which are sent in turn.
        seed: of the random words and lengths.
        chat: whether the prompt is the message of a user (``messages``) instead of a ``prompt``.
        ignore_eos: asks the server to go on to ``max_tokens`` in any case; servers that refuse the field need False.
        tokens: counts the tokens of a text, such as ``lambda text: len(tokenizer.encode(text))``; None: a word is one.

    Raises:
        SettingError: a length, number or seed that is none, or a prefix that is longer than the prompts.
    """

    input_tokens: Lengths = 128
    output_tokens: Lengths = 64
    shared_prefix_tokens: int = 0
    count: int = 256
    seed: int = 0
    chat: bool = False
    ignore_eos: bool = True
    tokens: Callable[[str], int] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        fields.set_whole(self, "count", least=1, most=_MOST_PROMPTS)
        fields.set_whole(self, "seed", least=-fields.MAX_SEED, most=fields.MAX_SEED)
        fields.set_whole(self, "shared_prefix_tokens", least=0, most=MAX_TOKENS)
        for name in ("input_tokens", "output_tokens"):
            _check_lengths(getattr(self, name), f"Prompts({name}=...)")
        if self.tokens is not None and not callable(self.tokens):
            raise SettingError(
                f"Prompts(tokens=...) is {shown(self.tokens)}, expected a function that counts the tokens of a text; "
                "write lambda text: len(tokenizer.encode(text))"
            )
        given = self.input_tokens
        shortest = given[0] if isinstance(given, tuple) else min(length for length, _ in self._lengths)
        if shortest < self.shared_prefix_tokens:
            raise SettingError(
                f"Prompts(shared_prefix_tokens={self.shared_prefix_tokens}), but input_tokens is {shown(given)}; "
                "expected a prefix that is no longer than the prompts"
            )

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[dict[str, Any]]:
        prefix = self._text(random.Random(f"{self.seed} prefix"), self.shared_prefix_tokens)  # noqa: S311 - no secret
        for number, (length, answer) in enumerate(self._lengths):
            words = random.Random(f"{self.seed} {number}")  # noqa: S311 - no secret
            text = self._text(words, length, prefix)
            asked: dict[str, Any] = {"messages": [{"role": "user", "content": text}]} if self.chat else {"prompt": text}
            asked["max_tokens"] = answer
            yield {**asked, "ignore_eos": True} if self.ignore_eos else asked

    @cached_property
    def _lengths(self) -> list[tuple[int, int]]:
        """Tokens of each prompt and of its answer."""
        draw = random.Random(self.seed)  # noqa: S311 - no secret
        return [
            (
                _drawn(self.input_tokens, number, draw, least=self.shared_prefix_tokens),
                _drawn(self.output_tokens, number, draw),
            )
            for number in range(self.count)
        ]

    def _text(self, draw: random.Random, length: int, prefix: str = "") -> str:
        """Words after a prefix, of ``length`` tokens in all."""
        words = prefix.split()
        words += [draw.choice(WORDS) for _ in range(length - len(words))]
        if self.tokens is None or not length:
            return " ".join(words)
        return self._exact(words, length, draw)

    def _exact(self, words: list[str], length: int, draw: random.Random) -> str:
        """The words with as many more or fewer at their end as give the length by the user's tokenizer."""
        assert self.tokens is not None
        for _ in range(2 * length + 16):
            text = " ".join(words)
            found = fields.whole_number(self.tokens(text), "Prompts(tokens=...) returned a count that", least=0)
            if found == length:
                return text
            if found < length:
                words.append(draw.choice(WORDS))
            elif words:
                words.pop()
        raise SettingError(
            f"Prompts(tokens=...) counts {found} tokens in a text of {len(words)} common English words, and {length} "
            "are not reached by adding and removing words; leave tokens= out, or give other lengths"
        )


def _check_lengths(given: object, name: str) -> None:
    """Check a number of tokens, a mean with a deviation, or a list of numbers."""
    expected = f"tokens from 1 to {MAX_TOKENS:,}: a number, (mean, deviation) or a list of numbers; write (128, 32)"
    numbers = given if isinstance(given, Sequence) and not isinstance(given, str | bytes) else [given]
    if len(numbers) > _MOST_PROMPTS:
        raise SettingError(f"{name} has {len(numbers):,} lengths, expected at most {_MOST_PROMPTS:,}; give fewer")
    plain = [fields.plain_number(one) for one in numbers]
    spread = isinstance(given, tuple)
    known = [one for one in plain if one is not None and (0 if spread else 1) <= one <= MAX_TOKENS]
    whole = spread or all(isinstance(one, int) for one in known)
    if not numbers or len(known) < len(plain) or not whole or (spread and (len(plain) != 2 or known[0] < 1)):
        raise SettingError(f"{name} is {shown(given)}, expected {expected}")


def _drawn(given: Lengths, number: int, draw: random.Random, *, least: int = 1) -> int:
    if isinstance(given, tuple):
        mean, deviation = given
        return min(max(1, least, round(draw.gauss(mean, deviation))), MAX_TOKENS)
    if isinstance(given, Sequence):
        return int(given[number % len(given)])
    return int(given)
