"""The frames of a call, to the byte, and what is no frame (rows C1 and C2)."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mp2p_rpc.errors import BadMessage
from mp2p_rpc.frames import (
    MAX_HEADER_SIZE,
    CallHeader,
    ErrorBody,
    ErrorKind,
    Frame,
    FrameReader,
    FrameType,
    decode_call_untrusted,
    decode_error_untrusted,
    encode_call,
    encode_error,
    encode_frame,
    split_request_untrusted,
    split_result_untrusted,
)

CALL = CallHeader(7, "Thermostat", 1, "set_target", 2.5, {"trace": "x"})
ERROR = ErrorBody(ErrorKind.APPLICATION, "too-hot", "at most 30", "$", msgspec.Raw(b"\x1e"))
LIMIT = 1000


def test_the_layout_is_that_of_the_document() -> None:
    body = bytes.fromhex(
        "9607aa546865726d6f7374617401aa7365745f746172676574cb400400000000000081a57472616365a178"
    )
    assert encode_call(CALL) == b"\x01" + len(body).to_bytes(4, "big") + body
    body = bytes.fromhex("9500a7746f6f2d686f74aa6174206d6f7374203330a1241e")
    assert encode_error(ERROR) == b"\x06" + len(body).to_bytes(4, "big") + body
    assert encode_frame(FrameType.ARGUMENTS, b"\x80") == bytes.fromhex("020000000180")
    assert encode_frame(FrameType.ITEM, b"\x05") == bytes.fromhex("030000000105")
    assert encode_frame(FrameType.RESULT, b"\xc0") == bytes.fromhex("0400000001c0")
    assert encode_frame(FrameType.END) == bytes.fromhex("0500000000")


def test_a_request_is_a_call_and_its_arguments() -> None:
    assert encode_call(CALL, b"\x80") == encode_call(CALL) + encode_frame(FrameType.ARGUMENTS, b"\x80")


PIECES = st.sampled_from(
    [
        *(encode_frame(kind, body) for kind in FrameType for body in (b"", b"body")),
        *(b"\x01", b"\x02\x00\x00", b"\x04\x00\x00\x00\x05", b"\x02\x00\x00\x00\x01"),
    ]
)


@given(st.lists(PIECES, max_size=4).map(b"".join) | st.binary(max_size=30))
@example(encode_call(CALL, b"x"))
@example(encode_call(CALL, b"x") + encode_frame(FrameType.END))
@example(encode_call(CALL) + encode_frame(FrameType.RESULT, b"x"))
@example(encode_frame(FrameType.RESULT, b"x"))
@example(2 * encode_frame(FrameType.RESULT, b"x"))
def test_C1_what_is_taken_in_one_step_is_what_reading_frame_by_frame_finds(data: bytes) -> None:
    found: list[Frame] | None = []
    reader = FrameReader(LIMIT)
    reader.feed(data)
    try:
        while (frame := reader.next_untrusted()) is not None:
            found.append(frame)
    except BadMessage:
        found = None
    whole = [] if found is None or not reader.empty else found
    kinds = [frame.type for frame in whole]
    bodies = tuple(frame.body for frame in whole)
    assert split_request_untrusted(data) == (
        bodies if kinds == [FrameType.CALL, FrameType.ARGUMENTS] else None
    )
    assert split_result_untrusted(data) == (bodies[0] if kinds == [FrameType.RESULT] else None)


def test_C1_a_header_that_is_too_large_is_not_taken_in_one_step() -> None:
    for size in (MAX_HEADER_SIZE, MAX_HEADER_SIZE + 1):
        request = encode_frame(FrameType.CALL, bytes(size)) + encode_frame(FrameType.ARGUMENTS, b"x")
        whole = (bytes(size), b"x") if size == MAX_HEADER_SIZE else None
        assert split_request_untrusted(request) == whole


def test_headers_and_errors_come_back_as_they_went() -> None:
    assert decode_call_untrusted(encode_call(CALL)[5:]) == CALL
    back = decode_error_untrusted(encode_error(ERROR)[5:])
    assert (back.kind, back.code, back.message, bytes(back.data)) == (0, "too-hot", "at most 30", b"\x1e")


def test_what_a_later_version_adds_is_passed_over() -> None:
    body = msgspec.msgpack.encode([7, "S", 1, "m", None, {}, "new", [1]])
    assert decode_call_untrusted(body) == CallHeader(7, "S", 1, "m")
    assert decode_call_untrusted(msgspec.msgpack.encode([7, "S", 1, "m"])) == CallHeader(7, "S", 1, "m")


@pytest.mark.parametrize(
    "body", [b"", b"\x90", b"\xc1", b"\x93\x07\xa1S\x01", b"\x94\x07\xa1S\x01\x05", b"\xdd\xff\xff\xff\xff"]
)
def test_C2_what_is_no_header_is_malformed(body: bytes) -> None:
    for decode in (decode_call_untrusted, decode_error_untrusted):
        with pytest.raises(BadMessage):
            decode(body)


@given(st.binary(max_size=100))
def test_C1_arbitrary_bytes_raise_nothing_but_BadMessage(data: bytes) -> None:
    for decode in (decode_call_untrusted, decode_error_untrusted):
        try:
            decode(data)
        except BadMessage:
            continue
    reader = FrameReader(LIMIT)
    reader.feed(data)
    try:
        while reader.next_untrusted():
            pass
    except BadMessage:
        return


FRAMES = st.lists(st.builds(Frame, st.sampled_from(FrameType), st.binary(max_size=60)), max_size=8)


@given(FRAMES, st.data())
def test_frames_are_cut_out_of_any_pieces(frames: list[Frame], data: st.DataObject) -> None:
    whole = b"".join(encode_frame(*frame) for frame in frames)
    reader = FrameReader(LIMIT)
    found = []
    while whole:
        size = data.draw(st.integers(1, len(whole)))
        reader.feed(whole[:size])
        whole = whole[size:]
        while (frame := reader.next_untrusted()) is not None:
            found.append(frame)
    assert found == frames
    assert reader.empty


@pytest.mark.parametrize("kind", FrameType)
def test_C1_a_frame_too_large_is_refused_by_its_first_five_bytes(kind: FrameType) -> None:
    limit = MAX_HEADER_SIZE if kind in (FrameType.CALL, FrameType.ERROR) else LIMIT
    reader = FrameReader(LIMIT)
    reader.feed(bytes([kind]) + limit.to_bytes(4, "big"))
    assert reader.next_untrusted() is None
    reader = FrameReader(LIMIT)
    reader.feed(bytes([kind]) + (limit + 1).to_bytes(4, "big"))
    with pytest.raises(BadMessage) as refused:
        reader.next_untrusted()
    assert refused.value.reason == "too-large"


@pytest.mark.parametrize("kind", [0, 7, 0x16, 255])
def test_C2_an_unknown_frame_is_malformed(kind: int) -> None:
    reader = FrameReader(LIMIT)
    reader.feed(bytes([kind, 0, 0, 0, 0]))
    with pytest.raises(BadMessage) as refused:
        reader.next_untrusted()
    assert refused.value.reason == "malformed"
