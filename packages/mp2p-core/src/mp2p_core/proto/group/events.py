"""What publisher and subscriber tell their caller. Plain values."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple, TypeAlias

__all__ = [
    "Gap",
    "GroupChosen",
    "Joined",
    "Left",
    "MemberJoined",
    "MemberLeft",
    "Messages",
    "PublisherEvent",
    "Reached",
    "Refused",
    "SubscriberEvent",
    "Suspicion",
]


class Messages(NamedTuple):
    """Messages of the publisher, numbered on from `number`. Each comes once.

    In order if the topic is; else a message may come before one with a smaller number.
    """

    number: int
    messages: Sequence[bytes]


class Gap(NamedTuple):
    """Messages that will not come: `missing` from `number` on; both None when nobody can tell which."""

    number: int | None
    missing: int | None
    reason: str


class Joined(NamedTuple):
    """The publisher has let this subscriber in; `mode` is how the topic is repaired, `history` what it keeps."""

    mode: int
    history: int


class GroupChosen(NamedTuple):
    """The channel's datagrams come to this group, an address record: be a member of it."""

    group: bytes


class Refused(NamedTuple):
    """The publisher said no, or no longer. `code` is a REFUSE code of `control`."""

    code: int
    text: str


class Left(NamedTuple):
    """The subscription has ended on this side; nothing follows."""


class Reached(NamedTuple):
    """How datagrams come from now on: by multicast, or over the session because multicast does not arrive."""

    multicast: bool


class Suspicion(NamedTuple):
    """Somebody who holds the channel's keys, and is not the publisher, makes datagrams: one of its subscribers.

    `forged` of them so far, all refused. Said for the first, and then at most every ten seconds.
    """

    forged: int


SubscriberEvent: TypeAlias = Messages | Gap | Joined | GroupChosen | Refused | Left | Reached | Suspicion


class MemberJoined(NamedTuple):
    """A subscriber has been granted the keys. `member` is the caller's own name for it, `key` its public key."""

    member: Hashable
    key: bytes


class MemberLeft(NamedTuple):
    """A subscriber is gone; `code` is 0 if of its own accord, else what it was refused with."""

    member: Hashable
    key: bytes
    code: int
    reason: str


PublisherEvent: TypeAlias = MemberJoined | MemberLeft
