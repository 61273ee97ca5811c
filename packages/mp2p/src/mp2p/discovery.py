"""Find nodes that wish to be found, by DNS-SD (RFC 6763) over multicast DNS. Opt-in, and never trust.

A node that announces itself tells everyone on the link its name and key. Anybody may announce anything under any
name: what is found has to be compared with a key that came another way, and mp2p then proves the key itself.
Needs the extra `mp2p[discovery]`.
"""

from __future__ import annotations

import socket
from asyncio import run_coroutine_threadsafe
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import anyio
from anyio.from_thread import BlockingPortal

from mp2p_core import Contact, Node
from mp2p_core.errors import BadKey, ContactError, NoMulticast, UsageError
from mp2p_udp import choose, list_interfaces

if TYPE_CHECKING:
    from concurrent.futures import Future

    from zeroconf import ServiceInfo, ServiceStateChange, Zeroconf

__all__ = ["Found", "announce", "discover"]

SERVICE: Final = "_mp2p._udp.local."
_MAX_NAME: Final = 63  # bytes of a DNS label
_MAX_FOUND: Final = 1024
_RESOLVE_MS: Final = 3000
_QUESTIONS: Final = 64
_TXT: Final = 16  # RFC 1035, section 3.2.2
_IN: Final = 1


@dataclass(frozen=True, slots=True)
class Found:
    """A node that announces itself: a claim of whoever sent it."""

    name: str
    contact: Contact


@asynccontextmanager
async def announce(node: Node, name: str, *, interfaces: Iterable[str] = ()) -> AsyncIterator[None]:
    """Announce a node under a name while the block lasts, on the interfaces given or every eligible one.

    Raises `UsageError` for a name that does not fit or is taken, and when zeroconf is not installed, and
    `NoMulticast` when there is no network.
    """
    if not _fits(name):
        raise UsageError(
            f"{name!r} is no name to announce: choose up to {_MAX_NAME} bytes of text without a dot, in one line"
        )
    addresses = _addresses(interfaces)
    zeroconf = await _open(addresses)
    try:
        info = _service(node, name, addresses)
        await anyio.to_thread.run_sync(_register, zeroconf, info)
        yield
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(zeroconf.close)  # says goodbye first


@asynccontextmanager
async def discover(*, interfaces: Iterable[str] = ()) -> AsyncIterator[AsyncIterable[Found]]:
    """Listen for nodes that announce themselves: `async with discover() as found: async for each in found`.

    Each is told once per name and contact, as it is heard, the first 1024 of them. Names come from strangers: show
    them with care. Raises as `announce` does.
    """
    zeroconf = await _open(_addresses(interfaces))
    send, receive = anyio.create_memory_object_stream[Found](_MAX_FOUND)
    seen: set[Found] = set()

    def hear(found: Found) -> None:
        # Attack: names without end. Bounded; what comes later is not told.
        if found not in seen and len(seen) < _MAX_FOUND:
            seen.add(found)
            send.send_nowait(found)

    try:
        async with BlockingPortal() as portal, send, receive:
            browser = await anyio.to_thread.run_sync(
                _Browser, zeroconf, lambda found: portal.start_task_soon(hear, found)
            )
            try:
                yield receive
            finally:
                # First of all: afterwards nothing calls into the portal any more.
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(browser.close)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(zeroconf.close)


def _addresses(interfaces: Iterable[str]) -> list[str]:
    """Return the IPv4 addresses of the interfaces that a node would use: never a VPN by accident."""
    asked = tuple(interfaces)
    choice = choose(list_interfaces(), socket.AF_INET, asked=asked)
    found = [str(each.ip) for one in choice.eligible for each in one.addresses if each.version == 4]
    if not found:
        reasons = "; ".join(f"{skipped.name}: {skipped.reason}" for skipped in choice.skipped)
        raise NoMulticast(
            None, f"{reasons or 'it has no interfaces at all'}. Connect a network or name another interface"
        )
    return found


async def _open(addresses: list[str]) -> Zeroconf:
    try:
        # An extra, and half a second to import.
        from zeroconf import IPVersion, Zeroconf  # noqa: PLC0415
    except ImportError as error:
        raise UsageError("finding nodes takes the extra: install mp2p[discovery]") from error
    try:
        return await anyio.to_thread.run_sync(
            lambda: Zeroconf(interfaces=list(addresses), ip_version=IPVersion.V4Only)
        )
    except OSError as error:
        raise NoMulticast(None, f"multicast DNS cannot be used: {error}") from error


def _fits(name: str) -> bool:
    """Tell whether a name can be one of DNS-SD (RFC 6763, section 4.1.1)."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:  # half a character, or the bytes of another encoding
        return False
    controls = any(character < " " or character == "\x7f" for character in name)
    return (
        0 < size <= _MAX_NAME and "." not in name and not controls and name != "_sub"
    )  # the last has a meaning


def _service(node: Node, name: str, addresses: list[str]) -> ServiceInfo:
    from zeroconf import ServiceInfo  # noqa: PLC0415 -- as above

    key = str(node.key)
    return ServiceInfo(
        SERVICE,
        f"{name}.{SERVICE}",
        port=int(node.addresses[0].rpartition(":")[2]),
        properties={"contact": str(node.contact)},
        # The host's own name belongs to its own responder; this one belongs to the key.
        server=f"{key[:52]}.local.",
        addresses=[socket.inet_aton(address) for address in addresses],
    )


def _register(zeroconf: Zeroconf, info: ServiceInfo) -> None:
    from zeroconf import NonUniqueNameException  # noqa: PLC0415 -- as above

    try:
        zeroconf.register_service(info)
    except NonUniqueNameException as error:
        raise UsageError(
            f"another node announces itself as {info.get_name()!r} already: choose another name"
        ) from error


class _Browser:
    """Tells of each name of ours whatever is claimed of it, from a thread of zeroconf's."""

    def __init__(self, zeroconf: Zeroconf, hear: Callable[[Found], object]) -> None:
        from zeroconf import ServiceBrowser  # noqa: PLC0415 -- as above

        self._zeroconf = zeroconf
        self._hear = hear
        self._questions: set[Future[bool]] = set()
        ServiceBrowser(zeroconf, SERVICE, handlers=[self._changed])

    def close(self) -> None:
        """Ask nothing more, and close zeroconf."""
        for question in list(self._questions):
            question.cancel()
        self._zeroconf.close()

    def _changed(
        self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange
    ) -> None:
        """Read what is known of a name, which may be anything: what is raised here would end the thread."""
        from zeroconf import ServiceStateChange  # noqa: PLC0415 -- as above

        instance, dot, service = name.partition(".")
        if (
            state_change is ServiceStateChange.Removed
            or dot + service != "." + service_type
            or not _fits(instance)
        ):
            return
        records = zeroconf.cache.get_all_by_details(name, _TXT, _IN)
        texts = [text for record in records if (text := getattr(record, "text", None)) is not None]
        for text in texts:
            if (found := read_untrusted(instance, _properties(text))) is not None:
                self._hear(found)
        if not texts:
            self._ask(name)

    def _ask(self, name: str) -> None:
        """Ask for the rest of an announcement that came in part: the answer is a change again.

        Nobody waits for it. Attack: names without end of which there is no more. So only a few at a time.
        """
        from zeroconf import ServiceInfo  # noqa: PLC0415 -- as above

        if len(self._questions) < _QUESTIONS:
            assert self._zeroconf.loop is not None
            asking = ServiceInfo(SERVICE, name).async_request(self._zeroconf, _RESOLVE_MS)
            question = run_coroutine_threadsafe(asking, self._zeroconf.loop)
            self._questions.add(question)
            question.add_done_callback(self._questions.discard)


def _properties(text: bytes) -> Mapping[bytes, bytes | None]:
    from zeroconf import ServiceInfo  # noqa: PLC0415 -- as above

    return ServiceInfo(SERVICE, f"any.{SERVICE}", properties=text).properties


def read_untrusted(name: str, properties: Mapping[bytes, bytes | None]) -> Found | None:
    """Read what somebody announces; None when it is nothing of ours."""
    text = properties.get(b"contact")
    try:
        return Found(name[:_MAX_NAME], Contact.parse((text or b"").decode("ascii")))
    except (ContactError, BadKey, UnicodeDecodeError):
        return None
