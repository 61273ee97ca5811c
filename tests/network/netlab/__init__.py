"""A network laboratory of Linux network namespaces; docs/network-lab.md explains it."""

from __future__ import annotations
