"""Fits the readout of the model to Python's own documentation, which every Python has, by ridge regression."""

from pydoc_data.topics import topics

import numpy as np
from model import LETTERS, UNITS, WEIGHTS, Network, numbers_of

TEXTS, LENGTH, FORGOTTEN = 256, 120, 30


def main():
    numbers = np.array(numbers_of("".join(topics.values())))
    train, test = numbers[: TEXTS * LENGTH].reshape(TEXTS, LENGTH), numbers[-20 * LENGTH :].reshape(20, LENGTH)
    states, following = read(train)
    wanted = np.eye(len(LETTERS), dtype=np.float32)[following]
    readout = np.linalg.solve(states.T @ states + 10 * np.eye(UNITS, dtype=np.float32), states.T @ wanted)
    np.savez(WEIGHTS, readout=readout.astype(np.float32))
    states, following = read(test)
    right = ((states @ readout).argmax(axis=1) == following).mean()
    print(f"the next letter is right in {right:.0%} of an unseen text; chance: {1 / len(LETTERS):.0%}")


def read(texts):
    """States after each letter, without the first ones, and the letters that follow."""
    network, found = Network(), []
    states = np.zeros((len(texts), UNITS), dtype=np.float32)
    for number in texts.T[:-1]:
        states = network.next_states(states, number)
        found.append(states)
    return np.concatenate(found[FORGOTTEN:]), texts.T[FORGOTTEN + 1 :].ravel()


if __name__ == "__main__":
    main()
