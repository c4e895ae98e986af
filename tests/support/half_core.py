"""What this machine does with half a core: the id of each test names it, and both outcomes are tested."""

import pytest

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.system.cpu_share import give_cpus

REFUSAL = "cpus=0.5 is a fraction and needs a control group with a CPU quota, but none can be created"
"""How the refusal begins where no control group can be created."""


def _kind_of_group() -> str:
    try:
        share = give_cpus(0.5)
    except SettingError as error:
        if not str(error).startswith(REFUSAL):
            raise
        return "no-cgroup"
    assert share.group is not None
    version = 2 if (share.group / "cpu.max").exists() else 1
    share.release()
    return f"cgroup-v{version}"


_KIND = _kind_of_group()
VARIANT = pytest.mark.parametrize("refused", [_KIND == "no-cgroup"], ids=[_KIND])
"""Runs a test with ``refused``, whether this machine gives no half core."""
