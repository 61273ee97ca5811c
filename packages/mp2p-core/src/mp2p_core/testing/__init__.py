"""Tools to test with: a simulated network under a virtual clock, an in-memory transport, the transport kit.

Needs no test framework. Everything random comes from a seed.
"""
