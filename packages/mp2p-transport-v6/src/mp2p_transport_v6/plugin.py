"""What mp2p loads of this package (entry point group `mp2p`)."""

from __future__ import annotations

from collections.abc import Sequence

from mp2p_core.transport import Transport, hookimpl
from mp2p_transport_v6 import IPV6, IPV6_PREFIX

__all__ = ["mp2p_transports"]


@hookimpl
def mp2p_transports() -> Sequence[Transport]:
    """Return the transports "v6" and "v6-prefix"."""
    return (IPV6, IPV6_PREFIX)
