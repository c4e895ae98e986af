"""Performance tests for machine-learning models and the way they are served, beside your unit tests.

Define the fixtures ``perf_model`` and ``perf_payload``, mark a test with ``perf``, ask for the fixture ``perf``, and
assert on what it measured. The names here are the public ones; they are loaded when first used.

The packages form eight layers, and each imports only from those below it:

========  ===============================================================================================
layer     packages
========  ===============================================================================================
8         ``plugin`` (pytest), ``cli`` (the command line)
7         ``judging``: one perf test, from measurement to verdict
6         ``measurement``: deployments under load; ``revision``: the same test at another commit
5         ``serving``: processes that serve; ``loadgen``: the load generator; ``baseline``: the baseline file
4         ``config``: settings; ``reports``: results as text
3         ``analysis``: mathematics; ``patterns``; ``workload``: what is sent, and when; ``system``: the machine
2         ``records``: values that travel; ``wire``: formats of requests and responses
1         ``errors``, ``units``, ``fields``, ``wording``, ``credentials``
========  ===============================================================================================

To read the code, begin with ``records``, then follow a test from the top: ``plugin/entry``, ``plugin/session``,
``judging/perf``, ``judging/sequential``, ``measurement/launch``, ``serving/local/launcher``, ``loadgen/generator``,
and back up
through ``analysis/blocks``, ``analysis/metrics`` and ``analysis/verdicts``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the tests compare these names with the table below
    # ruff: noqa: I001 - ``A as A``, which it would put on lines of their own, says that we give the name to others
    from pytest_mlpatterns.errors import (
        BaselineFileError as BaselineFileError,
        ChildError as ChildError,
        DeploymentError as DeploymentError,
        InconclusiveFailure as InconclusiveFailure,
        InconclusiveWarning as InconclusiveWarning,
        LeftoverWarning as LeftoverWarning,
        LimitFailure as LimitFailure,
        MissingExtraError as MissingExtraError,
        MlpatternsError as MlpatternsError,
        ModelLoadError as ModelLoadError,
        OpenPortWarning as OpenPortWarning,
        PerfFailure as PerfFailure,
        PerfWarning as PerfWarning,
        ProfilerError as ProfilerError,
        RegressionFailure as RegressionFailure,
        ResultFileError as ResultFileError,
        SettingError as SettingError,
        TooFewSamplesError as TooFewSamplesError,
        GeneratorLimitError as GeneratorLimitError,
        InvalidResultError as InvalidResultError,
        UnequalAnswersWarning as UnequalAnswersWarning,
        UnitError as UnitError,
        UnusedMarkerWarning as UnusedMarkerWarning,
    )
    from pytest_mlpatterns.serving.prometheus import Prometheus as Prometheus
    from pytest_mlpatterns.records.telemetry import LayerStats as LayerStats, PatternStats as PatternStats
    from pytest_mlpatterns.workload.input_order import InOrder as InOrder, Uniform as Uniform, Zipf as Zipf
    from pytest_mlpatterns.workload.prompts import Prompts as Prompts
    from pytest_mlpatterns.workload.schedule import (
        ClosedLoop as ClosedLoop,
        ConstantRate as ConstantRate,
        GammaRate as GammaRate,
        PoissonRate as PoissonRate,
        Stages as Stages,
        Trace as Trace,
    )
    from pytest_mlpatterns.analysis.metrics.pattern_metrics import ScalingIndices as ScalingIndices
    from pytest_mlpatterns.analysis.metrics.metrics import Metrics as Metrics
    from pytest_mlpatterns.analysis.capacity.scale_out import ScaleOut as ScaleOut
    from pytest_mlpatterns.analysis.capacity.scaling import Scaling as Scaling, ScalingStep as ScalingStep
    from pytest_mlpatterns.patterns import (
        Batched as Batched,
        Cached as Cached,
        Continuous as Continuous,
        Ensemble as Ensemble,
        Microservice as Microservice,
        Pattern as Pattern,
        Pipeline as Pipeline,
        Queued as Queued,
        Replicated as Replicated,
        Single as Single,
    )
    from pytest_mlpatterns.patterns.layer import (
        Handler as Handler,
        RequestError as RequestError,
        Resources as Resources,
    )
    from pytest_mlpatterns.patterns.tally import Tally as Tally
    from pytest_mlpatterns.judging.measuring import measure as measure
    from pytest_mlpatterns.judging.perf import Perf as Perf
    from pytest_mlpatterns.records.launch import Estimate as Estimate
    from pytest_mlpatterns.records.overload import Overload as Overload
    from pytest_mlpatterns.records.verdict import Outcome as Outcome
    from pytest_mlpatterns.serving.deployment import Deployment as Deployment
    from pytest_mlpatterns.serving.targets import App as App, Command as Command, Url as Url
    from pytest_mlpatterns.wire import Wire as Wire
    from pytest_mlpatterns.wire.stream_lines import JsonLines as JsonLines

__version__ = "0.2.0"

_HOMES = {
    "analysis.metrics.pattern_metrics": ("ScalingIndices",),
    "analysis.metrics.metrics": ("Metrics",),
    "analysis.capacity.scale_out": ("ScaleOut",),
    "analysis.capacity.scaling": ("Scaling", "ScalingStep"),
    "errors": (
        "BaselineFileError",
        "ChildError",
        "DeploymentError",
        "InconclusiveFailure",
        "InconclusiveWarning",
        "LeftoverWarning",
        "LimitFailure",
        "MissingExtraError",
        "MlpatternsError",
        "ModelLoadError",
        "OpenPortWarning",
        "PerfFailure",
        "PerfWarning",
        "ProfilerError",
        "RegressionFailure",
        "ResultFileError",
        "SettingError",
        "TooFewSamplesError",
        "GeneratorLimitError",
        "InvalidResultError",
        "UnequalAnswersWarning",
        "UnitError",
        "UnusedMarkerWarning",
    ),
    "judging.measuring": ("measure",),
    "judging.perf": ("Perf",),
    "patterns": (
        "Batched",
        "Cached",
        "Continuous",
        "Ensemble",
        "Microservice",
        "Pattern",
        "Pipeline",
        "Queued",
        "Replicated",
        "Single",
    ),
    "patterns.layer": (
        "Handler",
        "RequestError",
        "Resources",
    ),
    "patterns.tally": ("Tally",),
    "records.launch": ("Estimate",),
    "records.overload": ("Overload",),
    "records.telemetry": (
        "LayerStats",
        "PatternStats",
    ),
    "records.verdict": ("Outcome",),
    "serving.deployment": ("Deployment",),
    "serving.prometheus": ("Prometheus",),
    "serving.targets": (
        "App",
        "Command",
        "Url",
    ),
    "wire": ("Wire",),
    "wire.stream_lines": ("JsonLines",),
    "workload.input_order": (
        "InOrder",
        "Uniform",
        "Zipf",
    ),
    "workload.prompts": ("Prompts",),
    "workload.schedule": (
        "ClosedLoop",
        "ConstantRate",
        "GammaRate",
        "PoissonRate",
        "Stages",
        "Trace",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [  # noqa: PLE0604 - computed from the table above, which the tests compare with the imports for type checkers
    "__version__",
    *_HOME_OF,
]


def __getattr__(name: str) -> object:
    """Load a public name when it is first used, so that pytest without perf tests pays nothing."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    if (
        name == "measure"
    ):  # the only name that Windows cannot import, since tests that use the others are collected there
        from pytest_mlpatterns.errors import check_system

        check_system()
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME_OF])
