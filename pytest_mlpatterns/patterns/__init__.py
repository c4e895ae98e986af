"""Serving patterns: what happens to a request, and in how many processes.

A pattern is a frozen value that says what it needs as a :class:`Topology`; an engine builds that. No module here opens
a socket or starts a process.
"""

from __future__ import annotations

from pytest_mlpatterns.patterns.base import Pattern, Spread, Topology
from pytest_mlpatterns.patterns.replicas import Replicated, Single

__all__ = ["Pattern", "Replicated", "Single", "Spread", "Topology"]
