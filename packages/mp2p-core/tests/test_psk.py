"""Nodes that share a secret besides their keys (protocol section 4, suite 2; row H14)."""

from __future__ import annotations

import os
import pickle
import traceback
from pathlib import Path

import pytest

from mp2p_core import Closed, KeyFileError, PeerUnreachable, UsageError, open_node
from mp2p_core.keyfile import load_psk
from mp2p_core.proto import addresses, wire
from mp2p_core.proto import constants as c
from mp2p_core.proto.endpoint import Endpoint
from mp2p_core.proto.handshake import Handshake
from mp2p_core.proto.responder import ChannelInfo
from mp2p_core.testing.memory import MemoryHub
from mp2p_core.testing.puppet import Bench, Puppet
from mp2p_core.testing.simulation import AllowAll, Conditions, SimNode, Simulation

PSK = bytes(range(200, 232))
OTHER = b"q" * 32
BAD = Conditions(loss=0.3, duplicate=0.2, delay=0.02, jitter=0.2)


def pair(
    seed: int, ours: bytes | None, theirs: bytes | None, conditions: Conditions | None = None
) -> tuple[Simulation, SimNode, SimNode]:
    sim = Simulation(seed, conditions)
    nodes = sim.add_node("a"), sim.add_node("b")
    for node, psk in zip(nodes, (ours, theirs), strict=True):
        node.endpoint = Endpoint(
            node.identity, AllowAll(), now=sim.now, random=sim.random_bytes, suite=sim.nonces.suite,
            epoch_us=sim.timestamp(), psk=psk,
        )  # fmt: skip
        node.endpoint.add_channel(0, ChannelInfo(node.group, 1200, addresses.may_answer))
    return sim, *nodes


@pytest.mark.parametrize("seed", range(20))
def test_who_share_a_secret_connect_talk_and_get_new_keys(seed: int) -> None:
    sim, a, b = pair(seed, PSK, PSK, BAD)
    sim.connect(a, b)
    assert sim.run_until(lambda: a.connected and b.accepted, c.HANDSHAKE_BUDGET), f"seed {seed}"
    assert {sent.data[1] for sent in a.sent + b.sent if sent.data[0] in (c.TYPE_INIT, c.TYPE_RESP)} == {2}
    ours, theirs = a.connected[0], b.accepted[0]
    sim.conditions = Conditions()
    assert sim.run_until(lambda: a.endpoint.counters["rekeys-done"], c.REKEY_AFTER + 60), f"seed {seed}"
    ours.send_message(b"there")
    a.endpoint.flush(ours)
    sim.flush(a)
    assert sim.run_until(lambda: b.messages == [(theirs, b"there")], 1)
    assert sim.nonces.repeats == 0


@pytest.mark.parametrize(
    ("ours", "theirs", "stage", "answers"),
    [
        (None, PSK, "nothing heard", False),
        (PSK, None, "nothing heard", False),
        # psk2 goes in at the end of the RESP: whoever allows the key answers, and the caller sees that it is wrong.
        (PSK, OTHER, "answered by another key", True),
    ],
    ids=["missing here", "missing there", "another"],
)
@pytest.mark.parametrize("seed", range(5))
def test_H14_without_the_same_secret_there_is_no_session(
    seed: int, ours: bytes | None, theirs: bytes | None, stage: str, answers: bool
) -> None:
    sim, a, b = pair(seed, ours, theirs)
    sim.connect(a, b)
    assert sim.run_until(lambda: a.failed, 30.0), f"seed {seed}"
    assert a.failed[0].stage == stage
    assert a.connected + a.accepted + b.connected + b.accepted == [], "nobody is told"
    assert {sent.data[0] for sent in b.sent} == ({c.TYPE_RESP} if answers else set())
    sim.run(c.HALF_OPEN_LIFE)
    assert b.endpoint.sizes()["sessions"] == 0


@pytest.mark.parametrize("suite", [0, 1, 3, 255])
def test_D2_H14_a_node_with_a_secret_speaks_suite_2_alone(suite: int) -> None:
    bench = Bench(psk=PSK)
    puppet = Puppet(bench.key)
    head = wire.init_header(bytes(8), None, suite)
    assert bench.feed(puppet.init(header=head)) == []
    assert bench.endpoint.counters == {"init-malformed": 1}


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_secret_of_another_length_is_refused_at_once(size: int) -> None:
    with pytest.raises(UsageError, match=f"32 bytes, and this has {size}"):
        Handshake(psk=bytes(size))


def test_L2_the_secret_is_in_no_repr_and_no_pickle() -> None:
    handshake = Handshake(psk=PSK)
    assert PSK.hex() not in repr(handshake)
    assert repr(PSK)[2:-1] not in repr(handshake)
    with pytest.raises(TypeError, match="holds secrets"):
        pickle.dumps(handshake)


# --- files


def put(path: Path, data: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("text", [PSK.hex(), PSK.hex() + "\n", PSK.hex().upper() + "\r\n"])
def test_a_file_of_64_hex_digits_is_a_secret(tmp_path: Path, text: str) -> None:
    assert load_psk(put(tmp_path / "psk", text.encode())) == PSK


@pytest.mark.parametrize(
    "data", [b"", b"\n", PSK, PSK.hex()[:-2].encode(), PSK.hex().encode() + b"00", b" " + PSK.hex().encode()]
)
def test_K2_L2_any_other_file_is_refused_and_not_shown(tmp_path: Path, data: bytes) -> None:
    path = put(tmp_path / "psk", data)
    with pytest.raises(KeyFileError, match="holds no pre-shared key, which is 64 hex digits") as caught:
        load_psk(path)
    described = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    # The test's own frame has the secret, of course.
    shown = [str(caught.value)]
    shown += [
        str(frame.locals) for frame in described.stack if Path(frame.filename).name != Path(__file__).name
    ]
    assert len(shown) > 1
    for form in (repr(PSK)[2:-1], PSK.hex()[:32]):
        assert form not in "\n".join(shown)


def test_K1_a_secret_that_others_may_read_is_refused(tmp_path: Path) -> None:
    if os.name != "posix":
        pytest.skip("no file modes here")
    with pytest.raises(KeyFileError, match="chmod"):
        load_psk(put(tmp_path / "psk", PSK.hex().encode(), 0o644))


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="openssl rand -hex 32"):
        load_psk(tmp_path / "psk")


# --- nodes


@pytest.mark.anyio
async def test_nodes_with_one_secret_meet_and_others_are_strangers(tmp_path: Path) -> None:
    hub = MemoryHub()
    file = put(tmp_path / "psk", PSK.hex().encode())
    async with (
        open_node(allow="any", transports=[hub.transport()], psk=PSK) as server,
        open_node(transports=[hub.transport()], psk=file) as friend,
        open_node(transports=[hub.transport()]) as stranger,
        open_node(transports=[hub.transport()], psk=OTHER) as wrong,
    ):
        async with friend.connect(server.contact) as peer:
            await peer.send(b"hello")
            accepted = await server.accept()
            assert await accepted.receive() == b"hello"
        with pytest.raises(Closed):
            await accepted.receive()
        for node, advice in (
            (stranger, "both have the same pre-shared key"),
            (wrong, "this node's pre-shared key"),
        ):
            with pytest.raises(PeerUnreachable, match=advice):
                async with node.connect(server.contact, timeout=0.3):
                    pass
        assert server.peers() == ()


@pytest.mark.anyio
async def test_a_secret_that_is_none_is_an_error_before_anything_opens(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a pre-shared key has 32 bytes"):
        async with open_node(transports=[MemoryHub().transport()], psk=b"short"):
            pass
    with pytest.raises(UsageError, match="a pre-shared key has 32 bytes"):
        # No transports are an error of their own, once they are to be opened.
        async with open_node(transports=[], psk=b"short"):
            pass
    with pytest.raises(KeyFileError, match="no file"):
        async with open_node(transports=[MemoryHub().transport()], psk=tmp_path / "none"):
            pass
