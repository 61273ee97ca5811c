"""Where a session sends, and when that changes (docs/protocol.md, section 6).

`Paths` knows the ways to the peer; this decides between them by what the `Packer` has heard, or not heard.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mp2p_core.proto import constants as c
from mp2p_core.proto.frames import PATH_FRAMES
from mp2p_core.transport import Path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mp2p_core.proto.epoch import Epoch
    from mp2p_core.proto.frames import Frame, PathFrame
    from mp2p_core.proto.packing import Packer
    from mp2p_core.proto.paths import Paths
    from mp2p_core.proto.routes import Route
    from mp2p_core.proto.transmit import Packet

__all__ = ["Roaming"]


class Roaming:
    """The path in use, and the rules for leaving it."""

    __slots__ = ("_doubted", "_packer", "channel", "left_silence", "packets", "path", "paths")

    def __init__(self, paths: Paths, packer: Packer, path: Path) -> None:
        self._packer = packer
        self._doubted = False  # nothing has come back over it since the handshake
        self.paths = paths
        """The ways to the peer, of which `channel` and `path` are the one in use."""
        self.channel = paths.current.target.channel
        self.path = path
        self.left_silence = False
        """Whether it has left a path because nothing came back; the endpoint clears it."""
        self.packets: list[tuple[int, Path, Packet]] = []
        """Sealed, with the channel and the path that each is for; the endpoint takes them out."""

    def confirm(self, now: float) -> None:
        """Confirm the keys over every interface and every way: the one that carried the RESP seems not to carry this.

        Whoever relays a RESP on another interface, faster than it comes, must not choose that one either.
        """
        self._doubted = True
        self._use_every_interface()
        self.paths.search(now)

    def opened(self, channel: int, now: float) -> None:
        """Begin: the peer has been heard."""
        self._doubted = self._doubted and channel != self.channel
        self.paths.opened(now)
        self.announce()

    def announce(self) -> None:
        """Tell the peer where else this node can be reached."""
        if frames := self.paths.announce():
            self._packer.announce(frames)

    # --- what is heard ------------------------------------------------------------------------------

    def heard_on(self, channel: int, path: Path) -> None:
        """Answer on the interface of the newest packet. The peer's address stays, so nobody else is aimed at."""
        if channel == self.channel:
            self.path = self.path._replace(interface=path.interface)

    def read_untrusted(self, frame: PathFrame, channel: int, path: Path, now: float) -> None:
        """Take a frame about paths."""
        route = self.paths.receive_untrusted(frame, channel, path, now)
        if route is not None and (route is self.paths.wanted or self.fading or self._doubted):
            self._move(route, now)

    def follow_untrusted(self, frames: Sequence[Frame], channel: int, path: Path, now: float) -> None:
        """Go where the peer's newest packet came from, unless that is only about paths."""
        if channel == self.channel and not self.paths.by_source:
            return
        if not all(isinstance(frame, PATH_FRAMES) for frame in frames):
            route = self.paths.follow_untrusted(channel, path, now)
            if route is not None:
                self._move(route, now)

    # --- what is not --------------------------------------------------------------------------------

    @property
    def fading(self) -> bool:
        """Whether nothing has come back for several probes: the peer, or the way to it, may be gone."""
        return self._packer.probes_unanswered >= c.SILENT_AFTER_PROBES

    def _use_every_interface(self) -> None:
        """Send on every interface until the peer is heard on one."""
        self.path = self.path._replace(interface=0)

    def handle_timeout(self, now: float) -> None:
        """When nothing comes back, try every interface and every other way; leave when the peer counts as silent."""
        if self._packer.probes_unanswered >= c.PATHS_AFTER_PROBES:
            self._use_every_interface()
            self.paths.search(now)
            if self.fading and (route := self.paths.alive(now)) is not None:
                self._move(route, now)

    def seal_packets(self, epoch: Epoch, now: float) -> None:
        """Seal what is due about paths: questions whether the peer is there, and answers to its own."""
        packer = self._packer
        for channel, path, frames in self.paths.packets(now):
            if packer.next_number < c.MAX_PACKET_NUMBER:
                packet = epoch.seal(packer.next_number, frames, 1, packer.datagram)
                packer.next_number += 1
                self.packets.append((channel, path, packet))

    # --- changing -----------------------------------------------------------------------------------

    def heard_again(self) -> None:
        """Say at once what has arrived: a peer that was not heard has waited as long, and does not know that it is."""
        self._packer.acks.again()
        self._packer.ping()

    def reached(self, now: float) -> None:
        """Note that an answer of ours to a handshake has arrived: what waits for a sign of life waits no longer."""
        if self.fading:
            self._packer.answered(now)
            self._packer.ping()

    def follow_keys(self, epoch: Epoch, now: float) -> None:
        """Send where the handshake for the present keys went."""
        if (epoch.channel, epoch.path.remote) != (self.channel, self.path.remote):
            self.paths.take_proved(epoch.channel, epoch.path.remote, now)
            self._packer.moved(now, limit=self.paths.current.target.max_payload)
        self.channel, self.path = epoch.channel, epoch.path

    def _move(self, route: Route, now: float) -> None:
        """Send over another way from now on. It has answered a challenge."""
        if route is not self.paths.current:
            self.left_silence = self.fading
            self._doubted = False
            self.paths.take(route, now)
            self.channel, self.path = route.target.channel, Path(route.target.address, None, route.interface)
            self._packer.moved(now, limit=route.target.max_payload, rtt=route.rtt)
            self._packer.ping()
