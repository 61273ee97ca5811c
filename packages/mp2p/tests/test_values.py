"""Values on a command line: read as the schema of the peer says, and refused with what it takes."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Literal
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mp2p
from mp2p.cli.values import as_json, read_arguments, read_value


class Colour(Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    y: int


def schema(**annotations: Any) -> dict[str, Any]:
    """Make the schema of a method's arguments as a peer tells it."""
    record = msgspec.defstruct("Arguments", list(annotations.items()))
    told = msgspec.json.schema(record)
    return {**told["$defs"]["Arguments"], "$defs": told["$defs"]}


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [
        (str, "warm", "warm"),
        (str, "7", "7"),
        (str, "", ""),
        (int, "7", 7),
        (int, "-7", -7),
        (float, "21.5", 21.5),
        (float, "21", 21.0),
        (bool, "true", True),
        (bool, "false", False),
        (bytes, "aGVsbG8=", b"hello"),
        (list[int], "[1, 2]", [1, 2]),
        (Point, '{"x": 1, "y": 2}', {"x": 1, "y": 2}),
        (dict[str, int], '{"a": 1}', {"a": 1}),
        (Colour, "red", "red"),
        (Literal["on", "off"], "on", "on"),
        (int | None, "7", 7),
        (int | None, "null", None),
        (int | str, "7", 7),
        (int | str, "seven", "seven"),
        (datetime, "2026-11-23T00:00:00Z", "2026-11-23T00:00:00Z"),
        (UUID, "12345678-1234-5678-1234-567812345678", "12345678-1234-5678-1234-567812345678"),
        (Decimal, "1.50", "1.50"),
        (Any, "[1]", [1]),
        (Any, "word", "word"),
    ],
)
def test_each_type_is_read(annotation: Any, text: str, value: Any) -> None:
    assert read_arguments([f"it={text}"], schema(it=annotation)) == {"it": value}
    assert type(read_arguments([f"it={text}"], schema(it=annotation))["it"]) is type(value)


@pytest.mark.parametrize(
    ("annotation", "text", "words"),
    [
        (int, "7.5", "takes integer"),
        (float, "warm", "takes number"),
        (bool, "yes", "takes boolean"),
        (bytes, "***", "base64"),
        (list[int], "1,2", "takes array"),
        (Point, "1", ""),
        (int | None, "x", "takes integer or null"),
    ],
)
def test_what_does_not_fit_is_refused(annotation: Any, text: str, words: str) -> None:
    if annotation is Point:
        # JSON, and so for the peer to judge: it names the path.
        assert read_arguments([f"it={text}"], schema(it=annotation)) == {"it": 1}
        return
    with pytest.raises(mp2p.UsageError, match=words):
        read_arguments([f"it={text}"], schema(it=annotation))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["celsius"], "write name=value"),
        (["fahrenheit=70"], "it takes celsius=, eco="),
        (["celsius=1", "celsius=2"], "given twice"),
    ],
)
def test_arguments_that_cannot_be_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(mp2p.UsageError, match=message):
        read_arguments(words, schema(celsius=float, eco=bool))


def test_a_value_may_hold_equals_signs() -> None:
    assert read_arguments(["it=a=b"], schema(it=str)) == {"it": "a=b"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)


@given(st.text(), json_values)
def test_a_schema_of_nonsense_is_no_trouble(text: str, told: Any) -> None:
    with contextlib.suppress(mp2p.UsageError):
        read_value(text, told, told if isinstance(told, dict) else {}, "it")


def test_a_schema_that_refers_in_circles_is_no_trouble() -> None:
    root = {
        "$defs": {
            "A": {"$ref": "#/$defs/B"},
            "B": {"$ref": "#/$defs/A"},
            "C": {"anyOf": [{"$ref": "#/$defs/C"}]},
        }
    }
    for name in "ABC":
        read_value("[1]", {"$ref": f"#/$defs/{name}"}, root, "it")


def test_a_schema_whose_choices_are_all_choices_among_themselves_takes_no_time() -> None:
    choice = {"$ref": "#/$defs/A"}
    schema = {"properties": {"a": choice}, "$defs": {"A": {"anyOf": [*(20 * [choice]), {"type": "integer"}]}}}
    assert read_arguments(["a=7"], schema) == {"a": 7}


def test_results_are_one_line_of_ascii_json() -> None:
    value = {"text": "zwölf\n\x1b[31m", "bytes": b"\xff", "when": datetime(2026, 11, 23, tzinfo=UTC)}
    line = as_json(value)
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["bytes"] == "/w=="


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ({None: 1}, '{"null": 1}'),
        ({"a": [{True: b"\xff"}]}, '{"a": [{"true": "/w=="}]}'),
        ({(): {(1, "b"): 2}}, '{"[]": {"[1, \\"b\\"]": 2}}'),
    ],
)
def test_keys_that_json_does_not_have_are_written_as_their_own_json(value: object, line: str) -> None:
    assert as_json(value) == line


def test_definitions_that_are_none_mean_anything() -> None:
    assert read_arguments(["a=7"], {"properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": [1]}) == {"a": 7}
