"""Topics: a name, the type of what is published under it, and how it is delivered (docs/pubsub.md)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, repeat
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar

import msgspec

from mp2p_core import PublicKey, UsageError
from mp2p_core.proto.group.control import BEST_EFFORT, ORDERED, REPAIRED
from mp2p_core.proto.group.layout import split
from mp2p_rpc.errors import ArgumentError, BadMessage
from mp2p_rpc.limits import Limits
from mp2p_rpc.schema import Codec, Misfit

__all__ = [
    "MAX_NAME",
    "MODES",
    "Gap",
    "Message",
    "Reliability",
    "Topic",
    "are_words",
    "check_topic",
    "is_name",
    "matches",
    "messages_untrusted",
]

T = TypeVar("T")

Reliability: TypeAlias = Literal["repaired", "best-effort", "ordered"]
MODES: Final[dict[str, int]] = {"best-effort": BEST_EFFORT, "repaired": REPAIRED, "ordered": ORDERED}
MAX_NAME: Final = 255
"""Bytes of a name, and of a pattern."""

# A message: `1 bit plain | 47 bits time | value`. The time is in units of 61 us since 1970; the value is msgpack, or
# with the first bit set nothing but bytes, as they are. This is what a small message travels with: every byte counts.
_HEAD: Final = 6
_PLAIN: Final = 1 << 47
_SECOND: Final = 1 << 14
_BIG_ENDIAN: Final[repeat[Literal["big"]]] = repeat("big")
_ANYTHING: Final = Codec(Any)


class Message(msgspec.Struct, Generic[T], frozen=True):
    """One message of a topic."""

    value: T
    publisher: PublicKey
    """Whose signature it bore."""
    topic: str
    number: int
    """Counts the messages of this publisher on this topic, from when it began."""
    time: float
    """When it was published, in seconds since 1970, by the publisher's clock: to 61 us."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages that will not come. Comes in the place of what is missing."""

    publisher: PublicKey
    topic: str
    number: int | None
    """The first one missing; None when nobody can tell."""
    missing: int | None
    """How many; None when nobody can tell."""
    reason: str


class Topic(Generic[T]):
    """What is published under a name: `Topic("weather/readings", Reading)`.

    name: words with `/` between them. type: an annotation, as for the arguments of calls. reliability:
    "repaired" (what is lost is sent again; may come out of order), "ordered" (and waits for what is missing), or
    "best-effort" (nothing is sent again). retain: 1 to keep the last message for those who come later. history:
    how many messages are kept for those who ask for them. Raises `InterfaceError` for a type that cannot travel,
    `UsageError`.
    """

    def __init__(
        self,
        name: str,
        type: Any = Any,  # noqa: A002 -- what users call it
        *,
        reliability: Reliability = "repaired",
        retain: int = 0,
        history: int = 0,
    ) -> None:
        if not is_name(name):
            raise UsageError(f"{name!r} is no name of a topic: write words with / between them, without *")
        if reliability not in MODES:
            raise UsageError(f"unknown reliability {reliability!r}: choose one of {', '.join(MODES)}")
        if retain not in (0, 1) or history < 0:
            raise UsageError("retain is 0 or 1, and history a number of messages: history=N keeps the last N")
        self.name = name
        self.reliability = reliability
        self.kept = max(retain, history)
        """How many messages are kept for those who come later."""
        self.codec = Codec(type)
        self._is_bytes = type is bytes

    def encode(self, value: T) -> bytes:
        """Write a message. Raises `ArgumentError` for a value that does not fit the type."""
        sent = int(time.time() * _SECOND)
        if self._is_bytes and value.__class__ is bytes:
            return (sent | _PLAIN).to_bytes(_HEAD, "big") + value  # type: ignore[operator]  # it is bytes
        try:
            return sent.to_bytes(_HEAD, "big") + self.codec.encode(value)
        except Misfit as misfit:
            raise ArgumentError(self.name, str(misfit), misfit.path) from misfit

    def __repr__(self) -> str:
        return f"Topic({self.name!r})"


def check_topic(topic: object) -> None:
    """Raise `UsageError` for what is no topic, such as the name of one: its type has to be known, too."""
    if not isinstance(topic, Topic):
        raise UsageError(
            f"{topic!r} is no topic: give one, with the type of its messages, such as Topic('a/b', float)"
        )


def messages_untrusted(
    codec: Codec, limits: Limits, publisher: PublicKey, topic: str, number: int, messages: Sequence[bytes]
) -> Iterable[Message[Any] | Gap]:
    """Return messages numbered on from `number`, a gap for what does not fit."""
    heads, values = split(messages, _HEAD)
    numbers = list(map(int.from_bytes, heads, _BIG_ENDIAN))
    if codec.annotation is bytes and min(numbers, default=0) >= _PLAIN:  # nothing shorter than a head is
        times = [(each - _PLAIN) / _SECOND for each in numbers]
        return list(map(Message, values, repeat(publisher), repeat(topic), count(number), times))
    return _each_untrusted(codec, limits, publisher, topic, number, numbers, values)


def _each_untrusted(
    codec: Codec, limits: Limits, publisher: PublicKey, topic: str, number: int,
    heads: Sequence[int], values: Sequence[bytes],
) -> Iterator[Message[Any] | Gap]:  # fmt: skip
    for n, head, data in zip(count(number), heads, values, strict=False):
        try:
            value = _decode_untrusted(codec, limits, data, plain=head >= _PLAIN)
            yield Message(value, publisher, topic, n, head % _PLAIN / _SECOND)
        except BadMessage as error:
            yield Gap(publisher, topic, n, 1, f"the message does not fit the type: {error}")


def _decode_untrusted(codec: Codec, limits: Limits, data: bytes, *, plain: bool) -> Any:
    """Read a value. Raises BadMessage, also for nothing, which no msgpack is."""
    if not plain:
        return codec.decode_untrusted(data, limits)
    if codec.annotation is not bytes:  # whether bytes fit, too, the codec says
        return codec.decode_untrusted(_ANYTHING.encode(data), limits)
    return data


def are_words(text: str) -> bool:
    """Tell whether a text is words with `/` between them, as names and patterns are, which can travel."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:  # half a character, or the bytes of another encoding
        return False
    return size <= MAX_NAME and all(text.split("/"))


def is_name(text: str) -> bool:
    """Tell whether a topic can have this name."""
    return are_words(text) and "*" not in text


def matches(pattern: str, name: str) -> bool:
    """Tell whether a name fits a pattern: `*` stands for any text within a word, `**` for any words."""
    words = name.split("/")
    # How many words may have been matched so far. Attack: a subscriber's pattern of many `**`, each of which may stand
    # for any words: tried one by one they take time without end.
    reached = {0}
    for part in pattern.split("/"):
        if part == "**":
            reached = set(range(min(reached), len(words) + 1))
        else:
            reached = {at + 1 for at in reached if at < len(words) and _fits(words[at], part)}
        if not reached:
            return False
    return len(words) in reached


def _fits(word: str, part: str) -> bool:
    """Tell whether a word is the pieces of this part of a pattern, with any text in the place of each `*`.

    Not by `fnmatch`, in which `?` and `[` mean something, too, and which keeps thousands of strangers' patterns.
    """
    first, *pieces = part.split("*")
    if not pieces:
        return word == part
    last = pieces.pop()
    at, end = len(first), len(word) - len(last)
    if at > end or not (word.startswith(first) and word.endswith(last)):
        return False
    for piece in pieces:
        found = word.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True
