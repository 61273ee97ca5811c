"""Typed calls between devices, over the encrypted sessions of mp2p_core.

    class Thermostat(Service):
        async def set_target(self, celsius: float) -> float: ...

    await node.serve(Thermostat(), allow=["mp2p:..."])       # on one device
    await peer.client(Thermostat).set_target(21.5)           # on another

docs/rpc.md has the wire, the types that travel and the limits.

Layers, lowest first; a module imports only from those before it:

    errors, limits
    frames, scan
    schema
    method
    interface
"""

from __future__ import annotations

from mp2p_rpc.errors import (
    ArgumentError,
    ArgumentsRefused,
    BadAnswer,
    BadResult,
    Busy,
    CallError,
    Deadline,
    DeclaredError,
    InterfaceError,
    InternalError,
    NotAllowed,
    OutcomeUnknown,
    RequestRefused,
    RpcError,
    UnknownMethod,
)
from mp2p_rpc.interface import Function, Interface, Service, function, interface, method
from mp2p_rpc.limits import Limits

__all__ = [
    "ArgumentError",
    "ArgumentsRefused",
    "BadAnswer",
    "BadResult",
    "Busy",
    "CallError",
    "Deadline",
    "DeclaredError",
    "Function",
    "Interface",
    "InterfaceError",
    "InternalError",
    "Limits",
    "NotAllowed",
    "OutcomeUnknown",
    "RequestRefused",
    "RpcError",
    "Service",
    "UnknownMethod",
    "function",
    "interface",
    "method",
]
