"""Interfaces from descriptions: to call a peer without the source of what it serves.

Arguments and results are whatever msgpack carries; the peer checks them against its own annotations.
"""

from __future__ import annotations

from typing import Any

import msgspec

from mp2p_rpc.directory import MethodDescription, ServiceDescription
from mp2p_rpc.errors import BadAnswer
from mp2p_rpc.interface import Interface
from mp2p_rpc.method import ANYTHING, Method, Shape
from mp2p_rpc.schema import Codec, make_record

__all__ = ["interface_from"]


def interface_from(description: ServiceDescription) -> Interface:
    """Make an interface of what a peer has told of it. Raises `BadAnswer` for what cannot be one."""
    try:
        methods = {each.name: _method(description.name, each) for each in description.methods}
    except (TypeError, ValueError, AttributeError) as error:
        raise BadAnswer(f"the peer's description of {description.name!r} cannot be used: {error}") from error
    return Interface(description.name, description.version, methods, description.doc)


def _method(service: str, told: MethodDescription) -> Method:
    required = frozenset(told.arguments.get("required", ()))
    names = tuple(told.arguments.get("properties", {}))
    fields = [(name, Any) if name in required else (name, Any, msgspec.UNSET) for name in names]
    full_name = f"{service}.{told.name}" if service else told.name
    items = () if told.items_name is None else (told.items_name,)
    return Method(
        name=told.name,
        attribute=told.name,
        full_name=full_name,
        shape=Shape(told.shape),
        positional=(*names, *items),
        required=required | frozenset(items),
        fields=names,
        items_name=told.items_name,
        arguments=Codec(make_record("Arguments", fields)),
        items=None if told.items_name is None else ANYTHING,
        result=ANYTHING,
        idempotent=told.idempotent,
        errors={},
        doc=told.doc,
    )
