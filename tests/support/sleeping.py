"""A model that needs no processor: it takes as long on any machine, and a test makes it slower by a number."""

MODEL = """
import time

class Model:
    def __call__(self, batch):
        time.sleep({seconds})
        return batch
"""
"""Its source; ``format(seconds=0.01)`` completes it."""
