"""New keys for a connection, step by step against a puppet (protocol section 6; rows H15, Y4, Y7)."""

from __future__ import annotations

import gc

import pytest
from cryptography.exceptions import InvalidTag

from mp2p_core.proto import constants as c
from mp2p_core.proto import wire
from mp2p_core.proto.addresses import pack_ipv4
from mp2p_core.proto.connection import Connection
from mp2p_core.proto.epoch import Epoch
from mp2p_core.proto.events import ConnectionClosed, ConnectionReplaced, MessageReceived
from mp2p_core.proto.frames import Msg, Ping, encode_ack, encode_msg, parse_frames_untrusted
from mp2p_core.proto.ranges import RangeSet
from mp2p_core.testing.puppet import Bench, Puppet
from mp2p_core.testing.simulation import Datagram

TOKEN = b"token of the day"


def connected(seed: int = 1) -> tuple[Bench, Puppet, Connection]:
    """A bench that has called a puppet, to which it owes nothing."""
    bench = Bench()
    puppet = Puppet(bench.key, seed=seed)
    bench.feed(puppet.resp(bench.dial(puppet.key), token=TOKEN))
    bench.feed(puppet.seal(encode_ack([(0, 0)], 0.0)))
    (connection,) = bench.endpoint.connections()
    bench.events.clear()
    return bench, puppet, connection


def say(bench: Bench, connection: Connection, text: bytes) -> bytes:
    connection.send_message(text)
    bench.endpoint.flush(connection)
    (datagram,) = bench.collect()
    return datagram.data


def of_type(out: list[Datagram], kind: int) -> list[bytes]:
    return [datagram.data for datagram in out if datagram.data[0] == kind]


def asked(bench: Bench, connection: Connection) -> bytes:
    """Have the bench ask for new keys, and return its INIT."""
    connection.session.epochs.rekey_at = bench.now
    bench.endpoint.flush(connection)
    bench.collect()
    (init,) = of_type(bench.advance(0.0), c.TYPE_INIT)
    return init


def after(puppet: Puppet, seed: int = 5) -> Puppet:
    """The same peer, for the next handshake; packet numbers go on."""
    return Puppet(puppet.peer, identity=puppet.own, seed=seed)


def take_turn(old: Puppet, new: Puppet) -> None:
    new.number = old.number


def test_a_renewed_session_seals_under_new_keys_and_its_numbers_go_on() -> None:
    bench, old, connection = connected()
    (before,) = wire.data_packet_number(say(bench, connection, b"old"), 10)
    new = after(old)
    init = asked(bench, connection)
    resp = new.resp(init, token=TOKEN)
    take_turn(old, new)
    assert new.told is not None
    assert (new.told.continues, new.told.token, new.told.or_new, new.told.may_cross) == (
        True,
        TOKEN,
        False,
        False,
    )
    out = bench.feed(resp)
    (confirmation,) = of_type(out, c.TYPE_DATA)
    new.open(confirmation)
    packet = say(bench, connection, b"new")
    (number,) = wire.data_packet_number(packet, 10)
    assert number > before
    assert parse_frames_untrusted(new.open(packet))[-1] == Msg(b"new")
    bench.feed(new.seal(encode_msg(b"also new")))
    assert bench.events == [MessageReceived(connection, b"also new")]
    assert bench.endpoint.counters["rekeys-done"] == 1


def test_H15_a_resp_for_another_connection_changes_nothing() -> None:
    bench, old, connection = connected()
    new = after(old)
    init = asked(bench, connection)
    assert of_type(bench.feed(new.resp(init, token=b"some other token")), c.TYPE_DATA) == []
    assert bench.endpoint.counters["resp-token"] == 1
    assert parse_frames_untrusted(old.open(say(bench, connection, b"x")))[-1] == Msg(b"x")
    bench.now += 1.0
    bench.feed(after(old, 6).resp(init, token=TOKEN))
    assert bench.endpoint.counters["rekeys-done"] == 1, "and the genuine answer is still waited for"


def test_keys_that_the_peer_asks_for_are_used_from_its_first_packet_under_them_on() -> None:
    bench, old, connection = connected()
    new = after(old)
    (resp,) = bench.feed(new.init(token=TOKEN))
    assert new.read_resp(resp.data).token == TOKEN
    take_turn(old, new)
    assert parse_frames_untrusted(old.open(say(bench, connection, b"1")))[-1] == Msg(b"1")
    bench.feed(old.seal(encode_msg(b"late")))
    packet = new.seal(encode_msg(b"first"), old.number)
    assert bench.feed(packet[:-1] + bytes([packet[-1] ^ 1])) == []
    assert parse_frames_untrusted(old.open(say(bench, connection, b"2")))[-1] == Msg(b"2"), "nor a forged one"
    bench.feed(packet)
    assert parse_frames_untrusted(new.open(say(bench, connection, b"3")))[-1] == Msg(b"3")
    assert [event.data for event in bench.events if isinstance(event, MessageReceived)] == [b"late", b"first"]


@pytest.mark.parametrize("kept", [False, True])
def test_what_waits_for_a_sign_of_life_goes_out_when_the_peer_confirms_keys_also_if_they_are_not_used(
    kept: bool,
) -> None:
    """The peer could not hear, and now can: it says so by taking our answer. Of two epochs at once one is kept."""
    seed = next(n for n in range(1, 50) if (Puppet(Bench().key, seed=n).key.raw > Bench().key.raw) is kept)
    bench, old, connection = connected(seed)
    ours = after(old, 100)
    bench.feed(ours.resp(asked(bench, connection), token=TOKEN))
    take_turn(old, ours)
    bench.feed(ours.seal(encode_ack([(0, connection.session.packer.next_number - 1)], 0.0)))
    say(bench, connection, b"lost")
    bench.advance(5.0)
    assert connection.session.roaming.fading
    bench.feed(ours.seal(b"\x01"))
    theirs = after(old, 101)
    (resp,) = of_type(bench.feed(theirs.init(timestamp=10**16, token=TOKEN)), c.TYPE_RESP)
    theirs.read_resp(resp)
    take_turn(ours, theirs)
    out = of_type(bench.feed(theirs.seal(b"\x00")), c.TYPE_DATA)
    assert connection.session.epoch.ours is kept
    assert Ping() in parse_frames_untrusted((ours if kept else theirs).open(out[0]))


def test_Y4_a_recorded_request_for_new_keys_leads_nowhere() -> None:
    bench, old, connection = connected()
    recorded = after(old).init(token=TOKEN)
    assert len(bench.feed(recorded)) == 1
    before = bench.endpoint.sizes()["sessions"]
    bench.advance(c.HALF_OPEN_LIFE)
    assert bench.endpoint.sizes()["sessions"] == before - 1
    assert parse_frames_untrusted(old.open(say(bench, connection, b"x")))[-1] == Msg(b"x")


def test_a_confirmed_renewal_raises_the_bar_for_recorded_inits() -> None:
    """Those from before it need a cookie."""
    bench, old, _ = connected()
    early = after(old, 6).init(timestamp=100)
    new = after(old)
    (resp,) = bench.feed(new.init(timestamp=200, token=TOKEN))
    new.read_resp(resp.data)
    take_turn(old, new)
    (answer,) = bench.feed(early)
    assert answer.data[0] == c.TYPE_RESP, "not confirmed yet"
    bench.feed(new.seal(b"\x01"))
    (answer,) = bench.feed(after(old, 7).init(timestamp=150))
    assert answer.data[0] == c.TYPE_COOKIE


@pytest.mark.parametrize("or_new", [False, True])
def test_H15_a_token_that_is_not_this_peers_finds_nothing(or_new: bool) -> None:
    bench, old, connection = connected()
    stranger = Puppet(bench.key, seed=77)
    out = bench.feed(stranger.init(token=TOKEN, or_new=or_new))
    assert len(out) == or_new
    if or_new:
        assert stranger.read_resp(out[0].data).token != TOKEN
        bench.feed(stranger.seal(encode_msg(b"hello")))
        assert bench.endpoint.connections() == [connection, bench.events[0].connection]  # type: ignore[union-attr]
    else:
        assert bench.endpoint.counters["init-token"] == 1
    assert parse_frames_untrusted(old.open(say(bench, connection, b"unharmed")))[-1] == Msg(b"unharmed")


def test_H15_the_token_of_a_connection_that_has_ended_is_refused_or_begins_another() -> None:
    bench, old, connection = connected()
    bench.endpoint.close(connection, 0, "", bench.now)
    bench.collect()
    assert bench.feed(after(old).init(token=TOKEN)) == []
    new = after(old, 6)
    (resp,) = bench.feed(new.init(token=TOKEN, or_new=True))
    assert new.read_resp(resp.data).token != TOKEN


def test_Y7_old_keys_open_for_ten_seconds() -> None:
    bench, old, connection = connected()
    new = after(old)
    resp = new.resp(asked(bench, connection), token=TOKEN)
    bench.feed(resp)
    late = [old.seal(encode_msg(b"%d" % n)) for n in range(2)]
    bench.advance(c.EPOCH_OVERLAP - 0.1)
    bench.feed(late[0])
    bench.advance(0.2)
    before = bench.endpoint.counters["data-unknown"]
    bench.feed(late[1])
    assert bench.endpoint.counters["data-unknown"] == before + 1
    assert [event.data for event in bench.events if isinstance(event, MessageReceived)] == [b"0"]


@pytest.mark.parametrize("why", ["packets", "failures"])
def test_F6_keys_that_were_used_much_or_attacked_much_are_renewed(why: str) -> None:
    bench, _, connection = connected()
    if why == "packets":
        connection.session.packer.next_number = c.REKEY_PACKETS
    else:
        connection.session.epoch.failed = c.REKEY_FAILURES
    assert len(of_type(bench.advance(c.KEEPALIVE + 0.1), c.TYPE_INIT)) == 1


def test_nothing_is_sent_under_keys_older_than_ten_minutes_and_nobody_is_kept_busy() -> None:
    """A peer that talks, and answers no INIT: it will hear nothing more, and end the session."""
    bench, puppet, connection = connected()
    began = connection.session.epoch.began
    sent: list[float] = []
    received = RangeSet()
    out: list[Datagram] = []
    inits = 0
    while bench.now < began + c.EPOCH_LIFE + 60:
        out += bench.advance(1.0)
        if of_type(out, c.TYPE_DATA):
            sent.append(bench.now)
        inits += len(of_type(out, c.TYPE_INIT))
        for packet in of_type(out, c.TYPE_DATA):
            received.add(*wire.data_packet_number(packet, 10))
        asks = encode_msg(b"are you there?")
        out = bench.feed(puppet.seal(encode_ack(received, 0.0) + asks if received else asks))
        connection.send_message(b"yes, but")
        bench.endpoint.flush(connection)
    assert c.EPOCH_LIFE - 2 < sent[-1] - began <= c.EPOCH_LIFE
    assert inits > 50, "it asks for new keys until the end, and beyond"
    assert not [event for event in bench.events if isinstance(event, ConnectionClosed)]
    new = after(puppet)
    inits_now = of_type(bench.advance(6.0), c.TYPE_INIT)
    resp = new.resp(inits_now[-1], token=TOKEN)
    take_turn(puppet, new)
    out = bench.feed(resp)
    new.open(of_type(out, c.TYPE_DATA)[0])
    bench.feed(new.seal(b"\x01"))
    assert connection.closed is None


def test_H17_a_peer_that_has_lost_its_memory_answers_with_another_token() -> None:
    bench, puppet, connection = connected()
    say(bench, connection, b"?")
    out = bench.advance(10.0)
    inits = of_type(out, c.TYPE_INIT)
    told = []
    for init in inits:
        new = after(puppet)
        resp = new.resp(init, token=b"a token of its o")
        assert new.told is not None
        told.append(new.told.or_new)
        assert new.told.token == TOKEN
    assert told[: c.SEARCH_ROUND] == [False] * c.SEARCH_ROUND
    assert told[-1]
    out = bench.feed(resp)
    replaced, closed = bench.events[-2:]
    assert isinstance(replaced, ConnectionReplaced)
    assert (replaced.old, closed.code) == (connection, c.CLOSE_RESTARTED)  # type: ignore[union-attr]
    assert replaced.new.session.token == b"a token of its o"
    packets = of_type(out, c.TYPE_DATA)
    assert len(packets) == 2, "a confirmation there, and a CLOSE here"
    opened = []
    for packet in packets:
        for side in (new, puppet):
            try:
                side.open(packet)
            except InvalidTag:
                continue
            opened.append(side)
    assert new in opened
    assert puppet in opened


def test_a_peer_that_renews_its_keys_without_end_holds_a_handful() -> None:
    """As fast as its address is answered. What comes under the oldest keys then is for nobody."""
    bench, old, connection = connected()
    sides = [old]
    for n in range(20):
        bench.advance(0.15)
        new = after(old, 100 + n)
        (resp,) = of_type(bench.feed(new.init(timestamp=10_000 + n, token=TOKEN)), c.TYPE_RESP)
        new.read_resp(resp)
        take_turn(sides[-1], new)
        bench.feed(new.seal(encode_msg(b"%d" % n)))
        sides.append(new)
        assert bench.endpoint.sizes()["sessions"] <= 2 + c.OLD_EPOCHS
    heard = [event.data for event in bench.events if isinstance(event, MessageReceived)]
    assert heard == [b"%d" % n for n in range(20)]
    before = bench.endpoint.counters["data-unknown"]
    bench.feed(sides[3].seal(b"\x01", sides[-1].number))
    assert bench.endpoint.counters["data-unknown"] == before + 1
    assert connection.closed is None


def test_F10_a_peer_that_renews_its_keys_from_ever_new_addresses_is_looked_for_at_a_few() -> None:
    """Each of them is proved by the handshake: whoever went silent then had INITs sent to all of them."""
    bench, old, connection = connected()
    sides = [old]
    for n in range(20):
        bench.advance(0.15)
        new = after(old, 100 + n)
        address = pack_ipv4("192.0.2.7", 2000 + n)
        (resp,) = of_type(
            bench.feed(new.init(timestamp=10_000 + n, token=TOKEN, return_address=address)), c.TYPE_RESP
        )
        new.read_resp(resp)
        take_turn(sides[-1], new)
        bench.feed(new.seal(encode_msg(b"here")))
        sides.append(new)
    first = connection.session.roaming.paths.targets()[0]
    say(bench, connection, b"where?")
    asked_at = {out.destination for out in bench.advance(15.0) if out.data[0] == c.TYPE_INIT}
    kept = {pack_ipv4("192.0.2.7", 2000 + n) for n in range(19 - c.MAX_PROVED_ADDRESSES, 20)}
    assert asked_at == {first.address} | kept


def test_keys_that_are_gone_are_held_by_nothing() -> None:
    """Nor are the very first ones: whoever reads the memory of a long session finds the last minutes' alone."""
    bench, old, connection = connected()
    gone = connection.session.epoch.local_id
    new = after(old)
    (resp,) = bench.feed(new.init(token=TOKEN))
    new.read_resp(resp.data)
    take_turn(old, new)
    bench.feed(new.seal(encode_ack([(0, 0)], 0.0)))
    bench.advance(c.EPOCH_OVERLAP)
    gc.collect()
    assert not [each for each in gc.get_objects() if isinstance(each, Epoch) and each.local_id == gone]
