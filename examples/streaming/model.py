"""A small language model that writes letter by letter: a recurrent network of random weights with a trained readout.

Such a network is called an echo state network (Jaeger, 2001). Its state after a letter is a function of the state
before and of the letter; a linear readout gives the scores of the next letter. ``train.py`` fits the readout.
"""

import os
import string
from pathlib import Path

import numpy as np

LETTERS = string.ascii_lowercase + string.digits + " .,:;()'\"-_=\n"
UNITS = 1024
WEIGHTS = Path(__file__).with_name("weights.npz")
NUMBERS = {letter: number for number, letter in enumerate(LETTERS)}


class Network:
    """The fixed weights: which letter and which state lead to which state."""

    def __init__(self):
        random = np.random.default_rng(0)
        self.letters = random.standard_normal((len(LETTERS), UNITS), dtype=np.float32)
        recurrent = random.standard_normal((UNITS, UNITS), dtype=np.float32)
        self.recurrent = recurrent * np.float32(0.9 / np.sqrt(UNITS))  # states fade slowly

    def next_states(self, states, numbers):
        """The states of several texts, shape (texts, UNITS), after one more letter of each."""
        return np.tanh(states @ self.recurrent + self.letters[numbers])


class Text:
    """A text that is being written."""

    def __init__(self, request):
        self.state = np.zeros((1, UNITS), dtype=np.float32)
        self.left = request.get("max_tokens", 64)
        self.random = np.random.default_rng(0)


class LanguageModel:
    """Writes on from a prompt, one text at a time (``__call__``), or several together (``start`` and ``step``)."""

    def __init__(self):
        self.network = Network()
        self.readout = np.load(WEIGHTS)["readout"]
        self.readings = int(os.environ.get("READINGS", "1"))  # more than one is the regression that a test catches

    def __call__(self, batch):
        (request,) = batch
        text = self.start(request)
        while (letter := self.step([text])[0]) is not None:
            yield letter

    def start(self, request):
        """Read the prompt, letter by letter."""
        text = Text(request)
        for _ in range(self.readings):
            text.state[:] = 0
            for number in numbers_of(request["prompt"]):
                text.state = self.network.next_states(text.state, [number])
        return text

    def step(self, active):
        """One more letter of each text; None for those that are complete."""
        states = np.concatenate([text.state for text in active])
        numbers = drawn(states @ self.readout, [text.random.random() for text in active])
        states = self.network.next_states(states, numbers)
        letters = []
        for text, state, number in zip(active, states, numbers, strict=True):
            letters.append(LETTERS[number] if text.left else None)
            text.state, text.left = state[None], text.left - 1
        return letters


def drawn(scores, chances):
    """A letter for each row of scores, drawn by its share in what would come next."""
    sums = np.cumsum(np.clip(scores, 0.01, None) ** 2, axis=1)
    return (sums < sums[:, -1:] * np.array(chances)[:, None]).sum(axis=1)


def numbers_of(text):
    """The letters of a text by number; those that the model does not know are left out."""
    return [NUMBERS[letter] for letter in text.lower() if letter in NUMBERS]
