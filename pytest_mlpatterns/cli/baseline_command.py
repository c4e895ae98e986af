"""``python -m pytest_mlpatterns baseline merge``: one baseline file of several."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_mlpatterns.errors import BaselineFileError
from pytest_mlpatterns.wording import count, visible

if TYPE_CHECKING:
    import argparse

    from pytest_mlpatterns.records.baseline_entry import Baselines

__all__ = ["add_baseline_command"]


def add_baseline_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to a parser.

    Args:
        commands: of the parser.
    """
    what = "work with baseline files"
    command = commands.add_parser("baseline", help=what, description=f"{what[0].upper()}{what[1:]}.")
    actions = command.add_subparsers(title="actions", required=True, metavar="ACTION")
    what = "write one baseline file of several"
    merge = actions.add_parser(
        "merge",
        help=what,
        description=f"{what[0].upper()}{what[1:]}. Of an entry that differs between them, the latest is taken.",
    )
    merge.add_argument("files", metavar="FILE", nargs="+", help="baseline file")
    merge.add_argument("--base", metavar="FILE", help="what both held before they went apart, as git's %%O")
    merge.add_argument("-o", "--output", metavar="PATH", help="file to write (default: standard output)")
    merge.set_defaults(make=_merge, for_people=False)


def _merge(options: argparse.Namespace) -> str:
    """The merged file; standard error has what was chosen."""
    from pytest_mlpatterns.baseline.file import baselines_text
    from pytest_mlpatterns.baseline.merge import merged

    base = None if options.base is None else _read(options.base)
    found, choices = merged([_read(file) for file in options.files], base)
    lines = [
        f"{one.test} on {one.machine}: the entry of {options.files[one.file]}, of {one.date}, which is the latest"
        for one in choices
    ]
    total = sum(map(len, found.values()))
    lines.append(
        f"{count(total, 'entry', 'entries')} of {count(len(found), 'test')} from {count(len(options.files), 'file')}"
    )
    sys.stderr.write("".join(f"{visible(line)}\n" for line in lines))
    return baselines_text(found)


def _read(file: str) -> Baselines:
    from pytest_mlpatterns.baseline.file import read_baselines

    path = Path(file)
    if not path.exists():
        raise BaselineFileError(f"{file} does not exist; name files that pytest --perf-baseline update wrote")
    if path.stat().st_size == 0:  # git's common ancestor where both branches added the file
        return {}
    return read_baselines(path)
