"""Run the command as `python -m mp2p`."""

from __future__ import annotations

from mp2p.cli import main

main()
