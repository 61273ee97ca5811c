"""Calling without the source: an interface from what the peer describes, which may be anything."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp2p_rpc import ArgumentError, BadAnswer, Service
from mp2p_rpc.directory import MethodDescription, ServiceDescription, describe_interface
from mp2p_rpc.interface import interface_of
from mp2p_rpc.method import Shape
from mp2p_rpc.untyped import interface_from


class Lamp(Service, version=3):
    async def switch(self, on: bool, *, brightness: float = 1.0) -> bool:
        return on

    async def watch(self, count: int) -> AsyncIterator[float]:
        for _ in range(count):
            yield 1.0

    async def play(self, scene: AsyncIterator[str], loop: bool = False) -> int:
        return 0


def copied() -> ServiceDescription:
    """Return the description as a peer gets it."""
    told = describe_interface(interface_of(Lamp))
    return msgspec.msgpack.decode(msgspec.msgpack.encode(told), type=ServiceDescription)


def test_names_shapes_and_what_is_required_are_those_of_the_source() -> None:
    source, made = interface_of(Lamp), interface_from(copied())
    assert (made.name, made.version) == ("Lamp", 3)
    for name, method in source.methods.items():
        other = made.methods[name]
        assert (other.full_name, other.shape, other.items_name) == (
            method.full_name, method.shape, method.items_name,
        )  # fmt: skip
        assert other.required == method.required
    assert made.methods["play"].shape is Shape.CLIENT_STREAM


def test_its_arguments_are_bytes_that_the_source_reads() -> None:
    made, source = interface_from(copied()).methods["switch"], interface_of(Lamp).methods["switch"]
    body, items = made.bind((), {"on": True})
    assert items is None
    assert body == source.bind((), {"on": True})[0]
    with pytest.raises(ArgumentError, match="missing argument: on"):
        made.bind((), {})
    with pytest.raises(ArgumentError):
        made.bind((), {"off": True})


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.text(max_size=8), st.sampled_from([*(shape.value for shape in Shape), "round"]),
    st.fixed_dictionaries({}, optional={"required": anything, "properties": anything}), st.none() | st.text(max_size=8),
)  # fmt: skip
def test_a_description_of_nonsense_is_refused_or_harmless(
    name: str, shape: str, arguments: dict[str, Any], items_name: str | None
) -> None:
    with contextlib.suppress(BadAnswer, ValueError):
        told = MethodDescription(name, shape, "", False, arguments, {}, items_name)
        interface_from(ServiceDescription("Lamp", 1, "", [told]))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("switch", {"properties": [1]}),
        ("switch", {"required": 5, "properties": {"a": {}}}),
        ("switch", {"properties": {1: {}}}),
        ("switch", {"required": [None]}),
        ("__class__", {}),
    ],
)
def test_a_description_that_no_caller_could_use_is_refused_as_it_arrives(
    name: str, arguments: dict[Any, Any]
) -> None:
    told = {
        "name": name,
        "shape": "unary",
        "doc": "",
        "idempotent": False,
        "arguments": arguments,
        "result": {},
    }
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(told, MethodDescription)
