"""A session: two keys, two ids, one path (docs/protocol.md, section 6).

Seals and opens DATA packets and keeps what belongs to them: packet numbers, the replay window,
acknowledgements, timers, the state. Later layers find their places here: rekey replaces a session within
its connection, streams hand their frames to `_fill` and get theirs from `_handle_frame`, and path change
sets `path`.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag

from mp2p_core.errors import BadPacket
from mp2p_core.proto import constants as c
from mp2p_core.proto.acks import AckSender, SentLog
from mp2p_core.proto.frames import (
    MSG_OVERHEAD,
    PING_FRAME,
    Ack,
    Close,
    Frame,
    Msg,
    Ping,
    encode_close,
    encode_msg,
    parse_frames_untrusted,
)
from mp2p_core.proto.noise_suite import nonce_little_endian
from mp2p_core.proto.replay import ReplayWindow
from mp2p_core.proto.rtt import RoundTrip
from mp2p_core.proto.states import SessionState, step
from mp2p_core.proto.wire import data_header, data_packet_number

if TYPE_CHECKING:
    from mp2p_core.proto.connection import Connection
    from mp2p_core.proto.identity import PublicKey
    from mp2p_core.proto.noise_suite import Aead
    from mp2p_core.transport import Path

__all__ = ["Session", "SessionKeys"]

_OVERHEAD: Final = c.DATA_MIN_SIZE
_HEADER_END: Final = c.DATA_HEADER_SIZE
_OPEN = SessionState.OPEN
_LIVE: Final = (SessionState.OPEN, SessionState.CONFIRMING)


class SessionKeys:
    """What a handshake leaves behind. Never shown: repr is the default one of object."""

    __slots__ = ("handshake_hash", "receive", "send", "token")

    def __init__(self, send: Aead, receive: Aead, handshake_hash: bytes, token: bytes) -> None:
        self.send = send
        self.receive = receive
        self.handshake_hash = handshake_hash
        self.token = token


class Session:
    """One epoch of a connection with one peer.

    The endpoint owns it: it finds it by `local_id`, feeds it packets, asks it for packets, and reads
    `state`. Nothing in here raises for what a peer sent. `first_number` is its first packet's number.
    """

    __slots__ = (
        "_acks", "_close_due", "_close_sent", "_closed_until", "_confirm_at", "_confirm_step", "_heard",
        "_keys", "_messages", "_open", "_ping_wanted", "_pings", "_probed", "_seal", "_sent", "_window",
        "answered_pings", "began", "channel", "close_code", "close_reason", "connection", "handshake_time",
        "heard_by_peer", "idle_timeout", "initiator", "local_id", "max_message", "max_payload", "opened_at",
        "packets_lost", "path", "peer", "queued", "received", "remote_id", "rtt", "state", "timestamp",
    )  # fmt: skip

    def __init__(
        self,
        *,
        peer: PublicKey,
        initiator: bool,
        local_id: bytes,
        remote_id: bytes,
        keys: SessionKeys,
        channel: int,
        path: Path,
        began: float,
        now: float,
        idle_timeout: float,
        max_payload: int,
        rtt: float | None = None,
        timestamp: int = 0,
        first_number: int = 0,
    ) -> None:
        self.peer = peer
        self.initiator = initiator
        self.local_id = local_id
        self.remote_id = remote_id
        self.channel = channel
        self.path = path
        self.began = began
        self.handshake_time = now - began
        self.idle_timeout = idle_timeout
        self.max_payload = max_payload
        self.max_message = max_payload - _OVERHEAD - MSG_OVERHEAD
        """The largest message, in bytes, that one datagram holds."""
        self.timestamp = timestamp
        self.state = SessionState.CONFIRMING if initiator else SessionState.HALF_OPEN
        self.opened_at = math.inf
        """When the peer's first packet came; later than everything until then."""
        self.heard_by_peer = False
        self.connection: Connection | None = None
        self.queued: list[float] = []
        self.rtt = RoundTrip(rtt)
        self.packets_lost = 0
        self.received: deque[bytes] = deque()
        self.answered_pings: deque[tuple[int, float]] = deque()
        self.close_code = c.CLOSE_DONE
        self.close_reason = ""
        self._keys = keys
        self._open = keys.receive.decrypt
        self._seal = keys.send.encrypt
        self._window = ReplayWindow()
        self._acks = AckSender()
        self._sent = SentLog(first_number)
        self._messages: deque[bytes] = deque()
        self._pings: list[int] = []
        self._ping_wanted = initiator  # DATA 0 asks for an acknowledgement: the key confirmation
        self._confirm_step = 0
        self._confirm_at = now + c.CONFIRM_SCHEDULE[0]
        self._heard = now
        self._probed = now
        self._close_due = False
        self._close_sent = now
        self._closed_until = now

    @property
    def token(self) -> bytes:
        """Return the connection token that the responder drew."""
        return self._keys.token

    @property
    def handshake_hash(self) -> bytes:
        """Return the transcript's hash: equal on both sides exactly when both saw the same handshake."""
        return self._keys.handshake_hash

    @property
    def live(self) -> bool:
        """Whether the application may send on it."""
        return self.state in _LIVE

    # --- receiving ----------------------------------------------------------------------------------

    def receive_untrusted(self, datagram: bytes, path: Path, now: float) -> str:
        """Open a DATA packet that carries this session's id; returns the name of the counter to raise.

        Rule 1 of the protocol: until the AEAD has opened, nothing changes.
        """
        if len(datagram) < c.DATA_MIN_SIZE or datagram[1]:
            return "data-malformed"
        (number,) = data_packet_number(datagram, 10)
        window = self._window
        if number > c.MAX_PACKET_NUMBER or not window.is_new(number):
            return "data-replayed"
        try:
            payload = self._open(nonce_little_endian(number), datagram[_HEADER_END:], datagram[:_HEADER_END])
        except InvalidTag:
            return "data-forged"
        highest = window.highest
        window.commit(number)
        if self.state is not _OPEN:
            if self.state is SessionState.CLOSED:
                return "data-unknown"
            if self.state in (SessionState.HALF_OPEN, SessionState.CONFIRMING):
                self.state = step(self.state, "authenticated packet")
                self.opened_at = now
        self._heard = now
        if number > highest and path.interface != self.path.interface:
            # Heard on another interface: answer there. The peer's address stays, so nobody else is aimed at.
            self.path = self.path._replace(interface=path.interface)
        self._read_frames(payload, number, highest, now)
        return "data-received"

    def _read_frames(self, payload: bytes, number: int, highest: int, now: float) -> None:
        eliciting = at_once = False
        try:
            for frame in parse_frames_untrusted(payload):
                if isinstance(frame, Msg):
                    eliciting = True
                    self.received.append(frame.data)
                elif isinstance(frame, Ping):
                    eliciting = at_once = True
                else:
                    self._handle_frame_untrusted(frame, now)
        except BadPacket as error:
            code = c.CLOSE_PROTOCOL if str(error).startswith("ack of") else c.CLOSE_BAD_FRAME
            self.close(code, f"bad frame: {error}", now)
            return
        if eliciting and not (self.heard_by_peer or self.initiator):
            # A responder asks in turn: it learns when the peer has heard it, and the round-trip time.
            self._ping_wanted = True
        self._acks.received(number, highest_before=highest, eliciting=eliciting, at_once=at_once, now=now)
        if self.state is SessionState.CLOSING and now >= self._close_sent + self.rtt.smoothed:
            self._close_due = True

    def _handle_frame_untrusted(self, frame: Frame, now: float) -> None:
        if isinstance(frame, Ack):
            acked = self._sent.acked_untrusted(frame, now)
            self.heard_by_peer = True
            self.packets_lost += acked.lost
            if acked.rtt is not None:
                self.rtt.add(acked.rtt, frame.delay)
            self.answered_pings.extend(acked.pings)
        elif isinstance(frame, Close):
            if self.state is _OPEN:
                self.close_code, self.close_reason = frame.code, frame.reason
            if self.state in (_OPEN, SessionState.CLOSING):
                self._drain("peer's close", now)
        else:
            raise BadPacket("streams are not served yet")

    # --- sending ------------------------------------------------------------------------------------

    def send_message(self, data: bytes) -> None:
        """Queue an unreliable message; the caller has checked its size against `max_message`."""
        self._messages.append(encode_msg(data))

    def take_over(self, spare: Session) -> None:
        """Send what another session of the same connection has queued and not sent."""
        self._messages.extend(spare._messages)
        self._pings.extend(spare._pings)
        self._ping_wanted = self._ping_wanted or bool(spare._pings)
        spare._messages.clear()
        spare._pings.clear()

    def ping(self, number: int) -> None:
        """Ask for an acknowledgement at once; `number` comes back in `answered_pings`."""
        self._pings.append(number)
        self._ping_wanted = True

    def close(self, code: int, reason: str, now: float) -> None:
        """Say CLOSE, and repeat it to late packets for a second. A session already closing stays as it is."""
        if self.state not in _LIVE:
            return
        self.state = step(self.state, "local close")
        self.close_code, self.close_reason = code, reason
        self._messages.clear()
        self._close_due = True
        self._closed_until = now + c.CLOSING_LIFE

    def expire(self) -> None:
        """Forget a half-open session: nobody has to be told."""
        self.state = step(self.state, "10 s, or pushed out")

    def _drain(self, event: str, now: float) -> None:
        self.state = step(self.state, event)
        self._close_due = False
        self._messages.clear()
        self._closed_until = now + c.CLOSING_LIFE

    def packets(self, now: float) -> list[bytes]:
        """Seal everything that is waiting, into as few packets as it fits."""
        out: list[bytes] = []
        if self.state in _LIVE and self.wants_to_send(now):
            while self._messages or not out:
                if self._sent.next_number == c.MAX_PACKET_NUMBER:
                    # Row H18: the last number is kept for saying so. Rekeying comes long before this.
                    self.close(c.CLOSE_KEY_LIMIT, "this session has used all of its packet numbers", now)
                    break
                plaintext, eliciting = self._fill(now)
                if eliciting:
                    self._sent.sent(self._sent.next_number, tuple(self._pings), now)
                    self._pings.clear()
                out.append(self._packet(plaintext))
        if (
            self.state is SessionState.CLOSING
            and self._close_due
            and self._sent.next_number <= c.MAX_PACKET_NUMBER
        ):
            self._close_due = False
            self._close_sent = now
            out.append(self._packet(encode_close(self.close_code, self.close_reason)))
        return out

    def _fill(self, now: float) -> tuple[bytes, bool]:
        """Collect the frames of one packet, and whether they elicit an ACK."""
        messages = self._messages
        frames: list[bytes] = []
        room = self.max_payload - _OVERHEAD
        if self._acks.wanted:
            frames.append(self._acks.frame(now))
            room -= len(frames[0])
        eliciting = self._ping_wanted
        if eliciting:
            self._ping_wanted = False
            frames.append(PING_FRAME)
            room -= 1
        while messages and len(messages[0]) <= room:
            message = messages.popleft()
            room -= len(message)
            frames.append(message)
            eliciting = True
        return (frames[0] if len(frames) == 1 else b"".join(frames)), eliciting

    def _packet(self, plaintext: bytes) -> bytes:
        number = self._sent.next_number
        self._sent.next_number = number + 1
        header = data_header(self.remote_id, number)
        return header + self._seal(nonce_little_endian(number), plaintext, header)

    def wants_to_send(self, now: float) -> bool:
        """Tell whether `packets` would return any."""
        return bool(self._messages) or self._ping_wanted or self._close_due or self._acks.due(now)

    # --- time ---------------------------------------------------------------------------------------

    def timeout(self) -> float | None:
        """Return when `packets` or `handle_timeout` is due."""
        state = self.state
        if state is _OPEN:
            # An ACK that waits is due within 25 ms; what else may be due before can wait so long.
            acks = self._acks.deadline
            return min(self._probe_at(), self._heard + self.idle_timeout) if acks is None else acks
        if state is SessionState.CONFIRMING:
            return self._confirm_at
        if state is SessionState.HALF_OPEN:
            return self.began + c.HALF_OPEN_LIFE
        return self._closed_until if state is not SessionState.CLOSED else None

    def _probe_at(self) -> float:
        """When to ask a silent peer for a sign of life; keeps idle sessions, and sees dead ones."""
        first = min(c.KEEPALIVE, self.idle_timeout / 3)
        again = (self.idle_timeout - first) / c.KEEPALIVE_REPEATS
        return max(self._heard + first, self._probed + again)

    def handle_timeout(self, now: float) -> None:
        """Do what has become due; `packets` then has what is to be sent."""
        state = self.state
        if state is _OPEN:
            if now >= self._heard + self.idle_timeout:
                self._fall_silent(f"nothing heard for {self.idle_timeout:g} s", now)
            elif now >= self._probe_at():
                self._probed = now
                self._ping_wanted = True
        elif state is SessionState.CONFIRMING:
            if now >= self._heard + c.HALF_OPEN_LIFE:
                self._fall_silent("the peer answered the handshake and then nothing more", now)
            elif now >= self._confirm_at:
                self._confirm_step = min(self._confirm_step + 1, len(c.CONFIRM_SCHEDULE) - 1)
                self._confirm_at = now + c.CONFIRM_SCHEDULE[self._confirm_step]
                self._ping_wanted = True
                # Whoever relays a RESP on another interface, faster than it comes, must not choose this one.
                self.path = self.path._replace(interface=0)
        elif state is SessionState.HALF_OPEN:
            if now >= self.began + c.HALF_OPEN_LIFE:
                self.expire()
        elif state is not SessionState.CLOSED and now >= self._closed_until:
            self.state = step(state, "1 s")

    def _fall_silent(self, reason: str, now: float) -> None:
        self.close_code, self.close_reason = c.CLOSE_IDLE, reason
        self._drain("silence", now)
