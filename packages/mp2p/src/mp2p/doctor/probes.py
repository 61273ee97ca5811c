"""The datagrams of `mp2p doctor --pair` and `--listen`. No part of the protocol, and no secret in them.

    magic 16 | nonce 16 | n u16 | n bytes of JSON | padding | tag 16

The tag is BLAKE2s keyed with a hash of the listener's public key: as everywhere in mp2p, whoever does not know
the key gets no answer. An answer repeats the nonce and is never longer than its question.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from struct import Struct
from typing import Any, Final, NamedTuple

__all__ = ["LEAST_SIZE", "NONCE_SIZE", "Probe", "pack", "unpack"]

_QUESTION: Final = b"mp2p doctor ask\0"
_ANSWER: Final = b"mp2p doctor say\0"
_HEAD: Final = Struct("!16s16sH")
_TAG_SIZE: Final = 16
NONCE_SIZE: Final = 16
LEAST_SIZE: Final = 600
"""Bytes of the shortest question, and of the longest answer."""


class Probe(NamedTuple):
    """A question or an answer."""

    answer: bool
    nonce: bytes
    body: dict[str, Any]


def pack(key: bytes, probe: Probe, size: int = 0) -> bytes:
    """Make a datagram of at least `size` bytes for, or from, the listener with this public key."""
    text = json.dumps(probe.body, separators=(",", ":")).encode()
    head = _HEAD.pack(_ANSWER if probe.answer else _QUESTION, probe.nonce, len(text)) + text
    head += bytes(max(0, size - len(head) - _TAG_SIZE))
    return head + _tag(key, head)


def unpack(key: bytes, datagram: bytes) -> Probe | None:
    """Read a datagram; None when it is something else, or meant for another key."""
    if len(datagram) < _HEAD.size + _TAG_SIZE:
        return None
    magic, nonce, length = _HEAD.unpack_from(datagram)
    if magic not in (_QUESTION, _ANSWER) or length > len(datagram) - _HEAD.size - _TAG_SIZE:
        return None
    if not hmac.compare_digest(_tag(key, datagram[:-_TAG_SIZE]), datagram[-_TAG_SIZE:]):
        return None
    try:
        body = json.loads(datagram[_HEAD.size : _HEAD.size + length])
    except (ValueError, RecursionError):
        return None
    return Probe(magic == _ANSWER, nonce, body) if isinstance(body, dict) else None


def _tag(key: bytes, data: bytes) -> bytes:
    secret = hashlib.blake2s(b"mp2p doctor\0" + key).digest()
    return hashlib.blake2s(data, key=secret, digest_size=_TAG_SIZE).digest()
