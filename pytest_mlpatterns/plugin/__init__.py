"""The pytest plugin: the only package that knows pytest.

Its hooks and fixtures are re-exported here for ``-p pytest_mlpatterns.plugin``.
"""

from __future__ import annotations

from pytest_mlpatterns.plugin.entry import (
    _perf_ahead,
    _perf_pattern,
    _perf_wire,
    perf,
    perf_client,
    perf_deploy,
    perf_deploy_session,
    perf_figures,
    perf_model,
    perf_payload,
    perf_setup,
    perf_target,
    pytest_addhooks,
    pytest_addoption,
    pytest_cmdline_main,
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_generate_tests,
    pytest_load_initial_conftests,
    pytest_make_collect_report,
    pytest_report_header,
    pytest_runtest_makereport,
    pytest_sessionfinish,
    pytest_sessionstart,
)

__all__ = [
    "_perf_ahead",
    "_perf_pattern",
    "_perf_wire",
    "perf",
    "perf_client",
    "perf_deploy",
    "perf_deploy_session",
    "perf_figures",
    "perf_model",
    "perf_payload",
    "perf_setup",
    "perf_target",
    "pytest_addhooks",
    "pytest_addoption",
    "pytest_cmdline_main",
    "pytest_collection_modifyitems",
    "pytest_configure",
    "pytest_generate_tests",
    "pytest_load_initial_conftests",
    "pytest_make_collect_report",
    "pytest_report_header",
    "pytest_runtest_makereport",
    "pytest_sessionfinish",
    "pytest_sessionstart",
]
