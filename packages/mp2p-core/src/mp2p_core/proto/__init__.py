"""The protocol, sans-IO: no socket, no clock, no event loop and no logging in here.

Time and randomness are arguments. Whatever a stranger sends ends as a counter, never as an exception
that leaves `endpoint`. Layers, lowest first; a module imports only from those before it:

    constants
    addresses, buckets, congestion, edwards, frames, noise_suite, pacing, parts, pmtu, ranges, replay, rtt, states
    timers, transmit, wire
    acks, cookies, flow, identity, noise, recovery, sizer
    receive_stream, send_stream
    stream_table
    streams
    session
    connection
    events, initiator
    responder
    endpoint

Sessions carry messages today. `streams` and what is below it (flow, send_stream, receive_stream, stream_table),
and what will carry them (congestion, pacing, recovery, parts, pmtu, sizer), are complete by themselves and
wait for `session` to take them in.
"""
