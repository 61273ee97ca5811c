"""Layouts of GROUP datagrams, to the byte (docs/protocol.md, section 8).

     0  1 type 0x15
     1  1 zero
     2  2 generation
     4  8 channel
    12  8 seq
    20  n ciphertext
     . 16 tag

    plaintext: kind u8 | body | signature 64 (kinds 1, 3, 4 and 5); the upper half of kind has the flags of DATA
    1 DATA       number u32 | content, signed
    2 DATA       the same, covered by a manifest
    3 MANIFEST   count u8 | count x 16
    4 HEARTBEAT  highest u64 | oldest kept u64 | members u32 | number u32
    5 ROTATE     last seq u64
    6 PARITY     sum; its seq is 2^63 + (block << 16) + (index << 8) + count
    7 LARGE      count u8 | digests of the LARGE before 16, of the one behind 16, of the parts 16 | count x 16 |
                 zeros, signed

Content is a message or a piece of one; with flag SEVERAL, `count u8 | count x length u16 | messages`.
The parts of a large packet, after their headers, are slices of one ciphertext and its tag; the plaintext is
`number u32 | count u16 | count x length u16 | messages`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Final, NamedTuple, TypeAlias, overload

from mp2p_core.errors import BadPacket
from mp2p_core.proto import constants as c

__all__ = [
    "BEGIN",
    "CHANNEL",
    "DATA",
    "DATA_COVERED",
    "DATA_HEAD",
    "DATA_OVERHEAD",
    "DIGEST_SIZE",
    "END",
    "FIRST_PARITY",
    "GROUP_MIN_SIZE",
    "HEARTBEAT",
    "LARGE",
    "LARGE_HEAD",
    "LENGTH_SIZE",
    "MANIFEST",
    "NO_DIGEST",
    "PARITY",
    "ROTATE",
    "SEVERAL",
    "SIGNATURE_SIZE",
    "SIGNED",
    "UNPROVEN",
    "WHOLE",
    "Content",
    "Data",
    "Heartbeat",
    "LargeManifest",
    "Manifest",
    "Packed",
    "Part",
    "Rotate",
    "Unproven",
    "data_plain",
    "group_fields",
    "group_header",
    "heartbeat_body",
    "large_body",
    "large_nonce",
    "large_plain",
    "manifest_body",
    "parse_data_untrusted",
    "parse_heartbeat_untrusted",
    "parse_large_plain_untrusted",
    "parse_large_untrusted",
    "parse_manifest_untrusted",
    "parse_rotate_untrusted",
    "rotate_body",
    "several_plain",
    "split",
]

_HEADER = struct.Struct(">BBH8sQ")
group_header = partial(_HEADER.pack, c.TYPE_GROUP, 0)
"""Pack bytes 0 to 19, also the associated data, from generation, channel and seq."""
group_fields = _HEADER.unpack_from
"""Read type, zero, generation, channel and seq."""
CHANNEL: Final = slice(4, 12)
"""Where the channel stands in a datagram."""

DATA: Final = 1
DATA_COVERED: Final = 2
MANIFEST: Final = 3
HEARTBEAT: Final = 4
ROTATE: Final = 5
PARITY: Final = 6
LARGE: Final = 7
SIGNED: Final = (DATA, MANIFEST, HEARTBEAT, ROTATE, LARGE)

SIGNATURE_SIZE: Final = 64
DIGEST_SIZE: Final = 16
NO_DIGEST: Final = bytes(DIGEST_SIZE)
GROUP_MIN_SIZE: Final = c.GROUP_HEADER_SIZE + 1 + c.TAG_SIZE
FIRST_PARITY: Final = 2**63
"""PARITY has its own half of the numbers: it is never repaired, so it leaves no hole where it is lost."""

BEGIN: Final = 1
END: Final = 2
SEVERAL: Final = 4
WHOLE: Final = BEGIN | END
_FLAGS: Final = BEGIN | END | SEVERAL

_DATA_HEAD = struct.Struct(">BI")
DATA_HEAD: Final = _DATA_HEAD.size
DATA_OVERHEAD: Final = c.GROUP_HEADER_SIZE + DATA_HEAD + c.TAG_SIZE
"""Bytes of a covered datagram beside the content; one that is signed itself has SIGNATURE_SIZE more."""
_MAX_SEVERAL: Final = 255
_LENGTHS: Final = tuple(struct.Struct(f">{n}H") for n in range(_MAX_SEVERAL + 1))
_LARGE_BODY = struct.Struct(f">xB{DIGEST_SIZE}s{DIGEST_SIZE}s{DIGEST_SIZE}s")
_LARGE_HEAD = struct.Struct(">IH")
LARGE_HEAD: Final = _LARGE_HEAD.size
LENGTH_SIZE: Final = 2
large_nonce: Final = struct.Struct("<IQ").pack
"""Pack the nonce of a large packet, from 1 and the seq of its first part: no datagram has it."""
_HEARTBEAT = struct.Struct(">QQII")
_U64 = struct.Struct(">Q")


class Data(NamedTuple):
    """What a DATA datagram brings: whole messages, the first one's number given, or a piece of one message.

    `number` is the lower 32 bits. `piece` is None exactly when `messages` holds any.
    """

    flags: int
    number: int
    messages: Sequence[bytes]
    piece: bytes | None


class LargeManifest(NamedTuple):
    """What a LARGE says of the `parts` datagrams that follow it: their digests, and the one of all of them joined.

    `previous` is the digest of the LARGE before it if nothing but its parts lies between them, `following` that of
    the one behind it; zeros where it names none.
    """

    parts: int
    previous: bytes
    following: bytes
    whole: bytes
    digests: bytes

    def each(self) -> list[bytes]:
        """Return the digests one by one."""
        return [self.digests[at : at + DIGEST_SIZE] for at in range(0, len(self.digests), DIGEST_SIZE)]


class Heartbeat(NamedTuple):
    """What there is: seqs up to `highest`, of which those from `oldest` on can be repaired.

    `members` is how many subscribers there are; `number` the lower 32 bits of the next message's number.
    """

    highest: int
    oldest: int
    members: int
    number: int


class Manifest(NamedTuple):
    """How many datagrams after this one it covers."""

    covered: int


class Rotate(NamedTuple):
    """The epoch ends with this seq."""

    last: int


class Part(NamedTuple):
    """A part of a large packet, the publisher's, of which others are missing."""


class Unproven(NamedTuple):
    """A datagram that a member made and no manifest has covered yet: it waits, and has moved nothing."""


Content: TypeAlias = Data | Manifest | Heartbeat | Rotate | Part | Unproven
UNPROVEN: Final = Unproven()


def data_plain(kind: int, flags: int, number: int, content: bytes) -> bytes:
    """Pack a DATA, signed or covered by its `kind`, with one message or a piece of one."""
    return _DATA_HEAD.pack(kind | flags << 4, number & 0xFFFFFFFF) + content


def several_plain(kind: int, number: int, messages: Sequence[bytes]) -> bytes:
    """Pack a DATA with 1 to 255 whole messages of less than 64 KiB each."""
    count = len(messages)
    return b"".join((
        _DATA_HEAD.pack(kind | (WHOLE | SEVERAL) << 4, number & 0xFFFFFFFF), bytes((count,)),
        _LENGTHS[count].pack(*map(len, messages)), *messages,
    ))  # fmt: skip


def parse_data_untrusted(plaintext: bytes, end: int) -> Data:
    """Read a DATA up to `end`. Raises BadPacket."""
    if end < DATA_HEAD:
        raise BadPacket("group-malformed")
    head, number = _DATA_HEAD.unpack_from(plaintext)
    flags = head >> 4
    at = DATA_HEAD
    if not flags & SEVERAL:
        if flags & ~_FLAGS:
            raise BadPacket("group-malformed")
        content = plaintext[at:end]
        return Data(flags, number, [content], None) if flags == WHOLE else Data(flags, number, [], content)
    if flags != WHOLE | SEVERAL or at >= end:
        raise BadPacket("group-malformed")
    lengths = _LENGTHS[plaintext[at]]
    at += 1
    if at + lengths.size > end or lengths.size == 0:
        raise BadPacket("group-malformed")
    messages = []
    start = at + lengths.size
    for length in lengths.unpack_from(plaintext, at):
        stop = start + length
        messages.append(plaintext[start:stop])
        start = stop
    if start != end:
        raise BadPacket("group-malformed")
    return Data(flags, number, messages, None)


def manifest_body(digests: Sequence[bytes]) -> bytes:
    """Pack a MANIFEST of the datagrams that follow it, in order."""
    return bytes((len(digests),)) + b"".join(digests)


def parse_manifest_untrusted(plaintext: bytes, end: int) -> list[bytes]:
    """Read a MANIFEST: digests of the datagrams with the seqs after its own. Raises BadPacket."""
    if end < 2 or not 1 <= plaintext[1] <= c.MAX_MANIFEST or end != 2 + plaintext[1] * DIGEST_SIZE:
        raise BadPacket("group-malformed")
    return [plaintext[at : at + DIGEST_SIZE] for at in range(2, end, DIGEST_SIZE)]


def large_plain(number: int, messages: Sequence[bytes]) -> bytes:
    """Pack what a large packet seals: whole messages of less than 64 KiB each, and less than 65536 of them."""
    count = len(messages)
    lengths = struct.pack(f">{count}H", *map(len, messages))
    return b"".join((_LARGE_HEAD.pack(number & 0xFFFFFFFF, count), lengths, *messages))


def parse_large_plain_untrusted(plaintext: bytes) -> Data:
    """Read what a large packet sealed. Raises BadPacket."""
    if len(plaintext) < LARGE_HEAD:
        raise BadPacket("group-malformed")
    number, count = _LARGE_HEAD.unpack_from(plaintext)
    start = LARGE_HEAD + count * LENGTH_SIZE
    if not count or start > len(plaintext):
        raise BadPacket("group-malformed")
    lengths = struct.unpack_from(f">{count}H", plaintext, LARGE_HEAD)
    if start + sum(lengths) != len(plaintext):
        raise BadPacket("group-malformed")
    return Data(WHOLE | SEVERAL, number, Packed(plaintext, start, lengths), None)


class Packed(Sequence[bytes]):
    """Messages one behind the other in a packet: copied out of it whenever they are looked at, so do that once."""

    __slots__ = ("lengths", "packet", "start")

    def __init__(self, packet: bytes, start: int, lengths: tuple[int, ...]) -> None:
        self.packet = packet
        self.start = start
        self.lengths = lengths

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        return split(self, 0)[1][index]

    def __iter__(self) -> Iterator[bytes]:
        return iter(split(self, 0)[1])


def split(messages: Sequence[bytes], head: int) -> tuple[Sequence[bytes], Sequence[bytes]]:
    """Cut each message into its first `head` bytes, or less if it has not so many, and the rest."""
    if isinstance(messages, Packed) and min(messages.lengths) >= head:
        found = _splitter(head, messages.lengths)(messages.packet, messages.start)
        return found[::2], found[1::2]
    return [each[:head] for each in messages], [each[head:] for each in messages]


@lru_cache(maxsize=16)  # a publisher that packs as many empty messages as it can fills it with 32 MiB
def _splitter(head: int, lengths: tuple[int, ...]) -> Callable[..., tuple[bytes, ...]]:
    each = f"{head}s%ds" * len(lengths)
    return struct.Struct(each % tuple(length - head for length in lengths)).unpack_from


def large_body(previous: bytes, following: bytes, whole: bytes, digests: Sequence[bytes]) -> bytes:
    """Pack a LARGE, without the zeros that may follow."""
    return b"".join((bytes((len(digests),)), previous, following, whole, *digests))


def parse_large_untrusted(plaintext: bytes, end: int) -> LargeManifest:
    """Read a LARGE up to `end`. Raises BadPacket."""
    if end < _LARGE_BODY.size:
        raise BadPacket("group-malformed")
    count, previous, following, whole = _LARGE_BODY.unpack_from(plaintext)
    stop = _LARGE_BODY.size + count * DIGEST_SIZE
    if not 0 < count <= c.MAX_PARTS or stop > end or plaintext[stop:end].strip(b"\0"):
        raise BadPacket("group-malformed")
    return LargeManifest(count, previous, following, whole, plaintext[_LARGE_BODY.size : stop])


def heartbeat_body(highest: int, oldest: int, members: int, number: int) -> bytes:
    """Pack a HEARTBEAT."""
    return _HEARTBEAT.pack(highest, oldest, members, number & 0xFFFFFFFF)


def parse_heartbeat_untrusted(plaintext: bytes, end: int) -> Heartbeat:
    """Read a HEARTBEAT. Raises BadPacket."""
    if end != 1 + _HEARTBEAT.size:
        raise BadPacket("group-malformed")
    return Heartbeat(*_HEARTBEAT.unpack_from(plaintext, 1))


def rotate_body(last: int) -> bytes:
    """Pack a ROTATE."""
    return _U64.pack(last)


def parse_rotate_untrusted(plaintext: bytes, end: int) -> int:
    """Read a ROTATE: the last seq of the epoch. Raises BadPacket."""
    if end != 1 + _U64.size:
        raise BadPacket("group-malformed")
    last: int = _U64.unpack_from(plaintext, 1)[0]
    return last
