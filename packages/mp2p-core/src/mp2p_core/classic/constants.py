"""Numbers of the classic profile. Seconds and bytes unless the name says otherwise (protocol section 10)."""

from __future__ import annotations

from typing import Final

# --- The original's wire -----------------------------------------------------------------------------------

TYPE_ADDRESS_DECLARATION: Final = 0
TYPE_SESSION_INITIATION: Final = 1
TYPE_SESSION_DATA: Final = 2

ADDRESS_DECLARATION_SIZE: Final = 115
SESSION_INITIATION_SIZE: Final = 177
SESSION_DATA_OVERHEAD: Final = 45
"""A SessionData message is this much longer than its text, and never shorter."""
MAX_MESSAGE_SIZE: Final = 1500
"""The original's receive buffer: what is longer arrives there cut, and does not open."""

SERVER_PORT: Final = 1024
CLIENT_PORT: Final = 1025
PREFIX_PORT: Final = 1026
"""Of servers and clients alike, on prefix-based groups."""

# --- This side's own limits --------------------------------------------------------------------------------

ROUND_WAITS: Final = (0.5, 1.0, 2.0)
"""Between the rounds of a client (a declaration, an initiation) that is not answered; the last one repeats."""
MAX_ROUNDS_OPEN: Final = 8
"""Rounds whose answer a client still takes."""

SIGNATURE_RATE: Final = 200.0
"""Signatures a server checks in a second; with the key, one costs about 0.2 ms."""
SIGNATURE_BURST: Final = 50.0
SIGNATURE_RATE_SOURCE: Final = 20.0
"""Those among them that come from one source address."""
ANSWER_SIGNATURE_RATE: Final = 20.0
"""Signatures a client checks in a second: an attacker may answer faster than the server."""

MAX_DECLARED: Final = 1024
"""Peers whose address a server remembers; the one unused for longest goes."""
MAX_ANSWERED: Final = 256
"""Sessions of a server that were answered and not used yet; the oldest goes."""
MAX_CLASSIC_SESSIONS: Final = 1024
"""Sessions of a server that are in use; the one unused for longest goes. The wire has no close."""
MAX_SESSIONS_PER_KEY: Final = 16
"""Of them, those of one key."""
MAX_SAME_ID: Final = 4
"""Sessions of different peers under one session id, which the peers choose."""
REMEMBERED_NONCES: Final = 2**22
"""Nonces that all sessions of a server together, or that of a client, remember: 65 MB. The longest session
ends when there are more."""
MAX_WAITING: Final = 1024
"""Messages that wait for the application; the oldest is dropped, as a socket would."""
