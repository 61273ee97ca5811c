"""Types that travel, types that do not, and where a value does not fit (rows C1, C2 and C8)."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import math
import pickle
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypedDict, TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp2p_rpc.errors import BadMessage, InterfaceError
from mp2p_rpc.limits import Limits
from mp2p_rpc.schema import Codec, Misfit, make_record

LIMITS = Limits()
T = TypeVar("T")


class Mode(enum.Enum):
    HEAT = "heat"
    COOL = "cool"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclass
class Reading:
    celsius: float
    at: dt.datetime
    mode: Mode = Mode.HEAT


@dataclass
class Report:
    readings: list[Reading]
    note: str | None = None
    more: dict[str, list[Reading]] = field(default_factory=dict)


class Options(TypedDict, total=False):
    retries: int
    name: str


class Point(NamedTuple):
    x: float
    y: float


class Tree(msgspec.Struct):
    value: int
    children: list[Tree] = []


class Untagged(msgspec.Struct):
    value: int


class Circle(msgspec.Struct, tag=True):
    radius: float


class Square(msgspec.Struct, tag=True):
    side: float


@dataclass
class Box(Generic[T]):
    content: T


class Custom:
    pass


class Structural(Protocol):
    x: int


NOW = dt.datetime(2025, 3, 4, 5, 6, 7, 891011, tzinfo=dt.UTC)
READING = Reading(21.5, NOW, Mode.COOL)
VALUES: list[tuple[Any, Any, str]] = [
    # annotation, value, wire form in hexadecimal: the table of docs/rpc.md
    (None, None, "c0"),
    (bool, True, "c3"),
    (int, 5, "05"),
    (int, 2**64 - 1, "cfffffffffffffffff"),
    (int, -(2**63), "d38000000000000000"),
    (float, 1.5, "cb3ff8000000000000"),
    (str, "hé", "a368c3a9"),
    (bytes, b"\0\xff", "c40200ff"),
    (bytearray, bytearray(b"x"), "c40178"),
    (Mode, Mode.COOL, "a4636f6f6c"),
    (Level, Level.HIGH, "02"),
    (Literal["a", 2], 2, "02"),
    (dt.datetime, NOW, "d7ffd46efee067c68a3f"),
    (dt.datetime, dt.datetime(2025, 3, 4, 5, 6, 7), "b3323032352d30332d30345430353a30363a3037"),
    (dt.date, dt.date(2025, 3, 4), "aa323032352d30332d3034"),
    (dt.time, dt.time(5, 6, 7), "a830353a30363a3037"),
    (dt.timedelta, dt.timedelta(minutes=1), "a55054363053"),
    (uuid.UUID, uuid.UUID(int=7), "d924" + b"00000000-0000-0000-0000-000000000007".hex()),
    (decimal.Decimal, decimal.Decimal("1.10"), "a4312e3130"),
    (list[int], [1, 2], "920102"),
    (tuple[int, str], (1, "a"), "9201a161"),
    (tuple[int, ...], (1, 2), "920102"),
    (set[int], {1}, "9101"),
    (frozenset[str], frozenset({"a"}), "91a161"),
    (dict[str, int], {"a": 1}, "81a16101"),
    (dict[int, bool], {1: True}, "8101c3"),
    (int | str | None, "a", "a161"),
    (Point, Point(0.5, 2), "92cb3fe000000000000002"),
    (Options, {"retries": 3}, "81a77265747269657303"),
    (Circle | Square, Square(2), "82a474797065a6537175617265a47369646502"),
    (Any, {"a": [1, None]}, "81a1619201c0"),
]  # fmt: skip


@pytest.mark.parametrize(("annotation", "value", "wire"), VALUES, ids=lambda each: repr(each)[:40])
def test_each_type_has_the_wire_form_of_the_document(annotation: Any, value: Any, wire: str) -> None:
    codec = Codec(annotation)
    encoded = codec.encode(value)
    assert encoded == bytes.fromhex(wire)
    back = codec.decode_untrusted(encoded, LIMITS)
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize(
    "value",
    [
        READING,
        Report([READING, READING], None, {"a": [READING]}),
        Tree(1, [Tree(2, [Tree(3)])]),
        Box(Box(3)),
    ],
    ids=lambda each: type(each).__name__,
)
def test_nested_classes_come_back_as_they_went(value: Any) -> None:
    annotation = Box[Box[int]] if isinstance(value, Box) else type(value)
    codec = Codec(annotation)
    assert codec.decode_untrusted(codec.encode(value), LIMITS) == value


def test_floats_keep_what_is_special_about_them() -> None:
    codec = Codec(float)
    for value in (math.inf, -math.inf, -0.0, 5e-324):
        back = codec.decode_untrusted(codec.encode(value), LIMITS)
        assert math.copysign(1, back) == math.copysign(1, value)
        assert back == value
    assert math.isnan(codec.decode_untrusted(codec.encode(math.nan), LIMITS))
    assert codec.decode_untrusted(Codec(int).encode(3), LIMITS) == 3.0  # an int is a float, as for mypy


WRONG: list[tuple[Any, Any, str]] = [
    (int, "1", "$"),
    (int, 1.5, "$"),
    (int, True, "$"),
    (str, b"a", "$"),
    (float, None, "$"),
    (list[int], [1, "a"], "$[1]"),
    (dict[str, int], {"a": "b"}, "$[...]"),
    (Report, {"readings": [{"celsius": 1, "at": NOW}] * 3 + [{"celsius": "hot", "at": NOW}]}, "$.readings[3].celsius"),
    (Report, {"readings": [{"celsius": 1.0, "at": "never"}]}, "$.readings[0].at"),
    (Reading, {"celsius": 1.0, "at": NOW, "mode": "dance"}, "$.mode"),
    (Reading, {"celsius": 1.0}, "$"),
    (tuple[int, int], [1, 2, 3], "$"),
    (int | None, "x", "$"),
    (Circle | Square, {"type": "Triangle"}, "$.type"),
]  # fmt: skip


@pytest.mark.parametrize(("annotation", "value", "path"), WRONG, ids=lambda each: repr(each)[:40])
def test_C2_a_value_that_does_not_fit_is_refused_with_its_path_on_both_sides(
    annotation: Any, value: Any, path: str
) -> None:
    codec = Codec(annotation)
    with pytest.raises(Misfit) as ours:
        codec.encode(value)
    assert ours.value.path == path
    with pytest.raises(BadMessage) as theirs:
        codec.decode_untrusted(msgspec.msgpack.encode(value), LIMITS)
    assert (theirs.value.reason, theirs.value.path) == ("misfit", path)
    assert path == "$" or path in str(theirs.value)


@pytest.mark.parametrize(
    "annotation",
    [
        Custom, Structural, object, complex, range, type, Exception, Callable[[int], int], Iterator[int],
        AsyncIterator[int], list[Custom], dict[str, Custom], Box[Custom], msgspec.Raw, msgspec.msgpack.Ext,
        int | Custom, Reading | Options, bytes | str, dict[Reading, int], set[Reading], frozenset[list[int]],
        dict[Any, int], tuple[int, Custom],
    ],
    ids=str,
)  # fmt: skip
def test_a_type_that_cannot_travel_is_refused_when_it_is_named(annotation: Any) -> None:
    with pytest.raises(InterfaceError, match=r"cannot|unions|not supported"):
        Codec(annotation)


@pytest.mark.parametrize(
    "annotation", [Reading | Options, list[Reading | Tree], Tree | Untagged, bytes | str], ids=str
)
def test_members_of_a_union_that_look_alike_are_refused_with_what_to_do(annotation: Any) -> None:
    with pytest.raises(
        InterfaceError, match=r"cannot travel: .*union.*class Name\(msgspec.Struct, tag=True\)"
    ):
        Codec(annotation)


def test_a_tag_travels_with_each_class_of_a_union_and_no_other_is_known() -> None:
    codec = Codec(Circle | Square)
    assert msgspec.msgpack.decode(codec.encode(Square(2.0))) == {"type": "Square", "side": 2.0}
    for value in (Circle(1.0), Square(2.0)):
        assert codec.decode_untrusted(codec.encode(value), LIMITS) == value
    for unknown in ({"type": "Reading", "radius": 1.0}, {"radius": 1.0}, {"type": 7}):
        with pytest.raises(BadMessage, match=r"type|tag"):
            codec.decode_untrusted(msgspec.msgpack.encode(unknown), LIMITS)


@pytest.mark.parametrize(
    "annotation", [Sequence[int], Mapping[str, int], tuple[int | str, ...], Literal["a"]]
)
def test_abstract_containers_travel(annotation: Any) -> None:
    Codec(annotation)


def test_a_value_of_a_class_that_nobody_named_does_not_travel() -> None:
    for value in (Custom(), [Custom()], object, lambda: 1, 2**64):
        with pytest.raises(Misfit):
            Codec(Any).encode(value)


class _Bomb:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("unpickled",))


@pytest.mark.parametrize("annotation", [Any, bytes, str, list[Any], dict[str, Any], Reading, Tree])
def test_C8_nothing_is_built_by_what_a_message_says(annotation: Any) -> None:
    """A pickle is bytes like others, and names of classes are text like other text."""
    codec = Codec(annotation)
    plain = (type(None), bool, int, float, str, bytes, list, dict)
    for data in (
        pickle.dumps(_Bomb()),
        msgspec.msgpack.encode(pickle.dumps(_Bomb())),
        msgspec.msgpack.encode({"__class__": "os.system", "args": ["true"], "py/object": "os.system"}),
        msgspec.msgpack.encode({"type": "Circle", "radius": 1}),
    ):
        try:
            value = codec.decode_untrusted(data, LIMITS)
        except BadMessage:
            continue
        assert type(value) in (*plain, Reading, Tree)
        if isinstance(value, dict):
            assert {type(each) for each in value.values()} <= set(plain)


CODECS = [
    Codec(each) for each in (Any, Report, Tree, dict[str, Any], Circle | Square, list[Options], Box[set[int]])
]


@given(st.binary(max_size=300), st.sampled_from(CODECS))
def test_C1_arbitrary_bytes_raise_nothing_but_BadMessage(data: bytes, codec: Codec) -> None:
    try:
        codec.decode_untrusted(data, LIMITS)
    except BadMessage:
        return


GOOD = [
    CODECS[1].encode(Report([READING, READING], "x", {"a": [READING]})),
    CODECS[2].encode(Tree(1, [Tree(2)])),
]


@given(st.sampled_from([0, 1]), st.data())
def test_C1_edited_messages_raise_nothing_but_BadMessage(which: int, data: st.DataObject) -> None:
    message = bytearray(GOOD[which])
    for _ in range(data.draw(st.integers(1, 4))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    for codec in (CODECS[0], CODECS[which + 1]):
        try:
            codec.decode_untrusted(bytes(message), LIMITS)
        except BadMessage:
            continue


def test_C1_a_message_larger_than_the_limit_is_not_looked_at() -> None:
    codec = Codec(bytes)
    assert codec.decode_untrusted(codec.encode(bytes(100)), Limits(message=102)) == bytes(100)
    with pytest.raises(BadMessage) as refused:
        codec.decode_untrusted(codec.encode(bytes(100)), Limits(message=101))
    assert refused.value.reason == "too-large"


@pytest.mark.parametrize("annotation", [Mode, Literal["a", "b"], Options])
def test_C1_what_a_refused_value_says_is_cut_and_is_no_path(annotation: Any) -> None:
    hostile = 4000 * " - at `$"
    wire = msgspec.msgpack.encode({"name": 1, hostile: 2} if annotation is Options else hostile)
    with pytest.raises(BadMessage) as raised:
        Codec(annotation).decode_untrusted(wire, LIMITS)
    assert len(str(raised.value)) < 2200
    assert len(raised.value.path) <= 1024


@pytest.mark.parametrize("annotation", [Any, Tree, list[Any]])
def test_C1_deep_nesting_is_refused_whatever_the_type(annotation: Any) -> None:
    deep: Any = Tree(0)
    for _ in range(40):
        deep = Tree(0, [deep]) if annotation is Tree else [deep if isinstance(deep, list) else []]
    with pytest.raises(BadMessage) as refused:
        Codec(annotation).decode_untrusted(msgspec.msgpack.encode(deep), LIMITS)
    assert refused.value.reason == "too-deep"
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(Misfit):  # and what nests without end is no crash on our side
        Codec(Any).encode(deep)


def test_records_take_arguments_by_name_and_no_others() -> None:
    codec = Codec(make_record("set", [("celsius", float), ("mode", Mode, msgspec.UNSET)]))
    given = codec.decode_untrusted(codec.encode({"celsius": 20}), LIMITS)
    assert (given.celsius, given.mode) == (20.0, msgspec.UNSET)
    for wrong in ({}, {"celsius": 1.0, "other": 2}, [1.0], {"celsius": 1.0, "mode": 1}):
        with pytest.raises(Misfit):
            codec.encode(wrong)
