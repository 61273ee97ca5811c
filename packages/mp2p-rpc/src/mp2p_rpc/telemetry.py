"""Interceptors for OpenTelemetry: one trace spans the caller and the handler.

Needs the extra `mp2p-rpc[opentelemetry]`, and is imported by nobody else here.

    peer.client(Thermostat, interceptors=[trace_calls()])
    node.serve(Thermostat(), allow=..., interceptors=[trace_calls()])
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from contextvars import Token
from types import TracebackType

from opentelemetry import context as contexts
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer, TracerProvider

from mp2p_rpc.call import Call, Interceptor
from mp2p_rpc.errors import CallError, RpcError

__all__ = ["trace_calls"]


def trace_calls(provider: TracerProvider | None = None) -> Interceptor:
    """Return an interceptor that makes a span of each call; `provider` is the global one unless given.

    Of a call that this side makes, the span's context goes along in the metadata, as the global propagator
    writes it; of one that it handles, the span is its child and the current one of the handler. Attributes are
    those of the semantic conventions for RPC; arguments and results are not among them.
    """
    tracer = trace.get_tracer("mp2p_rpc", tracer_provider=provider)
    return lambda call: _Traced(tracer, call)


class _Traced(AbstractContextManager[None]):
    def __init__(self, tracer: Tracer, call: Call) -> None:
        self._tracer = tracer
        self._call = call
        self._token: Token[Context] | None = None

    def __enter__(self) -> None:
        call = self._call
        service, _, method = call.method.rpartition(".")
        attributes = {
            "rpc.system": "mp2p",
            "rpc.service": service,
            "rpc.method": method,
            "mp2p.peer": str(call.peer),
            "mp2p.call": call.id,
        }
        kind = SpanKind.SERVER if call.incoming else SpanKind.CLIENT
        parent = propagate.extract(call.metadata) if call.incoming else contexts.get_current()
        self._span = self._tracer.start_span(call.method, parent, kind, attributes)
        inside = trace.set_span_in_context(self._span, parent)
        if call.incoming:
            # Only a handler is a block of its own: a stream of results may be read in one task and closed in another.
            self._token = contexts.attach(inside)
        else:
            propagate.inject(call.metadata, context=inside)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._span.set_attribute("error.type", type(error).__name__)
            if isinstance(error, RpcError):
                self._span.set_attribute("mp2p.code", error.code)
            if not isinstance(error, CallError):
                self._span.record_exception(error)
            self._span.set_status(Status(StatusCode.ERROR, type(error).__name__))
        if self._token is not None:
            contexts.detach(self._token)
        self._span.end()
