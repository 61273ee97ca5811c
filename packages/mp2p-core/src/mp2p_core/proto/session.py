"""A session: two keys, two ids, one path (docs/protocol.md, section 6).

Seals and opens DATA packets, single (section 6) and large (section 7), and keeps the replay window, the
timers and the state. What goes into a packet is the `Packer`'s; which keys seal it, `Epochs`' to say.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from mp2p_core.errors import BadPacket
from mp2p_core.proto import constants as c
from mp2p_core.proto.closing import Closing
from mp2p_core.proto.epochs import Epochs
from mp2p_core.proto.flow import StreamError
from mp2p_core.proto.frames import (
    MSG_OVERHEAD,
    STREAM_FRAMES,
    Ack,
    Close,
    Msg,
    Ping,
    parse_frames_untrusted,
)
from mp2p_core.proto.liveness import Liveness
from mp2p_core.proto.packing import Packer
from mp2p_core.proto.parts import part_header
from mp2p_core.proto.replay import ReplayWindow
from mp2p_core.proto.roaming import Roaming
from mp2p_core.proto.states import SessionState, step
from mp2p_core.proto.wire import data_packet_number

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mp2p_core.proto.connection import Connection
    from mp2p_core.proto.epoch import Epoch
    from mp2p_core.proto.identity import PublicKey
    from mp2p_core.proto.parts import PartHeader
    from mp2p_core.proto.paths import Paths
    from mp2p_core.proto.transmit import Packet
    from mp2p_core.transport import Path

__all__ = ["Session"]

_HEADER_END: Final = c.DATA_HEADER_SIZE
_OPEN = SessionState.OPEN
_LIVE: Final = (SessionState.OPEN, SessionState.CONFIRMING)


class Session:
    """A connection's packet numbers and its epochs.

    The endpoint owns it: it finds it by the ids of its epochs, feeds it packets, asks it for packets, and
    reads `state`. Nothing in here raises for what a peer sent.
    """

    __slots__ = (
        "_skip_at", "_stale", "_window", "began", "carried_at", "closing", "connection", "epochs", "handshake_time",
        "heard_by_peer", "initiator", "large", "liveness", "may_cross", "opened_at", "packer", "peer",
        "queued", "received", "review_at", "roaming", "searching", "state", "token",
    )  # fmt: skip

    max_message: Final = c.BASE_DATAGRAM_SIZE - c.DATA_MIN_SIZE - MSG_OVERHEAD
    """The largest message, in bytes, that one datagram holds: the same on every path."""

    def __init__(
        self,
        *,
        peer: PublicKey,
        epoch: Epoch,
        token: bytes,
        paths: Paths,
        now: float,
        idle_timeout: float,
        max_payload: int,
        rekey_after: float,
        rtt: float | None = None,
        large: bool = False,
        may_cross: bool = False,
    ) -> None:
        self.peer = peer
        self.token = token
        """Names the connection in a handshake for new keys."""
        self.initiator = initiator = epoch.ours
        self.epochs = Epochs(epoch, rekey_after)
        self.searching = False
        """Whether a handshake looks for the peer because it has gone silent."""
        self.began = epoch.began
        self.handshake_time = now - epoch.began
        self.liveness = Liveness(idle_timeout, now)
        self.large = large
        """Whether the peer understands large packets, and so may send them."""
        self.may_cross = may_cross
        """Whether its INIT said so: only two sessions of which both do may become one connection (row H10)."""
        self.carried_at = now
        """When the peer last sent something of the application's."""
        self.review_at = math.inf
        """When to see whether it is still needed: for the spare one of two, by whoever began it."""
        self.state = SessionState.CONFIRMING if initiator else SessionState.HALF_OPEN
        self.opened_at = math.inf
        """When the peer's first packet came; later than everything until then."""
        self.heard_by_peer = False
        self.connection: Connection | None = None
        self.queued: list[float] = []
        self.received: list[bytes] = []
        self.closing = Closing(now)
        self._window = ReplayWindow()
        self.packer = Packer(
            initiator=initiator,
            limit=max_payload,
            large=large,
            rtt=rtt,
            first_number=epoch.first_number,
            now=now,
        )
        self.roaming = Roaming(paths, self.packer, epoch.path)
        self._skip_at = self._next_skip()
        self._stale = False  # the keys are too old to send under, and no new ones have come

    @property
    def epoch(self) -> Epoch:
        """The epoch that seals."""
        return self.epochs.current

    @property
    def handshake_hash(self) -> bytes:
        """Return the transcript's hash: equal on both sides exactly when both saw the same handshake."""
        return self.epoch.handshake_hash

    @property
    def live(self) -> bool:
        """Whether the application may send on it."""
        return self.state in _LIVE

    @property
    def known_to_peer(self) -> bool:
        """Whether the peer is certain to have it open, too."""
        return self.state is _OPEN and (self.initiator or self.heard_by_peer)

    @property
    def leaves_nothing(self) -> bool:
        """Whether its end takes nothing of the application's with it, so that another session may go on alone."""
        streams = self.packer.streams
        if self.closing.code == c.CLOSE_SUPERSEDED:
            return streams.table.settled  # the peer had everything, and has said everything
        return self.closing.code == c.CLOSE_IDLE and streams.table.unused

    # --- receiving ----------------------------------------------------------------------------------

    def receive_untrusted(self, datagram: bytes, channel: int, path: Path, now: float) -> str:
        """Open a DATA packet that carries this session's id; returns the name of the counter to raise.

        Rule 1 of the protocol: until the AEAD has opened, nothing changes.
        """
        if len(datagram) < c.DATA_MIN_SIZE or datagram[1]:
            return "data-malformed"
        (number,) = data_packet_number(datagram, 10)
        if number > c.MAX_PACKET_NUMBER or not self._window.is_new(number):
            return "data-replayed"
        epoch = self.epochs[datagram[2:10]]
        header = datagram[:_HEADER_END]
        return self._open_untrusted(epoch, number, datagram[_HEADER_END:], header, channel, path, now)

    def refuses_part(self, header: PartHeader) -> str | None:
        """Name the counter to raise for a part that is not worth keeping; None for others.

        No peer has reason to begin with a large packet: size comes with success, and so with an open session.
        """
        if not self.large or self.state is SessionState.HALF_OPEN:
            return "part-unexpected"
        number = header[3]
        return "data-replayed" if number > c.MAX_PACKET_NUMBER or not self._window.is_new(number) else None

    def receive_whole_untrusted(
        self, header: PartHeader, sealed: bytes, channel: int, path: Path, now: float
    ) -> str:
        """Open a large packet all of whose parts are there; returns the counter to raise."""
        if (refusal := self.refuses_part(header)) is not None:
            return refusal
        _, count, local_id, number = header
        epoch = self.epochs[local_id]
        associated = part_header(local_id, number, count)
        return self._open_untrusted(epoch, number, sealed, associated, channel, path, now)

    def _open_untrusted(
        self,
        epoch: Epoch,
        number: int,
        sealed: bytes,
        associated: bytes,
        channel: int,
        path: Path,
        now: float,
    ) -> str:
        payload = epoch.open_untrusted(number, sealed, associated)
        if payload is None:
            return "data-forged"
        highest = self._window.highest
        self._window.commit(number)
        if self.state is not _OPEN:
            if self.state is SessionState.CLOSED:
                return "data-unknown"
            if self.state in (SessionState.HALF_OPEN, SessionState.CONFIRMING):
                self.state = step(self.state, "authenticated packet")
                self.opened_at = now
                self.roaming.opened(channel, now)
        self.liveness.heard(now)
        if epoch is not self.epochs.current and self.epochs.opened(epoch, now):
            self.roaming.reached(now)
            if epoch is self.epoch:
                self._follow_keys(now)
        if number > highest and path.interface != self.roaming.path.interface:
            self.roaming.heard_on(channel, path)
        self._read_frames(payload, number, highest, channel, path, now)
        self.roaming.paths.heard += len(sealed) + _HEADER_END
        return "data-received"

    def _read_frames(
        self, payload: bytes, number: int, highest: int, channel: int, path: Path, now: float
    ) -> None:
        packer = self.packer
        eliciting = at_once = False
        try:
            frames = parse_frames_untrusted(payload)
            for frame in frames:
                if isinstance(frame, STREAM_FRAMES):
                    eliciting = True
                    self.carried_at = now
                    packer.streams.receive_untrusted(frame, now)
                elif isinstance(frame, Ack):
                    packer.acked_untrusted(frame, now)
                    self.heard_by_peer = True
                elif isinstance(frame, Msg):
                    eliciting = True
                    self.carried_at = now
                    self.received.append(frame.data)
                elif isinstance(frame, Ping):
                    eliciting = at_once = True
                elif isinstance(frame, Close):
                    self._peer_closed(frame, now)
                elif self.state is _OPEN:
                    self.roaming.read_untrusted(frame, channel, path, now)
        except StreamError as error:
            self.close(error.code, str(error), now)
            return
        except BadPacket as error:
            code = c.CLOSE_PROTOCOL if str(error).startswith("ack of") else c.CLOSE_BAD_FRAME
            self.close(code, f"bad frame: {error}", now)
            return
        packer.acks.received(
            number, len(payload), highest_before=highest, eliciting=eliciting, at_once=at_once, now=now
        )
        self._ask_back(now)
        if number > highest and self.state is _OPEN:
            self.roaming.follow_untrusted(frames, channel, path, now)
        if self.state is SessionState.CLOSING:
            self.closing.heard_late(now, packer.rtt.smoothed)

    def _ask_back(self, now: float) -> None:
        """Have a responder's acknowledgement ask in turn, until it knows that the peer hears it, and how far it is.

        What the application says asks as well. So an acknowledgement that still waits for that asks nothing yet.
        """
        if not (self.heard_by_peer or self.initiator) and self.packer.acks.deadline <= now:
            self.packer.ping()

    def _peer_closed(self, frame: Close, now: float) -> None:
        if self.state is _OPEN:
            self.closing.code, self.closing.reason = frame.code, frame.reason
        if self.state in (_OPEN, SessionState.CLOSING):
            self._drain("peer's close", now)

    # --- sending ------------------------------------------------------------------------------------

    def close(self, code: int, reason: str, now: float, life: float = c.CLOSING_LIFE) -> None:
        """Say CLOSE, and repeat it to late packets for a while. A session already closing stays as it is."""
        if self.state not in _LIVE:
            return
        self.state = step(self.state, "local close")
        self.packer.clear()
        self.closing.begin(code, reason, now + life)

    def expire(self) -> None:
        """Forget a half-open session: nobody has to be told."""
        self.state = step(self.state, "10 s, or pushed out")

    def _drain(self, event: str, now: float) -> None:
        self.state = step(self.state, event)
        self.packer.clear()
        self.closing.hush(now)

    def packets(self, now: float) -> Iterator[Packet]:
        """Seal everything that may go out now, into as few packets as it fits, each when it is asked for.

        To be run to its end. What goes elsewhere than the rest is in `roaming.packets` afterwards.
        """
        packer = self.packer
        epoch = self.epochs.current
        if now >= epoch.seals_until:
            self._stale = True
            return
        if self._confirms and not packer.waiting(now):
            packer.ping()  # nothing of the application's rides along, which would ask for an acknowledgement too
        if self.state in _LIVE:
            if self._skip_at <= packer.next_number < c.MAX_PACKET_NUMBER - 1:
                packer.skip()
                self._skip_at = self._next_skip()
            while packer.next_number < c.MAX_PACKET_NUMBER:
                number = packer.next_number
                packet = packer.next(now)
                if packet is None:
                    break
                plaintext, datagrams = packet
                yield epoch.seal(number, plaintext, datagrams, packer.datagram)
            else:
                # Row H18: the last number is kept for saying so. Rekeying comes long before this.
                self.close(c.CLOSE_KEY_LIMIT, "this session has used all of its packet numbers", now)
            if self.roaming.paths.next_at <= now and self.state in _LIVE:
                self.roaming.seal_packets(self.epoch, now)
        if (
            self.closing.due
            and self.state is SessionState.CLOSING
            and packer.next_number <= c.MAX_PACKET_NUMBER
        ):
            number = packer.next_number
            packer.next_number += 1
            yield epoch.seal(number, self.closing.frame(now), 1, packer.datagram)

    def _next_skip(self) -> int:
        """Draw a number to be left out: the more numbers were used, the further off."""
        number = self.packer.next_number
        span = min(number + c.SKIP_WITHIN, c.SKIP_WITHIN_LATER)
        return number + 1 + int.from_bytes(self.roaming.paths.random(4), "big") * span // 2**32

    def wants_to_send(self, now: float) -> bool:
        """Tell whether `packets` might return any."""
        return (
            self._confirms
            or self.closing.due
            or self.packer.waiting(now)
            or self.roaming.paths.next_at <= now
        )

    @property
    def _confirms(self) -> bool:
        """Whether the first packet is due, which confirms the keys."""
        return self.state is SessionState.CONFIRMING and not self.packer.next_number

    # --- keys ---------------------------------------------------------------------------------------

    def wants_keys(self, now: float) -> bool:
        """Tell whether a handshake for new keys is due."""
        return self.state is _OPEN and (
            now >= self.epochs.rekey_at or self.epoch.worn_out(self.packer.next_number) or self.roaming.fading
        )

    def install(self, epoch: Epoch, now: float) -> None:
        """Use new keys that this side asked for and the peer has answered for."""
        if self.epochs.install(epoch, now):
            self._follow_keys(now)
        self.packer.answered(now)
        self.packer.ping()  # the peer's confirmation

    def _follow_keys(self, now: float) -> None:
        self._stale = False
        self.roaming.follow_keys(self.epoch, now)

    # --- time ---------------------------------------------------------------------------------------

    def timeout(self) -> float | None:
        """Return when `packets` or `handle_timeout` is due."""
        state = self.state
        if state is _OPEN:
            epochs = self.epochs
            due = math.inf
            if not self._stale:
                path, due = self.roaming.paths.next_at, self.packer.timeout()
                due = path if path < due else due
            return min(due, self.liveness.due, epochs.rekey_at, epochs.next_at, self.review_at)
        if state is SessionState.CONFIRMING:
            return min(self.liveness.confirm_at, self.roaming.paths.next_at)
        if state is SessionState.HALF_OPEN:
            return self.began + c.HALF_OPEN_LIFE
        return self.closing.until if state is not SessionState.CLOSED else None

    def handle_timeout(self, now: float) -> None:
        """Do what has become due; `packets` then has what is to be sent."""
        state, liveness = self.state, self.liveness
        if state is _OPEN:
            if now >= self.epochs.next_at:
                self.epochs.handle_timeout(now)
            self._ask_back(now)
            if now >= liveness.ends_at:
                self._fall_silent(f"nothing heard for {liveness.idle_timeout:g} s", now)
            elif now >= liveness.probe_at:
                liveness.probed(now)
                self.packer.ping()
            self.packer.handle_timeout(now)
            self.roaming.handle_timeout(now)
        elif state is SessionState.CONFIRMING:
            if now >= liveness.confirm_until:
                self._fall_silent("the peer answered the handshake and then nothing more", now)
            elif now >= liveness.confirm_at:
                liveness.confirmed(now)
                self.packer.probe()
                self.roaming.confirm(now)
        elif state is SessionState.HALF_OPEN:
            if now >= self.began + c.HALF_OPEN_LIFE:
                self.expire()
        elif state is not SessionState.CLOSED and now >= self.closing.until:
            self.state = step(state, "time is up")

    def _fall_silent(self, reason: str, now: float) -> None:
        self.closing.code, self.closing.reason = c.CLOSE_IDLE, reason
        self._drain("silence", now)
