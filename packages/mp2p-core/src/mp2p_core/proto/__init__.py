"""The protocol, sans-IO: no socket, no clock, no event loop and no logging in here.

Time and randomness are arguments. Whatever a stranger sends ends as a counter, never as an exception
that leaves `endpoint`. Layers, lowest first; a module imports only from those before it:

    constants
    addresses, edwards, wire, frames, replay, buckets
    identity, noise, cookies, acks
    session, initiator, responder
    endpoint
"""
