"""Every error that mp2p raises, as one tree.

    Mp2pError
    ├── UsageError                 this call cannot be right, whatever the network does
    │   ├── AddressError           an address that is malformed or outside the allowed ranges
    │   ├── BadKey                 32 bytes that are no usable public key
    │   ├── ContactError           a contact text that does not parse
    │   ├── DatagramTooLarge       more than one datagram holds
    │   ├── MessageTooLarge        more than one reliable message holds
    │   ├── TransportError         a transport that is unknown, broken or of another API version
    │   └── KeyFileError           a key file that is missing, unsafe, damaged or of another profile
    ├── LocalNetworkError          this machine cannot do what the network needs
    │   ├── NoMulticast            no interface to hear or send a group on
    │   └── PortTaken              another program holds the port
    └── RemoteError                what the other side did, or did not do
        ├── PeerUnreachable        no session within the time allowed
        ├── AuthRejected           the peer answered, and said no
        ├── Closed                 the session has ended
        ├── StreamClosed           the peer reads no more of a stream
        ├── StreamReset            the peer gave up what it was sending on a stream
        └── BadPacket              bytes from a stranger; never leaves the protocol core

Local misuse and remote misbehaviour never share a class. Each message says what to do next.
Waiting too long inside the caller's own cancel scope is anyio's `TimeoutError`, not one of these. What ends a
stream is an `anyio.BrokenResourceError`, too, for code that is written for any anyio stream.
"""

from __future__ import annotations

from anyio import BrokenResourceError

__all__ = [
    "AddressError",
    "AuthRejected",
    "BadKey",
    "BadPacket",
    "Closed",
    "ContactError",
    "DatagramTooLarge",
    "KeyFileError",
    "LocalNetworkError",
    "MessageTooLarge",
    "Mp2pError",
    "NoMulticast",
    "PeerUnreachable",
    "PortTaken",
    "RemoteError",
    "StreamClosed",
    "StreamReset",
    "TransportError",
    "UsageError",
]


class Mp2pError(Exception):
    """Base of every error raised by mp2p."""


class UsageError(Mp2pError, ValueError):
    """The call cannot be right, whatever the network does."""


class AddressError(UsageError):
    """An address is malformed, or outside the ranges of protocol section 5; the message names the rule."""


class BadKey(UsageError):
    """These bytes are no usable Ed25519 public key; the message names the check that failed (section 2)."""


class ContactError(UsageError):
    """A contact text does not parse; the message shows the form it should have."""


class DatagramTooLarge(UsageError):
    """A message is larger than one datagram holds.

    `size` and `limit` are bytes of the application's message.
    """

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(
            f"a message of {size} bytes does not fit one datagram (at most {limit} bytes on this session): "
            "split it"
        )
        self.size = size
        self.limit = limit


class MessageTooLarge(UsageError):
    """A reliable message is larger than 1 MiB; `size` and `limit` are bytes."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"a message of {size} bytes: at most {limit} fit, use a stream for more")
        self.size = size
        self.limit = limit


class TransportError(UsageError):
    """A transport is unknown, failed to load, or was written for another contract version."""


class KeyFileError(UsageError):
    """A key file is missing, unsafe, damaged or of another profile; the message names the file and the cure."""


class LocalNetworkError(Mp2pError):
    """This machine cannot do what the network needs."""


class NoMulticast(LocalNetworkError):
    """No multicast on an interface, or on any.

    `interface` is a name, or None when no interface qualified; `cause` is one sentence.
    """

    def __init__(self, interface: str | None, cause: str) -> None:
        where = f"interface {interface}" if interface else "this machine"
        super().__init__(f"no multicast on {where}: {cause}")
        self.interface = interface
        self.cause = cause


class PortTaken(LocalNetworkError):
    """Another program holds the UDP port without sharing it."""

    def __init__(self, port: int) -> None:
        super().__init__(
            f"UDP port {port} is held by another program that does not share it: stop that program "
            f"(`ss -ulpn 'sport = :{port}'` names it) or choose another port"
        )
        self.port = port


class RemoteError(Mp2pError):
    """What the other side did, or did not do."""


class PeerUnreachable(RemoteError):
    """No session came about within the time allowed.

    `stage` names how far it got ("nothing heard", "cookie", "answered by another key", "answered");
    `tried` lists what was sent to, each as text such as "v4 224.0.230.7:1024 on eth0".
    """

    def __init__(self, stage: str, tried: tuple[str, ...], advice: str) -> None:
        where = "; ".join(tried) or "nothing could be sent"
        super().__init__(f"the peer was not reached: {stage}. Tried {where}. {advice}")
        self.stage = stage
        self.tried = tried


class AuthRejected(RemoteError):
    """The peer proved its key and said no; `reason` is its word."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the peer refused this session: {reason}")
        self.reason = reason


class Closed(RemoteError, BrokenResourceError):
    """The session has ended.

    `code` is a number of protocol section 6; `reason` is the text given by the side that closed.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"the session is closed (code {code}: {reason or 'no reason given'})")
        self.code = code
        self.reason = reason


class BadPacket(RemoteError):
    """Bytes from a stranger that are not what they should be.

    Raised only by functions whose name ends in `_untrusted`, caught by the endpoint, counted, never seen
    by applications.
    """


class StreamClosed(RemoteError, BrokenResourceError):
    """The peer reads no more of this stream; `code` is its application's reason."""

    def __init__(self, stream: int, code: int) -> None:
        super().__init__(f"the peer stopped reading stream {stream} (code {code}): open another one")
        self.stream = stream
        self.code = code


class StreamReset(RemoteError, BrokenResourceError):
    """The peer gave up its direction of this stream; `code` is its application's reason."""

    def __init__(self, stream: int, code: int) -> None:
        super().__init__(f"the peer reset stream {stream} (code {code}): what it was sending is incomplete")
        self.stream = stream
        self.code = code
