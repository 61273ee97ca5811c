"""The sockets of pyzmq with CURVE, which other benchmarks stand beside."""

from __future__ import annotations

from typing import Any

from benchmarks.measure import say

__all__ = ["connect", "serve"]


def serve(socket: Any, host: str) -> None:
    """Draw a key for a socket, bind it to a port of this host, and say what clients need."""
    import zmq

    public, socket.curve_secretkey = zmq.curve_keypair()
    socket.curve_server = True
    port = socket.bind_to_random_port(f"tcp://{host}")
    say({"address": f"tcp://{host}:{port}", "key": public.decode()})


def connect(socket: Any, address: str, key: str) -> None:
    """Draw a key for a socket, and connect it to what `serve` has said."""
    import zmq

    socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
    socket.curve_serverkey = key.encode()
    socket.connect(address)
