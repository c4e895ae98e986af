"""What stands for the fixture ``perf`` in a pytest that serves another revision: nothing is measured there."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

__all__ = ["ServedPerf"]


class ServedPerf:
    """Lets fixtures and tests that use ``perf`` run until they ask it for something.

    Args:
        serve: starts and stops deployments for the other side until that is done, and then ends the test.
    """

    def __init__(self, serve: Callable[[], NoReturn]) -> None:
        self.__serve = serve

    def __getattr__(self, name: str) -> object:
        """Serve, in place of an answer; what a fixture has set is found without this."""
        if name.startswith("__"):
            raise AttributeError(name)  # Python and pytest look for these
        self.__serve()
