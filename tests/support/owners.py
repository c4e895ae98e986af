"""Files that another user owns, as far as the package can see: only root can make such files."""

import os

import pytest

from pytest_mlpatterns.system import owned_files

__all__ = ["declare_owner"]


def declare_owner(monkeypatch: pytest.MonkeyPatch, uid: int) -> None:
    """Let what a path leads through belong to this user."""
    status = owned_files._status

    def declared(name: str, directory: int) -> os.stat_result:
        fields = status(name, directory)
        return os.stat_result((*fields[:4], uid, *fields[5:10]))

    monkeypatch.setattr(owned_files, "_status", declared)
