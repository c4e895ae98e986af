"""The files of a Ray that a run has started: its processes may write some while they are removed."""

from pathlib import Path
from typing import Any

import pytest

from pytest_mlpatterns.engines.ray import driver


class WrittenMeanwhile:
    """A directory into which something is written until it has been removed so often."""

    def __init__(self, path: Path, attempts: int) -> None:
        self.path, self.left = path, attempts
        path.mkdir()

    def remove(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.path.rmdir()


@pytest.mark.parametrize(("attempts", "is_left"), [(1, False), (3, False), (1_000_000, True)])
def test_files_are_removed_again_until_nothing_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attempts: int, is_left: bool
) -> None:
    waited_s = [0.0]
    monkeypatch.setattr(driver.time, "monotonic", lambda: waited_s[0])
    monkeypatch.setattr(driver.time, "sleep", lambda seconds: waited_s.append(waited_s.pop() + seconds))
    nobody: Any = None
    running = driver._Driver(nobody)
    scratch: Any = WrittenMeanwhile(tmp_path / "ray", attempts)
    running._scratch = scratch
    running._remove_files()
    assert scratch.path.exists() is is_left
    assert waited_s[0] == pytest.approx(min(0.1 * (attempts - 1), 10.0), abs=0.11)
