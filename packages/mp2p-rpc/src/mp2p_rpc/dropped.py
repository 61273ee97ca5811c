"""What a slow reader's feed has dropped (docs/pubsub.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mp2p_rpc.topic import Gap, Message

if TYPE_CHECKING:
    from mp2p_core import PublicKey

__all__ = ["Dropped"]

_SLOW: Final = "the reader was slower than the messages came"


class Dropped:
    """One gap for each topic, however much is dropped and in which turns: else these would fill the memory."""

    def __init__(self) -> None:
        self.gaps: dict[tuple[PublicKey, str], Gap] = {}

    def note(self, lost: Message[Any] | Gap) -> None:
        """Drop a message, or a gap, that stood behind all that was dropped of its topic."""
        topic = lost.publisher, lost.topic
        missing = 1 if isinstance(lost, Message) else lost.missing
        before = self.gaps.get(topic)
        if before is None:
            self.gaps[topic] = Gap(*topic, lost.number, missing, _SLOW)
        else:
            sum_of = None if missing is None or before.missing is None else before.missing + missing
            self.gaps[topic] = Gap(*topic, before.number, sum_of, _SLOW)

    def take(self) -> list[Gap]:
        """Return the gaps, which from now on are in the queue."""
        gaps, self.gaps = self.gaps, {}
        return list(gaps.values())
