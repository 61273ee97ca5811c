"""The frames of streams: RESET, STOP, STREAM, MAX_DATA, MAX_STREAM, MAX_STREAMS (protocol section 6)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp2p_core.errors import BadPacket
from mp2p_core.proto.frames import (
    PING_FRAME,
    STREAM_OVERHEAD,
    Frame,
    MaxData,
    MaxStreamData,
    MaxStreams,
    Msg,
    Ping,
    ResetStream,
    StopSending,
    StreamData,
    encode_ack,
    encode_max_data,
    encode_max_stream,
    encode_max_streams,
    encode_msg,
    encode_reset,
    encode_stop,
    encode_stream_head,
    parse_frames_untrusted,
)

U16 = st.integers(0, 2**16 - 1)
U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)

FRAMES: dict[str, tuple[bytes, str, Frame]] = {
    "STREAM": (
        encode_stream_head(6, 2**40 + 1, 3, last=False) + b"abc",
        "10 00000006 0000010000000001 00000003 616263",
        StreamData(6, 2**40 + 1, memoryview(b"abc"), False),
    ),
    "STREAM last": (
        encode_stream_head(7, 9, 1, last=True) + b"z",
        "11 00000007 0000000000000009 00000001 7a",
        StreamData(7, 9, memoryview(b"z"), True),
    ),
    "RESET": (encode_reset(5, 0x0102, 77), "14 00000005 0102 000000000000004d", ResetStream(5, 0x0102, 77)),
    "STOP": (encode_stop(2**32 - 1, 9), "15 ffffffff 0009", StopSending(2**32 - 1, 9)),
    "MAX_DATA": (encode_max_data(2**64 - 1), "16 ffffffffffffffff", MaxData(2**64 - 1)),
    "MAX_STREAM": (encode_max_stream(4, 2**33), "17 00000004 0000000200000000", MaxStreamData(4, 2**33)),
    "MAX_STREAMS": (encode_max_streams(300), "18 0000012c", MaxStreams(300)),
}
KNOWN = {0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x08, 0x10, 0x11, 0x14, 0x15, 0x16, 0x17, 0x18}
RESERVED = {0x20}
"""Types that other parts of the protocol give a meaning to."""


@pytest.mark.parametrize("name", FRAMES)
def test_layout_is_that_of_the_protocol_to_the_byte(name: str) -> None:
    encoded, layout, frame = FRAMES[name]
    assert encoded == bytes.fromhex(layout)
    assert parse_frames_untrusted(encoded) == [frame]


@pytest.mark.parametrize("name", FRAMES)
def test_P6_each_stream_frame_cut_at_every_byte_is_refused(name: str) -> None:
    encoded = FRAMES[name][0]
    for length in range(1, len(encoded)):
        for before in (b"", PING_FRAME, encode_msg(b"hello")):
            with pytest.raises(BadPacket):
                parse_frames_untrusted(before + encoded[:length])


@pytest.mark.parametrize("kind", sorted(set(range(256)) - KNOWN - RESERVED))
def test_P7_unknown_frame_types_are_refused(kind: int) -> None:
    with pytest.raises(BadPacket):
        parse_frames_untrusted(bytes([kind]) + bytes(64))


@pytest.mark.parametrize("length", [4, 5, 2**16, 2**32 - 1])
def test_P6_a_stream_frame_that_claims_more_than_the_packet_holds_is_refused(length: int) -> None:
    with pytest.raises(BadPacket):
        parse_frames_untrusted(encode_stream_head(0, 0, length, last=False) + b"abc")


def test_frames_follow_each_other_in_any_mixture() -> None:
    packet = b"\0" + encode_ack([(3, 4)], 0.0) + b"".join(each[0] for each in FRAMES.values())
    packet += PING_FRAME + encode_msg(b"m") + b"\0\0"
    frames = parse_frames_untrusted(packet)
    assert frames[1:] == [*(each[2] for each in FRAMES.values()), Ping(), Msg(b"m")]


def test_stream_data_is_a_view_of_the_packet_not_a_copy() -> None:
    packet = encode_stream_head(0, 0, 64_000, last=False) + bytes(64_000)
    (frame,) = parse_frames_untrusted(packet)
    assert isinstance(frame, StreamData)
    assert frame.data.obj is packet
    assert frame.data.readonly
    assert len(packet) == STREAM_OVERHEAD + len(frame.data)


@given(U32, U64, st.binary(max_size=50), st.booleans(), U16, U64, st.binary(max_size=8))
def test_round_trip(
    stream: int, offset: int, data: bytes, last: bool, code: int, limit: int, after: bytes
) -> None:
    packet = (
        encode_stream_head(stream, offset, len(data), last=last)
        + data
        + encode_reset(stream, code, limit)
        + encode_stop(stream, code)
        + encode_max_data(limit)
        + encode_max_stream(stream, limit)
        + encode_max_streams(stream)
        + encode_msg(after)
    )
    assert parse_frames_untrusted(packet) == [
        StreamData(stream, offset, memoryview(data), last),
        ResetStream(stream, code, limit),
        StopSending(stream, code),
        MaxData(limit),
        MaxStreamData(stream, limit),
        MaxStreams(stream),
        Msg(after),
    ]


@given(
    st.lists(st.sampled_from([each[0] for each in FRAMES.values()]) | st.binary(max_size=24), max_size=6).map(
        b"".join
    )
)
def test_P6_arbitrary_bytes_raise_nothing_but_BadPacket(packet: bytes) -> None:
    try:
        frames = parse_frames_untrusted(packet)
    except BadPacket:
        return
    assert sum(len(each.data) for each in frames if isinstance(each, StreamData)) <= len(packet)
