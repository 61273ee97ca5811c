"""The protocol of file transfer, sans-IO: what goes over the stream of one file.

The sender opens a stream for each file. Numbers are big-endian.

    sender     OFFER   0  8 "mp2pfile"   8  1 version = 1   9  1 flags (bit 0: the time is given)
                       10 16 id: the same for the same source   26  8 size
                       34  8 modification time, ns since 1970, signed, or 0   42  2 n   44  n name, UTF-8
    receiver   HAVE    0  1 0x10   1  8 offset   9 32 SHA-256 of what it has up to there
    sender     GO      0  1 0x01   1  8 offset: that of HAVE, or 0 to start over
               the bytes of the file from there on, up to `size`, then 32 bytes: SHA-256 of the whole file
    receiver   DONE    0  1 0x12   1 32 SHA-256   33  2 n   35  n name that the file was given
    sender     end of stream

From the OFFER on until DONE, the receiver says every half second how far it is, which is a sign of life too:

    receiver   WRITTEN 0  1 0x11   1  8 bytes of the file that it has written

Either side may give up: the receiver with a frame that says why, the sender by resetting the stream with the
same codes.

    receiver   FAILED  0  1 0x1f   1  2 code   3  2 n   5  n words, UTF-8

The end of the stream before the last hash is a failure, whatever has arrived by then.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, TypeAlias

from mp2p_core.errors import BadPacket

__all__ = [
    "DIGEST_SIZE",
    "ID_SIZE",
    "MAX_NAME_SIZE",
    "MAX_SIZE",
    "MAX_WORDS_SIZE",
    "Done",
    "Failed",
    "Go",
    "Have",
    "Offer",
    "Reply",
    "Written",
    "decode_go_untrusted",
    "decode_offer_untrusted",
    "decode_reply_untrusted",
    "encode",
]

_MAGIC: Final = b"mp2pfile"
_CALL_REFUSED: Final = 6
"""The frame with which a node that serves calls refuses any other stream (docs/rpc.md, "Frames")."""
FIRST: Final = _MAGIC[:1]
"""What a stream that brings a file begins with, and a call does not."""
_VERSION: Final = 1
_HAS_TIME: Final = 1
_OFFER: Final = struct.Struct("!8sBB16sQqH")
_GO: Final = struct.Struct("!BQ")
_HAVE: Final = struct.Struct("!BQ32s")
_WRITTEN: Final = struct.Struct("!BQ")
_DONE: Final = struct.Struct("!B32sH")
_FAILED: Final = struct.Struct("!BHH")
_GO_TYPE: Final = 0x01
_HAVE_TYPE: Final = 0x10
_WRITTEN_TYPE: Final = 0x11
_DONE_TYPE: Final = 0x12
_FAILED_TYPE: Final = 0x1F

ID_SIZE: Final = 16
DIGEST_SIZE: Final = 32
MAX_SIZE: Final = 2**63 - 1
MAX_NAME_SIZE: Final = 1024
"""Bytes of a name; file systems take 255."""
MAX_WORDS_SIZE: Final = 1024


@dataclass(frozen=True, slots=True)
class Offer:
    """A file that the sender wants to send."""

    id: bytes
    name: str
    size: int
    time_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Go:
    """Where the bytes that follow begin in the file."""

    offset: int


@dataclass(frozen=True, slots=True)
class Have:
    """What the receiver has of the file."""

    offset: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Written:
    """How far the receiver is."""

    size: int


@dataclass(frozen=True, slots=True)
class Done:
    """The file is whole, on the receiver's disk, under this name."""

    digest: bytes
    name: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The receiver gives up."""

    code: int
    words: str


Reply: TypeAlias = Have | Written | Done | Failed


def encode(message: Offer | Go | Reply) -> bytes:
    """Write a message; texts are cut to what fits."""
    match message:
        case Offer():
            name = _cut(message.name, MAX_NAME_SIZE)
            flags = 0 if message.time_ns is None else _HAS_TIME
            head = (_MAGIC, _VERSION, flags, message.id, message.size, message.time_ns or 0, len(name))
            return _OFFER.pack(*head) + name
        case Go():
            return _GO.pack(_GO_TYPE, message.offset)
        case Have():
            return _HAVE.pack(_HAVE_TYPE, message.offset, message.digest)
        case Written():
            return _WRITTEN.pack(_WRITTEN_TYPE, message.size)
        case Done():
            name = _cut(message.name, MAX_NAME_SIZE)
            return _DONE.pack(_DONE_TYPE, message.digest, len(name)) + name
        case Failed():
            words = _cut(message.words, MAX_WORDS_SIZE)
            return _FAILED.pack(_FAILED_TYPE, message.code, len(words)) + words


def decode_offer_untrusted(data: bytes) -> tuple[Offer, int] | None:
    """Read an OFFER from the start of `data`: it and its length, or None when there is more to come.

    Raises `BadPacket`.
    """
    if not _MAGIC.startswith(data[: len(_MAGIC)]):
        raise BadPacket("not a file transfer")
    if len(data) < _OFFER.size:
        return None
    _, version, flags, identifier, size, time_ns, length = _OFFER.unpack_from(data)
    if version != _VERSION or flags & ~_HAS_TIME or size > MAX_SIZE or length > MAX_NAME_SIZE:
        raise BadPacket("an offer of another version, or out of bounds")
    if time_ns and not flags:
        raise BadPacket("a time that is not given")
    if len(data) < _OFFER.size + length:
        return None
    end = _OFFER.size + length
    name = _text_untrusted(data[_OFFER.size : end])
    return Offer(identifier, name, size, time_ns if flags else None), end


def decode_go_untrusted(data: bytes) -> tuple[Go, int] | None:
    """Read a GO from the start of `data`, as `decode_offer_untrusted`."""
    if len(data) < _GO.size:
        return None
    kind, offset = _GO.unpack_from(data)
    if kind != _GO_TYPE or offset > MAX_SIZE:
        raise BadPacket("not a GO")
    return Go(offset), _GO.size


def decode_reply_untrusted(data: bytes) -> tuple[Reply, int] | None:
    """Read what a receiver says from the start of `data`, as `decode_offer_untrusted`."""
    if not data:
        return None
    kind = data[0]
    layout = _LAYOUTS.get(kind)
    if kind == _CALL_REFUSED:
        raise BadPacket("it serves calls, and takes no files from this key")
    if layout is None:
        raise BadPacket(f"an unknown frame, type {kind}")
    if len(data) < layout.size:
        return None
    _, *fields = layout.unpack_from(data)
    if kind == _HAVE_TYPE:
        return Have(*fields), layout.size
    if kind == _WRITTEN_TYPE:
        return Written(*fields), layout.size
    first, length = fields
    if length > MAX_NAME_SIZE:
        raise BadPacket("a text out of bounds")
    end = layout.size + length
    if len(data) < end:
        return None
    text = _text_untrusted(data[layout.size : end])
    return (Done(first, text) if kind == _DONE_TYPE else Failed(first, text)), end


_LAYOUTS: Final = {_HAVE_TYPE: _HAVE, _WRITTEN_TYPE: _WRITTEN, _DONE_TYPE: _DONE, _FAILED_TYPE: _FAILED}


def _text_untrusted(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise BadPacket("a text that is not UTF-8") from error


def _cut(text: str, limit: int) -> bytes:
    """Encode a text to at most `limit` bytes; what is no Unicode becomes a question mark."""
    data = text.encode(errors="replace")
    return data if len(data) <= limit else data[:limit].decode(errors="ignore").encode()
