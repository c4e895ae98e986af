"""The blocks of the documentation that need Ray, and the example project, as a user runs them on a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.pages import ROOT, blocks
from support.project import Project

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.project import Run

GUIDE = "docs/how-to/ray.md"
EXAMPLE = ROOT / "examples" / "ray"
SHORT = ("--perf-duration=200ms", "--perf-budget=1s", "--perf-inconclusive=pass")


def test_blocks_that_need_ray_and_the_example_pass_on_a_cluster(run_on: Callable[..., Run]) -> None:
    needed = [block for block in blocks("python") if block.needs_ray]
    shown = [block for block in blocks("python") if block.page == GUIDE]
    example = {file.name: file.read_text(encoding="utf-8") for file in EXAMPLE.glob("*.py")}
    project = Project({name: text.replace('"1s"', '"60s"') for name, text in example.items()})  # this machine is busy
    for block in shown:
        assert block.name is not None
        project = project.with_file(block.name, block.text)
    run = run_on(project, *SHORT, "-v", "-k", "on_ray or generators")
    assert set(needed) <= set(shown)
    assert run.exit_code == 0, run.out + run.err
    assert run.outcomes["passed"] == 2
