"""The frames of a call, to the byte (docs/rpc.md, "Frames"); sans-IO.

every frame     0  1  type    1  4  n, big-endian    5  n  body

type  name      from      body
01    CALL      caller    msgpack array: call id, service, version, method, seconds left or nil, metadata
02    ARGUMENTS caller    msgpack map: the arguments by name
03    ITEM      both      msgpack: one item of a stream
04    RESULT    handler   msgpack: the result
05    END       both      empty: the stream of items is complete
06    ERROR     handler   msgpack array: kind, code, message, path, data

caller      CALL, ARGUMENTS, then ITEM... END if the method takes a stream, end of stream
handler     RESULT, or ITEM... END; or, in place of any of these, ERROR; end of stream
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

import msgspec

from mp2p_rpc.errors import BadMessage

__all__ = [
    "FRAME_HEADER_SIZE",
    "MAX_HEADER_SIZE",
    "CallHeader",
    "ErrorBody",
    "ErrorKind",
    "Frame",
    "FrameReader",
    "FrameType",
    "UnknownFrame",
    "decode_call_untrusted",
    "decode_error_untrusted",
    "encode_call",
    "encode_error",
    "encode_frame",
    "split_request_untrusted",
    "split_result_untrusted",
]

FRAME_HEADER_SIZE: Final = 5
MAX_HEADER_SIZE: Final = 16384
"""Bytes of the body of CALL, metadata and all, and of ERROR."""

_HEAD: Final = struct.Struct("!BI")


class FrameType(IntEnum):
    """What a frame is."""

    CALL = 1
    ARGUMENTS = 2
    ITEM = 3
    RESULT = 4
    END = 5
    ERROR = 6


class ErrorKind(IntEnum):
    """What an ERROR is about. `mp2p_rpc.errors` has a class for each."""

    APPLICATION = 0
    INTERNAL = 1
    UNKNOWN_METHOD = 2
    NOT_ALLOWED = 3
    BUSY = 4
    DEADLINE = 5
    ARGUMENTS = 6
    RESULT = 7
    REQUEST = 8
    STOPPED = 9


class CallHeader(msgspec.Struct, array_like=True, frozen=True):
    """The body of CALL."""

    id: int
    """64 bits, drawn by the caller: one id for all attempts at an idempotent call. For logs; proves nothing."""
    service: str
    version: int
    method: str
    timeout: float | None = None
    """Seconds that the caller will wait, or None."""
    metadata: dict[str, str] = {}


class ErrorBody(msgspec.Struct, array_like=True, frozen=True):
    """The body of ERROR."""

    kind: int
    code: str = ""
    """The error's own code (APPLICATION), the incident (INTERNAL), the reason (REQUEST)."""
    message: str = ""
    path: str = "$"
    data: msgspec.Raw = msgspec.Raw(b"\xc0")
    """msgpack: what the application adds to its error."""


class Frame(NamedTuple):
    """One frame as it was received."""

    type: FrameType
    body: bytes


_ENCODER: Final = msgspec.msgpack.Encoder()
_CALL: Final = msgspec.msgpack.Decoder(CallHeader)
_ERROR: Final = msgspec.msgpack.Decoder(ErrorBody)
_TYPES: Final = {int(each): each for each in FrameType}
_SMALL: Final = (FrameType.CALL, FrameType.ERROR)
_CALL_TYPE: Final = int(FrameType.CALL)
_ARGUMENTS_TYPE: Final = int(FrameType.ARGUMENTS)
_RESULT_TYPE: Final = int(FrameType.RESULT)


def encode_frame(kind: FrameType, body: bytes = b"") -> bytes:
    """Write a frame."""
    return _HEAD.pack(kind, len(body)) + body


def encode_call(header: CallHeader, arguments: bytes | None = None) -> bytes:
    """Write a CALL, and the ARGUMENTS behind it."""
    body = _ENCODER.encode(header)
    head = _HEAD.pack(_CALL_TYPE, len(body))
    if arguments is None:
        return head + body
    return b"".join((head, body, _HEAD.pack(_ARGUMENTS_TYPE, len(arguments)), arguments))


def encode_error(body: ErrorBody) -> bytes:
    """Write an ERROR."""
    return encode_frame(FrameType.ERROR, _ENCODER.encode(body))


def decode_call_untrusted(body: bytes) -> CallHeader:
    """Read the body of a CALL. Raises BadMessage."""
    try:
        return _CALL.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BadMessage("malformed", "the request's CALL cannot be read") from error


def decode_error_untrusted(body: bytes) -> ErrorBody:
    """Read the body of an ERROR. Raises BadMessage."""
    try:
        return _ERROR.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BadMessage("malformed", "the answer's ERROR cannot be read") from error


def split_request_untrusted(data: bytes) -> tuple[bytes, bytes] | None:
    """Return the bodies of a CALL and ARGUMENTS that are all there is; None for anything else.

    Most requests come so. `FrameReader` reads the others, and says what is wrong with them.
    """
    end = len(data)
    if end < 2 * FRAME_HEADER_SIZE:
        return None
    kind, size = _HEAD.unpack_from(data)
    middle = FRAME_HEADER_SIZE + size
    start = middle + FRAME_HEADER_SIZE
    if kind != _CALL_TYPE or size > MAX_HEADER_SIZE or start > end:
        return None
    kind, size = _HEAD.unpack_from(data, middle)
    if kind != _ARGUMENTS_TYPE or start + size != end:
        return None
    return data[FRAME_HEADER_SIZE:middle], data[start:]


def split_result_untrusted(data: bytes) -> bytes | None:
    """Return the body of a RESULT that is all there is; None for anything else, as `split_request_untrusted`."""
    if len(data) < FRAME_HEADER_SIZE:
        return None
    kind, size = _HEAD.unpack_from(data)
    if kind != _RESULT_TYPE or FRAME_HEADER_SIZE + size != len(data):
        return None
    return data[FRAME_HEADER_SIZE:]


class UnknownFrame(BadMessage):
    """There is no frame of this type."""

    def __init__(self, number: int) -> None:
        super().__init__("malformed", f"there is no frame of type {number}")


class FrameReader:
    """Cuts what a stream brings into frames. Holds no more than one frame, and what came with its last byte."""

    # What those that are not needed, because everything comes in one piece, never come to change.
    wanted = 0
    """Bytes of the frame that is not whole yet; 0 when there is none, or not enough of it."""
    _buffer = b""
    _at = 0

    def __init__(self, limit: int) -> None:
        self.limit = limit
        """Bytes that a body may have, but for CALL and ERROR, which have a limit of their own."""

    @property
    def empty(self) -> bool:
        """Whether nothing of a further frame has come."""
        return self._at == len(self._buffer)

    @property
    def unread(self) -> bytes:
        """What is of no frame that was returned."""
        return self._buffer[self._at :]

    def feed(self, data: bytes) -> None:
        """Take what the stream brought. Call `next_untrusted` until it returns None before the next time."""
        rest = self._buffer[self._at :]
        self._buffer = rest + data if rest else data
        self._at = 0

    def next_untrusted(self) -> Frame | None:
        """Return the next whole frame, or None. Raises BadMessage, before the body of a frame too large is here."""
        buffer, at = self._buffer, self._at
        self.wanted = 0
        if len(buffer) - at < FRAME_HEADER_SIZE:
            if at < len(buffer) and buffer[at] not in _TYPES:
                raise UnknownFrame(buffer[at])  # a stream of another protocol may wait for an answer to less
            return None
        number, size = _HEAD.unpack_from(buffer, at)
        kind = _TYPES.get(number)
        if kind is None:
            raise UnknownFrame(number)
        limit = MAX_HEADER_SIZE if kind in _SMALL else self.limit
        if size > limit:
            raise BadMessage("too-large", f"a message of {size} bytes, at most {limit} are taken")
        start = at + FRAME_HEADER_SIZE
        if len(buffer) - start < size:
            self.wanted = FRAME_HEADER_SIZE + size
            return None
        self._at = start + size
        return Frame(kind, buffer[start : self._at])
