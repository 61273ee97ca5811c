"""One device calls another, encrypted, without a broker: the batteries-included package.

Everything public of `mp2p_core` and `mp2p_rpc` (nodes serve, peers are called), the transports for IPv4 and
IPv6 multicast installed beside it, file transfer (`mp2p.transfer`), and one convenience: `open_node()` without
a key uses this user's own. The `mp2p` command lives in `mp2p.cli`; importing this package loads nothing of it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

import mp2p_rpc
from mp2p.contact_file import Contacts, KnownContact, contacts
from mp2p.discovery import Found, announce, discover
from mp2p.paths import default_key_path
from mp2p.transfer import (
    FileError,
    FileReceiver,
    TransferBroken,
    TransferredFile,
    TransferRefused,
    deliver_files,
    receive_files,
    send_file,
)
from mp2p_core import (
    AddressError,
    AuthRejected,
    BadKey,
    Closed,
    Contact,
    ContactError,
    DatagramTooLarge,
    Identity,
    KeyFileError,
    LocalNetworkError,
    MessageTooLarge,
    Metric,
    Mp2pError,
    NoMulticast,
    PeerStatus,
    PeerUnreachable,
    PortTaken,
    PublicKey,
    Reach,
    RemoteError,
    Stream,
    StreamClosed,
    StreamReset,
    TransportError,
    UsageError,
    render_metrics,
)
from mp2p_core.access import Allow
from mp2p_core.transport import Transport
from mp2p_rpc import (
    ArgumentError,
    ArgumentsRefused,
    BadAnswer,
    BadResult,
    Busy,
    Call,
    CallError,
    Deadline,
    DeclaredError,
    Function,
    Interceptor,
    Interface,
    InterfaceError,
    InternalError,
    Limits,
    MethodDescription,
    Node,
    NotAllowed,
    OutcomeUnknown,
    Peer,
    Policy,
    RequestRefused,
    Retry,
    RpcError,
    Service,
    ServiceDescription,
    Shape,
    UnknownMethod,
    current_call,
    function,
    interface,
    method,
)

__all__ = [
    "AddressError",
    "ArgumentError",
    "ArgumentsRefused",
    "AuthRejected",
    "BadAnswer",
    "BadKey",
    "BadResult",
    "Busy",
    "Call",
    "CallError",
    "Closed",
    "Contact",
    "ContactError",
    "Contacts",
    "DatagramTooLarge",
    "Deadline",
    "DeclaredError",
    "FileError",
    "FileReceiver",
    "Found",
    "Function",
    "Identity",
    "Interceptor",
    "Interface",
    "InterfaceError",
    "InternalError",
    "KeyFileError",
    "KnownContact",
    "Limits",
    "LocalNetworkError",
    "MessageTooLarge",
    "MethodDescription",
    "Metric",
    "Mp2pError",
    "NoMulticast",
    "Node",
    "NotAllowed",
    "OutcomeUnknown",
    "Peer",
    "PeerStatus",
    "PeerUnreachable",
    "Policy",
    "PortTaken",
    "PublicKey",
    "Reach",
    "RemoteError",
    "RequestRefused",
    "Retry",
    "RpcError",
    "Service",
    "ServiceDescription",
    "Shape",
    "Stream",
    "StreamClosed",
    "StreamReset",
    "TransferBroken",
    "TransferRefused",
    "TransferredFile",
    "TransportError",
    "UnknownMethod",
    "UsageError",
    "announce",
    "contacts",
    "current_call",
    "default_key_path",
    "deliver_files",
    "discover",
    "function",
    "interface",
    "method",
    "open_node",
    "receive_files",
    "render_metrics",
    "send_file",
]


def open_node(
    key: str | os.PathLike[str] | Identity | None = None,
    *,
    allow: Allow = "nobody",
    transports: Sequence[str | Transport] | None = None,
    interfaces: Sequence[str] = (),
    port: int = 1024,
    reach: Reach | str = Reach.GLOBAL,
    address: str = "derived",
    idle_timeout: float = 30.0,
) -> AbstractAsyncContextManager[Node]:
    """Open a node, with this user's own key unless another is given.

    The node serves (`Node.serve`), and its peers can be called (`Peer.client`). As `mp2p_core.open_node`, which
    documents every argument and error, but for `key=None`: it stands for the key file at `default_key_path()`,
    made on first use, and not for an identity kept nowhere (which is `Identity.generate()`).
    """
    return mp2p_rpc.open_node(
        default_key_path() if key is None else key,
        allow=allow,
        transports=transports,
        interfaces=interfaces,
        port=port,
        reach=reach,
        address=address,
        idle_timeout=idle_timeout,
    )
