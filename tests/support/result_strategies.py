"""Hypothesis strategies for results of perf tests."""

from hypothesis import strategies as st

from pytest_mlpatterns.records.capacity import (
    Behaviour,
    LatencyMoment,
    Overload,
    OverloadStep,
    ScaleOutRecord,
    ScalingRecord,
    ScalingStepRecord,
    StepImpact,
)
from pytest_mlpatterns.records.latency import (
    PARTS,
    Latency,
    LatencyHistogram,
    LatencySplit,
    RequestCounts,
    SplitPart,
    StreamedRequest,
    StreamRecord,
)
from pytest_mlpatterns.records.launch import (
    Capacity,
    Estimate,
    GeneratorPart,
    LaunchValue,
    NodeFigures,
    Noise,
    SearchEnd,
    Step,
    Taken,
    Warmup,
)
from pytest_mlpatterns.records.objective import QUANTITIES, Bound, Objective
from pytest_mlpatterns.records.outcomes import FirstFailure
from pytest_mlpatterns.records.price import Price
from pytest_mlpatterns.records.profile import (
    Frame,
    FunctionChange,
    FunctionTime,
    NativeChange,
    ProfileNode,
    ProfileRecord,
)
from pytest_mlpatterns.records.result_parts import BaselineGap, Beside, Location, Reference, Terms
from pytest_mlpatterns.records.samples import GrowthRecord, HeldRecord, MemorySite
from pytest_mlpatterns.records.setup import FactChange
from pytest_mlpatterns.records.telemetry import LayerStats
from pytest_mlpatterns.records.verdict import Gate, Kind, LeftOut, OpenBy, Outcome, Unjudged, Verdict, WhyOpen
from support.synthetic import changed, make_setup, result

FINITE = st.floats(-1e18, 1e18)
NAMES = st.text(min_size=1, max_size=12)  # without halves of surrogate pairs
PRICES = st.builds(Price, st.floats(1e-6, 1e9), st.floats(0, 1e9), st.sampled_from(["USD", "EUR"]))
ESTIMATES = st.builds(Estimate, FINITE, FINITE, FINITE)
STEPS = st.builds(
    Step,
    concurrency=st.integers(1, 4096),
    rates_rps=st.lists(FINITE, max_size=3).map(tuple),
    median_ns=st.none() | FINITE,
    error_ratio=FINITE,
    limited=st.none() | NAMES,
    asl_ratio=st.none() | FINITE,
    peak_rss_bytes=st.none() | st.integers(0, 10**18),
)
BOUNDS = st.builds(
    Bound, st.sampled_from((50.0, 90.0, 99.9, 99.999)), st.integers(1, 10**12), st.sampled_from(QUANTITIES)
)
OBJECTIVES = st.builds(
    Objective, st.lists(BOUNDS, min_size=1, max_size=3, unique_by=lambda one: str(one).partition("<")[0]).map(tuple)
)
CAPACITIES = st.builds(
    Capacity,
    nmrt=st.builds(LaunchValue, FINITE, FINITE),
    concurrency=st.integers(1, 4096),
    ladder=st.lists(STEPS, max_size=3).map(tuple),
    stopped=NAMES,
    at_least=st.booleans(),
    objective=st.none() | OBJECTIVES,
    asl=st.none() | st.builds(LaunchValue, FINITE, FINITE),
    peak_rss_bytes=st.none() | st.integers(0, 10**18),
    cores=st.none() | FINITE,
    limited=st.booleans(),
    end=st.sampled_from(SearchEnd),
)
COUNTS = st.integers(0, 10**18)
TIMES = st.integers(0, 2**53).map(float)
"""Whole nanoseconds, as a number with a point holds them exactly."""
OVERLOAD_STEPS = st.builds(
    OverloadStep,
    load_ratio=FINITE,
    offered_rps=FINITE,
    requests=COUNTS,
    goodput_rps=FINITE,
    goodput_error_rps=FINITE,
    in_time_ratio=FINITE,
    late_ratio=FINITE,
    rejected_ratio=FINITE,
    timed_out_ratio=FINITE,
    failed_ratio=FINITE,
    failed_outcome=st.none() | st.integers(-8, 1016),
    p99_ns=st.none() | FINITE,
    limited=st.none() | NAMES,
    busy=st.none() | NAMES,
)
OVERLOADS = st.builds(
    Overload,
    nmrt_rps=FINITE,
    limit_ns=FINITE,
    steps=st.lists(OVERLOAD_STEPS, min_size=1, max_size=3).map(tuple),
    back=OVERLOAD_STEPS,
    recovery_ns=st.none() | FINITE,
    watched_ns=FINITE,
    behaviour=st.sampled_from(Behaviour),
    cut=st.text(max_size=12),
)
STEP_IMPACTS = st.builds(
    StepImpact,
    name=NAMES,
    launch=st.integers(1, 9),
    begin_ns=COUNTS,
    end_ns=COUNTS,
    requests=COUNTS,
    hurt=COUNTS,
    failed=COUNTS,
    limit_ns=st.none() | COUNTS.map(float),
    before_requests=COUNTS,
    before_ns=st.none() | FINITE,
    around_ns=st.none() | FINITE,
    worst_ns=st.none() | FINITE,
    recovery_ns=st.none() | FINITE,
    watched_ns=FINITE,
)
MOMENTS = st.builds(LatencyMoment, FINITE, st.none() | FINITE, st.none() | FINITE, COUNTS)
PERCENTILES = st.lists(st.tuples(FINITE, FINITE), max_size=3).map(tuple)
LATENCIES = st.builds(
    Latency,
    PERCENTILES,
    st.builds(LatencyHistogram, st.lists(FINITE, max_size=3).map(tuple), st.lists(COUNTS, max_size=2).map(tuple)),
    FINITE,
    FINITE,
)
RATIOS = st.dictionaries(NAMES, st.lists(st.tuples(FINITE, FINITE), max_size=3).map(tuple), max_size=2)
FIGURES = st.dictionaries(NAMES, st.tuples(FINITE, FINITE, FINITE), max_size=3)
SPLITS = st.dictionaries(
    st.sampled_from(["rtm", "ttft", "tpot"]),
    st.builds(
        LatencySplit,
        metric=st.sampled_from(["rtm", "ttft", "tpot"]),
        mean_ns=FINITE,
        median_ns=FINITE,
        requests=COUNTS,
        parts=st.lists(
            st.builds(SplitPart, st.sampled_from(sorted(PARTS)), NAMES, FINITE, FINITE, FINITE), max_size=2
        ).map(tuple),
        calls=st.dictionaries(NAMES, FINITE, max_size=1),
    ),
    max_size=1,
)
COUNTERPARTS = st.builds(
    Reference,
    st.sampled_from(["baseline", "revision"]),
    NAMES,
    FIGURES,
    PERCENTILES,
    st.builds(Beside, FIGURES, PERCENTILES, st.dictionaries(st.sampled_from(["ttft", "itl"]), PERCENTILES), SPLITS),
    RATIOS,
    stream_percentiles=st.dictionaries(st.sampled_from(["ttft", "itl"]), PERCENTILES),
    split=SPLITS,
)
STREAMED_REQUESTS = st.builds(
    StreamedRequest,
    due_ns=COUNTS,
    first_byte_ns=st.none() | COUNTS,
    chunks_ns=st.lists(COUNTS, max_size=3).map(tuple),
    end_ns=COUNTS,
    chunks=COUNTS,
    output_tokens=COUNTS,
    outcome=st.integers(-9, 599),
)
STREAMS = st.builds(
    StreamRecord,
    ttft=st.none() | LATENCIES,
    itl=st.none() | LATENCIES,
    tpot=st.none() | LATENCIES,
    tokens_over_time=st.lists(st.tuples(FINITE, FINITE), max_size=3).map(tuple),
    requests=st.lists(STREAMED_REQUESTS, max_size=2).map(tuple),
    input_tokens=st.none() | st.tuples(FINITE, FINITE, FINITE),
    output_tokens=st.none() | st.tuples(FINITE, FINITE, FINITE),
)
GROWTHS = st.builds(
    GrowthRecord,
    st.lists(COUNTS, max_size=3).map(tuple),
    st.lists(COUNTS, max_size=3).map(tuple),
    st.none() | st.tuples(FINITE, FINITE, FINITE),
    st.booleans(),
)
ANY_LAYER = st.builds(
    LayerStats,
    position=st.integers(0, 63),
    layer=NAMES,
    counters=st.dictionaries(NAMES, COUNTS, max_size=3),
    histograms=st.dictionaries(NAMES, st.dictionaries(COUNTS, COUNTS, max_size=3), max_size=2),
    series=st.dictionaries(NAMES, st.lists(st.tuples(COUNTS, COUNTS), max_size=3).map(tuple), max_size=2),
)
SCALE_OUTS = st.builds(
    ScaleOutRecord,
    duration=st.none() | st.tuples(FINITE, FINITE, FINITE),
    passes_ns=st.lists(st.none() | COUNTS, max_size=3).map(tuple),
    ready_ns=st.none() | FINITE,
    p99_before_ns=st.none() | FINITE,
    p99_ns=st.none() | FINITE,
    requests=COUNTS,
    failed=COUNTS,
    unknown=NAMES,
)
SCALINGS = st.builds(
    ScalingRecord,
    st.lists(st.builds(ScalingStepRecord, COUNTS, FINITE, FIGURES, st.none() | FINITE, NAMES), max_size=3).map(tuple),
    FIGURES,
    st.none() | FINITE,
    NAMES,
    st.none() | SCALE_OUTS,
)
FUNCTION_CHANGES = st.builds(
    FunctionChange,
    st.lists(st.integers(0, 1), min_size=1, max_size=2).map(tuple),
    FINITE,
    FINITE,
    ESTIMATES,
    FINITE,
    st.sampled_from(["slower", "new"]),
    COUNTS,
    NAMES,
)
PROFILES = st.builds(ProfileRecord, note=NAMES) | st.builds(
    ProfileRecord,
    notes=st.lists(NAMES, max_size=2).map(tuple),
    profiler=NAMES,
    rate_hz=FINITE,
    slowdown=st.none() | st.tuples(FINITE, FINITE, FINITE),
    blocks=COUNTS,
    samples=COUNTS,
    lost=COUNTS,
    compared=st.booleans(),
    frames=st.just((Frame("worker", owner="process"), Frame("predict", "model.py", 3))),
    nodes=st.builds(lambda own, now: (ProfileNode(-1, 0, own, now), ProfileNode(0, 1, 0, now)), TIMES, TIMES),
    changes=st.lists(FUNCTION_CHANGES, max_size=2).map(tuple),
    largest=st.none() | FUNCTION_CHANGES,
    functions=st.lists(
        st.builds(FunctionTime, st.just(1), FINITE, FINITE, FINITE, FINITE, st.none() | ESTIMATES), max_size=2
    ).map(tuple),
    native=st.none() | st.builds(NativeChange, COUNTS, COUNTS, FINITE, FINITE, st.lists(NAMES, max_size=2).map(tuple)),
)
RESULTS = st.builds(
    changed,
    st.just(result()),
    test=NAMES,
    passed=st.booleans(),
    setup=st.builds(make_setup, NAMES, NAMES, NAMES, NAMES),
    metrics=FIGURES,
    launches=st.dictionaries(NAMES, st.lists(st.tuples(FINITE, FINITE), max_size=3).map(tuple), max_size=3),
    verdicts=st.lists(
        st.builds(
            Verdict,
            NAMES,
            st.sampled_from(["limit", "baseline"]),
            st.sampled_from(Outcome),
            NAMES,
            st.none() | ESTIMATES,
            why_open=st.none() | st.builds(WhyOpen, st.sampled_from(OpenBy), NAMES),
        ),
        max_size=3,
    ).map(tuple),
    requests=st.integers(0, 10**9),
    failed_requests=st.dictionaries(st.integers(-4, 599).map(str), st.integers(0, 10**9), max_size=3),
    blocks=st.integers(0, 1000),
    launch_count=st.integers(0, 100),
    seconds_spent=FINITE,
    baseline_note=st.text(max_size=12),
    baseline_gap=st.none() | st.sampled_from(BaselineGap),
    notes=st.lists(NAMES, max_size=3).map(tuple),
    load_over_time=st.lists(st.tuples(FINITE, FINITE, FINITE), max_size=3).map(tuple),
    overloads=st.lists(OVERLOADS, max_size=1).map(tuple),
    steps=st.lists(STEP_IMPACTS, max_size=2).map(tuple),
    latency_over_time=st.lists(MOMENTS, max_size=3).map(tuple),
    capacities=st.lists(CAPACITIES, max_size=2).map(tuple),
    layers=st.lists(ANY_LAYER, max_size=2).map(tuple),
    generator=st.dictionaries(NAMES, st.none() | st.booleans() | FINITE, max_size=3),
    interrupted=st.booleans(),
    latency=st.none() | LATENCIES,
    reference=st.none() | COUNTERPARTS,
    memory_over_time=st.lists(st.tuples(FINITE, FINITE), max_size=3).map(tuple),
    warmups=st.lists(st.builds(Warmup, COUNTS, COUNTS, st.none() | st.booleans()), max_size=2).map(tuple),
    noise=st.lists(st.builds(Noise.read, NAMES), max_size=2).map(tuple),
    unsteady=st.lists(NAMES, max_size=2).map(tuple),
    first_failure=st.builds(FirstFailure.read, NAMES),
    price=st.none() | PRICES,
    terms=st.none()
    | st.builds(
        Terms, st.integers(0, 10**12), st.integers(0, 100), st.dictionaries(NAMES, st.floats(0, 100), max_size=3)
    ),
    not_compared=st.dictionaries(NAMES, NAMES, max_size=2).map(
        lambda read: {label: LeftOut.read(label, why) for label, why in read.items()}
    ),
    counts=st.lists(
        st.builds(RequestCounts, COUNTS, COUNTS, st.dictionaries(COUNTS, COUNTS, max_size=3)), max_size=2
    ).map(tuple),
    replica_share=st.lists(st.tuples(FINITE, FINITE, FINITE), max_size=3).map(tuple),
    group=NAMES,
    scaling=st.none() | SCALINGS,
    missing_indices=st.dictionaries(NAMES, NAMES, max_size=2),
    stream=st.none() | STREAMS,
    cluster=st.text(max_size=12),
    nodes=st.lists(st.builds(NodeFigures, NAMES, FINITE, COUNTS, FINITE, COUNTS, FINITE), max_size=3).map(tuple),
    generator_parts=st.lists(
        st.builds(GeneratorPart, NAMES, COUNTS, FINITE, st.none() | st.floats(0, 1e18), COUNTS, COUNTS), max_size=2
    ).map(tuple),
    growth=st.none() | GROWTHS,
    profile=st.none() | PROFILES,
    held=st.none()
    | st.builds(
        HeldRecord,
        NAMES,
        st.booleans(),
        FINITE,
        FINITE,
        st.lists(st.builds(MemorySite, NAMES, NAMES, COUNTS, NAMES, FINITE, FINITE), max_size=2).map(tuple),
    ),
    facts=st.dictionaries(NAMES, NAMES, max_size=2),
    split=SPLITS,
    sorting_ns=st.lists(st.floats(0, 1e9), max_size=3).map(tuple),
    taken=st.builds(Taken, st.floats(0, 64), st.floats(0, 1), st.floats(0, 1)),
    facts_changed=st.none() | st.lists(st.builds(FactChange, NAMES, st.none() | NAMES, NAMES), max_size=2).map(tuple),
    unjudged=st.none() | st.builds(Unjudged, st.sampled_from(Kind), NAMES),
    gate=st.sampled_from(Gate),
    location=st.none() | st.builds(Location, NAMES, st.integers(1, 10**6)),
)
