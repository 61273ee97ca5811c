"""The life of a session: its states and every legal step between them (docs/protocol.md, section 6).

The diagram in docs/architecture.md is generated from this table, and a test compares the two.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

__all__ = ["TRANSITIONS", "SessionState", "diagram", "step"]


class SessionState(enum.Enum):
    """Where a session stands."""

    HALF_OPEN = "half open"
    """Responder: RESP is out, nothing has proved yet that the initiator is real."""
    CONFIRMING = "confirming"
    """Initiator: the RESP verified; DATA may go out and does, until the peer shows that it arrives."""
    OPEN = "open"
    CLOSING = "closing"
    """CLOSE went out; late packets are answered with it."""
    DRAINING = "draining"
    """CLOSE came in, or the session went silent: nothing is sent any more."""
    CLOSED = "closed"


_S = SessionState

TRANSITIONS: Final[Mapping[tuple[SessionState, str], SessionState]] = {
    (_S.HALF_OPEN, "authenticated packet"): _S.OPEN,
    (_S.HALF_OPEN, "10 s, or pushed out"): _S.CLOSED,
    (_S.CONFIRMING, "authenticated packet"): _S.OPEN,
    (_S.CONFIRMING, "local close"): _S.CLOSING,
    (_S.CONFIRMING, "silence"): _S.DRAINING,
    (_S.OPEN, "authenticated packet"): _S.OPEN,
    (_S.OPEN, "local close"): _S.CLOSING,
    (_S.OPEN, "peer's close"): _S.DRAINING,
    (_S.OPEN, "silence"): _S.DRAINING,
    (_S.CLOSING, "peer's close"): _S.DRAINING,
    (_S.CLOSING, "time is up"): _S.CLOSED,
    (_S.DRAINING, "time is up"): _S.CLOSED,
}


def step(state: SessionState, event: str) -> SessionState:
    """Return the next state. KeyError means that the caller has a defect: the step is not in the table."""
    return TRANSITIONS[state, event]


def diagram() -> str:
    """Draw the table as a Mermaid state diagram."""
    name = {state: state.name.replace("_", " ").title().replace(" ", "") for state in SessionState}
    lines = [
        "stateDiagram-v2",
        "    [*] --> HalfOpen: INIT answered",
        "    [*] --> Confirming: RESP verified",
    ]
    lines += [f"    {name[a]} --> {name[b]}: {event}" for (a, event), b in TRANSITIONS.items()]
    lines.append("    Closed --> [*]")
    return "\n".join(lines)
