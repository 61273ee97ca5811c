"""Handshakes of ours with ours; independent peers are in the workspace's tests."""

from __future__ import annotations

from mp2p_core.proto.identity import Identity
from mp2p_core.proto.noise import IK, HandshakeState, IKpsk2


def test_both_sides_agree() -> None:
    alice, bob = Identity.from_seed(b"a" * 32), Identity.from_seed(b"b" * 32)
    for pattern, psk in ((IK, None), (IKpsk2, b"p" * 32)):
        one = HandshakeState(pattern, initiator=True, prologue=b"x", s=alice, rs=bob.public.x25519, psk=psk)
        two = HandshakeState(pattern, initiator=False, prologue=b"x", s=bob, psk=psk)
        message = one.write_message(b"hello", b"1" * 32)
        assert len(message) == 32 + 48 + 5 + 16
        two.read_start_untrusted(message, until="s")
        assert two.remote_static == alice.public.x25519
        assert two.read_finish_untrusted() == b"hello"
        answer = two.write_message(b"welcome", b"2" * 32)
        assert one.copy().read_message_untrusted(answer) == b"welcome"
        assert one.read_message_untrusted(answer) == b"welcome"
        assert one.handshake_hash == two.handshake_hash
        assert one.split() == two.split()
