"""What mp2p loads of this package (entry point group `mp2p`)."""

from __future__ import annotations

from collections.abc import Sequence

from mp2p_core.transport import Transport, hookimpl
from mp2p_transport_v4 import IPV4

__all__ = ["mp2p_transports"]


@hookimpl
def mp2p_transports() -> Sequence[Transport]:
    """Return the transport "v4"."""
    return (IPV4,)
