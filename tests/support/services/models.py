"""Models that other processes import by name."""

from typing import Any


def double(batch: list[Any]) -> list[Any]:
    return [2 * value for value in batch]


class Factor:
    """Multiplies; built inside the worker."""

    def __init__(self, factor: int = 2) -> None:
        self.factor = factor

    def __call__(self, batch: list[Any]) -> list[Any]:
        return [self.factor * value for value in batch]


class Holder:
    """Holds a model two levels down."""

    class Inner:
        double = staticmethod(double)
