"""What a feed knows of its publishers, and of the topics of theirs that it follows."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import anyio

from mp2p_rpc.topic_status import TopicStatus

if TYPE_CHECKING:
    from mp2p_core import Contact, Mp2pError
    from mp2p_core.proto.group.subscriber import Subscriber
    from mp2p_core.transport import Address
    from mp2p_rpc.outbox import Outbox

__all__ = ["Followed", "Source"]


class Source:
    """How it stands with one publisher."""

    def __init__(self, contact: Contact, timeout: float) -> None:
        self.contact = contact
        self.timeout = timeout
        """Seconds for each attempt to connect."""
        self.connected = False
        self.error: Mp2pError | None = None
        """Why the last connection ended, or did not come about."""
        self.topics: dict[str, bool] = {}
        """Topics that are followed, and whether they come by multicast (True) or over the session."""
        self.settled = anyio.Event()
        """Set once it was reached, or was not for the first time."""

    def settle(self, error: Mp2pError | None) -> None:
        """Note how a connection went."""
        self.connected = error is None
        self.error = error
        self.settled.set()


class Followed:
    """A topic of one publisher."""

    def __init__(self, source: Source, name: str, subscriber: Subscriber, now: float) -> None:
        self.began = now
        self.messages = self.gaps = self.forged = 0
        self.source = source
        self.name = name
        self.subscriber = subscriber
        self.outbox: Outbox | None = None
        """To the publisher, while there is a session."""
        self.group: Address | None = None
        self.channels: tuple[bytes, ...] = ()
        self.memberships = ExitStack()

    def status(self, now: float) -> TopicStatus:
        """Say how it does."""
        counters = self.subscriber.counters
        return TopicStatus(
            *(self.name, self.source.contact.key, False, None, self.subscriber.multicast),
            *(self.messages, counters["group-received"], counters["nack"], self.gaps, now - self.began),
        )
