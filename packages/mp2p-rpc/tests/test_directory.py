"""What a node tells of what it serves, and to whom."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from mp2p_rpc import BadAnswer, DeclaredError, NotAllowed, Service, function, method

pytestmark = pytest.mark.anyio


class TooHot(DeclaredError, code="too-hot"):
    data: float


@dataclass
class Reading:
    celsius: float
    room: str = "hall"


class Thermostat(Service, version=2, errors=[TooHot]):
    """Keeps a room warm."""

    @method(idempotent=True)
    async def set_target(self, celsius: float, rooms: list[str] = []) -> Reading:  # noqa: B006 - never changed
        """Set what to aim at."""
        return Reading(celsius)

    async def store(self, readings: AsyncIterator[Reading], name: str) -> AsyncIterator[int]:
        async for _ in readings:
            yield 1


@function
async def greet(name: str) -> str:
    """Say hello."""
    return name


READING = {
    "title": "Reading", "type": "object", "required": ["celsius"],
    "properties": {"celsius": {"type": "number"}, "room": {"type": "string", "default": "hall"}},
}  # fmt: skip


async def test_services_are_described_with_schemas_of_their_types(net: Any) -> None:
    async with net.serving(Thermostat(), greet) as (peer, _):
        thermostat, functions = await peer.describe()
    assert (thermostat.name, thermostat.version, thermostat.doc) == ("Thermostat", 2, "Keeps a room warm.")
    set_target, store = thermostat.methods
    assert (set_target.name, set_target.shape, set_target.doc) == (
        "set_target",
        "unary",
        "Set what to aim at.",
    )
    assert (set_target.idempotent, store.idempotent) == (True, False)
    assert set_target.errors == {"too-hot": {"type": "number"}}
    assert set_target.arguments["properties"] == {
        "celsius": {"type": "number"}, "rooms": {"type": "array", "items": {"type": "string"}},
    }  # fmt: skip
    assert set_target.arguments["required"] == ["celsius"]
    assert set_target.result == READING
    assert (store.shape, store.items_name, store.items) == ("both stream", "readings", READING)
    assert (store.arguments["required"], store.result) == (["name"], {"type": "integer"})
    assert (functions.name, [each.name for each in functions.methods]) == ("", ["greet"])


async def test_C4_only_what_the_caller_may_call_is_described(net: Any) -> None:
    def allow(_key: object, name: str | None) -> bool:
        return name in (None, "Thermostat.store")

    async with net.serving(Thermostat(), greet, allow=allow) as (peer, _):
        (thermostat,) = await peer.describe()
        assert [each.name for each in thermostat.methods] == ["store"]


async def test_services_without_end_are_not_collected(net: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with net.serving(Thermostat(), greet) as (peer, _):
        monkeypatch.setattr("mp2p_rpc.directory._SERVICES", 1)
        with pytest.raises(BadAnswer, match="more than 1 services"):
            await peer.describe()
        monkeypatch.undo()
        assert len(await peer.describe()) == 2


async def test_C4_who_may_call_nothing_learns_nothing(net: Any) -> None:
    async with net.serving(Thermostat()) as (peer, server):
        async with server.serving(greet, allow="nobody"):
            assert [each.name for each in await peer.describe()] == ["Thermostat"]
        back = await server.accept()
        async with peer._node.serving(greet, allow="nobody"):
            with pytest.raises(NotAllowed):
                await back.describe()
