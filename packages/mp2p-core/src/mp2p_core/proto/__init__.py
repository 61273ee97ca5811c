"""The protocol, sans-IO: no socket, no clock, no event loop and no logging in here.

Time and randomness are arguments. Whatever a stranger sends ends as a counter, never as an exception
that leaves `endpoint`. Layers, lowest first; a module imports only from those before it:

    constants
    addresses, buckets, edwards, frames, noise_suite, ranges, replay, states, timers, transmit, wire
    acks, cookies, identity, noise
    session
    connection
    events, initiator
    responder
    endpoint
"""
