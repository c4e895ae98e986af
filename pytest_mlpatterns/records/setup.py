"""What was measured, how, and on which machine: the facts that make two results comparable.

A set-up keeps what it describes as values. :meth:`Setup.to_json` prints them for files and :meth:`Setup.from_json` is
the one place that reads them back.

It does not decide whether two results are comparable; it lists what else changed between them. Pure.

The name of a fact is an environment variable, ``package NAME``, or words such as ``BLAS threads``. What is not
known is absent; so is a variable that is not set, and a package that is not loaded. The fact ``packages`` is ``loaded``
if all that are loaded are known, or ``imported`` if all that the project imports are; without it only some are known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

from msgspec import Struct

from pytest_mlpatterns.credentials import address_without_credentials, public_description
from pytest_mlpatterns.records.codec import Record

CLUSTER = "Ray cluster"  # What baseline files and reports call a cluster; fixed by the files that exist
_TIMING = ("duration", "warmup", "timeout", "generators")
_DURING = ", during "  # What stands between a load and the name of the function beside it
_CLOSED = re.compile(r"closed\((\d{1,9})(, think_time=.+)?\)")
_MAY_BE_UNKNOWN = ("headers", *_TIMING)


class SystemKind(StrEnum):
    """Where the service under load comes from."""

    PATTERN = "pattern"
    APP = "app"
    COMMAND = "command"
    URL = "url"


class SystemDescription(Struct, frozen=True):
    """The service under load, as records name it: a pattern that serves a model, or a service of the user's own."""

    text: str  # as it is written, ``cached(max_entries=100)`` or ``http://localhost:8000``
    kind: SystemKind = SystemKind.PATTERN  # where the service comes from

    def __str__(self) -> str:
        return self.text


class LoadDescription(Struct, frozen=True):
    """A load, as records name it."""

    text: str  # as it is written, ``closed(8)``

    def __str__(self) -> str:
        return self.text

    def beside(self, function: str) -> LoadDescription:
        """The same load with a function beside it, by its name; empty for none."""
        return LoadDescription(f"{self.text}{_DURING}{function}") if function else self

    @property
    def in_flight(self) -> int | None:
        """Requests that a closed loop keeps in flight at any time; None for other loads."""
        return int(closed[1]) if (closed := self._closed) else None

    @property
    def paced(self) -> bool:
        """Whether the schedule sets the request rate, whatever rate the service could answer."""
        return (closed := self._closed) is None or closed[2] is not None

    @property
    def changes(self) -> bool:
        """Whether the load changes through the window by itself."""
        return self.text.startswith(("stages(", "trace("))

    @property
    def _closed(self) -> re.Match[str] | None:
        return _CLOSED.fullmatch(self.text.partition(_DURING)[0])


class Setup(Struct, frozen=True):
    """What was measured and how; two results are comparable when these are equal."""

    pattern: SystemDescription  # the service under load
    load: LoadDescription  # what is sent when
    wire: str  # name of the wire format
    payload: str  # digest of the inputs
    model: str = ""  # the model's ``perf_version``; empty if it has none
    # headers of the requests, without credentials. This and the following are empty if unknown, and then equal to
    # everything: entries of older versions do not hold them
    headers: str = ""
    duration: str = ""  # length of the measured window
    warmup: str = ""  # length of the warm-up, or ``auto``
    timeout: str = ""  # of one request
    generators: str = ""  # number of processes that send the load
    cpus: str = ""  # number of cores that the deployment gets; empty for all
    env: str = ""  # environment variables that the pattern sets, without credentials; empty without any
    # what serves the pattern, unless it is the local engine; empty for that, and for a service of the user's own
    engine: str = ""
    # ``shuffled`` if the inputs are sent in a fixed random order; empty for another one. The digest has the laws
    # of random draws
    order: str = ""

    def differences(self, other: Setup, *, timing: bool = True) -> tuple[str, ...]:
        """Name what differs, as ``load: closed(8) → closed(16)``, from ``other`` to this."""
        present, before = self.to_json(), other.to_json()
        if self.env != other.env and _without_env(present["pattern"]) == _without_env(before["pattern"]):
            before["pattern"] = present["pattern"]  # the variables differ, which is named once
        return tuple(
            f"{name}: {before[name] or _absent(name)} → {text or _absent(name)}"
            for name, text in present.items()
            if text != before[name]
            and (timing or name not in _TIMING)
            and (name not in _MAY_BE_UNKNOWN or (text and before[name]))
        )

    def to_json(self) -> dict[str, str]:
        """Every field as text."""
        return {name: str(getattr(self, name)) for name in self.__struct_fields__}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Setup:
        """The inverse of :meth:`to_json`; the members with a default may be absent.

        Raises TypeError: another field is absent, or there is an unknown one.
        """
        texts = {name: str(value) for name, value in data.items()}
        described: dict[str, Any] = {
            name: read(texts[name]) for name, read in (("pattern", _system), ("load", LoadDescription)) if name in texts
        }
        return cls(**{**texts, **described})


class Environment(Struct, frozen=True):
    """The machine and software that gave a result: stable facts only, so that the same machine stays the same."""

    processor: str  # its model
    cores: float  # number of cores, or the CPU quota of the container
    architecture: str  # of the processor
    python: str  # major and minor version
    versions: Mapping[str, str] = {}  # of installed packages
    gpu: str = ""  # names of the GPUs; empty without one

    @property
    def machine(self) -> str:
        """The machine's identity, as it stands in the baseline file."""
        gpu = f", {self.gpu}" if self.gpu else ""
        return f"{self.processor}, {self.cores:g} cores, {self.architecture}, Python {self.python}{gpu}"

    def machine_of(self, cluster: str) -> str:
        """The identity of what gave a result: this machine, or the cluster that took part.

        ``cluster``: node types and counts, ``3 × AMD EPYC 7B13, 16 cores, x86_64``; empty if no cluster took part.
        """
        return f"{CLUSTER} of {cluster}; Python {self.python}" if cluster else self.machine


def _absent(name: str) -> str:
    """What an empty value means."""
    return {"cpus": "all", "engine": "local", "order": "not shuffled"}.get(name, "none")


def _without_env(pattern: str) -> str:
    """The text of a pattern without its environment variables."""
    return re.sub(r",?env=\{[^{}]*\}", "", pattern).replace("()", "")


def _system(text: str) -> SystemDescription:
    """The service that a file names."""
    prefixes = {"http://": SystemKind.URL, "https://": SystemKind.URL, "App(": SystemKind.APP}
    prefixes["Command("] = SystemKind.COMMAND
    kind = next((kind for prefix, kind in prefixes.items() if text.startswith(prefix)), SystemKind.PATTERN)
    if kind is SystemKind.COMMAND:  # earlier versions wrote credentials
        text = public_description(text)
    return SystemDescription(address_without_credentials(text) if kind is SystemKind.URL else text, kind)


EnvironmentFacts = Mapping[str, str]  # What is known of an environment, by its name
PACKAGE = "package "  # Begins the name of a fact that is the version of a package
PACKAGES = "packages"  # The fact that names which packages are known
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*_[A-Z0-9_]+|PYTHON[A-Z]+")
_VERSION = re.compile(r"(\d+(?:\.\d+)?)[.\d]*(\+.*)?")  # Its major and minor version, and its build
_ORDER = (
    _VARIABLE,
    re.compile(".* threads"),
    re.compile("CPU quota|allowed cores|memory limit"),
    re.compile("BLAS.*|OpenMP.*"),
    re.compile("Python.*|GIL|program"),
    re.compile(f"{PACKAGE}.*"),
)
"""What most probably explains a change of speed comes first; the rest, the system, comes last."""


CODE_VARIABLES = (
    "LD_PRELOAD|GLIBC_TUNABLES|OPENBLAS_CORETYPE|NPY_(EN|DIS)ABLE_CPU_FEATURES|ONEDNN_MAX_CPU_ISA|ATEN_CPU_CAPABILITY"
)
"""Pattern of the environment variables by which libraries other than MKL choose their code."""
_OF_WORK = re.compile(
    f"Python.*|PYTHON(?!HASHSEED)[A-Z_]+|GIL|program|libc|{PACKAGE}.*|{CODE_VARIABLES}|MKL_(CBWR|ENABLE_INSTRUCTIONS)"
)


class FactChange(Record, frozen=True):
    """A fact that differs between two environments."""

    name: str  # of the fact
    # its value in the earlier environment; None if the variable was not set, or the package not loaded
    before: str | None
    now: str | None  # its value now; None as before

    @property
    def label(self) -> str:
        """The name in reports."""
        return self.name.removeprefix(PACKAGE)

    @property
    def may_be_intended(self) -> bool:
        """Whether a person sets it: packages, the interpreter, variables and limits; not the system."""
        return _place(self.name) < len(_ORDER)

    @property
    def may_change_work(self) -> bool:
        """Whether it may change the instructions that a request needs: software, and variables that choose its code."""
        return _OF_WORK.fullmatch(self.name) is not None

    @property
    def is_small(self) -> bool:
        """Whether it is a package of the same major and minor version, and of the same build."""
        before, now = (_VERSION.fullmatch(value or "") for value in (self.before, self.now))
        known = before is not None and now is not None and before.groups() == now.groups()
        return known and self.name.startswith(PACKAGE)

    @property
    def values(self) -> tuple[str, str]:
        """Before and now, in words if one of them is absent."""
        absent = "not loaded" if self.name.startswith(PACKAGE) else "unset"
        return self.before or absent, self.now or absent

    def __str__(self) -> str:
        return f"{self.label} {' → '.join(self.values)}"


def differing_facts(
    before: EnvironmentFacts, now: EnvironmentFacts, *, same_program: bool = True
) -> tuple[FactChange, ...] | None:
    """What differs between two environments, what most probably explains a change of speed first.

    A variable that one side lacks differs, and so does a package if both sides know the same packages: an entry of an
    older version knows fewer. Of anything else, a side that lacks it does not know it.

    Returns the changes; None if one of the environments is not known.
    """
    if not before or not now:
        return None
    have_packages = all(any(name.startswith(PACKAGE) for name in facts) for facts in (before, now))
    both_list = same_program and have_packages and before.get(PACKAGES) == now.get(PACKAGES)
    changes = [
        FactChange(name, before.get(name), now.get(name))
        for name in {**before, **now}
        if before.get(name) != now.get(name)
        and name != PACKAGES
        and ((name in before and name in now) or _VARIABLE.fullmatch(name) or (both_list and name.startswith(PACKAGE)))
    ]
    return tuple(sorted(changes, key=lambda change: (_place(change.name), change.name)))


def merged_facts(parts: Iterable[EnvironmentFacts]) -> EnvironmentFacts:
    """The environment of several processes; values that differ between them stand side by side."""
    found: dict[str, dict[str, None]] = {}
    for part in parts:
        for name, value in part.items():
            found.setdefault(name, {})[value] = None
    return {name: ", ".join(values) for name, values in found.items()}


def folded(facts: EnvironmentFacts) -> EnvironmentFacts:
    """The facts with all packages in one of them, so that a file has one line for what may be a hundred."""
    if not (which := facts.get(PACKAGES)):
        return facts
    names = sorted(name for name in facts if name.startswith(PACKAGE))
    packages = "; ".join(f"{name.removeprefix(PACKAGE)} {facts[name]}" for name in names)
    others = {name: value for name, value in facts.items() if name != PACKAGES and name not in names}
    return {**others, f"{PACKAGES} {which}": packages}


def unfolded(facts: EnvironmentFacts) -> EnvironmentFacts:
    """The inverse of :func:`folded`."""
    found = dict(facts)
    for name in [name for name in facts if name.startswith(f"{PACKAGES} ")]:
        pairs = (one.partition(" ") for one in found.pop(name).split("; "))
        found |= {PACKAGE + one: version for one, _, version in pairs if one}
        found[PACKAGES] = name.partition(" ")[2]
    return found


def _place(name: str) -> int:
    """Where a fact stands in the list of changes."""
    return next((place for place, names in enumerate(_ORDER) if names.fullmatch(name)), len(_ORDER))
