"""The limit on open files: raised as far as the system takes it, and what it leaves for connections."""

import resource

import pytest
from support.each_row import each_row

from pytest_mlpatterns.system.process_limits import allowed_connections, raise_file_limit


class Limits:
    """The system's limits on open files, with a highest soft limit that it takes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, *, takes: int) -> None:
        self.soft, self.hard, self._takes = soft, hard, takes
        monkeypatch.setattr(resource, "getrlimit", lambda _kind: (self.soft, self.hard))
        monkeypatch.setattr(resource, "setrlimit", self._set)

    def _set(self, _kind: int, wanted: tuple[int, int]) -> None:
        soft = wanted[0]
        if soft == resource.RLIM_INFINITY or soft > self._takes:
            raise ValueError("current limit exceeds maximum limit")
        self.soft = soft


@each_row(
    ("soft", "hard", "takes", "expected"),
    (256, resource.RLIM_INFINITY, 1_048_576, 1_048_576),
    (256, resource.RLIM_INFINITY, 92_160, 65_536),
    (256, resource.RLIM_INFINITY, 10_240, 10_240),
    (256, resource.RLIM_INFINITY, 256, 256),
    (1_024, 4_096, 4_096, 4_096),
    (20_480, resource.RLIM_INFINITY, 10_240, 20_480),
)
def test_the_limit_on_open_files_is_the_highest_that_the_system_takes(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, takes: int, expected: int
) -> None:
    limits = Limits(monkeypatch, soft, hard, takes=takes)
    raise_file_limit()
    assert limits.soft == expected


@each_row(("hard", "expected"), [(resource.RLIM_INFINITY, None), (20_000, 19_800), (1_024, 824), (100, 0)])
def test_connections_are_what_the_hard_limit_leaves(
    monkeypatch: pytest.MonkeyPatch, hard: int, expected: int | None
) -> None:
    Limits(monkeypatch, 64, hard, takes=hard)
    assert allowed_connections() == expected
