"""The look that a msgpack message gets before it is decoded: whole, not too deep, not too many (row C1)."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp2p_rpc.errors import BadMessage
from mp2p_rpc.limits import Limits
from mp2p_rpc.scan import check_untrusted
from mp2p_rpc.schema import Codec

ENCODER = msgspec.msgpack.Encoder()
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=40)
    | st.binary(max_size=40)
    | st.datetimes(timezones=st.just(__import__("datetime").UTC)),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=9), inner, max_size=20),
    max_leaves=60,
)


def refusal(data: bytes, *, depth: int = 32, elements: int = 1000) -> str | None:
    try:
        check_untrusted(data, depth=depth, elements=elements)
    except BadMessage as error:
        return error.reason
    return None


@given(VALUES)
def test_what_an_encoder_writes_passes(value: object) -> None:
    assert refusal(ENCODER.encode(value), elements=10_000) is None


@given(VALUES, st.data())
def test_C1_a_message_cut_anywhere_is_malformed(value: object, data: st.DataObject) -> None:
    message = ENCODER.encode(value)
    cut = data.draw(st.integers(0, len(message) - 1))
    assert refusal(message[:cut], elements=10_000) == "malformed"


@given(st.binary(max_size=200) | st.lists(st.sampled_from(range(256)), max_size=60).map(bytes))
def test_C1_what_passes_is_what_the_decoder_takes(data: bytes) -> None:
    """No stricter where it matters, and never laxer: the decoder gets nothing that this has not understood."""
    passed = refusal(data, depth=500, elements=10_000) is None
    try:
        msgspec.msgpack.decode(data, type=msgspec.Raw)
        msgspec.msgpack.decode(data)
    except (msgspec.DecodeError, TypeError, ValueError):
        return  # such as text that is no UTF-8, or a map as a key
    assert passed or b"\xc7" in data or b"\xc8" in data or b"\xc9" in data or set(data) & {*range(0xD4, 0xD9)}


LENGTHS = {
    "bytes, 1 GiB": b"\xc6\x40\x00\x00\x00abc",
    "bytes, all": b"\xc6\xff\xff\xff\xff",
    "text, all": b"\xdb\xff\xff\xff\xffabc",
    "array, all": b"\xdd\xff\xff\xff\xff\x01",
    "array, 1 Mi": b"\xdd\x00\x10\x00\x00" + b"\x01" * 9,
    "map, all": b"\xdf\xff\xff\xff\xff\xa1a\x01",
    "arrays in arrays": b"\xdd\x7f\xff\xff\xff" * 30,
    "extension": b"\xc9\xff\xff\xff\xff\x05abc",
}
TYPES = [
    Any, list[int], list[Any], dict[str, int], set[int], frozenset[int], tuple[int, ...], tuple[int, int], bytes,
    str, int,
]  # fmt: skip


@pytest.mark.parametrize("name", LENGTHS)
def test_C1_a_declared_length_allocates_nothing(name: str) -> None:
    data = LENGTHS[name]
    limits = Limits(elements=1 << 30)  # so that only the length of the data speaks against it
    codecs = [Codec(each) for each in TYPES]
    for codec in codecs:
        tracemalloc.start()
        with pytest.raises(BadMessage):
            codec.decode_untrusted(data, limits)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 20_000, (codec.annotation, peak)


@pytest.mark.parametrize("first", [0x91, 0x81])
def test_C1_deep_nesting_is_refused_before_it_is_decoded(first: int) -> None:
    unit = bytes([first]) + (b"\x01" if first == 0x81 else b"")
    assert refusal(unit * 32 + b"\x01", depth=32) is None
    assert refusal(unit * 33 + b"\x01", depth=32) == "too-deep"
    assert refusal(unit * 100_000, depth=32, elements=1 << 30) == "too-deep"


def test_C1_many_small_values_are_counted_before_they_are_made() -> None:
    assert refusal(ENCODER.encode([[]] * 999), elements=999) is None
    assert refusal(ENCODER.encode([[]] * 1000), elements=999) == "too-many"
    assert refusal(ENCODER.encode({"a": 1, "b": [2, 3]}), elements=6) is None
    assert refusal(ENCODER.encode({"a": 1, "b": [2, 3]}), elements=5) == "too-many"
    message = ENCODER.encode([[]] * 900_000)
    codec = Codec(list[list[int]])
    tracemalloc.start()
    with pytest.raises(BadMessage) as refused:
        codec.decode_untrusted(message, Limits())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refused.value.reason == "too-many"
    assert peak < 20_000


@pytest.mark.parametrize("count", [15, 16, 17, 1000, 70_000])
def test_arrays_of_like_values_are_counted_like_others(count: int) -> None:
    for value in (1.5, 7, None, "abc", -300, True):
        message = ENCODER.encode([value] * count)
        assert refusal(message, elements=count) is None
        assert refusal(message, elements=count - 1) == "too-many"
        assert refusal(message[:-1], elements=count) == "malformed"
        assert refusal(message + b"\x01", elements=count) == "malformed"
        assert refusal(ENCODER.encode([[value] * count, value]), elements=count + 2) is None
        assert refusal(ENCODER.encode([value] * (count - 1) + ["odd"]), elements=count) is None


@pytest.mark.parametrize("first", [0xC1, 0xC8, 0xC9, 0xD4, 0xD5, 0xD8])
def test_C8_what_is_not_plain_data_is_refused(first: int) -> None:
    assert refusal(bytes([first]) + bytes(40)) == "malformed"


@pytest.mark.parametrize(
    "data", [b"\xd6\x05abcd", b"\xd7\x00abcdefgh", b"\xc7\x0c\x01" + bytes(12), b"\xc7\x04\xffabcd"]
)
def test_C8_an_extension_that_is_no_time_is_refused(data: bytes) -> None:
    assert refusal(data) == "malformed"
    for annotation in (Any, int, list[Any]):
        with pytest.raises(BadMessage):
            Codec(annotation).decode_untrusted(data, Limits())
