"""Which handshake a node speaks, and with what secret (docs/protocol.md, section 4).

One for all of its peers, chosen when the node is opened: nothing is negotiated, so there is nothing to downgrade.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mp2p_core.proto import constants as c
from mp2p_core.proto.noise import IK, HandshakeState, IKpsk2, Secret, check_psk
from mp2p_core.proto.noise_suite import CHACHAPOLY_SHA256

if TYPE_CHECKING:
    from mp2p_core.proto.noise_suite import KeyPair, Suite

__all__ = ["Handshake", "prologue"]


class Handshake(Secret):
    """Suite 1, or with a pre-shared key of 32 bytes suite 2. Raises `UsageError` for a key of another length."""

    __slots__ = ("_psk", "number", "suite")

    def __init__(self, suite: Suite = CHACHAPOLY_SHA256, psk: bytes | None = None) -> None:
        check_psk(psk)
        self._psk = psk
        self.suite = suite
        """The functions that it is made of."""
        self.number = c.SUITE_IK if psk is None else c.SUITE_IK_PSK
        """The suite byte of INIT and RESP."""

    def begin(
        self, *, initiator: bool, responder: bytes, header: bytes, s: KeyPair, rs: bytes | None = None
    ) -> HandshakeState:
        """Begin one with the responder of this Ed25519 key, for an INIT with this header, bytes 0 to 31."""
        return HandshakeState(
            IK if self._psk is None else IKpsk2, initiator=initiator, prologue=prologue(responder, header),
            s=s, rs=rs, psk=self._psk, suite=self.suite,
        )  # fmt: skip


def prologue(responder: bytes, header: bytes) -> bytes:
    """Bind label, responder's exact key and the readable header into the transcript."""
    return c.LABEL_PROLOGUE + responder + header
