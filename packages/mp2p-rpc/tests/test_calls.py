"""Calls over real nodes in memory: the four shapes, arguments, errors, access; each failure and then the next call."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Protocol

import anyio
import pytest

from mp2p_core import Closed
from mp2p_rpc import (
    ArgumentError,
    ArgumentsRefused,
    BadAnswer,
    BadResult,
    DeclaredError,
    InternalError,
    Limits,
    NotAllowed,
    RequestRefused,
    RpcError,
    Service,
    UnknownMethod,
    current_call,
    function,
    interface,
)
from mp2p_rpc.directory import MethodDescription, ServiceDescription

pytestmark = pytest.mark.anyio


@dataclass
class Reading:
    celsius: float
    room: str = "hall"


class TooHot(DeclaredError, code="too-hot"):
    data: float


class NotDeclared(DeclaredError):
    """Of which the interface says nothing."""


class Thermostat(Service, errors=[TooHot]):
    def __init__(self) -> None:
        self.target = 20.0
        self.calls: list[str] = []

    async def set_target(self, celsius: float, room: str = "hall") -> float:
        self.calls.append(room)
        if celsius > 30:
            raise TooHot("at most 30", 30.0)
        self.target = celsius
        return self.target

    async def history(self, count: int) -> AsyncIterator[Reading]:
        for number in range(count):
            yield Reading(number)

    async def average(self, readings: AsyncIterator[Reading]) -> float:
        found = [each.celsius async for each in readings]
        return sum(found) / len(found)

    async def doubled(self, readings: AsyncIterator[Reading], factor: float = 2) -> AsyncIterator[Reading]:
        async for each in readings:
            yield Reading(each.celsius * factor, each.room)

    async def fail(self, how: str) -> int:
        if how == "code":
            raise RpcError("out-of-service", "come back later", {"hours": [1, 2]})
        if how == "undeclared":
            raise NotDeclared("who knows", 1)
        if how == "crash":
            raise ZeroDivisionError("secret at /etc/passwd")
        if how == "data":
            raise RpcError("odd", "", object())
        if how == "type":
            return "text"  # type: ignore[return-value] # the mistake in question
        return 1

    async def big(self, size: int) -> bytes:
        return bytes(size)

    async def take(self, data: bytes) -> int:
        return len(data)

    async def fail_later(self, after: int) -> AsyncIterator[int]:
        for number in range(after):
            yield number
        raise TooHot("now", 1.5)


async def readings(*values: float) -> AsyncIterator[Reading]:
    for value in values:
        yield Reading(value)


async def test_the_four_shapes(net: Any) -> None:
    async with net.serving(Thermostat()) as (peer, _):
        thermostat = peer.client(Thermostat)
        assert await thermostat.set_target(21.5) == 21.5
        assert [each async for each in thermostat.history(3)] == [Reading(0), Reading(1), Reading(2)]
        assert await thermostat.average(readings(1, 2, 6)) == 3.0
        assert [each.celsius async for each in thermostat.doubled(readings(1, 2))] == [2, 4]
        assert [each.celsius async for each in thermostat.doubled(readings(3), factor=5)] == [15]
        assert [each async for each in thermostat.history(0)] == []
        assert not hasattr(thermostat, "target")


async def test_arguments_by_position_by_name_and_left_out(net: Any) -> None:
    service = Thermostat()
    async with net.serving(service) as (peer, _):
        thermostat = peer.client(Thermostat)
        await thermostat.set_target(1)
        await thermostat.set_target(2, "bath")
        await thermostat.set_target(room="attic", celsius=3)
    assert service.calls == ["hall", "bath", "attic"]


class Meter(Protocol):
    async def value(self) -> float: ...

    def values(self, count: int) -> AsyncIterator[float]: ...


class Power(ABC):
    @abstractmethod
    async def watts(self) -> float: ...


@interface(name="clock", version=2)
class Clock(Protocol):
    async def now(self) -> float: ...


class Device(Power, Clock):
    """Serves two interfaces of its bases, and a third that it only looks like."""

    async def watts(self) -> float:
        return 7.5

    async def now(self) -> float:
        return 1.0

    async def value(self) -> float:
        return 3.0

    async def values(self, count: int) -> AsyncIterator[float]:
        for number in range(count):
            yield number / 2


async def test_protocols_and_abstract_classes_are_shared_by_both_sides(net: Any) -> None:
    async with net.serving(Device()) as (peer, server):
        assert await peer.client(Power).watts() == 7.5
        assert await peer.client(Clock).now() == 1.0
        with pytest.raises(UnknownMethod, match="does not serve 'Meter' version 1"):
            await peer.client(Meter).value()
        async with server.serving(Device(), interface=Meter, allow="any"):
            assert await peer.client(Meter).value() == 3.0
            assert [each async for each in peer.client(Meter).values(3)] == [0, 0.5, 1]


@function
async def greet(name: str, greeting: str = "hello") -> str:
    return f"{greeting} {name}"


@function(name="count")
async def count_up(to: int) -> AsyncIterator[int]:
    for number in range(to):
        yield number


async def test_functions_are_served_and_called_by_themselves(net: Any) -> None:
    assert await greet("here") == "hello here"
    async with net.serving(greet, count_up, Thermostat()) as (peer, _):
        assert await peer.client(greet)("there", greeting="hi") == "hi there"
        assert [each async for each in peer.client(count_up)(3)] == [0, 1, 2]
        assert await peer.client(Thermostat).set_target(2) == 2


# --- each failure is its own error, and the next call works -------------------------------------------------


Calling = Callable[[Any], Any]
FAILURES: dict[str, tuple[Calling, type[Exception], dict[str, Any], str]] = {
    "wrong argument": (
        lambda t: t.set_target("hot"), ArgumentError, {"path": "$.celsius"}, "Expected `float`, got `str`",
    ),
    "missing argument": (lambda t: t.set_target(), ArgumentError, {"path": "$.celsius"}, "missing argument"),
    "declared": (
        lambda t: t.set_target(31), TooHot, {"code": "too-hot", "message": "at most 30", "data": 30.0}, "at most 30",
    ),
    "code": (
        lambda t: t.fail("code"), RpcError, {"code": "out-of-service", "data": {"hours": [1, 2]}}, "come back later",
    ),
    "undeclared": (lambda t: t.fail("undeclared"), RpcError, {"code": "NotDeclared", "data": 1}, "who knows"),
    "crash": (lambda t: t.fail("crash"), InternalError, {}, "the log of the peer has incident [0-9a-f]{8}$"),
    "data that cannot travel": (lambda t: t.fail("data"), InternalError, {}, "incident"),
    "result of the wrong type": (
        lambda t: t.fail("type"), BadResult, {"path": "$"}, "handler's result does not fit.*`int`, got `str`",
    ),
    "result too large": (lambda t: t.big(1 << 20), BadResult, {}, "return an AsyncIterator"),
    "arguments too large": (lambda t: t.take(bytes(1 << 20)), ArgumentError, {}, "at most 1048576 are sent"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILURES)
async def test_C2_each_failure_is_its_own_error_and_the_next_call_works(
    net: Any, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    call, kind, attributes, words = FAILURES[name]
    async with net.serving(Thermostat()) as (peer, _):
        thermostat = peer.client(Thermostat)
        with pytest.raises(kind, match=words) as failure:
            await call(thermostat)
        assert type(failure.value) is kind
        assert {key: getattr(failure.value, key) for key in attributes} == attributes
        assert await thermostat.set_target(1) == 1
    if name == "crash":
        assert isinstance(failure.value, InternalError)
        # The log has everything, under the incident; the caller has nothing of it.
        assert f"incident {failure.value.incident}" in caplog.text
        assert "secret at /etc/passwd" in caplog.text
        assert "secret" not in str(failure.value)
        assert "ZeroDivisionError" not in repr(failure.value)
    if isinstance(failure.value, (RpcError, InternalError, BadResult)):
        assert failure.value.method.startswith("Thermostat.")


class Other(Service, name="Thermostat"):
    """What another version of the interface may look like to callers."""

    async def set_target(self, celsius: str, extra: int = 0) -> str: ...

    async def gone(self) -> None: ...

    async def history(self, count: int) -> AsyncIterator[int]:
        yield count

    async def fail(self, how: str, extra: int = 0) -> str: ...


class Newer(Service, name="Thermostat", version=2):
    async def set_target(self, celsius: float) -> float: ...


async def test_C2_a_peer_with_another_version_of_the_interface_is_told_what_differs(net: Any) -> None:
    async with net.serving(Thermostat()) as (peer, _):
        other = peer.client(Other)
        with pytest.raises(ArgumentsRefused, match="Expected `float`, got `str`") as wrong:
            await other.set_target("hot")
        assert wrong.value.path == "$.celsius"
        with pytest.raises(ArgumentsRefused, match="unknown field `extra`"):
            await other.fail("1", extra=1)
        with pytest.raises(UnknownMethod, match="no such method") as unknown:
            await other.gone()
        assert unknown.value.method == "Thermostat.gone"
        with pytest.raises(UnknownMethod, match="does not serve 'Thermostat' version 2"):
            await peer.client(Newer).set_target(1.0)
        with pytest.raises(BadResult, match="the answer does not fit") as result:
            await other.fail("not at all")
        assert result.value.path == "$"
        with pytest.raises(BadResult):
            await anext(other.history(1))
        assert await peer.client(Thermostat).set_target(1) == 1


class Lists(Service):
    async def take(self, data: list[Any]) -> int:
        return len(data)


async def test_C1_what_is_past_a_limit_is_refused_with_its_reason(net: Any) -> None:
    async with net.serving(Thermostat(), Lists(), limits=Limits(message=1000, depth=4, elements=100)) as (
        peer,
        _,
    ):
        deep: Any = 1
        for _ in range(5):
            deep = [deep]
        for call, reason in (
            (lambda: peer.client(Thermostat).take(bytes(1000)), "too-large"),
            (lambda: peer.client(Lists).take([deep]), "too-deep"),
            (lambda: peer.client(Lists).take([[]] * 101), "too-many"),
        ):
            with pytest.raises(RequestRefused) as refused:
                await call()
            assert refused.value.reason == reason
        with pytest.raises(BadResult, match="at most 1000 are sent"):
            await peer.client(Thermostat).big(1000)
        # What the caller takes is its own limit.
        with pytest.raises(BadAnswer, match="at most 500 are taken"):
            await peer.client(Thermostat, limits=Limits(message=500)).big(900)
        assert await peer.client(Thermostat).take(bytes(900)) == 900


async def test_errors_after_some_items_come_after_them(net: Any) -> None:
    async with net.serving(Thermostat()) as (peer, _):
        results = peer.client(Thermostat).fail_later(3)
        assert [await anext(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(TooHot) as failure:
            await anext(results)
        with pytest.raises(StopAsyncIteration):
            await anext(results)
        assert failure.value.data == 1.5


async def test_an_iterator_of_the_caller_that_fails_ends_the_call_with_its_own_error(net: Any) -> None:
    async def broken() -> AsyncIterator[Reading]:
        yield Reading(1)
        raise KeyError("mine")

    async def wrong() -> AsyncIterator[Reading]:
        yield Reading(1)
        yield "text"  # type: ignore[misc] # the mistake in question

    async with net.serving(Thermostat()) as (peer, _):
        thermostat = peer.client(Thermostat)
        with pytest.raises(KeyError, match="mine"):
            await thermostat.average(broken())
        with pytest.raises(ArgumentError) as failure:
            await thermostat.average(wrong())
        assert failure.value.path == "$.readings[1]"
        with pytest.raises(KeyError, match="mine"):
            async for _ in thermostat.doubled(broken()):
                pass
        assert await thermostat.average(readings(4)) == 4


async def test_C2_an_error_of_another_peer_is_not_passed_on_by_accident(net: Any) -> None:
    class Gateway(Service):
        async def ask(self) -> int:
            return await thermostat.fail("code")

    async with net.serving(Thermostat()) as (inner, _), net.serving(Gateway()) as (outer, _):
        thermostat = inner.client(Thermostat)
        with pytest.raises(InternalError):
            await outer.client(Gateway).ask()


# --- who may call -----------------------------------------------------------------------------------------


async def test_C4_names_without_end_do_not_fill_the_log(net: Any, caplog: pytest.LogCaptureFixture) -> None:
    names = [f"unlock-{number}" for number in range(40)]
    methods = [MethodDescription(name, "unary", "", False, {}, {}) for name in names]
    async with net.serving(Thermostat()) as (peer, server):
        back = await server.accept()
        async with peer._node.serving(Thermostat(), allow="nobody"):
            doors = back.client(ServiceDescription("Doors", 1, "", methods))
            with caplog.at_level(logging.WARNING, "mp2p.rpc"):
                for name in names:
                    with pytest.raises(NotAllowed):
                        await getattr(doors, name)()
    assert caplog.text.count("may not call 'Doors.unlock-") == 16


async def test_C4_a_denied_call_is_told_to_the_caller_and_to_the_log(
    net: Any, caplog: pytest.LogCaptureFixture
) -> None:
    service = Thermostat()
    asked: list[str | None] = []

    def allow(_key: object, name: str | None) -> bool:
        asked.append(name)
        return name is None or name.endswith("history")

    async with net.serving(service, allow=allow) as (peer, _):
        thermostat = peer.client(Thermostat)
        with caplog.at_level(logging.WARNING, "mp2p.rpc"):
            for _ in range(3):
                with pytest.raises(NotAllowed, match="does not let this key call") as denied:
                    await thermostat.set_target(1)
        assert denied.value.method == "Thermostat.set_target"
        assert caplog.text.count("may not call 'Thermostat.set_target'") == 1
        with pytest.raises(NotAllowed):
            await anext(thermostat.doubled(readings(1)))
        assert len([each async for each in thermostat.history(2)]) == 2
    assert service.calls == []
    assert asked[0] is None
    assert "Thermostat.set_target" in asked


async def test_C4_a_policy_that_fails_lets_nobody_in(net: Any, caplog: pytest.LogCaptureFixture) -> None:
    def allow(_key: object, name: str | None) -> bool:
        if name is not None:
            raise KeyError("mine")
        return True

    async with net.serving(Thermostat(), allow=allow) as (peer, _):
        with pytest.raises(NotAllowed):
            await peer.client(Thermostat).set_target(1)
    assert "KeyError: 'mine'" in caplog.text


async def test_C4_nothing_but_True_lets_anybody_in(net: Any) -> None:
    class Careless:
        def may_connect(self, _key: object) -> bool:
            return True

        def may_call(self, _key: object, _method: str) -> bool:
            return 1  # type: ignore[return-value] # the mistake in question

    async with net.serving(Thermostat(), allow=Careless()) as (peer, _):
        with pytest.raises(NotAllowed):
            await peer.client(Thermostat).set_target(1)


async def test_two_offers_of_a_node_have_their_own_rules(net: Any) -> None:
    async with net.serving(Thermostat()) as (peer, server):
        async with server.serving(greet, allow={peer._node.key: ["gr*"]}):
            assert await peer.client(greet)("x") == "hello x"
            assert await peer.client(Thermostat).set_target(1) == 1
        with pytest.raises(UnknownMethod):
            await peer.client(greet)("x")
        async with server.serving(greet, allow="nobody"):
            with pytest.raises(NotAllowed):
                await peer.client(greet)("x")


# --- context ----------------------------------------------------------------------------------------------


class Context(Service):
    async def look(self) -> dict[str, Any]:
        call = current_call()
        return {
            "id": call.id, "method": call.method, "peer": str(call.peer), "metadata": call.metadata,
            "deadline": call.deadline - anyio.current_time(), "incoming": call.incoming,
        }  # fmt: skip


async def test_handlers_see_their_call(net: Any) -> None:
    async with net.serving(Context()) as (peer, _):
        with anyio.fail_after(50):
            seen = await peer.client(Context, metadata={"user": "anna"}).look()
        assert 40 < seen.pop("deadline") <= 50
        assert len(seen.pop("id")) == 16
        assert seen == {
            "method": "Context.look", "peer": str(peer._node.key), "metadata": {"user": "anna"}, "incoming": True,
        }  # fmt: skip
        assert (await peer.client(Context).look())["deadline"] == float("inf")
    with pytest.raises(ValueError, match="no call is being handled"):
        current_call()


async def test_a_closed_connection_is_said_before_anything_is_sent(net: Any) -> None:
    async with net.serving(Thermostat()) as (peer, _):
        thermostat = peer.client(Thermostat)
        await peer.aclose()
        with pytest.raises(Closed):
            await thermostat.set_target(1)
        with pytest.raises(Closed):
            await anext(thermostat.history(1))


async def test_both_sides_of_a_connection_may_serve(net: Any) -> None:
    async with net.serving(Thermostat()) as (peer, server):
        async with peer._node.serving(greet, allow=[server.key]):
            back = (await server.accept()).client(greet)
            assert await back("there") == "hello there"
            assert await peer.client(Thermostat).set_target(1) == 1
