"""A mix of callers: classes that load a service at the same time, each with a schedule of its own.

Each class has requests of its own, so the class of a request follows from its index. This module sends nothing, and
must not import numpy: the load generator's process imports it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.records.setup import LoadDescription, LoadKind
from pytest_mlpatterns.units import format_duration
from pytest_mlpatterns.wording import shown
from pytest_mlpatterns.workload.schedule import Bulk, ClosedLoop, Schedule, Stages

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CallerClass", "Load", "Mix", "MixedSchedule", "most_callers"]

_MOST_CLASSES = 16
"""Most classes of a mix: each has a line in every report."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")
"""Name of a class: short, and without what stands around it in names of metrics."""
_EXAMPLE = '{"gold": PoissonRate(20), "bulk": (ClosedLoop(4), inputs)}'


@dataclass(frozen=True, slots=True, eq=False)
class CallerClass:
    """One class of callers.

    Attributes:
        name: of the class.
        schedule: when its requests are due.
        inputs: its own inputs as in ``perf_payload``; None for those of the test.
        request: makes the request for one of its inputs; None for that of the test.
    """

    name: str
    schedule: Schedule
    inputs: Any = None
    request: Callable[[Any], object] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Mix:
    """Classes of callers that load the service at the same time, with metrics, limits and comparisons of each class.

    If one of the schedules has a length, as :class:`Stages` have, that is the length of the mix; the others are sent
    as long as it.

    Args:
        callers: for each class its schedule, or a tuple of its schedule, its own inputs, and its own function as
            ``request=``; None in the place of inputs or function means those of the test. From 2 to 16 classes.

    Raises:
        SettingError: not such classes, or schedules whose lengths differ.
    """

    callers: Mapping[str, Any]
    classes: tuple[CallerClass, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        given = self.callers
        if not isinstance(given, Mapping) or not 2 <= len(given) <= _MOST_CLASSES:
            raise SettingError(
                f"Mix({shown(given)}), expected from 2 to {_MOST_CLASSES} classes of callers by their names; write "
                f"Mix({_EXAMPLE})"
            )
        object.__setattr__(self, "callers", dict(given))
        object.__setattr__(self, "classes", tuple(_class_of(name, one) for name, one in given.items()))
        lengths = {one.schedule.length_ns for one in self.classes} - {None}
        if len(lengths) > 1:
            named = ", ".join(
                f"{one.name} {format_duration(one.schedule.length_ns)}"
                for one in self.classes
                if one.schedule.length_ns is not None
            )
            raise SettingError(
                f"{self} has classes of different lengths ({named}), expected one length; make them equal"
            )

    def __str__(self) -> str:
        return f"mix({', '.join(f'{one.name}: {one.schedule}' for one in self.classes)})"

    def describe(self) -> LoadDescription:
        """The load as records keep it."""
        parts = {one.name: one.schedule.describe() for one in self.classes}
        paced = any(part.paced for part in parts.values())
        return LoadDescription(str(self), LoadKind.MIX, paced=paced, parts=parts)

    def bare(self) -> Mix:
        """The same classes without inputs and functions, which the generator processes do not need."""
        return Mix({one.name: one.schedule for one in self.classes})

    @property
    def closed(self) -> bool:
        """Whether every class is a closed loop."""
        return all(one.schedule.closed for one in self.classes)

    @property
    def length_ns(self) -> int | None:
        """Length of the schedules that have one; None if none has."""
        return next((one.schedule.length_ns for one in self.classes if one.schedule.length_ns is not None), None)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return tuple(one.name for one in self.classes)


def _class_of(name: object, given: object) -> CallerClass:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise SettingError(
            f"Mix({{{shown(name)}: ...}}), expected a name of at most 32 letters, digits, dashes and underscores that "
            'begins with a letter; write "gold"'
        )
    schedule, inputs, request = (*given, None, None)[:3] if isinstance(given, tuple) and given else (given, None, None)
    if isinstance(schedule, Bulk):
        raise SettingError(
            f"Mix: class {name} is {schedule}, which ends with its last input, while the others go on; write "
            f"ClosedLoop({schedule.concurrency})"
        )
    if not isinstance(schedule, Schedule) or (isinstance(given, tuple) and len(given) > 3):
        kinds = ", ".join(kind.__name__ for kind in get_args(Schedule))
        raise SettingError(
            f"Mix: class {name} is {shown(given)}, expected a schedule ({kinds}), or a tuple of a schedule, inputs and "
            f"a function; write Mix({_EXAMPLE})"
        )
    if request is not None and not callable(request):
        raise SettingError(
            f"Mix: class {name} has {shown(request)} as its third member, expected a function that makes a request; "
            'write lambda text: {"json": {"text": text}}'
        )
    return CallerClass(name, schedule, inputs, request)


MixedSchedule = Schedule | Mix
"""What the load generator sends by."""
Load = Schedule | Bulk | Mix
"""Any load of a test."""


def most_callers(schedule: MixedSchedule) -> int:
    """Most callers of closed loops at any time; 0 of an open loop."""
    if isinstance(schedule, Mix):
        return sum(most_callers(one.schedule) for one in schedule.classes)
    return schedule.max_concurrency if isinstance(schedule, ClosedLoop | Stages) and schedule.closed else 0
