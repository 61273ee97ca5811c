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
    call, access, answers, exchange, workers
    items, sent
    client, offer, outbox, topic, topic_status
    directory, dropped, followed, held, publication
    desk, untyped
    incoming, subscription
    server, logs
    node
    telemetry                    needs OpenTelemetry; imported by nobody here
"""

from __future__ import annotations

from mp2p_rpc.access import Allow, Policy
from mp2p_rpc.call import Call, Interceptor, current_call
from mp2p_rpc.client import Retry
from mp2p_rpc.directory import MethodDescription, ServiceDescription
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
from mp2p_rpc.logs import log_calls
from mp2p_rpc.method import Shape
from mp2p_rpc.node import Node, Peer, open_node
from mp2p_rpc.publication import Presence, Publication
from mp2p_rpc.subscription import Feed
from mp2p_rpc.topic import Gap, Message, Topic
from mp2p_rpc.topic_status import TopicStatus

__all__ = [
    "Allow",
    "ArgumentError",
    "ArgumentsRefused",
    "BadAnswer",
    "BadResult",
    "Busy",
    "Call",
    "CallError",
    "Deadline",
    "DeclaredError",
    "Feed",
    "Function",
    "Gap",
    "Interceptor",
    "Interface",
    "InterfaceError",
    "InternalError",
    "Limits",
    "Message",
    "MethodDescription",
    "Node",
    "NotAllowed",
    "OutcomeUnknown",
    "Peer",
    "Policy",
    "Presence",
    "Publication",
    "RequestRefused",
    "Retry",
    "RpcError",
    "Service",
    "ServiceDescription",
    "Shape",
    "Topic",
    "TopicStatus",
    "UnknownMethod",
    "current_call",
    "function",
    "interface",
    "log_calls",
    "method",
    "open_node",
]
