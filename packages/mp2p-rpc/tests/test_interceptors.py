"""Interceptors on both sides: what they see, what they may change, how they refuse; logs and traces."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest

from mp2p_rpc import (
    Busy,
    Call,
    InternalError,
    NotAllowed,
    RpcError,
    Service,
    Shape,
    current_call,
    log_calls,
)

pytestmark = pytest.mark.anyio


class Echo(Service):
    async def say(self, text: str) -> str:
        if text == "crash":
            raise KeyError(text)
        if text == "code":
            raise RpcError("no", "never")
        return current_call().metadata.get("greeting", "") + text

    async def count(self, to: int) -> AsyncIterator[int]:
        for number in range(to):
            yield number

    async def take(self, items: AsyncIterator[int]) -> int:
        return sum([each async for each in items])

    async def both(self, items: AsyncIterator[int]) -> AsyncIterator[int]:
        async for each in items:
            yield each


async def some() -> AsyncIterator[int]:
    yield 1


class Recorder:
    def __init__(self) -> None:
        self.log: list[tuple[str, str]] = []
        self.calls: list[Call] = []

    @contextmanager
    def __call__(self, call: Call) -> Iterator[None]:
        self.calls.append(call)
        self.log.append(("begin", call.method))
        try:
            yield
        except BaseException as error:
            self.log.append((type(error).__name__, call.method))
            raise
        self.log.append(("end", call.method))


async def test_each_call_passes_the_interceptors_of_both_sides(net: Any) -> None:
    ours, theirs = Recorder(), Recorder()
    async with net.serving(Echo(), interceptors=[theirs]) as (peer, server):
        echo = peer.client(Echo, interceptors=[ours])
        await echo.say("x")
        assert [each async for each in echo.count(2)] == [0, 1]
        assert await echo.take(some()) == 1
        assert [each async for each in echo.both(some())] == [1]
        with pytest.raises(RpcError):
            await echo.say("code")
        with pytest.raises(InternalError):
            await echo.say("crash")
        assert [each[0] for each in ours.log] == ["begin", "end"] * 4 + [
            "begin", "RpcError", "begin", "InternalError",
        ]  # fmt: skip
        assert [each[0] for each in theirs.log] == ["begin", "end"] * 4 + [
            "begin", "RpcError", "begin", "KeyError",
        ]  # fmt: skip
        assert [each.id for each in ours.calls] == [each.id for each in theirs.calls]
        assert {each.shape for each in ours.calls} == set(Shape)
        assert (ours.calls[0].incoming, ours.calls[0].peer) == (False, server.key)
        assert (theirs.calls[0].incoming, theirs.calls[0].peer) == (True, peer._node.key)


async def test_a_stream_that_is_given_up_leaves_its_interceptors(net: Any, until: Any) -> None:
    ours, theirs = Recorder(), Recorder()
    async with net.serving(Echo(), interceptors=[theirs]) as (peer, _):
        async for _each in peer.client(Echo, interceptors=[ours]).count(1_000_000):
            break
        assert [each[0] for each in ours.log] == ["begin", "end"]
        await until(lambda: len(theirs.log) == 2)
        assert theirs.log[1][0] in ("CancelledError", "Cancelled", "StreamClosed", "ClosedResourceError")


async def test_the_callers_interceptors_add_metadata_in_order(net: Any) -> None:
    @contextmanager
    def greet(call: Call) -> Iterator[None]:
        call.metadata["greeting"] = call.metadata.get("greeting", "") + "hello "
        yield

    async with net.serving(Echo()) as (peer, _):
        echo = peer.client(Echo, interceptors=[greet, greet], metadata={"greeting": "well, "})
        assert await echo.say("you") == "well, hello hello you"
        assert await echo.say("again") == "well, hello hello again"


@pytest.mark.parametrize(
    "error", [Busy("one a minute"), NotAllowed("Echo.say"), RpcError("closed", "on sundays")]
)
async def test_a_handlers_interceptor_may_refuse(net: Any, error: Exception) -> None:
    @contextmanager
    def refuse(_call: Call) -> Iterator[None]:
        raise error
        yield

    async with net.serving(Echo(), interceptors=[refuse]) as (peer, _):
        with pytest.raises(type(error)) as refused:
            await peer.client(Echo).say("x")
        assert refused.value is not error
        with pytest.raises(type(error)):
            await anext(peer.client(Echo).count(1))


async def test_a_callers_interceptor_may_refuse_before_anything_is_sent(net: Any) -> None:
    theirs = Recorder()

    @contextmanager
    def refuse(_call: Call) -> Iterator[None]:
        raise KeyError("mine")
        yield

    async with net.serving(Echo(), interceptors=[theirs]) as (peer, _):
        ours = Recorder()
        echo = peer.client(Echo, interceptors=[ours, refuse])
        with pytest.raises(KeyError):
            await echo.say("x")
        with pytest.raises(KeyError):
            await anext(echo.count(1))
        assert [each[0] for each in ours.log] == ["begin", "KeyError"] * 2
        assert await peer.client(Echo).say("x") == "x"
        assert len(theirs.calls) == 1


async def test_the_log_of_both_sides_has_the_same_id(net: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with net.serving(Echo(), interceptors=[log_calls]) as (peer, server):
        echo = peer.client(Echo, interceptors=[log_calls])
        with caplog.at_level(logging.INFO, "mp2p.rpc"):
            await echo.say("secret")
            with pytest.raises(RpcError):
                await echo.say("code")
            with anyio.move_on_after(0):
                await echo.say("never")
    lines = [record.getMessage() for record in caplog.records if record.name == "mp2p.rpc"]
    found = [
        re.fullmatch(r"call ([0-9a-f]{16}): Echo\.say (by|at) (\w+) (\w+), [\d.]+ ms", line) for line in lines
    ]
    assert all(found), lines
    by, at, failed_by, failed_at, cancelled = [each.groups() for each in found if each is not None]
    assert (by[0], by[1], by[2], by[3]) == (at[0], "by", str(peer._node.key), "done")
    assert (at[1], at[2], at[3]) == ("at", str(server.key), "done")
    assert (failed_by[0], failed_by[3]) == (failed_at[0], "RpcError")
    assert cancelled[3] == "cancelled"
    assert "secret" not in caplog.text


async def test_one_trace_spans_caller_and_handler(net: Any) -> None:
    pytest.importorskip("opentelemetry.sdk", reason="the extra `opentelemetry` and its SDK are not installed")
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from mp2p_rpc.telemetry import trace_calls

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")

    class Inner(Service):
        async def work(self) -> None:
            with tracer.start_as_current_span("work itself"):
                pass

    class Outer(Service):
        async def ask(self) -> None:
            await inner.work()

        async def stream(self) -> AsyncIterator[int]:
            await inner.work()
            yield 1

    options = {"interceptors": [trace_calls(provider)]}
    async with net.serving(Inner(), **options) as (second, _), net.serving(Outer(), **options) as (first, _):
        inner = second.client(Inner, interceptors=[trace_calls(provider)])
        outer = first.client(Outer, interceptors=[trace_calls(provider)])
        with tracer.start_as_current_span("all of it"):
            await outer.ask()
            assert [each async for each in outer.stream()] == [1]
    spans = {each.context.span_id: each for each in exporter.get_finished_spans() if each.context}

    def line(span: Any) -> list[str]:
        found = [f"{span.name} {span.kind.name}"]
        while span.parent is not None:
            span = spans[span.parent.span_id]
            found.append(f"{span.name} {span.kind.name}")
        return found

    assert len({each.context.trace_id for each in spans.values() if each.context}) == 1
    lines = [line(each) for each in spans.values() if each.name == "work itself"]
    assert lines == [
        [
            "work itself INTERNAL", "Inner.work SERVER", "Inner.work CLIENT", f"Outer.{name} SERVER",
            f"Outer.{name} CLIENT", "all of it INTERNAL",
        ]
        for name in ("ask", "stream")
    ]  # fmt: skip
    assert trace.get_current_span() is trace.INVALID_SPAN
    exporter.clear()
    async with net.serving(Echo(), **options) as (peer, _):
        with pytest.raises(RpcError):
            await peer.client(Echo, interceptors=[trace_calls(provider)]).say("code")
    failed = exporter.get_finished_spans()
    assert [dict(each.attributes or {})["mp2p.code"] for each in failed] == ["no", "no"]
    assert {each.status.status_code.name for each in failed} == {"ERROR"}
