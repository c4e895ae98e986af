"""The pytest plugin: the only package that knows pytest. Its hooks and fixtures stand in :mod:`.entry`."""

from pytest_mlpatterns.plugin.entry import *  # noqa: F403 - pytest finds hooks and fixtures by their names
from pytest_mlpatterns.plugin.entry import _perf_ahead, _perf_pattern, _perf_wire  # noqa: F401 - these begin otherwise
