"""The classic profile: the wire of the original implementation, for devices that still run it.

    async with open_classic_server("classic.key") as server:
        session, text = await server.receive()

A protocol of its own beside version 1: its own keys, its own listener, its own types. Nothing outside of
this package imports it, nothing falls back to it, and its sessions are of no use where one of version 1 is
expected. It has no key derivation, one key for both directions, and no protection against replays in the
original: docs/classic.md says what that means. Protocol section 10. Layers, lowest first:

    constants
    identity, nonces
    messages
    session
    endpoint, keys
    client, server, place
    driver
"""

from __future__ import annotations

from mp2p_core.classic.client import ClassicClient
from mp2p_core.classic.constants import (
    TYPE_ADDRESS_DECLARATION,
    TYPE_SESSION_DATA,
    TYPE_SESSION_INITIATION,
)
from mp2p_core.classic.driver import (
    ClassicConnection,
    ClassicListener,
    connect_classic,
    open_classic_server,
)
from mp2p_core.classic.endpoint import ClassicReceived
from mp2p_core.classic.identity import ClassicIdentity
from mp2p_core.classic.keys import ClassicKeys, load_classic_keys
from mp2p_core.classic.messages import (
    ClassicAddressDeclaration,
    ClassicMessage,
    ClassicSessionData,
    ClassicSessionInitiation,
    parse_message,
)
from mp2p_core.classic.place import ClassicPlace
from mp2p_core.classic.server import ClassicServer
from mp2p_core.classic.session import ClassicSession

__all__ = [
    "TYPE_ADDRESS_DECLARATION",
    "TYPE_SESSION_DATA",
    "TYPE_SESSION_INITIATION",
    "ClassicAddressDeclaration",
    "ClassicClient",
    "ClassicConnection",
    "ClassicIdentity",
    "ClassicKeys",
    "ClassicListener",
    "ClassicMessage",
    "ClassicPlace",
    "ClassicReceived",
    "ClassicServer",
    "ClassicSession",
    "ClassicSessionData",
    "ClassicSessionInitiation",
    "connect_classic",
    "load_classic_keys",
    "open_classic_server",
    "parse_message",
]
