"""docs/rpc.md, held against the code: frames, kinds of errors, limits."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from mp2p_rpc import Limits
from mp2p_rpc.exchange import CANCELLED, STOPPED
from mp2p_rpc.frames import MAX_HEADER_SIZE, CallHeader, ErrorBody, ErrorKind, FrameType

TEXT = (Path(__file__).resolve().parent.parent / "docs" / "rpc.md").read_text(encoding="utf-8")


def table(after: str) -> list[list[str]]:
    """Return the rows of the first table after a text."""
    rows = TEXT.split(after, 1)[1].split("\n|", 1)[1].split("\n\n", 1)[0]
    return [[cell.strip(" `") for cell in row.strip("| ").split(" | ")] for row in rows.split("\n")][2:]


def test_frames_and_errors_have_their_numbers() -> None:
    assert [(int(row[0]), row[1]) for row in table("5  n  body")] == [
        (each.value, each.name) for each in FrameType
    ]
    assert [(int(row[0]), row[1]) for row in table("The tree is in")] == [
        (each.value, each.name) for each in ErrorKind
    ]


def test_the_parts_of_a_call_and_of_an_error_are_in_order() -> None:
    assert [row[0] for row in table("The body of CALL")] == list(CallHeader.__struct_fields__)
    said = re.search(r"The body of ERROR: ([\w, ]+)\.", TEXT)
    assert said is not None
    assert said[1].split(", ") == list(ErrorBody.__struct_fields__)


def test_limits_are_those_of_the_code() -> None:
    defaults = {each.name: each.default for each in dataclasses.fields(Limits)}
    assert {row[0]: int(row[1]) for row in table("## Limits")} == defaults
    assert f"at most {MAX_HEADER_SIZE} bytes of body" in TEXT
    assert f"stops the stream with code {CANCELLED}," in TEXT
    assert f"resets and stops with code {STOPPED}." in TEXT
