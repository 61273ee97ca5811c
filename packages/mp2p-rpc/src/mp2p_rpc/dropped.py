"""What a slow reader's feed has dropped (docs/pubsub.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mp2p_rpc.topic import Gap, Message

if TYPE_CHECKING:
    from mp2p_core import PublicKey

__all__ = ["Dropped"]

_SLOW: Final = "the reader was slower than the messages came"


class Dropped:
    """Gaps in the place of what is dropped, two for each topic at most: each turn adding one would fill the memory."""

    def __init__(self) -> None:
        self.gaps: dict[tuple[PublicKey, str, bool], Gap] = {}
        """By publisher, topic, and whether it is known how much is missing."""

    def note(self, lost: Message[Any] | Gap) -> None:
        """Drop a message, or a gap, that stood behind all that was dropped of its topic."""
        topic = lost.publisher, lost.topic
        missing = 1 if isinstance(lost, Message) else lost.missing
        if missing is None:
            assert isinstance(lost, Gap)
            self.gaps[*topic, False] = lost  # its reason is news, that of an earlier one no more
            return
        before = self.gaps.get((*topic, True))
        if before is None:
            self.gaps[*topic, True] = Gap(*topic, lost.number, missing, _SLOW)
        else:
            assert before.missing is not None
            self.gaps[*topic, True] = Gap(*topic, before.number, before.missing + missing, _SLOW)

    def take(self) -> list[Gap]:
        """Return the gaps, which from now on are in the queue."""
        gaps, self.gaps = self.gaps, {}
        return list(gaps.values())
