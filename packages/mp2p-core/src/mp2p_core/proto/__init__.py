"""The protocol, sans-IO: no socket, no clock, no event loop and no logging in here.

Time and randomness are arguments. Whatever a stranger sends ends as a counter, never as an exception
that leaves `endpoint`. Layers, lowest first; a module imports only from those before it:

    constants
    addresses, buckets, congestion, edwards, frames, liveness, noise_suite, pacing, parts, pmtu, ranges, replay, rtt
    states, target, timers, tolerance, transmit, wire
    acks, closing, cookies, flow, identity, noise, recovery, routes, sizer
    capacity, group, handshake, paths, receive_stream, send_stream
    content, stream_table
    stream_control
    streams
    epoch, packing
    epochs, roaming
    session
    connection
    events, initiator
    responder
    dials
    lifecycle
    endpoint
"""
