"""Tracebacks of the user's code: without the frames of this package and of importlib, and as they stand in a log.

Applications import this module in their own processes, so it needs the standard library only.
"""

import importlib
import os
import pickle
import pkgutil
import re
import traceback
from pathlib import Path
from types import TracebackType

from pytest_mlpatterns.wording import count, listed

MAX_TRACEBACKS = 3  # Different tracebacks that a process keeps
_PACKAGE = f"{Path(__file__).parents[1]}{os.sep}"
_IMPORTERS = (f"{Path(importlib.__file__).parent}{os.sep}", pkgutil.__file__, "<frozen importlib")
_OURS = "pytest_mlpatterns"  # Module of the errors whose message has all that a user needs
_HEADER = "Traceback (most recent call last):\n"
_WHOLE = re.compile(re.escape(_HEADER) + r"(?:(?:[ \t].*)?\n)+(?P<error>\S.*)\n")
_LONGEST_LINE = 300  # Letters of an error's line in a message
_FRAME = re.compile(r'(?P<lead>[ |]*)File "[^"]*/(?:site|dist)-packages/(?P<package>[^"/]+)')
"""The first line of a frame of an installed package in a printed traceback; a group of exceptions has bars."""
_FEWEST_FOLDED = 2  # Frames that one line takes the place of, or more
_RUNNING = re.compile(r"running event loop|event loop is already running")  # Messages of asyncio and uvloop
_OF_LISTS = re.compile(r"\b(list|sequence)\b")  # Messages of Python about an operation that a list does not have


def user_frames(frames: TracebackType | None) -> TracebackType | None:
    """The same frames without this package's and importlib's; all of them if the error is one of ours."""
    entries = []
    while frames is not None:
        entries.append(frames)
        frames = frames.tb_next
    kept = [one for one in entries if not _is_internal(one.tb_frame.f_code.co_filename)]
    if not kept and entries and entries[-1].tb_frame.f_code.co_filename.startswith(_PACKAGE):
        kept = entries
    found = None
    for one in reversed(kept):
        found = TracebackType(found, one.tb_frame, one.tb_lasti, one.tb_lineno)
    return found


def user_traceback(error: BaseException) -> str:
    """The traceback of an error in the user's code, and of the errors that led to it; our own message stands alone."""
    if type(error).__module__ == _OURS and all(
        _is_internal(frame.f_code.co_filename) for frame, _ in traceback.walk_tb(error.__traceback__)
    ):
        return "".join(traceback.format_exception_only(error)).rstrip()
    for one in _chain(error):
        one.__traceback__ = user_frames(one.__traceback__)
    return "".join(traceback.format_exception(error)).rstrip()


def last_traceback(text: str) -> str:
    """The last whole traceback in the output of a program; empty if there is none."""
    found = list(_WHOLE.finditer(text))
    return found[-1][0].rstrip() if found else ""


def error_line(text: str) -> str:
    """The line of a traceback that names the error: ``KeyError: 'no_such_feature'``; empty if there is none."""
    found = list(_WHOLE.finditer(f"{text}\n"))
    return found[-1]["error"][:_LONGEST_LINE] if found else ""


def folded(text: str) -> str:
    """The output of a program in which one line stands for neighbouring frames of installed packages.

    The last frame of a traceback stays, since the error comes from there.
    """
    lines, found, at = text.split("\n"), [], 0
    while at < len(lines):
        packages, end = [], at
        while end < len(lines) and (frame := _FRAME.match(lines[end])):
            after = _end_of_frame(lines, end, len(frame["lead"]))
            if after == len(lines) or not lines[after].startswith(f'{frame["lead"]}File "'):
                break
            packages.append(frame["package"].removesuffix(".py"))
            end = after
        if len(packages) >= _FEWEST_FOLDED:
            lead = lines[at].partition("File")[0]
            found.append(f"{lead}[{len(packages)} frames of {listed([*dict.fromkeys(packages)])}]")
        else:
            end = max(end, at + 1)
            found += lines[at:end]
        at = end
    return "\n".join(found)


def _end_of_frame(lines: list[str], start: int, lead: int) -> int:
    """The index after the lines of a frame: its code, which is indented more than its first line."""
    end = start + 1
    while end < len(lines) and len(lines[end]) - len(lines[end].lstrip(" |")) > lead:
        end += 1
    return end


def _chain(error: BaseException) -> list[BaseException]:
    """An error, its cause, the cause of that, and so on."""
    found: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and not any(one is other for other in found):
        found.append(one)
        one = one.__cause__ or one.__context__
    return found


def _is_internal(file: str) -> bool:
    return file.startswith((_PACKAGE, *_IMPORTERS))


def advice_on(error: BaseException, frames: TracebackType | None) -> str:
    """What to do about an error of a model, after a semicolon; empty if that is not known."""
    if isinstance(error, pickle.PicklingError) or "Can't pickle" in str(error):
        return "; put the model in a module: code of a test file is sent by value, so other processes cannot import it"
    if isinstance(error, RuntimeError) and _RUNNING.search(str(error)):
        return "; the model is called on the event loop of its server: make it an async function, and await in it"
    return _advice_on_inputs(error, [] if frames is None else _batch_of(frames))


def _batch_of(frames: TracebackType) -> list[object]:
    """The list of inputs that a model was called with; empty if it has another one in its place meanwhile."""
    frame = frames.tb_frame
    arguments = frame.f_code.co_varnames[: frame.f_code.co_argcount]
    return next((found for name in arguments if isinstance(found := frame.f_locals.get(name), list)), [])


def _advice_on_inputs(error: BaseException, batch: list[object]) -> str:
    """For a model that takes the list of inputs for one input, or an input for an array."""
    if not batch:
        return ""
    as_list = f"; the model gets a list of inputs, here {count(len(batch), 'input')}"
    as_array = "over JSON an array arrives as a list: numpy.asarray(batch)"
    holds_lists = any(isinstance(one, list) for one in batch)
    if isinstance(error, AttributeError) and isinstance(error.obj, list):
        return f"; {as_array}" if holds_lists else as_list
    if isinstance(error, TypeError) and _OF_LISTS.search(str(error)):
        return f"{as_list}, and {as_array}" if holds_lists else as_list
    return ""
