"""What the demo does and shows, step by step. Each step checks what it says."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, Final

from mp2p.cli.demo.crowd import FORECAST
from mp2p.cli.demo.words import REPLY
from mp2p.cli.errors import ClaimFailed, ExitCode
from mp2p.cli.output import Line, Printer
from mp2p.cli.process import Actor, start

__all__ = ["ACTORS", "tell"]

ACTORS: tuple[str, ...] = ("-m", "mp2p.cli.demo.actors")
"""What the interpreter runs for each node of the demo."""

_MESSAGE: Final = "the greenhouse is at 21.5 degrees"
_TARGET: Final = 21.5
_READINGS: Final = [18.5, 20.0, 21.5]
_EXTRA_TRANSPORTS: Final = ("v6", "v6-prefix")
_PUBLISHED: Final = 30
_SHOWN: Final = 8  # datagrams
_GLIMPSE: Final = 11  # bytes of each
_SEALED_FROM: Final = {"INIT": 64, "RESP": 44, "DATA": 18}  # protocol sections 4 and 6
_ORDER: Final = {"INIT": 1, "RESP": 2, "DATA": 3}
_NAMES: Final = {"alice": "magenta", "bob": "yellow"}

Facts = Mapping[str, Any]


async def tell(printer: Printer, *, all_transports: bool) -> int:
    """Run the demo and return the exit code. Raises `ClaimFailed` when something did not happen."""
    began = time.perf_counter()
    printer.emit(
        {"event": "demo"},
        [
            ("mp2p demo", "bold"),
            "  ten nodes and an eavesdropper on this machine; nothing leaves it",
        ],
    )
    await _Scene(printer, "v4").play()
    for transport in _EXTRA_TRANSPORTS if all_transports else ():
        try:
            await _Scene(printer, transport).play()
        except ClaimFailed as failure:
            if failure.exit_code != ExitCode.LOCAL_NETWORK:
                raise
            printer.emit(
                {"event": "skipped", "transport": transport, "reason": str(failure)},
                [],
                [("skipped", "yellow"), f"  {transport}: {failure}"],
            )
    seconds = round(time.perf_counter() - began, 2)
    printer.emit(
        {"event": "done", "seconds": seconds},
        [],
        [("All of this was checked as it happened.", "bold green"), f" It took {seconds:.1f} s."],
        [],
        ["Now between two machines:"],
        [("  mp2p id", "cyan"), "                   here, to see your key"],
        [("  mp2p listen --allow KEY", "cyan"), "   there, with that key, to see the contact"],
        [("  mp2p send CONTACT hello", "cyan"), "   here"],
        ["And with a class of your own: mp2p serve, mp2p describe, mp2p call."],
    )
    return ExitCode.DONE


class _Scene:
    """The demo on one transport."""

    def __init__(self, printer: Printer, transport: str) -> None:
        self._printer = printer
        self._transport = transport
        self._step = 0

    async def play(self) -> None:
        async with AsyncExitStack() as stack:
            # Started together: most of the time goes into importing.
            alice, bob, eve, crowd = [
                await stack.enter_async_context(start(name, *ACTORS, role, self._transport))
                for name, role in (
                    ("alice", "called"), ("bob", "caller"), ("the eavesdropper", "watcher"), ("the crowd", "crowd"),
                )
            ]  # fmt: skip
            nodes = {"alice": await alice.expect("ready"), "bob": await bob.expect("ready")}
            self._show_nodes(nodes)
            owners = {group: name for name, node in nodes.items() for group in node["groups"]}
            await eve.order(groups=list(owners))
            await eve.expect("watching")
            await self._exchange(alice, bob, nodes)
            await self._call(bob)
            await self._overhear(eve, owners)
            await self._knock(eve, bob, nodes["alice"])
            await self._publish(alice, crowd, eve, nodes["alice"])

    def _heading(self, text: str) -> None:
        self._step += 1
        self._printer.emit(
            {"event": "step", "transport": self._transport, "number": self._step, "title": text},
            [],
            [(f"{self._step}  {text}", "bold")],
        )

    def _show_nodes(self, nodes: Mapping[str, Facts]) -> None:
        where = ", ".join(nodes["alice"]["interfaces"])
        self._heading(f"Two processes open a node each: transport {self._transport}, interface {where}")
        for name, node in nodes.items():
            record = {"event": "node", "name": name, "transport": self._transport}
            self._printer.emit(
                record | {word: node[word] for word in ("key", "contact", "groups", "interfaces", "process")},
                ["   ", _name(name), "  ", (node["contact"], "cyan")],
                *([f"          listens on {group}, process {node['process']}"] for group in node["groups"]),
            )

    async def _exchange(self, alice: Actor, bob: Actor, nodes: Mapping[str, Facts]) -> None:
        known = "by her contact" if "?" in nodes["alice"]["contact"] else "knowing nothing but her key"
        self._heading(f"Bob calls alice {known}; she lets in nobody but him")
        await alice.order(allow=nodes["bob"]["key"])
        await alice.expect("allowing")
        await bob.order(call=nodes["alice"]["contact"], text=_MESSAGE)
        connected = await bob.expect("connected")
        self._printer.emit(
            {"event": "handshake", "from": "bob", "to": "alice", "handshake_ms": connected["handshake_ms"]},
            ["   both keys proven, session keys agreed: ", (f"{connected['handshake_ms']:.1f} ms", "bold")],
        )
        await self._message("bob", bob, "alice", alice, nodes, _MESSAGE)
        await self._message("alice", alice, "bob", bob, nodes, REPLY)

    async def _message(
        self,
        sender: str,
        sending: Actor,
        receiver: str,
        receiving: Actor,
        nodes: Mapping[str, Facts],
        text: str,
    ) -> None:
        message = await receiving.expect("message")
        taken = await sending.expect("taken")
        if (message["text"], message["from"]) != (text, nodes[sender]["key"]):
            raise ClaimFailed(f"{receiver} received {message!r} instead of {text!r} from {sender}")
        record = {
            "event": "message",
            "from": sender,
            "to": receiver,
            "text": text,
            "taken_ms": taken["taken_ms"],
        }
        self._printer.emit(
            record,
            [
                "   ",
                _name(sender),
                " to ",
                _name(receiver),
                f'  "{text}"  ',
                (f"{taken['taken_ms']:.1f} ms", "dim"),
            ],
        )

    async def _call(self, bob: Actor) -> None:
        self._heading("Bob calls methods of an object of alice's, typed on both sides")
        await bob.order(target=_TARGET, count=len(_READINGS))
        result, readings = await bob.expect("result"), await bob.expect("readings")
        if (result["value"], readings["values"]) != (_TARGET, _READINGS):
            raise ClaimFailed(f"the calls returned {result!r} and {readings!r}")
        texts = " ".join(f"{value:g}" for value in readings["values"])
        self._printer.emit(
            {"event": "call", "method": "Greenhouse.set_target", "took_ms": result["took_ms"]},
            [f"   set_target({_TARGET:g})  -> {result['value']:g}  ", (f"{result['took_ms']:.1f} ms", "dim")],
        )
        self._printer.emit(
            {"event": "call", "method": "Greenhouse.readings", "took_ms": readings["took_ms"]},
            [
                f"   readings({len(_READINGS)})       -> {texts}  as a stream  ",
                (f"{readings['took_ms']:.1f} ms", "dim"),
            ],
        )

    async def _overhear(self, eve: Actor, owners: Mapping[str, str]) -> None:
        self._heading("A third process listened on both groups all along. It saw")
        await eve.order(search=[_MESSAGE, REPLY])
        seen = await eve.expect("seen")
        # Two sockets are read in turn, which loses the order between them; by protocol, this is theirs.
        datagrams = sorted(seen["datagrams"], key=lambda one: _ORDER.get(one["type"], 0))
        for number, one in enumerate(datagrams, 1):
            owner = owners[one["group"]]
            record = {"event": "datagram", "number": number, "to": owner} | one
            glimpse = bytes.fromhex(one["hex"])[_SEALED_FROM.get(one["type"], 0) :][:_GLIMPSE].hex(" ")
            line: Line = [
                f"   {number:>2}  to ", _name(owner), f"  {one['type']:<7}{one['size']:>5} bytes  ",
                (f"... {glimpse} ...", "dim"),
            ]  # fmt: skip
            self._printer.emit(record, *([line] if number <= _SHOWN else []))
        size = sum(one["size"] for one in datagrams)
        kinds = {one["type"] for one in datagrams}
        if not {"INIT", "RESP", "DATA"} <= kinds:
            raise ClaimFailed(
                f"the eavesdropper should have seen INIT, RESP and DATA, and saw {sorted(kinds)}"
            )
        if not seen["control_found"]:
            raise ClaimFailed("the eavesdropper's search does not find a message sent in the clear either")
        if seen["plaintext_found"]:
            raise ClaimFailed("the eavesdropper found a piece of a message in the datagrams")
        more = len(datagrams) - _SHOWN
        self._printer.emit(
            {"event": "eavesdropper", "datagrams": len(datagrams), "bytes": size}
            | {word: seen[word] for word in ("plaintext_found", "control_found")},
            *([[f"       and {more} more of these"]] if more > 0 else []),
            [f"   {size} bytes in all, and ", ("no piece of either message in them", "bold green"), "."],
            [("   (The same search does find both once they are sent in the clear.)", "dim")],
        )

    async def _knock(self, eve: Actor, bob: Actor, alice: Facts) -> None:
        self._heading("Then it knocks itself, with a key that alice does not know")
        await eve.order(knock=alice["contact"])
        silence = await eve.expect("silence")
        if not (silence["knocks"] and silence["control_heard"]):
            raise ClaimFailed(
                "the stranger's knocking did not reach alice's group, so that her silence proves nothing"
            )
        if silence["answers"] or silence["stage"] == "let in":
            raise ClaimFailed(f"the stranger was answered: {silence!r}")
        await bob.order(ping=True)
        rtt_ms = (await bob.expect("pong"))["rtt_ms"]
        facts = {word: silence[word] for word in ("key", "knocks", "answers", "seconds")}
        self._printer.emit(
            {"event": "silence"} | facts | {"rtt_ms_of_bob": rtt_ms},
            [
                f"   {silence['knocks']} knocks in {silence['seconds']:.1f} s, ",
                ("no answer at all", "bold green"),
                ".",
            ],
            [f"   Alice is well, though: bob's ping takes {rtt_ms:.1f} ms."],
        )

    async def _publish(self, alice: Actor, crowd: Actor, eve: Actor, node: Facts) -> None:
        self._heading("Alice publishes a topic, and eight others follow it")
        keys = (await crowd.expect("ready"))["keys"]
        await alice.order(crowd=keys)
        await eve.order(count=(await alice.expect("publishing"))["group"])
        await eve.expect("counting")
        await crowd.order(subscribe=node["contact"], count=_PUBLISHED)
        await crowd.expect("subscribed")
        await alice.order(send=_PUBLISHED)
        heard, published = await crowd.expect("heard"), await alice.expect("published")
        await eve.order(search=[FORECAST])
        seen = await eve.expect("counted")
        if not heard["complete"] == published["subscribers"] == len(keys):
            raise ClaimFailed(f"of {len(keys)} subscribers, {heard['complete']} have heard everything")
        if seen["plaintext_found"] or seen["types"] != ["GROUP"]:
            raise ClaimFailed("the eavesdropper read what was published")
        # Heartbeats count, too, and repairs of what came before the keys.
        if not _PUBLISHED <= seen["datagrams"] < 2 * _PUBLISHED:
            raise ClaimFailed(
                f"{seen['datagrams']} datagrams carried {_PUBLISHED} messages: one for each subscriber?"
            )
        self._printer.emit(
            {"event": "published", "messages": _PUBLISHED, "subscribers": len(keys)}
            | {word: seen[word] for word in ("datagrams", "bytes", "plaintext_found")},
            [f"   {_PUBLISHED} messages, {len(keys)} subscribers: {_PUBLISHED * len(keys)} deliveries, none missing"],
            [
                "   On the wire: ", (f"{seen['datagrams']} datagrams", "bold green"),
                f", {seen['bytes']} bytes; one subscriber takes as many",
            ],
        )  # fmt: skip


def _name(name: str) -> tuple[str, str]:
    return f"{name:<5}", f"bold {_NAMES[name]}"
