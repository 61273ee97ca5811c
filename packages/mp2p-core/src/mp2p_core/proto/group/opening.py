"""Opens and verifies the datagrams of one epoch (docs/protocol.md, section 8).

The AEAD shows that a member made a datagram, the signature or the manifest that the publisher did. Nothing in
here believes the first without the second: whatever `open_untrusted` returns is the publisher's.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final, TypeAlias

from cryptography.exceptions import InvalidTag

from mp2p_core.errors import BadPacket
from mp2p_core.proto import constants as c
from mp2p_core.proto.group.keys import ED25519_CHACHAPOLY, ReceiveKeys
from mp2p_core.proto.group.layout import (
    DATA,
    DATA_COVERED,
    DATA_HEAD,
    DIGEST_SIZE,
    GROUP_MIN_SIZE,
    HEARTBEAT,
    LARGE,
    MANIFEST,
    NO_DIGEST,
    ROTATE,
    SIGNATURE_SIZE,
    SIGNED,
    UNPROVEN,
    WHOLE,
    Content,
    Data,
    LargeManifest,
    Manifest,
    Part,
    Rotate,
    group_fields,
    group_header,
    large_nonce,
    parse_data_untrusted,
    parse_heartbeat_untrusted,
    parse_large_plain_untrusted,
    parse_large_untrusted,
    parse_manifest_untrusted,
    parse_rotate_untrusted,
)
from mp2p_core.proto.noise_suite import nonce_little_endian
from mp2p_core.proto.parts import taker

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mp2p_core.proto.group.control import Grant
    from mp2p_core.proto.group.keys import GroupSuite

__all__ = ["Opener"]

_HEADER: Final = c.GROUP_HEADER_SIZE
_GENERATION: Final = slice(2, 4)
_CANDIDATES: Final = 2
_ONE_MESSAGE: Final = DATA_COVERED | WHOLE << 4
_Manifest: TypeAlias = tuple[LargeManifest, bytes, bytes]
"""What a LARGE says, its datagram, and its plaintext."""
_PART: Final = Part()


class _Packet:
    """A large packet of which parts are missing."""

    __slots__ = ("first", "parts", "size", "whole")

    def __init__(self, first: int, size: int, whole: bytes) -> None:
        self.first = first
        """The seq of its first part."""
        self.size = size
        self.whole = whole
        self.parts: dict[int, bytes] = {}


class Opener:
    """Holds an epoch's keys, the manifests that came, and what waits for one that did not.

    Attack: a member fills the waiting room with datagrams of its own making. It has GROUP_HELD places and two
    for each seq; what waited longest goes, and is asked for again if it was genuine. Parts of large packets have a
    room of their own, of the same size, since strangers can fill that one too.
    """

    __slots__ = (
        "_channel",
        "_digests",
        "_early",
        "_held",
        "_keys",
        "_named",
        "_packets",
        "_prefix",
        "_verify",
    )

    def __init__(self, owner: bytes, grant: Grant, suite: GroupSuite = ED25519_CHACHAPOLY) -> None:
        self._channel = grant.channel
        self._keys = ReceiveKeys(grant.channel, grant.generation, grant.chain_key, suite)
        self._verify = suite.verifier(grant.signing_key)
        self._prefix = c.LABEL_GROUP + owner
        self._digests: dict[int, bytes] = {}
        self._named = NO_DIGEST  # the LARGE that the last one names, and so proves
        self._packets: dict[int, _Packet] = {}  # by the seq of each part
        self._early: dict[tuple[int, int], bytes] = {}  # seq, candidate -> what may be a part
        self._held: dict[tuple[int, int], tuple[bytes, bytes]] = {}  # seq, candidate -> digest, plaintext

    def open_untrusted(self, datagram: bytes, generation: int, seq: int, ahead: int) -> Content:
        """Open a datagram whose header the caller has read. Raises BadPacket, which names the counter.

        A seq that has been taken is the caller's to refuse, beforehand. What no manifest covers is not kept
        from seq `ahead` on: a member can claim any.
        """
        if seq in self._packets:
            return self._part_untrusted(datagram, generation, seq)
        plaintext = self.decrypt_untrusted(datagram, generation, seq)
        head = plaintext[0]
        kind = head & 0x0F
        if kind == DATA_COVERED:
            digest = sha256(datagram).digest()[:DIGEST_SIZE]
            expected = self._digests.get(seq)
            if expected is None:
                if seq >= ahead:
                    raise BadPacket("group-ahead")
                self._hold(seq, digest, plaintext)
                return UNPROVEN
            if expected != digest:
                raise BadPacket("group-forged")
            del self._digests[seq]
            return parse_data_untrusted(plaintext, len(plaintext))
        end = len(plaintext) - SIGNATURE_SIZE
        if kind not in SIGNED or end < 1 or kind not in (head, DATA):
            raise BadPacket("group-malformed")
        if not self._is_signed(datagram, plaintext):
            raise BadPacket("group-forged")
        if kind == DATA:
            return parse_data_untrusted(plaintext, end)
        if kind == MANIFEST:
            digests = parse_manifest_untrusted(plaintext, end)
            self._digests.update(zip(range(seq + 1, seq + 1 + len(digests)), digests, strict=True))
            return Manifest(len(digests))
        if kind == LARGE:
            large = parse_large_untrusted(plaintext, end)
            self._expect(seq + 1, large)
            return Manifest(large.parts)
        if kind == HEARTBEAT:
            return parse_heartbeat_untrusted(plaintext, end)
        assert kind == ROTATE
        return Rotate(parse_rotate_untrusted(plaintext, end))

    def _is_signed(self, datagram: bytes, plaintext: bytes) -> bool:
        end = len(plaintext) - SIGNATURE_SIZE
        return self._verify(plaintext[end:], self._prefix + datagram[:_HEADER] + plaintext[:end])

    def _expect(self, first: int, large: LargeManifest) -> None:
        seqs = range(first, first + large.parts)
        self._digests.update(zip(seqs, large.each(), strict=True))
        self._packets.update(dict.fromkeys(seqs, _Packet(first, large.parts, large.whole)))

    def _complete(self, packet: _Packet) -> None:
        for seq in range(packet.first, packet.first + packet.size):
            self._digests.pop(seq, None)
            self._packets.pop(seq, None)

    def _part_untrusted(self, datagram: bytes, generation: int, seq: int) -> Content:
        """Take a part, which anybody can claim to have; the last one that comes brings the messages."""
        if sha256(datagram).digest()[:DIGEST_SIZE] != self._digests.get(seq):
            raise BadPacket("group-spoiled")
        packet = self._packets[seq]
        packet.parts[seq] = datagram[_HEADER:]
        if len(packet.parts) < packet.size:
            return _PART
        sealed = b"".join(packet.parts[each] for each in range(packet.first, packet.first + packet.size))
        data = self._open_packet_untrusted(sealed, generation, packet.first)
        self._complete(packet)
        return data

    def _open_packet_untrusted(self, sealed: bytes, generation: int, first: int) -> Data:
        aead = self._keys.aead_untrusted(generation)
        if aead is None:
            raise BadPacket("group-generation")
        try:
            plaintext = aead.decrypt(
                large_nonce(1, first), sealed, group_header(generation, self._channel, first)
            )
        except InvalidTag:
            raise BadPacket("group-unsealed") from None
        return parse_large_plain_untrusted(plaintext)

    def open_large_untrusted(self, trains: Sequence[tuple[bytes, int]], seq: int) -> list[tuple[int, Data]]:
        """Open trains that are each a LARGE and all of its parts, or those alone, numbered on from `seq`.

        Returns how many datagrams each had and what it brings, for as many as are just that: all others are left to
        `open_untrusted`, which says why. One signature proves all that name each other, also those that come later.
        """
        packet = self._packets.get(seq)
        if packet is not None:
            train, size = trains[0]
            if packet.first != seq or -(-len(train) // size) != packet.size:
                return []
            data = self._open_parts_untrusted(train, size, 0, seq, packet.whole)
            if data is None:
                return []
            self._complete(packet)
            return [(packet.size, data)]
        manifests: list[_Manifest] = []
        last = seq
        for train, size in trains:
            found = self._large_untrusted(train, size, last)
            if found is None:
                break
            manifests.append(found)
            last += 1 + found[0].parts
        proven = self._prove_untrusted(manifests)
        opened: list[tuple[int, Data]] = []
        for (large, _, _), (train, size) in zip(manifests[:proven], trains, strict=False):
            data = self._open_parts_untrusted(train, size, size, seq + 1, large.whole)
            if data is None:
                break
            opened.append((1 + large.parts, data))
            seq += 1 + large.parts
            self._named = large.following
        return opened

    def _prove_untrusted(self, manifests: Sequence[_Manifest]) -> int:
        """Return how many LARGE from the beginning are the publisher's: they name each other, both ways."""
        digests = [sha256(datagram).digest()[:DIGEST_SIZE] for _, datagram, _ in manifests]
        named = self._named
        proven, end = 0, len(manifests)
        while proven < end:
            last = proven
            if digests[proven] != named:
                while last + 1 < end and manifests[last + 1][0].previous == digests[last]:
                    last += 1
                if not self._is_signed(*manifests[last][1:]):
                    end = last
                    continue
            named = manifests[last][0].following
            proven = last + 1
        return proven

    def _open_parts_untrusted(
        self, train: bytes, size: int, start: int, first: int, whole: bytes
    ) -> Data | None:
        """Open the parts that a train has from `start` on, if they are the publisher's."""
        if size < GROUP_MIN_SIZE or sha256(memoryview(train)[start:]).digest()[:DIGEST_SIZE] != whole:
            return None
        end = len(train) - (len(train) - start) % size
        pieces = taker(_HEADER, size - _HEADER, (end - start) // size)(train, start)
        sealed = b"".join((*pieces, train[end + _HEADER :]))
        try:
            return self._open_packet_untrusted(sealed, int.from_bytes(train[_GENERATION], "big"), first)
        except BadPacket:
            return None

    def _large_untrusted(self, train: bytes, size: int, seq: int) -> _Manifest | None:
        """Read the LARGE that a train may begin with, which shows only that a member made it."""
        if size < GROUP_MIN_SIZE:
            return None
        kind, zero, generation, channel, found = group_fields(train)
        if (kind, zero, channel, found) != (c.TYPE_GROUP, 0, self._channel, seq):
            return None
        datagram = train[:size]
        try:
            plaintext = self.decrypt_untrusted(datagram, generation, seq)
            end = len(plaintext) - SIGNATURE_SIZE
            if plaintext[0] != LARGE or end < 1:
                return None
            large = parse_large_untrusted(plaintext, end)
        except BadPacket:
            return None
        # The digest of the whole says nothing of where one part ends: their number and the first one's size do.
        return (large, datagram, plaintext) if -(-len(train) // size) == 1 + large.parts else None

    def open_covered_untrusted(self, datagrams: Sequence[bytes], seq: int) -> tuple[int, list[Data]]:
        """Open datagrams that are numbered on from `seq`, for as long as a manifest that came covers each.

        Returns how many those were, and what they bring, messages that follow each other joined. What is not
        genuine is left to `open_untrusted`, which says why. Much cheaper than that, for what comes most.
        """
        digests = self._digests
        found: list[Data] = []
        messages: list[bytes] | None = None
        next_number = count = 0
        generation, decrypt = b"", None
        for datagram in datagrams:
            # With the digest that the publisher has signed, the whole datagram is the publisher's.
            if sha256(datagram).digest()[:DIGEST_SIZE] != digests.get(seq):
                break
            header = datagram[:_HEADER]
            if decrypt is None or header[_GENERATION] != generation:
                generation = header[_GENERATION]
                aead = self._keys.aead_untrusted(int.from_bytes(generation, "big"))
                if aead is None:
                    break
                decrypt = aead.decrypt
            try:
                plaintext = decrypt(nonce_little_endian(seq), datagram[_HEADER:], header)
                if len(plaintext) < DATA_HEAD:
                    break
                if plaintext[0] == _ONE_MESSAGE:
                    number = int.from_bytes(plaintext[1:DATA_HEAD], "big")
                    brought = [plaintext[DATA_HEAD:]]
                elif plaintext[0] & 0x0F == DATA_COVERED:
                    data = parse_data_untrusted(plaintext, len(plaintext))
                    number, brought = data.number, list(data.messages)
                    if data.piece is not None:
                        found.append(data)
                else:
                    break
            except (InvalidTag, BadPacket):
                break
            if brought:
                if messages is not None and number == next_number and found[-1].messages is messages:
                    messages += brought
                else:
                    messages = brought
                    found.append(Data(WHOLE, number, messages, None))
                next_number = number + len(brought)
            del digests[seq]
            seq += 1
            count += 1
        return count, found

    def decrypt_untrusted(self, datagram: bytes, generation: int, seq: int) -> bytes:
        """Open the seal alone, at least one byte, which proves a member. Raises BadPacket."""
        aead = self._keys.aead_untrusted(generation)
        if aead is None:
            raise BadPacket("group-generation")
        try:
            plaintext = aead.decrypt(nonce_little_endian(seq), datagram[_HEADER:], datagram[:_HEADER])
        except InvalidTag:
            raise BadPacket("group-unsealed") from None
        if not plaintext:
            raise BadPacket("group-malformed")
        return plaintext

    def _hold(self, seq: int, digest: bytes, plaintext: bytes) -> None:
        held = self._held
        for candidate in range(_CANDIDATES):
            other = held.get((seq, candidate))
            if other is None:
                held[seq, candidate] = digest, plaintext
                break
            if other[0] == digest:
                break
        if len(held) > c.GROUP_HELD:
            del held[next(iter(held))]

    @property
    def early(self) -> bool:
        """Whether anything is kept of which not even a member is known to have made it."""
        return bool(self._early)

    def hold_early(self, seq: int, datagram: bytes) -> None:
        """Keep what did not open, and may be a part whose LARGE is still to come."""
        early = self._early
        for candidate in range(_CANDIDATES):
            if early.setdefault((seq, candidate), datagram) == datagram:
                break
        if len(early) > c.GROUP_HELD:
            del early[next(iter(early))]

    def take_early(self, first: int, count: int) -> Iterator[tuple[int, bytes]]:
        """Yield what was kept of these seqs, and keep it no longer; not verified in any way."""
        if self._early:
            for seq in range(first, first + count):
                for candidate in range(_CANDIDATES):
                    datagram = self._early.pop((seq, candidate), None)
                    if datagram is not None:
                        yield seq, datagram

    def proven_untrusted(self, seq: int) -> Data | None:
        """Return what waited for this seq's manifest, once it is there. Raises BadPacket if none was genuine."""
        digest = self._digests.get(seq)
        if digest is None:
            return None
        found = [self._held.pop((seq, candidate), None) for candidate in range(_CANDIDATES)]
        for each in found:
            if each and each[0] == digest:
                del self._digests[seq]
                return parse_data_untrusted(each[1], len(each[1]))
        if any(found):
            raise BadPacket("group-forged")
        return None

    @property
    def holding(self) -> bool:
        """Whether anything waits for a manifest."""
        return bool(self._held)

    def holds(self, seq: int) -> bool:
        """Tell whether a datagram with this seq waits for its manifest."""
        return (seq, 0) in self._held or (seq, 0) in self._early

    def forget_before(self, seq: int) -> None:
        """Forget manifests and what waits for them, of seqs that are not wanted any more."""
        for old in [each for each in self._digests if each < seq]:
            del self._digests[old]
            self._packets.pop(old, None)
        for room in (self._held, self._early):
            for key in [each for each in room if each[0] < seq]:
                del room[key]
