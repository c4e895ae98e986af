"""``python -m pytest_mlpatterns``: reports, acceptances, a first test, a history, and the commit of a change.

A result file is read without measuring again. An error is reported in one line.
"""

import argparse
import contextlib
import os
import queue
import stat
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from pytest_mlpatterns.cli.accept_command import add_accept_command
from pytest_mlpatterns.cli.bisect_command import add_bisect_command
from pytest_mlpatterns.cli.history_command import add_history_command
from pytest_mlpatterns.cli.new_command import add_new_command
from pytest_mlpatterns.cli.output import (
    Commands,
    add_command,
    discard_output,
    for_people,
    open_streams,
    read_results_file,
    require_other,
    write_document,
    write_file,
)
from pytest_mlpatterns.cli.verdict_command import VERDICT_ERROR, add_verdict_command
from pytest_mlpatterns.errors import BaselineFileError, MlpatternsError, ResultFileError
from pytest_mlpatterns.records.baseline_entry import Baselines
from pytest_mlpatterns.removed import why_removed
from pytest_mlpatterns.reports.files.result_file import Results
from pytest_mlpatterns.system.files import MOST_BYTES
from pytest_mlpatterns.system.owned_files import temporary_directory
from pytest_mlpatterns.wording import count, did_you_mean, named, visible

_FAILED = 2  # Exit code of a command that failed, as of a usage error
_NO_READER = 141  # Exit code if the reader of the output went before the command was done, as of a shell
_PIPE_S = 60.0  # Longest wait for the end of what a pipe holds, in seconds
_OF_PROFILES = ("speedscope", "collapsed")  # Formats of profiles


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit code."""
    open_streams()
    options = _parsed(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _done(options)
    except BrokenPipeError:
        discard_output()
        return _NO_READER
    except (MlpatternsError, OSError) as error:
        return _failure(error, options)
    except MemoryError:
        return _failure(
            "there is too little free memory; free some, or raise the limit of the shell: ulimit -v", options
        )
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # all was done, and the reader has seen enough
        discard_output()
    except OSError as error:
        discard_output()
        return _failure(error, options)
    return code


def _done(options: argparse.Namespace) -> int:
    """Do what the options ask for; the exit code."""
    if "run" in options:
        run: Callable[[argparse.Namespace], int] = options.run
        return run(options)
    require_other("-o", options.output, getattr(options, "results", None))
    make: Callable[[argparse.Namespace], str] = options.make
    text = make(options)
    if options.output is not None:
        write_file(options.output, text)
    elif options.for_people:
        sys.stdout.write(for_people(text, sys.stdout))
    else:
        write_document(text)
    return 0


def _failure(error: object, options: argparse.Namespace) -> int:
    """Say what went wrong, if someone reads that; the exit code."""
    with contextlib.suppress(BrokenPipeError):
        sys.stderr.write(for_people(f"ERROR: {error}\n", sys.stderr))
    return int(getattr(options, "failed", _FAILED))


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """The options; wrong ones end the program, with another exit code if argparse's is a verdict."""
    parser, commands = _parser()
    if not arguments:
        parser.print_help(sys.stderr)
        raise SystemExit(_FAILED)
    names = [one.partition("=")[0] for at, one in enumerate(arguments) if at < 2 or one.startswith("--")]
    for name in (f"history {one}" for one in names[1:]) if names[:1] == ["history"] else names[:1]:
        if gone := why_removed(name):
            parser.error(gone)
    if not (name := arguments[0]).startswith("-") and name not in commands.choices:
        hint = did_you_mean(name, commands.choices)
        parser.error(f"{named(name)} is no command, {hint}expected one of {', '.join(commands.choices)}")
    try:
        return parser.parse_args(arguments)
    except SystemExit as end:
        if end.code and arguments[:1] == ["verdict"]:
            raise SystemExit(VERDICT_ERROR) from None
        raise


def _parser() -> tuple[argparse.ArgumentParser, Commands]:
    parser = argparse.ArgumentParser(
        "python -m pytest_mlpatterns", description="Write a first perf test, or work with a file of --perf-json."
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    add_new_command(commands)
    add_accept_command(commands)
    add_baseline_command(commands)
    add_bisect_command(commands)
    add_verdict_command(commands)
    add_history_command(commands)
    export = _add_command(commands, "export", "write the results in the format of another tool", make=_exported)
    export.add_argument(
        "--format",
        required=True,
        type=_export_format,
        choices=("openmetrics", "otlp-json", "speedscope", "collapsed"),
        help="openmetrics, otlp-json: each metric as a gauge, for Prometheus and OpenTelemetry; "
        "speedscope: profiles for speedscope.app; collapsed: profiles for flamegraph.pl and inferno",
    )
    export.add_argument("--test", metavar="ID", help="speedscope and collapsed: the profile of this test alone")
    export.add_argument(
        "--side",
        choices=("before", "now", "both"),
        help="speedscope and collapsed: side of a comparison (default: both in speedscope, now in collapsed)",
    )
    _add_command(commands, "report", "write the results as a self-contained HTML page", make=_html)
    _add_command(commands, "summary", "write the table in Markdown, for a comment or a wiki", make=_summary)
    ranking = _add_command(commands, "rank", "rank the patterns of each test", make=_ranking)
    ranking.add_argument("weights", metavar="WEIGHTS", help="as in --perf-rank: rtm=0.5,nmrt=0.3,p95<50ms")
    ranking.set_defaults(for_people=True)
    return parser, commands


def _export_format(name: str) -> str:
    """The name of a format; one that left is refused with what to use instead."""
    if why := why_removed(name):
        raise argparse.ArgumentTypeError(why)
    return name


def _add_command(
    commands: Commands, name: str, what: str, *, make: Callable[[argparse.Namespace], str]
) -> argparse.ArgumentParser:
    """Add a command that turns a result file into text."""
    command = add_command(commands, name, what)
    command.add_argument("results", metavar="RESULTS", help="file written by pytest --perf-json")
    command.add_argument("-o", "--output", metavar="PATH", help="file to write (default: standard output)")
    command.set_defaults(make=make, for_people=False)
    return command


def _exported(options: argparse.Namespace) -> str:
    from functools import partial

    from pytest_mlpatterns.reports.files.gauges import openmetrics_text, otlp_json
    from pytest_mlpatterns.reports.files.profiles import collapsed_stacks, speedscope_json

    written: dict[str, Callable[[Results], str]] = {
        "openmetrics": openmetrics_text,
        "otlp-json": otlp_json,
        "speedscope": partial(speedscope_json, test=options.test, side=options.side or "both"),
        "collapsed": partial(collapsed_stacks, test=options.test, side=options.side or "now"),
    }
    if options.format not in _OF_PROFILES and (options.test is not None or options.side is not None):
        raise ResultFileError(f"--test and --side are for --format {' and '.join(_OF_PROFILES)}, not {options.format}")
    results = read_results_file(options.results, are_needed=True)
    try:
        return written[options.format](results)
    except ResultFileError as error:
        raise ResultFileError(f"{options.results} {error}") from error


def _html(options: argparse.Namespace) -> str:
    from pytest_mlpatterns.reports.html.page import HISTORY_PAGE, html_report

    is_beside = options.output is not None and Path(options.output).with_name(HISTORY_PAGE).is_file()
    beside = HISTORY_PAGE if is_beside else ""
    return html_report(read_results_file(options.results), beside, results_file=options.results)


def _summary(options: argparse.Namespace) -> str:
    from pytest_mlpatterns.reports.files.ci_reports import job_summary

    found = read_results_file(options.results)
    return job_summary(found.results, found.failures, {}, run=found.run)


def _ranking(options: argparse.Namespace) -> str:
    import shutil

    from pytest_mlpatterns.analysis.choice.criteria import parse_criteria
    from pytest_mlpatterns.analysis.choice.ranking import Unmeasured, rank
    from pytest_mlpatterns.reports.text.summary_table import ranking_lines

    results = read_results_file(options.results, are_needed=True)
    criteria = parse_criteria(options.weights, "WEIGHTS")
    for result in results.results:
        criteria.check_currency(result.definition.price)
    measured = {result.test for result in results.results}
    failed = [Unmeasured(one.test, one.group, one.pattern) for one in results.unmeasured if one.pattern]
    ranked = [
        Unmeasured(row["test"], ranking["group"], row["pattern"])
        for ranking in results.ranking
        for row in ranking["rows"]
        if row["test"] not in measured
    ]
    rankings = rank(results.results, criteria, [*{one.test: one for one in [*failed, *ranked]}.values()])
    return "\n".join(ranking_lines(rankings, results.results, shutil.get_terminal_size().columns)) + "\n"


def add_baseline_command(commands: Commands) -> None:
    """Add the command to a parser."""
    command = add_command(commands, "baseline", "work with baseline files")
    actions = command.add_subparsers(title="actions", required=True, metavar="ACTION")
    more = " Of an entry that differs between them, the latest is taken."
    merge = add_command(actions, "merge", "write one baseline file of several", more=more)
    merge.add_argument("files", metavar="FILE", nargs="+", help="baseline file")
    merge.add_argument("--base", metavar="FILE", help="what both held before they went apart, as git's %%O")
    merge.add_argument("-o", "--output", metavar="PATH", help="file to write (default: standard output)")
    merge.set_defaults(make=_merge_baselines, for_people=False)


def _merge_baselines(options: argparse.Namespace) -> str:
    """The merged file; standard error has what was chosen."""
    from pytest_mlpatterns.baseline.file import baselines_text, merged

    base = None if options.base is None else _read_part(options.base, is_base=True)
    found, choices = merged([_read_part(file) for file in options.files], base)
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


def _read_part(file: str, *, is_base: bool = False) -> Baselines:
    """The entries of a baseline file, which may be a pipe.

    ``is_base``: it may be empty, as git's common ancestor is where both branches added the file.
    """
    from pytest_mlpatterns.baseline.file import read_baselines

    path = Path(file)
    if not path.exists():
        raise BaselineFileError(f"{file} does not exist; name files that pytest --perf-baseline update wrote")
    mode = path.stat().st_mode
    if stat.S_ISFIFO(mode):
        return _read_pipe(file)
    is_empty = stat.S_ISREG(mode) and path.stat().st_size == 0
    if path.samefile(os.devnull) or (is_empty and is_base):
        return {}
    if is_empty:
        raise BaselineFileError(
            f"{file} is empty, expected a file that pytest --perf-baseline update wrote; only --base may be empty"
        )
    return read_baselines(path, option="")


def _read_pipe(file: str) -> Baselines:
    """The entries that a pipe holds."""
    from pytest_mlpatterns.baseline.file import read_baselines

    found: queue.Queue[bytes | OSError] = queue.Queue()

    def read() -> None:
        try:
            with Path(file).open("rb") as pipe:  # waits for a program that writes
                found.put(pipe.read(MOST_BYTES + 1))
        except OSError as error:
            found.put(error)

    threading.Thread(target=read, name="pipe", daemon=True).start()
    try:
        content = found.get(timeout=_PIPE_S)
    except queue.Empty:
        raise BaselineFileError(
            f"{file} is a pipe that no program has written to its end in {_PIPE_S:.0f} s, expected a baseline file; "
            "see what writes to it"
        ) from None
    if isinstance(content, OSError):
        raise content
    if not content.strip():
        raise BaselineFileError(f"{file} is a pipe that holds nothing, expected a baseline file; see what writes to it")
    with temporary_directory("mlpatterns-merge-") as directory:
        copy = directory / "baseline.json"
        copy.write_bytes(content)
        return read_baselines(copy, name=file, option="")
