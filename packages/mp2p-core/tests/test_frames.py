"""Frames (protocol section 6; rows P6, P7, P9): what a peer may put into a packet, and what it may not."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp2p_core.errors import BadPacket
from mp2p_core.proto.frames import (
    PING_FRAME,
    Ack,
    Addr,
    Close,
    Frame,
    Msg,
    PathChallenge,
    PathResponse,
    Ping,
    encode_ack,
    encode_addr,
    encode_close,
    encode_msg,
    encode_path_challenge,
    encode_path_response,
    parse_frames_untrusted,
)

ADDRESS = bytes.fromhex("0600 0400 ff1e 00000000000000000000 8000 0001")
ACK_OF_7 = bytes.fromhex("02 0000000000000007 0000 00 0001")
SAMPLES: dict[str, tuple[bytes, Frame]] = {
    "ping": (b"\x01", Ping()),
    "ack": (
        bytes.fromhex("02 0000000000000064 0010 02 0003 0001 0002 0005 0001"),
        Ack(((98, 100), (95, 96), (89, 89)), 0x10 * 64e-6),
    ),
    "ack of zero": (bytes.fromhex("02 0000000000000000 0000 00 0001"), Ack(((0, 0),), 0.0)),
    "close": (b"\x03\x00\x05\x03bye", Close(5, "bye")),
    "close without text": (b"\x03\xff\xff\x00", Close(65535, "")),
    "msg": (b"\x08\x00\x05hello", Msg(b"hello")),
    "empty msg": (b"\x08\x00\x00", Msg(b"")),
    "path challenge": (b"\x04challeng", PathChallenge(b"challeng")),
    "path response": (b"\x05challeng", PathResponse(b"challeng")),
    "addr": (b"\x06\0\0\1\2" + ADDRESS, Addr(258, ADDRESS)),
    "addr of no other": (b"\x06\xff\xff\xff\xff" + bytes(20), Addr(2**32 - 1, bytes(20))),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_frames_to_the_byte(name: str) -> None:
    packed, frame = SAMPLES[name]
    assert parse_frames_untrusted(packed) == [frame]


def test_encoders_write_the_same_bytes() -> None:
    assert SAMPLES["ping"][0] == PING_FRAME
    assert encode_msg(b"hello") == SAMPLES["msg"][0]
    assert encode_close(5, "bye") == SAMPLES["close"][0]
    assert encode_ack([(98, 100), (95, 96), (89, 89)], 0x10 * 64e-6) == SAMPLES["ack"][0]
    assert encode_ack([(0, 0)], 0.0) == SAMPLES["ack of zero"][0]
    assert encode_path_challenge(b"challeng") == SAMPLES["path challenge"][0]
    assert encode_path_response(b"challeng") == SAMPLES["path response"][0]
    assert encode_addr(258, ADDRESS) == SAMPLES["addr"][0]


def test_a_packet_holds_frames_in_order_and_padding_anywhere() -> None:
    packed = b"\0\0" + b"\0".join(packed for packed, _ in SAMPLES.values()) + b"\0"
    assert parse_frames_untrusted(packed) == [frame for _, frame in SAMPLES.values()]


def test_P5_an_empty_packet_has_no_frames() -> None:
    assert parse_frames_untrusted(b"") == []


@pytest.mark.parametrize("name", SAMPLES)
def test_P6_a_frame_cut_at_any_byte_is_refused(name: str) -> None:
    packed, _ = SAMPLES[name]
    for size in range(1, len(packed)):
        for before in (b"", b"\x01", b"\0\0\0"):
            with pytest.raises(BadPacket):
                parse_frames_untrusted(before + packed[:size])


KNOWN = {0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x08, 0x10, 0x11, 0x14, 0x15, 0x16, 0x17, 0x18}
"""Those from 0x10 on are proved in test_stream_frames."""


def test_P4_an_address_whose_second_byte_is_not_zero_is_refused() -> None:
    with pytest.raises(BadPacket, match="addr"):
        parse_frames_untrusted(encode_addr(1, b"\4\1" + bytes(18)))


@pytest.mark.parametrize("kind", sorted(set(range(256)) - KNOWN))
def test_P7_an_unknown_frame_is_refused(kind: int) -> None:
    with pytest.raises(BadPacket, match=f"frame 0x{kind:02x}"):
        parse_frames_untrusted(b"\x01" + bytes([kind]) + bytes(40))


def test_P7_an_ack_has_at_most_32_ranges() -> None:
    def ack(n: int) -> bytes:
        return bytes.fromhex("02 0000000000001000 0000") + bytes([n]) + b"\0\1" + b"\0\1\0\1" * n

    (frame,) = parse_frames_untrusted(ack(32))
    assert isinstance(frame, Ack)
    assert len(frame.ranges) == 33
    with pytest.raises(BadPacket, match="ack"):
        parse_frames_untrusted(ack(33))


@pytest.mark.parametrize(
    "packed",
    [
        "02 0000000000000005 0000 00 0000",  # an empty first range
        "02 0000000000000005 0000 00 0007",  # below zero
        "02 0000000000000005 0000 01 0001 0000 0001",  # a gap of nothing: ranges that touch
        "02 0000000000000005 0000 01 0001 0001 0000",  # an empty range
        "02 0000000000000005 0000 01 0001 0003 0003",  # a range that ends below zero
        "02 0000000000000005 0000 01 0001 ffff 0001",  # a gap that ends below zero
        "02 0000000000000005 0000 01 0006 0001 0001",  # nothing left to skip
    ],
)
def test_P7_contradictory_ranges_are_refused(packed: str) -> None:
    with pytest.raises(BadPacket, match="ack"):
        parse_frames_untrusted(bytes.fromhex(packed))


def test_a_long_reason_is_cut_between_characters() -> None:
    (frame,) = parse_frames_untrusted(encode_close(1, "é" * 300))
    assert frame == Close(1, "é" * 127)


def test_a_reason_that_is_no_text_is_sent_and_read_as_one() -> None:
    (frame,) = parse_frames_untrusted(encode_close(1, "\ud800"))
    assert frame == Close(1, "?")
    assert parse_frames_untrusted(b"\x03\x00\x01\x02\xff\xfe") == [Close(1, "\ufffd\ufffd")]


@st.composite
def range_lists(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Inclusive ranges, highest first, never touching; gaps and counts that fit and that do not."""
    at = draw(st.integers(0, 2**64 - 2))
    ranges: list[tuple[int, int]] = []
    for count, gap in draw(
        st.lists(st.tuples(st.integers(1, 70_000), st.integers(1, 70_000)), min_size=1, max_size=40)
    ):
        low = at - count + 1
        if low < 0:
            break
        ranges.append((low, at))
        at = low - 1 - gap
        if at < 0:
            break
    return ranges or [(0, 0)]


@given(range_lists(), st.floats(0, 10))
def test_what_an_ack_says_was_received(ranges: list[tuple[int, int]], delay: float) -> None:
    """An encoder may leave things out; it must never claim a number that is not there."""
    (frame,) = parse_frames_untrusted(encode_ack(ranges, delay))
    assert isinstance(frame, Ack)
    assert frame.ranges[0][1] == ranges[0][1]
    for low, high in frame.ranges:
        assert any(start <= low and high <= end for start, end in ranges)
    if len(ranges) <= 33 and all(high - low < 0xFFFF for low, high in ranges):
        gaps = [above[0] - below[1] - 1 for above, below in itertools.pairwise(ranges)]
        if all(gap <= 0xFFFF for gap in gaps):
            assert list(frame.ranges) == ranges, "nothing was left out that fits"
    assert frame.delay <= delay


@given(
    st.one_of(
        st.binary(max_size=200), st.lists(st.sampled_from([p for p, _ in SAMPLES.values()])).map(b"".join)
    )
)
def test_P9_frames_raise_only_bad_packet(payload: bytes) -> None:
    try:
        frames = parse_frames_untrusted(payload)
    except BadPacket:
        return
    for frame in frames:
        if isinstance(frame, Ack):
            numbers = [number for low, high in frame.ranges for number in (high, low)]
            assert numbers == sorted(numbers, reverse=True)
            assert numbers[-1] >= 0
