"""The node over the in-memory transport, on both event loops."""

from __future__ import annotations

import logging
from pathlib import Path as FilePath

import anyio
import pytest

from mp2p_core import (
    AddressError,
    Closed,
    Contact,
    ContactError,
    DatagramTooLarge,
    Identity,
    Node,
    Peer,
    PeerUnreachable,
    PublicKey,
    TransportError,
    UsageError,
    open_node,
)
from mp2p_core.proto.addresses import derive_group_v4, format_host_port, parse_ipv4
from mp2p_core.testing.memory import MemoryHub, MemoryTransport
from mp2p_core.transport import Address, Reach

pytestmark = pytest.mark.anyio


@pytest.fixture
def hub() -> MemoryHub:
    return MemoryHub()


async def test_two_nodes_talk_by_the_key_alone(hub: MemoryHub) -> None:
    async with (
        open_node(allow="any", transports=[hub.transport()]) as server,
        open_node(transports=[hub.transport()]) as client,
        client.connect(str(server.contact)) as peer,
    ):
        assert str(server.contact) == f"mp2p:{server.key}"
        heard = await server.accept()
        assert (peer.key, heard.key) == (server.key, client.key)
        await peer.send_datagram(b"there")
        assert await heard.receive_datagram() == b"there"
        await heard.send_datagram(b"back")
        assert await peer.receive_datagram() == b"back"
        assert await peer.ping() > 0
        assert client.peers() == (peer,)
        assert server.peers() == (heard,)


async def test_a_random_address_is_in_the_contact(hub: MemoryHub) -> None:
    async with (
        open_node(allow="any", transports=[hub.transport()], address="random") as server,
        open_node(transports=[hub.transport()]) as client,
    ):
        assert "?at=memory:" in str(server.contact)
        async with client.connect(server.contact):
            pass
        with pytest.raises(PeerUnreachable):
            async with client.connect(server.key, timeout=0.05):
                pass


@pytest.mark.parametrize("form", ["key", "contact", "text", "function", "list"])
async def test_the_access_list_takes_keys_contacts_texts_and_functions(hub: MemoryHub, form: str) -> None:
    friend, stranger = Identity.generate(), Identity.generate()
    key = friend.public
    seen: list[PublicKey] = []

    def decide(candidate: PublicKey) -> bool:
        seen.append(candidate)
        return candidate == key

    allow = {
        "key": [key],
        "contact": f"mp2p:{key}",
        "text": [str(key)],
        "function": decide,
        "list": [stranger.public, key],
    }[form]
    if form == "list":
        stranger = Identity.generate()
    async with (
        open_node(allow=allow, transports=[hub.transport()]) as server,
        open_node(friend, transports=[hub.transport()]) as welcome,
        open_node(stranger, transports=[hub.transport()]) as unwelcome,
    ):
        async with welcome.connect(server.contact):
            assert (await server.accept()).key == key
        with pytest.raises(PeerUnreachable) as failure:
            async with unwelcome.connect(server.contact, timeout=0.05):
                pass
        assert failure.value.stage == "nothing heard"
        assert "allows your key" in str(failure.value)
        assert "`mp2p doctor`" in str(failure.value)
        assert server.counters["init-not-allowed"] >= 1


async def test_an_allow_function_that_fails_or_is_no_plain_one_lets_nobody_in(
    hub: MemoryHub, caplog: pytest.LogCaptureFixture
) -> None:
    async def waits(_key: PublicKey) -> bool:
        return True

    with pytest.raises(UsageError, match="plain function"):
        open_node(allow=waits, transports=[hub.transport()])  # type: ignore[arg-type] # the mistake in question

    def breaks(_key: PublicKey) -> bool:
        raise KeyError("mine")

    for broken in (breaks, lambda key: waits(key).close() or 1):
        async with (
            open_node(allow=broken, transports=[hub.transport()]) as server,
            open_node(transports=[hub.transport()]) as client,
        ):
            for _ in range(2):
                with pytest.raises(PeerUnreachable):
                    async with client.connect(server.contact, timeout=0.05):
                        pass
            assert server.counters["init-not-allowed"] >= 1
    assert caplog.text.count("the allow= function failed") == 1


async def test_nobody_is_allowed_by_default(hub: MemoryHub) -> None:
    async with (
        open_node(transports=[hub.transport()]) as server,
        open_node(transports=[hub.transport()]) as client,
    ):
        with pytest.raises(PeerUnreachable):
            async with client.connect(server.contact, timeout=0.05):
                pass


async def test_a_message_larger_than_a_datagram_says_how_much_fits(hub: MemoryHub) -> None:
    async with (
        open_node(allow="any", transports=[hub.transport()]) as server,
        open_node(transports=[hub.transport()]) as client,
        client.connect(server.contact) as peer,
    ):
        limit = peer.max_datagram_size
        assert limit == 1200 - 34 - 3
        heard = await server.accept()
        await peer.send_datagram(bytes(limit))
        assert len(await heard.receive_datagram()) == limit
        with pytest.raises(DatagramTooLarge) as failure:
            await peer.send_datagram(bytes(limit + 1))
        assert (failure.value.size, failure.value.limit) == (limit + 1, limit)


async def test_closing_reaches_the_other_side_with_code_and_reason(hub: MemoryHub) -> None:
    async with (
        open_node(allow="any", transports=[hub.transport()]) as server,
        open_node(transports=[hub.transport()]) as client,
        client.connect(server.contact) as peer,
    ):
        heard = await server.accept()
        await heard.send_datagram(b"last words")
        await heard.aclose(4711, "enough")
        assert await peer.receive_datagram() == b"last words"
        for _ in range(2):
            with pytest.raises(Closed) as failure:
                await peer.receive_datagram()
            assert (failure.value.code, failure.value.reason) == (4711, "enough")
        with pytest.raises(Closed):
            await peer.send_datagram(b"too late")
        with pytest.raises(Closed):
            await peer.ping()
        assert client.peers() == server.peers() == ()


async def test_leaving_the_node_tells_every_peer(hub: MemoryHub) -> None:
    async with open_node(transports=[hub.transport()]) as client:
        async with open_node(allow="any", transports=[hub.transport()]) as server:
            async with client.connect(server.contact) as peer:
                await server.accept()
                async with anyio.create_task_group() as tasks:

                    async def expect_the_end() -> None:
                        with pytest.raises(Closed, match="closing"):
                            await peer.receive_datagram()

                    tasks.start_soon(expect_the_end)
                    await anyio.wait_all_tasks_blocked()
                    await server.aclose()


async def test_accept_ends_when_the_node_closes(hub: MemoryHub) -> None:
    async with open_node(transports=[hub.transport()]) as node, anyio.create_task_group() as tasks:

        async def wait() -> None:
            with pytest.raises(Closed):
                await node.accept()

        tasks.start_soon(wait)
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        await node.aclose()


async def test_F10_peers_that_leave_before_they_are_accepted_are_kept_up_to_a_limit(hub: MemoryHub) -> None:
    async with open_node(allow="any", transports=[hub.transport()]) as server:

        async def visit(number: int) -> None:
            async with (
                open_node(transports=[hub.transport()]) as client,
                client.connect(server.contact) as peer,
            ):
                await peer.send(bytes([number]))

        for number in range(80):
            await visit(number)
        for number in range(80 - 64, 80):
            left = await server.accept()
            assert left.closed is not None
            assert await left.receive() == bytes([number])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(visit, 80)
            assert await (await server.accept()).receive() == bytes([80])


async def test_what_the_application_raises_leaves_the_block_as_it_is(hub: MemoryHub) -> None:
    with pytest.raises(KeyError):
        async with open_node(transports=[hub.transport()]):
            raise KeyError("mine")
    with pytest.raises(PeerUnreachable):
        async with (
            open_node(transports=[hub.transport()]) as node,
            node.connect(Identity.generate().public, timeout=0.02),
        ):
            pass
    assert hub.channels == []


async def test_a_cancelled_connect_leaves_nothing_behind(hub: MemoryHub) -> None:
    async with (
        open_node(allow="any", transports=[hub.transport()]) as server,
        open_node(transports=[hub.transport()]) as client,
    ):
        hub.drop = lambda _datagram: True
        with anyio.move_on_after(0.02) as scope:
            async with client.connect(server.contact):
                pass
        assert scope.cancelled_caught
        hub.drop = lambda _datagram: False
        async with client.connect(server.contact) as peer:
            assert peer.key == server.key


async def test_receiving_twice_at_once_is_refused(hub: MemoryHub) -> None:
    async with (
        open_node(allow="any", transports=[hub.transport()]) as server,
        open_node(transports=[hub.transport()]) as client,
        client.connect(server.contact) as peer,
    ):
        heard = await server.accept()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(peer.receive_datagram)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(anyio.BusyResourceError):
                await peer.receive_datagram()
            await heard.send_datagram(b"x")


async def test_a_ping_that_is_lost_times_out_and_the_session_goes_on(hub: MemoryHub) -> None:
    async with (
        open_node(allow="any", transports=[hub.transport()]) as server,
        open_node(transports=[hub.transport()]) as client,
        client.connect(server.contact) as peer,
    ):
        await server.accept()
        hub.drop = lambda _datagram: True
        with pytest.raises(TimeoutError):
            await peer.ping(timeout=0.02)
        hub.drop = lambda _datagram: False
        assert await peer.ping(timeout=5) > 0


async def test_a_full_inbox_drops_the_oldest_and_counts(hub: MemoryHub) -> None:
    async with (
        open_node(allow="any", transports=[hub.transport()]) as server,
        open_node(transports=[hub.transport()]) as client,
        client.connect(server.contact) as peer,
    ):
        heard = await server.accept()
        for n in range(1100):
            await peer.send_datagram(n.to_bytes(2, "big"))
        await peer.ping(timeout=5)
        assert heard.dropped == 1100 - 1024
        assert await heard.receive_datagram() == heard.dropped.to_bytes(2, "big")


async def _both_call(one: Node, other: Node, result: list[Peer], stay: anyio.Event) -> None:
    async with one.connect(other.key) as peer:
        result.append(peer)
        if len(result) == 2:
            stay.set()
        await stay.wait()
        await peer.send_datagram(b"from " + one.key.raw)
        assert await peer.receive_datagram() == b"from " + other.key.raw


async def test_H10_two_nodes_that_call_at_once_share_one_connection(hub: MemoryHub) -> None:
    async with (
        open_node(allow="any", transports=[hub.transport()]) as one,
        open_node(allow="any", transports=[hub.transport()]) as other,
    ):
        peers: list[Peer] = []
        stay = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_both_call, one, other, peers, stay)
            tasks.start_soon(_both_call, other, one, peers, stay)
        assert len(peers) == 2


async def test_several_transports_at_once_and_the_one_that_works_wins() -> None:
    dead, alive = MemoryHub(), MemoryHub()
    dead.drop = lambda _datagram: True

    class Named(MemoryTransport):
        def __init__(self, hub: MemoryHub, name: str) -> None:
            super().__init__(hub)
            self.name = self.family = name  # type: ignore[misc] # two transports of one class, told apart

    def both() -> list[Named]:
        return [Named(dead, "dead"), Named(alive, "alive")]

    async with (
        open_node(allow="any", transports=both()) as server,
        open_node(transports=both()) as client,
        client.connect(server.contact) as peer,
    ):
        assert peer.path.startswith("alive ")
        assert [status.transport for status in server.status()] == ["dead", "alive"]


async def test_a_contact_for_transports_that_are_not_open_says_which(hub: MemoryHub) -> None:
    class Underivable(MemoryTransport):
        def derive_address(self, key: bytes, reach: object, port: int) -> Address | None:
            return None

        def create_address(self, **_: object) -> Address:
            return bytes([0x80, 0]) + bytes(18)

    contact = f"mp2p:{Identity.generate().public}?at=carrier-pigeon:coop"
    async with open_node(transports=[Underivable(hub)]) as node:
        with pytest.raises(UsageError, match="carrier-pigeon"):
            async with node.connect(contact):
                pass


async def test_a_peer_of_narrower_reach_is_refused_at_once(hub: MemoryHub) -> None:
    class InGroups(MemoryTransport):
        """Names its places as IPv4 groups."""

        def derive_address(self, key: bytes, reach: Reach, port: int) -> Address:
            return derive_group_v4(key, reach, port)

        def parse_address(self, text: str) -> Address:
            return parse_ipv4(text)

        def may_answer(self, *addresses: Address) -> bool:
            return True

    async with (
        open_node(allow="any", transports=[InGroups(hub)], reach="link") as near,
        open_node(transports=[InGroups(hub)]) as far,
        open_node(transports=[InGroups(hub)], reach="link") as near_too,
    ):
        contact = Contact(near.key, (("memory", format_host_port(hub.channels[0].address)),))
        with pytest.raises(AddressError, match="reach"):
            async with far.connect(contact):
                pass
        async with near_too.connect(contact) as peer:
            assert peer.key == near.key


async def test_bad_input_is_refused_with_what_to_do(hub: MemoryHub, tmp_path: FilePath) -> None:
    async with open_node(transports=[hub.transport()]) as node:
        with pytest.raises(ContactError):
            async with node.connect("http://example"):
                pass
        with pytest.raises(ContactError, match="Node is no contact"):
            async with node.connect(node):  # type: ignore[arg-type]  # that is the point
                pass
        with pytest.raises(UsageError, match="itself"):
            async with node.connect(node.contact):
                pass
    with pytest.raises(TransportError, match="installed"):
        async with open_node(transports=["no-such"]):
            pass
    with pytest.raises(UsageError, match="list of transports"):
        async with open_node(transports=[]):
            pass
    someone = Identity.generate()
    mistakes: list[tuple[dict[str, object], str]] = [
        ({"transports": "v4"}, r"write transports=\['v4'\]"),
        ({"allow": 5}, "any"),
        ({"allow": someone.public}, "in a list"),
        ({"allow": [someone]}, r"Identity is no contact: .*identity\.public"),
    ]
    for options, words in mistakes:
        with pytest.raises(UsageError, match=words):
            async with open_node(**({"transports": [hub.transport()]} | options)):
                pass
    with pytest.raises(AddressError):
        async with open_node(transports=[hub.transport()], address="nonsense"):
            pass
    for wrong in ({"port": 0}, {"reach": "moon"}, {"idle_timeout": 0}):
        with pytest.raises(UsageError):
            open_node(transports=[hub.transport()], **wrong)  # type: ignore[arg-type] # one wrong value each
    with pytest.raises(UsageError, match="port"):
        async with open_node(transports=[hub.transport()], address="00" * 18, port=2000):
            pass


async def test_a_key_file_is_made_on_first_use_and_gives_the_same_node_again(
    hub: MemoryHub, tmp_path: FilePath
) -> None:
    path = tmp_path / "node.key"
    async with open_node(path, transports=[hub.transport()]) as node:
        first = node.key
    assert path.stat().st_mode & 0o777 == 0o600
    async with open_node(str(path), transports=[hub.transport()]) as node:
        assert node.key == first


async def test_K7_an_unwritable_timestamp_warns_and_still_connects(
    hub: MemoryHub, tmp_path: FilePath, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "client.key"
    async with open_node(path, transports=[hub.transport()]):
        pass
    (tmp_path / "client.key.time").mkdir()
    async with (
        open_node(allow="any", transports=[hub.transport()]) as server,
        open_node(path, transports=[hub.transport()]) as client,
    ):
        with caplog.at_level(logging.WARNING, "mp2p"):
            async with client.connect(server.contact) as peer:
                assert peer.key == server.key
    assert "timestamp" in caplog.text


async def test_L2_nothing_that_is_shown_holds_the_secret(hub: MemoryHub) -> None:
    identity = Identity.generate()
    seed = identity.seed()
    async with (
        open_node(identity, allow="any", transports=[hub.transport()]) as server,
        open_node(transports=[hub.transport()]) as client,
        client.connect(server.contact) as peer,
    ):
        heard = await server.accept()
        shown = " ".join(
            repr(each)
            for each in (
                identity,
                server,
                client,
                peer,
                heard,
                server.contact,
                server.status(),
                server.counters,
            )
        )
    assert seed.hex() not in shown
    assert repr(seed)[2:-1] not in shown


class Spare(MemoryTransport):
    """A second transport, on a hub of its own."""

    name = "spare"


async def test_a_connection_goes_on_over_the_other_transport_when_one_dies(hub: MemoryHub) -> None:
    """Both ends send, and neither was told of the other transport by the contact."""
    spare = MemoryHub()
    async with (
        open_node(allow="any", transports=[hub.transport(), Spare(spare)]) as server,
        open_node(transports=[hub.transport(), Spare(spare)]) as client,
    ):
        spare.drop = lambda _datagram: True  # until it is connected over the first
        async with client.connect(server.key) as peer:
            heard = await server.accept()
            await peer.ping()
            spare.drop = lambda _datagram: False
            assert peer.path.startswith("memory ")
            hub.drop = lambda _datagram: True
            await peer.send(b"there")
            assert await heard.receive() == b"there"
            await heard.send(b"back")
            assert await peer.receive() == b"back"
            assert peer.path.startswith("spare ")
            assert heard.path.startswith("spare ")
            assert (client.counters["paths-changed"], server.counters["paths-changed"]) == (1, 1)


async def test_what_is_said_in_one_turn_shares_a_packet_until_it_is_much(hub: MemoryHub) -> None:
    async with (
        open_node(allow="any", transports=[hub.transport()]) as server,
        open_node(transports=[hub.transport()]) as client,
        client.connect(server.contact) as peer,
    ):
        await peer.ping()
        await anyio.wait_all_tasks_blocked()
        sizes: list[int] = []
        hub.drop = lambda datagram: bool(sizes.append(len(datagram)))  # type: ignore[func-returns-value]  # to count
        for _ in range(23):
            await peer.send_datagram(b"a word")  # the 32nd would give way to other tasks
        assert not sizes
        await peer.send_datagram(b"enough")
        assert len(sizes) == 1
        await peer.send_datagram(b"the next word")
        await anyio.wait_all_tasks_blocked()
        assert len(sizes) > 1
        assert sizes[0] > 23 * len(b"a word") > sizes[1]


async def test_a_word_goes_out_at_once_where_those_before_it_stayed_alone(hub: MemoryHub) -> None:
    async with (
        open_node(allow="any", transports=[hub.transport()]) as server,
        open_node(transports=[hub.transport()]) as client,
        client.connect(server.contact) as peer,
    ):
        heard = await server.accept()
        at_once: list[int] = []
        for words in (*[1] * 9, 2, 2, 1):
            await anyio.wait_all_tasks_blocked()
            sizes: list[int] = []
            hub.drop = lambda _datagram, sizes=sizes: bool(sizes.append(1))  # type: ignore[misc]  # to count
            for _ in range(words):
                await peer.send_datagram(b"word")
            at_once.append(len(sizes))
            for _ in range(words):
                assert await heard.receive_datagram() == b"word"
            await heard.send_datagram(b"heard")
            assert await peer.receive_datagram() == b"heard"
        assert at_once == [*[0] * 8, 1, 1, 0, 0]


async def test_a_channel_that_fails_while_sending_ends_the_node_with_its_error(hub: MemoryHub) -> None:
    async def use() -> None:
        async with (
            open_node(allow="any", transports=[hub.transport()]) as server,
            open_node(transports=[hub.transport()]) as client,
            client.connect(server.contact) as peer,
        ):

            def fail(_datagram: bytes) -> bool:
                hub.drop = lambda _datagram: False
                raise ZeroDivisionError("a bug in a transport")

            await peer.ping()
            await anyio.wait_all_tasks_blocked()
            hub.drop = fail
            with anyio.fail_after(10):
                await peer.send_datagram(b"sent once every task has had its turn")
                await anyio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        await use()
    assert caught.group_contains(ZeroDivisionError, match="a bug in a transport")
