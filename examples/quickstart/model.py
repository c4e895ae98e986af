"""The model under test: reads a handwritten digit by the five most similar ones that it knows."""

from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("digits.npz")


class Digits:
    """Built once inside every worker process."""

    def __init__(self):
        learned = np.load(FILE)
        self.images, self.digits = learned["images"], learned["digits"]

    def __call__(self, batch):
        return [self.read(image) for image in batch]

    def read(self, image):
        distances = ((self.images - image) ** 2).sum(axis=1)
        nearest = self.digits[np.argpartition(distances, 5)[:5]]
        return int(np.bincount(nearest).argmax())
