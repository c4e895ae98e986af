"""The work of a service that can be counted: user-space instructions of its processes per request.

A count is made by a pass of its own, with one caller, in whole rounds of the same inputs
(:mod:`pytest_mlpatterns.measurement.counted_pass`). Counts are compared if their architecture, Python, inputs
and packages are the same; then the machine and what else runs on it change nothing.
"""

import os
from collections.abc import Mapping
from statistics import median

from msgspec import Struct

from pytest_mlpatterns.records.codec import Amount, Record
from pytest_mlpatterns.records.codec import Count as Number
from pytest_mlpatterns.records.launch import Estimate

PLACES = ("libraries", "functions", "calls")  # Fields of a count that name where it was spent


class RunUnder(Struct, frozen=True):
    """How the processes of a deployment are run while they are counted."""

    words: tuple[str, ...] = ()  # the program, with its options, that runs the command of each process; empty for none
    env: Mapping[str, str] = {}  # environment variables that replace the service's
    import_path: str = ""  # directory in front of ``PYTHONPATH``; empty for none

    def environment(self, given: Mapping[str, str]) -> dict[str, str]:
        """The environment of a process that would have this one by itself."""
        found = {**given, **self.env}
        if self.import_path:
            found["PYTHONPATH"] = os.pathsep.join(filter(None, [self.import_path, given.get("PYTHONPATH")]))
        return found


class Count(Record, frozen=True):
    """Instructions per request of one pass, and where they were spent."""

    # instructions per request in each round of the inputs, in the order of the rounds; what the processes did in that
    # time without a request is subtracted
    rounds: tuple[Amount, ...]
    low: Amount  # the 95 % interval of the median round, by order statistics: the whole range if there are few rounds
    high: Amount
    requests: Number  # requests of one round
    seconds: Amount  # time that the pass took, start included
    tool: str = ""  # name and version, such as ``valgrind-3.24.0``; for reports
    architecture: str = ""  # of the processor as a counted program sees it, such as ``x86_64``
    python: str = ""  # of this process, such as ``3.11``
    environment: Mapping[str, str] = {}  # the variables that were fixed
    # instructions per request by the file name of the library, such as ``libpython3.11.so.1.0``, the largest first;
    # empty if not known
    libraries: Mapping[str, Amount] = {}
    # the same by C function, as ``function (library)``; the largest only
    functions: Mapping[str, Amount] = {}
    # calls per request of Python functions, as ``qualified name (file)``, the most frequent first, with those of a
    # library as ``all functions (sklearn)``; empty if not counted, or the processes run no Python
    calls: Mapping[str, Amount] = {}

    @property
    def per_request(self) -> Estimate:
        """Instructions per request: the median round, which a collection of garbage in one of them does not move."""
        return Estimate(median(self.rounds), self.low, self.high)
