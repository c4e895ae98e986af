"""The frames of a function of the user's that a measurement calls: ``check=`` and ``during=``."""

from __future__ import annotations

from pytest_mlpatterns.measurement.answer_check import check_outputs
from pytest_mlpatterns.measurement.during import call_beside

_CALLS = (check_outputs.__code__, call_beside.__code__)  # Frames that call a function of the user's


def cut_to_function(error: BaseException) -> bool:
    """Cut the frames of this package from the traceback of an error of a user's check, or of one beside the load.

    The frames of the user's function remain; none if a check returned False.
    """
    entry = error.__traceback__
    while entry is not None and entry.tb_frame.f_code not in _CALLS:
        entry = entry.tb_next
    if entry is None:
        return False
    error.__traceback__ = entry.tb_next
    return True
