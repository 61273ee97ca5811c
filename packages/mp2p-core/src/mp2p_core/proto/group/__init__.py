"""Multicast channels: one sealed and signed datagram for any number of subscribers (docs/protocol.md, section 8).

Sans-IO like all of `proto`; `publisher.Publisher` and `subscriber.Subscriber` are what a caller needs. Layers,
lowest first; a module imports only from those before it:

    control, events, keys, layout, pulse, rate, window
    feed, history, members, opening, packing, parity, sealing
    batches, store, wanted
    epochs, lane, roster
    repairing, reporting
    publisher, subscriber
"""
