"""Drive the sans-IO endpoint: feed it from channels and the clock, send what it has to send, pass on what it tells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final, cast

from mp2p_core.boundary import Boundary
from mp2p_core.groups import receive_from, start_upkeep
from mp2p_core.waiting import Signal, turn_caller, wait_up_to

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from mp2p_core.opening import OpenChannel
    from mp2p_core.proto.connection import Connection
    from mp2p_core.proto.endpoint import Endpoint
    from mp2p_core.proto.events import Event
    from mp2p_core.transport import MaintainedChannel, Train

__all__ = ["Driver"]

_ENOUGH: Final = 24
"""Words of the application that share a packet: of more, each costs hardly less."""
_HABIT: Final = 8
"""So often in a row a word has to have stayed alone for the next one not to wait for others."""
_TRAINS_AT_ONCE: Final = 4
"""Trains that are sealed, one after the other, and then sent: taking turns, packet by packet, each finds what the other
has left of the caches. The first goes out by itself, so that the peer has something to do."""
_UPKEEP_FROM: Final = 0.1
"""Seconds from opening to upkeep, which has nothing to do yet: who opens a node to make a call makes it first."""


class Driver:
    """One endpoint and its channels. Run `receive_forever` for each channel, and `keep_time`.

    `tell(events, now)` is called with what the endpoint tells; it returns whether a call has got through.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        channels: Sequence[OpenChannel],
        clock: Callable[[], float],
        tell: Callable[[Sequence[Event], float], bool],
        make_signal: Callable[[], Signal],
    ) -> None:
        self._endpoint = endpoint
        self._channels = channels
        self._clock = clock
        self._tell = tell
        self._make_signal = make_signal
        self._wake = self._make_signal()
        self._sleeping_until = float("inf")
        self._call_in_turn = turn_caller()
        self._flush_due = False
        """Whether what has been queued goes out without another word: soon, or because a flush is at work."""
        self._put_off = False
        """Whether it waits for the end of the turn."""
        self._said = 0
        """How often something was said since the network brought something."""
        self._alone = 0
        """How many times in a row that was once."""
        self._boundary = Boundary()
        """Has what a flush outside of tasks raised: it ends the node."""

    async def receive_forever(self, number: int) -> None:
        """Feed the endpoint from one channel until it is closed."""
        await receive_from(self._channels[number].channel, partial(self._take_in, number))

    def silent(self) -> None:
        """Let the channels know that a peer no longer answers: a switch may have forgotten this machine."""
        for each in self._channels:
            if hasattr(each.channel, "silent"):
                cast("MaintainedChannel", each.channel).silent()

    def _take_in(self, number: int, trains: Sequence[Train]) -> None:
        now = self._clock()
        if self._said:
            self._alone = self._alone + 1 if self._said == 1 else 0
            self._said = 0
        for train in trains:
            self._endpoint.receive(number, train, now)
        self.flush(now)

    async def keep_time(self, tasks: TaskGroup) -> None:
        """Call the endpoint whenever it is due; begin the channels' upkeep, in tasks of its own."""
        upkeep_at = self._clock() + _UPKEEP_FROM
        while True:
            now = self._clock()
            if now >= upkeep_at:
                upkeep_at = float("inf")
                for each in self._channels:
                    start_upkeep(each.channel, tasks)
            when = self._endpoint.timeout()
            if when is not None and when <= now:
                self._endpoint.handle_timeout(now)
            self.flush(now)
            when = self._endpoint.timeout()
            self._sleeping_until = upkeep_at if when is None else min(when, upkeep_at)
            self._wake = self._make_signal()
            await wait_up_to(self._wake, self._sleeping_until - self._clock())
            if self._boundary.error is not None:
                raise self._boundary.error

    def flush_soon(self, connection: Connection) -> None:
        """Send what waits once every task that is ready has had its turn: what many say in one turn shares packets.

        A packet costs many times what one more frame in it does. Nobody waits for this: a task that has said what
        it has to say goes on to wait, and the event loop comes here before it looks at the network again.

        What makes a packet worth its cost goes out at once: the peer is at work on the first while the others are
        said. So does a word after which nothing more came the last times, as when one calls, or answers, in turn.
        """
        self._endpoint.flush(connection)
        if self._flush_due and not self._put_off:
            return  # a flush is at work, and sends this, too
        self._said += 1
        begins = not self._flush_due
        self._flush_due = self._put_off = True
        if (self._said == 1 and self._alone >= _HABIT) or self._said % _ENOUGH == 0:
            self._flush_now()
        elif begins and self._call_in_turn is not None:
            self._call_in_turn(self._flush_now)
        elif begins:
            self._wake.set()

    def _flush_now(self) -> None:
        if not self._flush_due:
            return  # another flush has come first
        with self._boundary:
            self.flush(self._clock())
        # Raised here it would end in a log of the event loop, and the node would go on.
        if self._boundary.error is not None:
            self._wake.set()

    def flush(self, now: float) -> None:
        """Pass on what the endpoint has to tell, and send what it has to send."""
        self._flush_due = True  # what is said in answer goes out below
        self._put_off = False
        if (events := self._endpoint.events()) and self._tell(events, now):
            # A call has got through. Whoever made it has its turn before `keep_time` has: what it says at
            # once travels with the confirmation.
            self._wake.set()
            return
        self._flush_due = False
        channels = self._channels
        out = self._endpoint.transmits(now)
        at_once = 1
        while batch := list(islice(out, at_once)):
            for number, train in batch:
                channels[number].channel.send(train)
            at_once = min(2 * at_once, _TRAINS_AT_ONCE)
        if events := self._endpoint.events():
            self._tell(events, now)
        when = self._endpoint.timeout()
        if when is not None and when < self._sleeping_until:
            self._sleeping_until = when
            self._wake.set()
