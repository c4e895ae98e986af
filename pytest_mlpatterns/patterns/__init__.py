"""Serving patterns: what happens to a request, and in how many processes.

A pattern is a frozen value; composed by ``|``, patterns build a tree of what happens where (:mod:`.base`), which an
engine starts. What a pattern does to a request stands beside its value, as a layer around a model (:mod:`.layer`). No
module here opens a socket or starts a process.
"""

from __future__ import annotations

from pytest_mlpatterns.patterns.batched import Batched
from pytest_mlpatterns.patterns.cached import Cached
from pytest_mlpatterns.patterns.ensemble import Ensemble
from pytest_mlpatterns.patterns.pattern import Pattern
from pytest_mlpatterns.patterns.pipeline import Pipeline
from pytest_mlpatterns.patterns.queued import Queued
from pytest_mlpatterns.patterns.replication import Microservice, Replicated, Single

__all__ = [
    "Batched",
    "Cached",
    "Ensemble",
    "Microservice",
    "Pattern",
    "Pipeline",
    "Queued",
    "Replicated",
    "Single",
]
