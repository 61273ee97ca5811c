"""What a node serves, told to those who may call it: `describe`, the one service that every node has."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from mp2p_rpc.call import current_call
from mp2p_rpc.errors import BadAnswer
from mp2p_rpc.interface import Service

if TYPE_CHECKING:
    from mp2p_core import PublicKey
    from mp2p_rpc.interface import Interface
    from mp2p_rpc.method import Method

__all__ = [
    "Directory",
    "DirectoryPolicy",
    "MethodDescription",
    "ServiceDescription",
    "collect",
    "describe_interface",
]

_SERVICES: Final = 256
"""Attack: a peer that describes services without end."""


class DirectoryPolicy:
    """Who may call anything may ask what."""

    def __init__(self, knows: Callable[[PublicKey], bool]) -> None:
        self._knows = knows

    def may_connect(self, _key: PublicKey) -> bool:
        """Let nobody in for this alone."""
        return False

    def may_call(self, key: PublicKey, _method: str) -> bool:
        """Ask whether this key may call anything."""
        return self._knows(key)


class MethodDescription(msgspec.Struct, frozen=True):
    """A method, for those who do not have its source. Schemas are JSON Schema 2020-12."""

    name: str
    shape: str
    """One of "unary", "server stream", "client stream", "both stream"."""
    doc: str
    idempotent: bool
    arguments: dict[str, Any]
    """Schema of an object: one property for each argument, "required" among them."""
    result: dict[str, Any]
    """Schema of the result, or of each item of it."""
    items_name: str | None = None
    """The argument that is a stream of items."""
    items: dict[str, Any] | None = None
    """Schema of each of them."""
    errors: dict[str, dict[str, Any]] = {}
    """The codes of declared errors, with the schema of their data."""

    def __post_init__(self) -> None:
        """Refuse what a peer may have told and no caller could use."""
        required, properties = self.arguments.get("required", []), self.arguments.get("properties", {})
        if not (isinstance(required, list) and isinstance(properties, dict)):
            raise ValueError("its arguments are not described as an object")
        if not all(isinstance(each, str) for each in (*required, *properties)):
            raise ValueError("an argument has a name that is no text")
        if self.name.startswith("__"):
            raise ValueError("a method has a name that Python keeps for itself")


class ServiceDescription(msgspec.Struct, frozen=True):
    """A service: the methods of it that the one who asks may call. Functions have a service without a name."""

    name: str
    version: int
    doc: str
    methods: list[MethodDescription]


class Directory(Service, name="mp2p"):
    """What this node serves."""

    def __init__(self, interfaces: Callable[[PublicKey], Iterable[tuple[Interface, list[Method]]]]) -> None:
        self._interfaces = interfaces

    async def describe(self) -> AsyncIterator[ServiceDescription]:
        """Describe each service of which the caller may call something."""
        for interface, methods in self._interfaces(current_call().peer):
            yield describe_interface(interface, methods)


async def collect(described: AsyncIterator[ServiceDescription]) -> list[ServiceDescription]:
    """Return what a peer describes. Raises `BadAnswer` when that does not end."""
    services: list[ServiceDescription] = []
    async for each in described:
        services.append(each)
        if len(services) > _SERVICES:
            raise BadAnswer(f"the peer describes more than {_SERVICES} services")
    return services


def describe_interface(interface: Interface, methods: Iterable[Method] | None = None) -> ServiceDescription:
    """Describe an interface, or some of its methods."""
    chosen = interface.methods.values() if methods is None else methods
    return ServiceDescription(
        interface.name, interface.version, interface.doc, [_describe(method) for method in chosen]
    )


def _describe(method: Method) -> MethodDescription:
    return MethodDescription(
        name=method.name,
        shape=method.shape.value,
        doc=method.doc,
        idempotent=method.idempotent,
        arguments=method.arguments.schema(),
        result=method.result.schema(),
        items_name=method.items_name,
        items=None if method.items is None else method.items.schema(),
        errors={code: codec.schema() for code, (_, codec) in method.errors.items()},
    )
