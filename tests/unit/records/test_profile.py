"""Profiles as JSON, and profiles that are damaged."""

import json
from typing import Any

import pytest
from msgspec.structs import replace
from support.each_row import each_row
from support.profiles import nothing_stands_out, present_alone, slower_normalize

from pytest_mlpatterns.records.profile import Frame, NativeChange, ProfileRecord


@each_row(
    "record",
    slower_normalize(),
    replace(nothing_stands_out(), native=NativeChange(0, 3, 12.5, 1.5e6, ("onnxruntime",))),
    present_alone(),
    ProfileRecord(note="py-spy is missing"),
)
def test_a_profile_survives_json(record: ProfileRecord) -> None:
    assert ProfileRecord.from_json(json.loads(json.dumps(record.to_json()))) == record


def test_a_profile_of_version_0_2_has_no_native_threads() -> None:
    plain = slower_normalize().to_json()
    del plain["native"]
    assert ProfileRecord.from_json(plain) == slower_normalize()


def test_frames_are_equal_wherever_they_are_in_their_file() -> None:
    assert Frame("predict", "model.py", 3) == Frame("predict", "model.py", 7)
    assert Frame("predict", "model.py", 3) != Frame("predict", "other.py", 3)


@each_row(
    ("changes", "message"),
    ({"nodes": [[-1, 10, 0, 0]]}, "a profile names frame 10 of 10"),
    ({"nodes": [[0, 0, 0, 0]]}, "a profile names node 0 as the caller of node 0"),
    ({"nodes": [[-1, 0, 0, 0], [-2, 1, 0, 0]]}, "a profile names node -2 as the caller of node 1"),
    ({"frames": []}, "a profile names frame 9 of 0"),
)
def test_a_profile_whose_indices_lead_nowhere_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ProfileRecord.from_json({**slower_normalize().to_json(), **changes})
