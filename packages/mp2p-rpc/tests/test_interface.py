"""From annotations to interfaces: which functions are remote, their shapes, and what is refused at definition."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Protocol

import pytest

from mp2p_rpc.errors import ArgumentError, DeclaredError, InterfaceError, UnknownMethod
from mp2p_rpc.interface import Service, function, interface, interface_of, interfaces_of, method
from mp2p_rpc.limits import Limits
from mp2p_rpc.method import Method, Shape


@dataclass
class Reading:
    celsius: float


class TooHot(DeclaredError, code="too-hot"):
    data: float


class Worn(DeclaredError):
    """Its code is its name."""


class Thermostat(Service, errors=[TooHot]):
    """Keeps a room warm."""

    async def set_target(self, celsius: float, *, room: str = "hall") -> float:
        """Set what to aim at."""
        return celsius

    @method(idempotent=True)
    async def readings(self, count: int) -> AsyncIterator[Reading]:
        for _ in range(count):
            yield Reading(20.0)

    @method(errors=[Worn])
    async def store(self, readings: AsyncIterator[Reading], name: str) -> int:
        return len([each async for each in readings])

    @method(name="echo")
    def copies(self, readings: AsyncIterator[Reading]) -> AsyncIterator[Reading]:
        return readings

    def local(self, anything: Callable[[], None]) -> None:
        """Not async, so not for peers: its types do not matter."""

    async def _private(self, *args: object) -> None:
        """Nor is this."""

    @property
    def target(self) -> float:
        return 20.0


class Meter(Protocol):
    async def value(self) -> float: ...

    def values(self) -> AsyncIterator[float]: ...


@interface(name="power", version=3)
class Power(ABC):
    @abstractmethod
    async def watts(self) -> float: ...


class RealPower(Power):
    async def watts(self) -> float:
        return 1.0


class Better(Thermostat):
    async def boost(self) -> None: ...


class Cloned(Thermostat):
    async def set_target(self, celsius: float, *, room: str = "attic") -> float:
        return celsius


class Mixin:
    async def aclose(self) -> None: ...


class Closing(Mixin, Service):
    async def work(self) -> None: ...


def test_public_async_functions_are_remote_and_their_shape_is_in_their_annotations() -> None:
    found = interface_of(Thermostat)
    assert (found.name, found.version, found.doc) == ("Thermostat", 1, "Keeps a room warm.")
    assert {name: each.shape for name, each in found.methods.items()} == {
        "set_target": Shape.UNARY,
        "readings": Shape.SERVER_STREAM,
        "store": Shape.CLIENT_STREAM,
        "echo": Shape.BOTH_STREAM,
    }
    assert found.method("echo").attribute == "copies"
    assert found.method("set_target").doc == "Set what to aim at."
    assert [found.method(name).idempotent for name in ("set_target", "readings")] == [False, True]
    assert set(found.method("set_target").errors) == {"too-hot"}
    assert set(found.method("store").errors) == {"too-hot", "Worn"}
    with pytest.raises(UnknownMethod):
        found.method("local")


def test_protocols_and_abstract_classes_are_interfaces_too() -> None:
    assert {name: each.shape for name, each in interface_of(Meter).methods.items()} == {
        "value": Shape.UNARY,
        "values": Shape.SERVER_STREAM,
    }
    power = interface_of(Power)
    assert (power.name, power.version) == ("power", 3)
    assert [each.name for each in interfaces_of(RealPower)] == ["power"]


def test_a_class_serves_what_it_inherits_and_what_it_adds() -> None:
    assert [each.name for each in interfaces_of(Better)] == ["Better", "Thermostat"]
    assert set(interface_of(Better).methods) == {*interface_of(Thermostat).methods, "boost"}
    # One that adds nothing is the interface that it implements, whatever its own defaults.
    assert interface_of(Cloned) is interface_of(Thermostat)
    assert [each.name for each in interfaces_of(Cloned)] == ["Thermostat"]
    assert interface_of(Better).method("readings").idempotent


def test_what_a_service_mixes_in_stays_local() -> None:
    assert set(interface_of(Closing).methods) == {"work"}


def test_a_function_is_an_interface_by_itself() -> None:
    @function
    async def greet(name: str) -> str:
        """Say hello."""
        return f"hello {name}"

    @function(name="count", idempotent=True)
    async def count_up(to: int) -> AsyncIterator[int]:
        for each in range(to):
            yield each

    assert interface_of(greet) is greet.interface
    assert (greet.interface.name, greet.method.full_name, greet.method.doc) == ("", "greet", "Say hello.")
    assert (count_up.method.full_name, count_up.method.shape) == ("count", Shape.SERVER_STREAM)
    assert count_up.method.idempotent


def _set_target() -> Method:
    return interface_of(Thermostat).method("set_target")


@pytest.mark.parametrize(
    ("args", "kwargs", "given"),
    [
        ((21.5,), {}, {"celsius": 21.5}),
        ((21,), {"room": "bath"}, {"celsius": 21.0, "room": "bath"}),
        ((), {"celsius": 3.0}, {"celsius": 3.0}),
    ],
)
def test_arguments_travel_by_name_and_defaults_stay_with_the_handler(
    args: tuple[Any, ...], kwargs: dict[str, Any], given: dict[str, Any]
) -> None:
    bound, items = _set_target().bind(args, kwargs)
    assert items is None
    assert _set_target().unbind(_set_target().arguments.decode_untrusted(bound, Limits())) == given


@pytest.mark.parametrize(
    ("args", "kwargs", "path", "words"),
    [
        ((), {}, "$.celsius", "missing argument: celsius"),
        ((1.0, "hall"), {}, "$", "2 arguments by position, it takes 1"),
        ((1.0,), {"celsius": 2.0}, "$.celsius", "given twice"),
        ((1.0,), {"colour": 2.0}, "$", "unknown field `colour`"),
        (("hot",), {}, "$.celsius", "Expected `float`, got `str`"),
        ((1.0,), {"room": 5}, "$.room", "Expected `str`, got `int`"),
        ((object(),), {}, "$", "object is unsupported"),
    ],
)
def test_C2_wrong_arguments_are_refused_at_the_caller_with_their_path(
    args: tuple[Any, ...], kwargs: dict[str, Any], path: str, words: str
) -> None:
    with pytest.raises(ArgumentError) as refused:
        _set_target().bind(args, kwargs)
    assert refused.value.path == path
    assert "Thermostat.set_target: " in str(refused.value)
    assert words in str(refused.value)


def test_C2_a_stream_of_items_must_be_one() -> None:
    store = interface_of(Thermostat).method("store")
    with pytest.raises(ArgumentError, match="takes an async iterator, not list") as refused:
        store.bind(([],), {"name": "x"})
    assert refused.value.path == "$.readings"


class Odd:
    pass


def _defining(body: dict[str, Any]) -> type:
    return type("Broken", (Service,), {"__module__": __name__, **body})


async def takes_odd(self: Any, what: Odd) -> None: ...
async def returns_odd(self: Any) -> Odd: ...
async def takes_many(self: Any, *numbers: int) -> None: ...
async def takes_named(self: Any, **numbers: int) -> None: ...
async def no_annotation(self: Any, number) -> None: ...  # type: ignore[no-untyped-def] # the mistake in question
async def no_result(self: Any, number: int): ...  # type: ignore[no-untyped-def] # the mistake in question
def of_what(self: Any) -> AsyncIterator: ...  # type: ignore[type-arg] # the mistake in question
async def never_yields(self: Any) -> AsyncIterator[int]: ...
async def two_streams(self: Any, a: AsyncIterator[int], b: AsyncIterator[int]) -> None: ...
async def nested(self: Any, a: list[AsyncIterator[int]]) -> None: ...


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (takes_odd, "parameter 'what'|what: Odd cannot travel"),
        (returns_odd, "the result: Odd cannot travel"),
        (takes_many, "name each parameter"),
        (takes_named, "name each parameter"),
        (no_annotation, "parameter 'number' has no annotation"),
        (no_result, "write `-> None` for nothing"),
        (of_what, r"Write AsyncIterator\[T\]|of what"),
        (never_yields, "write `def`, or `yield` the items"),
        (two_streams, "one parameter may be an async iterator"),
        (nested, "cannot travel"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_what_cannot_travel_is_refused_when_the_service_is_defined(
    target: Callable[..., Any], words: str
) -> None:
    with pytest.raises(InterfaceError, match=words) as refused:
        _defining({target.__name__: target})
    assert f"Broken.{target.__name__}" in str(refused.value)


def test_names_that_cannot_be_are_refused() -> None:
    for bad in ("mp2p", "a.b"):
        with pytest.raises(InterfaceError, match="cannot be called"):
            type("Named", (Service,), {"__module__": __name__}, name=bad)
    with pytest.raises(InterfaceError, match="count from 1"):
        type("Named", (Service,), {"__module__": __name__}, version=0)

    async def other(self: Any) -> None: ...

    async def twin(self: Any) -> None: ...

    with pytest.raises(InterfaceError, match="two methods called 'twin'"):
        _defining({"twin": twin, "other": method(name="twin")(other)})
    with pytest.raises(InterfaceError, match="is not async"):
        function(lambda: None)


class Early(Service):
    async def value(self, later: Later) -> Later:
        return later


def test_annotations_may_name_what_is_defined_later() -> None:
    assert interface_of(Early).method("value").shape is Shape.UNARY


@dataclass
class Later:
    number: int


def test_annotations_that_nobody_can_resolve_are_refused_at_first_use() -> None:
    @dataclass
    class Hidden:
        number: int

    class Uses(Service):
        async def value(self) -> Hidden:
            return Hidden(1)

    with pytest.raises(InterfaceError, match="annotations must name what the module has"):
        interface_of(Uses)


def test_declared_errors_take_their_code_from_the_class() -> None:
    error = TooHot("at most 30", 30.0)
    assert (error.code, error.message, error.data, str(error)) == (
        "too-hot",
        "at most 30",
        30.0,
        "at most 30",
    )
    assert (Worn().code, str(Worn())) == ("Worn", "Worn")


def test_C2_the_data_of_declared_errors_is_checked_at_definition() -> None:
    class Strange(DeclaredError):
        data: Odd

    with pytest.raises(InterfaceError, match="data of Strange: Odd cannot travel"):

        class Broken(Service, errors=[Strange]):
            async def work(self) -> None: ...
