"""The transition table is what the code does: every step can be made, and no other one is asked for."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable

import pytest

from mp2p_core.proto import constants as c
from mp2p_core.proto import session as session_module
from mp2p_core.proto.connection import Connection
from mp2p_core.proto.events import Accepted, Connected
from mp2p_core.proto.frames import encode_close
from mp2p_core.proto.session import Session
from mp2p_core.proto.states import TRANSITIONS, SessionState, diagram, step
from mp2p_core.testing.puppet import Bench, Puppet

S = SessionState


def half_open() -> tuple[Bench, Puppet]:
    bench = Bench()
    puppet = Puppet(bench.key)
    (resp,) = bench.feed(puppet.init())
    puppet.read_resp(resp.data)
    return bench, puppet


def confirming() -> tuple[Bench, Puppet, Connection]:
    bench = Bench()
    puppet = Puppet(bench.key)
    bench.feed(puppet.resp(bench.dial(puppet.key)))
    (event,) = bench.events
    assert isinstance(event, Connected)
    return bench, puppet, event.connection


def opened() -> tuple[Bench, Puppet, Connection]:
    bench, puppet = half_open()
    bench.feed(puppet.seal(b"\x01"))
    (event,) = bench.events
    assert isinstance(event, Accepted)
    return bench, puppet, event.connection


def half_open_confirmed() -> Session:
    return opened()[2].session


def half_open_expired() -> None:
    bench, puppet = half_open()
    assert bench.endpoint.sizes()["sessions"] == 1
    bench.advance(c.HALF_OPEN_LIFE - 0.01)
    assert bench.endpoint.sizes()["sessions"] == 1
    bench.advance(0.02)
    assert bench.endpoint.sizes()["sessions"] == bench.endpoint.sizes()["half-open"] == 0
    assert bench.feed(puppet.seal(b"\x01")) == []


def confirming_confirmed() -> Session:
    bench, puppet, connection = confirming()
    assert connection.session.state is S.CONFIRMING
    bench.feed(puppet.seal(b""))
    return connection.session


def confirming_closed() -> Session:
    bench, _, connection = confirming()
    bench.endpoint.close(connection, 0, "", bench.now)
    return connection.session


def confirming_silent() -> Session:
    bench, _, connection = confirming()
    bench.advance(c.HALF_OPEN_LIFE + c.CONFIRM_SCHEDULE[-1])
    assert connection.closed is not None
    assert connection.closed.code == c.CLOSE_IDLE
    return connection.session


def open_heard() -> Session:
    bench, puppet, connection = opened()
    bench.feed(puppet.seal(b"\x01"))
    return connection.session


def open_closed() -> Session:
    bench, _, connection = opened()
    bench.endpoint.close(connection, 0, "", bench.now)
    return connection.session


def open_closed_by_peer() -> Session:
    bench, puppet, connection = opened()
    bench.feed(puppet.seal(encode_close(3, "bye")))
    return connection.session


def open_silent() -> Session:
    bench, _, connection = opened()
    bench.advance(c.DEFAULT_IDLE_TIMEOUT)
    return connection.session


def closing_closed_by_peer() -> Session:
    bench, puppet, connection = opened()
    bench.endpoint.close(connection, 0, "", bench.now)
    bench.collect()
    bench.feed(puppet.seal(encode_close(3, "bye")))
    return connection.session


def closing_over() -> Session:
    bench, _, connection = opened()
    bench.endpoint.close(connection, 0, "", bench.now)
    bench.collect()
    bench.advance(c.CLOSING_LIFE)
    return connection.session


def draining_over() -> Session:
    bench, puppet, connection = opened()
    bench.feed(puppet.seal(encode_close(0, "")))
    bench.advance(c.CLOSING_LIFE)
    return connection.session


WAYS: dict[tuple[SessionState, str], Callable[[], Session | None]] = {
    (S.HALF_OPEN, "authenticated packet"): half_open_confirmed,
    (S.HALF_OPEN, "10 s, or pushed out"): half_open_expired,
    (S.CONFIRMING, "authenticated packet"): confirming_confirmed,
    (S.CONFIRMING, "local close"): confirming_closed,
    (S.CONFIRMING, "silence"): confirming_silent,
    (S.OPEN, "authenticated packet"): open_heard,
    (S.OPEN, "local close"): open_closed,
    (S.OPEN, "peer's close"): open_closed_by_peer,
    (S.OPEN, "silence"): open_silent,
    (S.CLOSING, "peer's close"): closing_closed_by_peer,
    (S.CLOSING, "time is up"): closing_over,
    (S.DRAINING, "time is up"): draining_over,
}


def test_there_is_a_way_to_make_every_step() -> None:
    assert set(WAYS) == set(TRANSITIONS)


@pytest.mark.parametrize(
    ("step_made", "way"), WAYS.items(), ids=lambda value: str(value[1]) if isinstance(value, tuple) else ""
)
def test_every_step_of_the_table(
    step_made: tuple[SessionState, str], way: Callable[[], Session | None]
) -> None:
    session = way()
    if session is not None:
        assert session.state is TRANSITIONS[step_made]


def test_a_step_that_is_not_in_the_table_is_a_defect() -> None:
    for state, event in (
        (S.CLOSED, "local close"),
        (S.HALF_OPEN, "local close"),
        (S.DRAINING, "authenticated packet"),
    ):
        with pytest.raises(KeyError):
            step(state, event)


def test_every_event_in_the_code_is_in_the_table() -> None:
    source = inspect.getsource(session_module)
    named = set(re.findall(r'(?:step\([\w.]+, |_drain\()"([^"]+)"', source))
    assert named == {event for _, event in TRANSITIONS}


def test_closed_is_the_end() -> None:
    assert not [event for state, event in TRANSITIONS if state is S.CLOSED]
    reached = {S.HALF_OPEN, S.CONFIRMING}
    for _ in TRANSITIONS:
        reached |= {end for (start, _), end in TRANSITIONS.items() if start in reached}
    assert reached == set(S)


def test_the_diagram_draws_every_step() -> None:
    lines = diagram().splitlines()
    assert lines[0] == "stateDiagram-v2"
    assert len(lines) == len(TRANSITIONS) + 4
    assert "    Closing --> Draining: peer's close" in lines
