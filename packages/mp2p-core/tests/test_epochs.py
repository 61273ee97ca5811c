"""Which keys a session has, and for how long (protocol section 6, Rekeying)."""

from __future__ import annotations

import math

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from mp2p_core.proto import constants as c
from mp2p_core.proto.epoch import Epoch, SessionKeys
from mp2p_core.proto.epochs import Epochs
from mp2p_core.testing.puppet import Puppet
from mp2p_core.transport import Path


def epoch(number: int, began: float, *, ours: bool = False) -> Epoch:
    key = ChaCha20Poly1305(bytes(32))
    return Epoch(
        keys=SessionKeys(key, key, b"h" * 32, b"t" * 16), local_id=b"%8d" % number, remote_id=bytes(8), channel=0,
        path=Path(Puppet.SOURCE), began=began, ours=ours,
    )  # fmt: skip


@pytest.mark.parametrize("confirmed", range(4))
def test_whichever_of_the_offered_keys_the_peer_confirms_are_used(confirmed: int) -> None:
    """It asks over every way at once, and takes the first answer: they need not come in order."""
    epochs = Epochs(epoch(0, 0.0), 300.0)
    offered = [epoch(1 + n, 100.0) for n in range(4)]
    for each in offered:
        epochs.offer(each)
    assert epochs.opened(epochs[offered[confirmed].local_id], 100.1)
    assert epochs.current is offered[confirmed]
    assert epochs.promoted is offered[confirmed]
    epochs.handle_timeout(100.0 + c.HALF_OPEN_LIFE)
    assert epochs.ids == [b"%8d" % 0, offered[confirmed].local_id]
    epochs.handle_timeout(100.1 + c.EPOCH_OVERLAP)
    assert epochs.ids == [offered[confirmed].local_id]
    assert epochs.next_at == math.inf


def test_of_more_the_oldest_go() -> None:
    epochs = Epochs(epoch(0, 0.0), 300.0)
    for n in range(1, 20):
        epochs.offer(epoch(n, 50.0))
    assert epochs.ids == [b"%8d" % n for n in (0, 16, 17, 18, 19)]
    assert epochs.retired == [b"%8d" % n for n in range(1, 16)]


def test_of_those_that_were_replaced_the_oldest_go() -> None:
    """However fast a peer renews its keys, a session holds a handful."""
    epochs = Epochs(epoch(0, 0.0), 300.0)
    for n in range(1, 20):
        each = epoch(n, 50.0 + n / 10)
        epochs.offer(each)
        assert epochs.opened(each, 50.0 + n / 10)
    assert epochs.ids == [b"%8d" % n for n in range(19 - c.OLD_EPOCHS, 20)]
    assert epochs.retired == [b"%8d" % n for n in range(19 - c.OLD_EPOCHS)]


def test_what_nobody_confirms_is_forgotten_after_ten_seconds() -> None:
    epochs = Epochs(epoch(0, 0.0), 300.0)
    epochs.offer(epoch(1, 50.0))
    assert epochs.next_at == 50.0 + c.HALF_OPEN_LIFE
    epochs.handle_timeout(59.9)
    assert len(epochs.ids) == 2
    epochs.handle_timeout(60.0)
    assert epochs.ids == [b"%8d" % 0]
    assert epochs.retired == [b"%8d" % 1]


def test_traffic_is_counted_under_all_keys_together() -> None:
    epochs = Epochs(epoch(0, 0.0), 300.0)
    offered, asked = epoch(1, 50.0), epoch(2, 100.0, ours=True)
    epochs.current.seal(0, b"first", 1, 1200)
    epochs.offer(offered)
    assert epochs.rekeys == 0
    epochs.opened(offered, 50.1)
    offered.seal(1, b"second", 1, 1200)
    epochs.install(asked, 100.1)
    sealed = asked.seal(2, b"third", 1, 1200)[0]
    assert epochs.traffic.packets_sent == 3
    assert epochs.traffic.bytes_sent == 3 * c.DATA_MIN_SIZE + len(b"firstsecondthird")
    assert asked.open_untrusted(2, sealed[c.DATA_HEADER_SIZE :], sealed[: c.DATA_HEADER_SIZE]) == b"third"
    assert asked.open_untrusted(3, sealed[c.DATA_HEADER_SIZE :], sealed[: c.DATA_HEADER_SIZE]) is None
    assert epochs.traffic.packets_received == 1
    assert epochs.traffic.bytes_received == len(sealed)
    assert epochs.rekeys == 2
