"""Open a node, run its tasks, close it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Generic, TypeAlias, TypedDict, TypeVar

import anyio

from mp2p_core.access import AccessPolicies, Allow, access_for
from mp2p_core.errors import UsageError
from mp2p_core.keyfile import TimestampStore, load_or_create_identity, load_psk
from mp2p_core.node import Node
from mp2p_core.opening import Wanted, open_channels, read_reach
from mp2p_core.proto.constants import DEFAULT_IDLE_TIMEOUT, DEFAULT_PORT
from mp2p_core.proto.endpoint import Endpoint
from mp2p_core.proto.identity import Identity
from mp2p_core.proto.noise import check_psk
from mp2p_core.transport import Reach, Transport

if TYPE_CHECKING:
    from typing import Unpack

    from anyio.abc import TaskGroup

__all__ = ["NodeOptions", "open_node", "open_node_as"]

_log = logging.getLogger("mp2p")

N = TypeVar("N", bound=Node)
_Secrets: TypeAlias = tuple[Identity, TimestampStore, bytes | None]


class NodeOptions(TypedDict, total=False):
    """The keyword arguments of `open_node`, for functions that pass them on."""

    allow: Allow
    transports: Sequence[str | Transport] | None
    interfaces: Sequence[str]
    port: int
    reach: Reach | str
    address: str
    idle_timeout: float
    psk: bytes | str | os.PathLike[str] | None
    clock: Callable[[], float]


class _OpenNode(AbstractAsyncContextManager[N], Generic[N]):
    """Opens a node, runs its tasks, closes it.

    A class rather than a generator, so that what the application raises leaves the block as it is and not
    inside an exception group.
    """

    def __init__(
        self,
        kind: type[N],
        secrets: Callable[[], _Secrets],
        wanted: Wanted,
        allow: Allow,
        idle_timeout: float,
        clock: Callable[[], float],
    ) -> None:
        self._kind = kind
        self._secrets = secrets
        self._wanted = wanted
        self._access = AccessPolicies(access_for(allow))
        self._idle_timeout = idle_timeout
        self._clock = clock
        self._node: N | None = None
        self._tasks: TaskGroup | None = None

    async def __aenter__(self) -> N:
        identity, timestamps, psk = self._secrets()
        opened = await open_channels(self._wanted, identity.public, os.urandom)
        endpoint = Endpoint(
            identity,
            self._access,
            now=self._clock(),
            idle_timeout=self._idle_timeout,
            epoch_us=int(time.time() * 1e6),
            psk=psk,
        )
        self._tasks = anyio.create_task_group()
        node = self._node = self._kind(
            *(identity, endpoint, opened, timestamps, self._clock), access=self._access, tasks=self._tasks
        )
        for name, reason in opened.skipped:
            _log.info("transport %s is not used: %s", name, reason)
        await self._tasks.__aenter__()
        for number in range(len(opened.channels)):
            self._tasks.start_soon(node.driver.receive_forever, number)
        self._tasks.start_soon(node.driver.keep_time, self._tasks)
        return node

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._node is not None
        assert self._tasks is not None
        try:
            if kind is None:
                await self._node.aclose()
        finally:
            await self._node.leave()
            self._tasks.cancel_scope.cancel()
            await self._tasks.__aexit__(None, None, None)


def open_node(
    key: str | os.PathLike[str] | Identity | None = None,
    *,
    allow: Allow = "nobody",
    transports: Sequence[str | Transport] | None = None,
    interfaces: Sequence[str] = (),
    port: int = DEFAULT_PORT,
    reach: Reach | str = Reach.GLOBAL,
    address: str = "derived",
    idle_timeout: float = DEFAULT_IDLE_TIMEOUT,
    psk: bytes | str | os.PathLike[str] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> AbstractAsyncContextManager[Node]:
    """Open a node: `async with open_node("thermostat.key") as node`.

    key: a key file, made with mode 0600 on first use; or an `Identity`; None is a fresh identity kept
    nowhere. allow: who may connect (see `Allow`); nobody by default. transports: names or instances;
    None opens every installed one whose address follows from the key. interfaces: names; empty means every
    eligible one. port: UDP port for derived and random addresses. reach: how far datagrams may travel.
    address: "derived" (from the key, so that the key alone reaches the node), "random", or an address text.
    idle_timeout: seconds of silence after which a peer is given up. psk: a secret of 32 bytes that all nodes share
    which are to meet, or a file of it, 64 hex digits; nodes with another, or with none, are strangers. clock: seconds
    that never go back.

    Raises on entering: `KeyFileError`, `NoMulticast`, `PortTaken`, `AddressError`, `TransportError`,
    `UsageError`.
    """
    return open_node_as(
        Node,
        key,
        allow=allow,
        transports=transports,
        interfaces=interfaces,
        port=port,
        reach=reach,
        address=address,
        idle_timeout=idle_timeout,
        psk=psk,
        clock=clock,
    )


def open_node_as(
    kind: type[N], key: str | os.PathLike[str] | Identity | None = None, **options: Unpack[NodeOptions]
) -> AbstractAsyncContextManager[N]:
    """Open a node of a class derived from `Node`; otherwise as `open_node`."""
    port = options.get("port", DEFAULT_PORT)
    idle_timeout = options.get("idle_timeout", DEFAULT_IDLE_TIMEOUT)
    if not 1 <= port <= 65535:
        raise UsageError(f"port {port} is not one: choose 1024 to 65535")
    if not idle_timeout > 0:
        raise UsageError(f"an idle timeout of {idle_timeout} s: choose a positive number of seconds")
    wanted = Wanted(
        options.get("transports"),
        tuple(options.get("interfaces", ())),
        port,
        read_reach(options.get("reach", Reach.GLOBAL)),
        options.get("address", "derived"),
    )

    psk = options.get("psk")

    def secrets() -> _Secrets:
        shared = psk if psk is None or isinstance(psk, bytes) else load_psk(psk)
        check_psk(shared)
        if key is None:
            return Identity.generate(), TimestampStore(None), shared
        if isinstance(key, Identity):
            return key, TimestampStore(None), shared
        return load_or_create_identity(key), TimestampStore(key), shared

    allow, clock = options.get("allow", "nobody"), options.get("clock", time.monotonic)
    return _OpenNode(kind, secrets, wanted, allow, idle_timeout, clock)
