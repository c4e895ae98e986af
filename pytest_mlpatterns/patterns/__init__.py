"""Serving patterns: what happens to a request, and in how many processes.

A pattern is a frozen value. Patterns composed by ``|`` build a process tree (:mod:`.pattern`), which an engine starts.
A pattern also makes its layer (:mod:`.layer`): what it does to a request in a process. No module here opens a socket or
starts a process. A new pattern is one module and its name in ``__all__`` here, which also makes it public.
"""

from pytest_mlpatterns.patterns.batched import Batched
from pytest_mlpatterns.patterns.cached import Cached
from pytest_mlpatterns.patterns.cascade import Cascade
from pytest_mlpatterns.patterns.continuous import Continuous
from pytest_mlpatterns.patterns.ensemble import Ensemble
from pytest_mlpatterns.patterns.limited import Limited
from pytest_mlpatterns.patterns.pattern import Pattern
from pytest_mlpatterns.patterns.pipeline import Pipeline
from pytest_mlpatterns.patterns.queued import Queued
from pytest_mlpatterns.patterns.replication import Microservice, Replicated, Single

__all__ = [
    "Batched",
    "Cached",
    "Cascade",
    "Continuous",
    "Ensemble",
    "Limited",
    "Microservice",
    "Pattern",
    "Pipeline",
    "Queued",
    "Replicated",
    "Single",
]
