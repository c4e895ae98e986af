"""The public names and their modules, for type checkers; ``__init__.py`` reads here what it loads when it is used."""

# ruff: noqa: F403, I001 - ``A as A``, which it would put on lines of their own, says that we give the name to others;
# the package of patterns lists its own
from pytest_mlpatterns.errors import (
    BaselineFileError as BaselineFileError,
    ChildError as ChildError,
    CountError as CountError,
    DeploymentError as DeploymentError,
    HistoryError as HistoryError,
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
from pytest_mlpatterns.records.layer_description import (
    Figure as Figure,
    LayerKind as LayerKind,
    LevelChart as LevelChart,
    PartsChart as PartsChart,
    SizesChart as SizesChart,
)
from pytest_mlpatterns.records.telemetry import LayerStats as LayerStats, PatternStats as PatternStats
from pytest_mlpatterns.units import Unit as Unit
from pytest_mlpatterns.workload.figures import (
    Computed as Computed,
    FigureAnswer as FigureAnswer,
    Header as Header,
    Json as Json,
)
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
from pytest_mlpatterns.patterns import *
from pytest_mlpatterns.patterns.layer import Handler as Handler, RequestError as RequestError, Resources as Resources
from pytest_mlpatterns.patterns.tally import Tally as Tally
from pytest_mlpatterns.judging.measuring import measure as measure
from pytest_mlpatterns.judging.perf import Perf as Perf
from pytest_mlpatterns.measurement.during import During as During, ServiceProcess as ServiceProcess
from pytest_mlpatterns.records.launch import Estimate as Estimate
from pytest_mlpatterns.records.capacity import Overload as Overload
from pytest_mlpatterns.records.verdict import Outcome as Outcome
from pytest_mlpatterns.serving.deployment import Deployment as Deployment
from pytest_mlpatterns.serving.targets import App as App, Command as Command, Url as Url
from pytest_mlpatterns.wire import Wire as Wire
from pytest_mlpatterns.wire.stream_lines import JsonLines as JsonLines

__version__: str
