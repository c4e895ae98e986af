"""What the commands write: text for people, documents in UTF-8, and files that are not those that are read.

A command does not fail if its output is closed or its reader ends early. It writes a document in UTF-8, also if the
terminal has another encoding. This module must not know the content of a text.
"""

import argparse
import contextlib
import io
import os
import sys
from pathlib import Path
from typing import TextIO, TypeAlias

from pytest_mlpatterns.errors import ResultFileError, SettingError
from pytest_mlpatterns.reports.files.result_file import Results
from pytest_mlpatterns.system.files import read_text, replace_file
from pytest_mlpatterns.wording import named, shown, visible

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # not generic when it runs


def add_command(commands: Commands, name: str, what: str, *, more: str = "") -> argparse.ArgumentParser:
    """Add a command; ``what`` it does is its help, and with ``more`` its description."""
    return commands.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.{more}")


def read_results_file(file: str, *, are_needed: bool = False) -> Results:
    """The results that a command is about. ``are_needed``: a run that was not completed must have some."""
    from pytest_mlpatterns.reports.files.result_file import read_results

    try:
        found = read_results(read_text(Path(file)))
        if are_needed and not (found.results or found.unmeasured or found.run.complete):
            raise ResultFileError("has no results, because the run was not completed; measure again with --perf-json")
        return found
    except ResultFileError as error:
        raise ResultFileError(f"{file} {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ResultFileError(f"{file} cannot be read: {reason}; name a file that pytest --perf-json wrote") from error


def open_streams() -> None:
    """Make both streams fit to write to: a closed one takes everything, and a character it lacks is spelled."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"))
        elif isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def discard_output() -> None:
    """Let what is left for standard output go nowhere, so that the end of the interpreter reports nothing."""
    with contextlib.suppress(OSError, ValueError):
        target = sys.stdout.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, target)
        os.close(nowhere)


def for_people(text: str, stream: TextIO) -> str:
    """The text with hidden characters spelled, in characters that the stream can encode."""
    from pytest_mlpatterns.reports.text.terminal_text import in_ascii

    text = visible(text)
    try:
        text.encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return in_ascii(text)
    return text


def write_document(text: str) -> None:
    """Write a document to standard output, in UTF-8 as in a file."""
    binary = getattr(sys.stdout, "buffer", None)
    if binary is None:
        sys.stdout.write(text)
        return
    sys.stdout.flush()
    binary.write(text.encode("utf-8", "replace"))


def write_file(file: str, text: str) -> None:
    """Replace a file as a whole or not at all."""
    try:
        replace_file(Path(file), lambda: text)
    except OSError as error:
        raise OSError(f"{file} cannot be written: {error.strerror or error}; name another file") from error


def require_other(option: str, file: str | None, read: str | Path | None = None) -> None:
    """Check the name of a file to write, before anything is done.

    ``file``: as the user wrote it; None if not given. ``read``: the file that the command reads, which must not be the
    same; None for what is no file.
    """
    if file is None:
        return
    if not file.strip():
        raise SettingError(
            f"{option} is {shown(file)}, expected the path of a file; if a variable of the shell names it, the "
            "variable is empty"
        )
    if read is not None and Path(read).is_file() and os.path.realpath(file) == os.path.realpath(read):
        raise SettingError(
            f"{option} {named(file)} is the file that is read, and would be lost; expected another one, name it"
        )
