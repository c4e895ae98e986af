"""The descriptions of all kinds of layers by name, and the metrics that follow from what layers counted.

A pattern outside this package describes its layer in its attribute ``layer_kind``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.records.layer_description import DerivedMetric, Figure, LayerKind
from pytest_mlpatterns.records.package_layers import PACKAGE_LAYERS
from pytest_mlpatterns.records.telemetry import LayerStats, PatternStats
from pytest_mlpatterns.wording import shown

_NAME = re.compile(r"[a-z][a-z0-9_]*")
LAYER_KINDS: dict[str, LayerKind] = dict(PACKAGE_LAYERS)
"""Every description by the name of its layer. A class of a pattern adds its own when it is defined."""
_UNKNOWN = LayerKind()


def layer_kind(name: str) -> LayerKind:
    """The description of a layer; an empty one for a pattern of the user's own that has none."""
    return LAYER_KINDS.get(name, _UNKNOWN)


def describe_layer_kind(name: str, kind: LayerKind) -> None:
    """Add the description of a layer of a pattern outside this package; a later one of the same name replaces it."""
    if name in PACKAGE_LAYERS:
        raise SettingError(f"a pattern named {shown(name)} has a layer_kind, but the package has one; rename the class")
    if not isinstance(kind, LayerKind):
        raise SettingError(
            f"layer_kind of {name} is {shown(kind)}, expected a LayerKind; write LayerKind(figures=(…,))"
        )
    for figure in kind.figures:
        if figure.name and not (_NAME.fullmatch(figure.name) and figure.name.startswith(f"{name}_")):
            raise SettingError(
                f"layer_kind of {name} has the metric {shown(figure.name)}, expected a name in lower case that begins "
                f"with {name}_; write {shown(f'{name}_wait')}"
            )
    LAYER_KINDS[name] = kind


def package_figures() -> Iterator[Figure]:
    """The metrics of the package's own layers; one that two kinds have comes twice, with other notes."""
    return (figure for kind in PACKAGE_LAYERS.values() for figure in kind.figures if figure.name)


def own_layer_kinds() -> dict[str, LayerKind]:
    """The descriptions of patterns outside this package, by the names of their layers."""
    return {name: kind for name, kind in LAYER_KINDS.items() if name not in PACKAGE_LAYERS}


def own_figures() -> Iterator[Figure]:
    """The metrics of patterns outside this package."""
    return (figure for kind in own_layer_kinds().values() for figure in kind.figures if figure.name)


def derived_metrics(stats: PatternStats | None) -> dict[str, DerivedMetric]:
    """The metrics that follow from the counts, by name; of several layers of one kind the outermost one counts.

    ``cache_hit_ratio`` is the share of inputs answered without a model call of their own, ``batch_size`` the mean over
    the model calls, ``queue_depth`` the mean over time of the waiting requests. ``decode`` and ``encode`` are means,
    the other times medians (means if a server reports only those).
    """
    found: dict[str, DerivedMetric] = {}
    for figure, layer in () if stats is None else _read_from(stats):
        if figure.name and figure.name not in found and (value := figure.read(layer)) is not None:
            found[figure.name] = value
    return found


def _read_from(stats: PatternStats) -> Iterator[tuple[Figure, LayerStats]]:
    for name, kind in LAYER_KINDS.items():
        for layer in stats.layers_named(name):
            yield from ((figure, layer) for figure in kind.figures)
