"""Numbers of the protocol. Seconds and bytes unless the name says otherwise."""

from __future__ import annotations

from typing import Final

# --- Specification: both sides must agree on these (docs/protocol.md, the section in brackets) -----------

SUITE_IK: Final = 1  # [4] Noise_IK_25519_ChaChaPoly_SHA256
SUITE_IK_PSK: Final = 2  # [4] Noise_IKpsk2_25519_ChaChaPoly_SHA256
VERSION: Final = 1
"""[4] highest protocol version this code speaks."""
HANDSHAKE_VERSION: Final = 1
"""[4] the version that INIT and RESP as built here begin."""

TYPE_INIT: Final = 0x11  # [3]
TYPE_RESP: Final = 0x12
TYPE_COOKIE: Final = 0x13
TYPE_DATA: Final = 0x14
TYPE_GROUP: Final = 0x15
TYPE_PART: Final = 0x16

INIT_SIZE: Final = 256
RESP_SIZE: Final = 156
COOKIE_SIZE: Final = 60
DATA_HEADER_SIZE: Final = 18  # [6]
TAG_SIZE: Final = 16
DATA_MIN_SIZE: Final = DATA_HEADER_SIZE + TAG_SIZE

LABEL_PROLOGUE: Final = b"mp2p-v1\0"  # [4]
LABEL_MAC1: Final = b"mp2p-v1 mac1\0"
LABEL_COOKIE: Final = b"mp2p-v1 cookie\0"

MAX_PACKET_NUMBER: Final = 2**64 - 2
"""[6] the last packet number ever used; the one above it is never sent, so that no counter can wrap."""

CAPABILITY_PARTS: Final = 0x00000001
"""[7] understands large packets."""

STATUS_OK: Final = 0  # [4] RESP status
STATUS_BUSY: Final = 1
STATUS_VERSION: Final = 2

CLOSE_DONE: Final = 0  # [6] CLOSE codes
CLOSE_INTERNAL: Final = 1
CLOSE_BAD_FRAME: Final = 2
CLOSE_FLOW: Final = 3
CLOSE_STREAMS: Final = 4
CLOSE_PROTOCOL: Final = 5
CLOSE_KEY_LIMIT: Final = 6
CLOSE_SUPERSEDED: Final = 7
CLOSE_NOT_ALLOWED: Final = 8
CLOSE_EXCESSIVE: Final = 9
CLOSE_RESTARTED: Final = 11
"""The peer has started anew and knows nothing of this connection; said on the wire all the same, should it."""
CLOSE_IDLE: Final = 10
"""Never on the wire: what this side reports when the peer has gone silent."""

COOKIE_SECRET_LIFE: Final = 120.0  # [4] a responder's cookie secret; the previous one is still accepted
ANSWER_CACHE_LIFE: Final = 30.0  # [4] an INIT repeated within this time gets the same RESP
HANDSHAKE_BUDGET: Final = 20.0  # [4] an initiator gives up after this
DEFAULT_IDLE_TIMEOUT: Final = 30.0  # [6]
KEEPALIVE: Final = 10.0  # [6] data came and nothing went back for this long
REKEY_AFTER: Final = 300.0  # [6] age of an epoch at which the side that connected asks for new keys
REKEY_AFTER_RESPONDER: Final = 330.0  # [6] and at which the other side does, with jitter
REKEY_PACKETS: Final = 2**32  # [6] packets in one direction
REKEY_FAILURES: Final = 2**32  # [6] packets that did not open
EPOCH_OVERLAP: Final = 10.0  # [6] an old receive key lives this long
EPOCH_LIFE: Final = 600.0  # [6] nothing is sent under older keys
MAX_ACK_DELAY: Final = 0.025  # [6]
ACK_EVERY: Final = 16  # [6] eliciting packets; a sender that cannot wait for so many asks by PING
ACK_DELAY_UNIT: Final = 64e-6  # [6] unit of the delay in an ACK frame
REPLAY_WINDOW: Final = 2048  # [6] packets
INITIAL_RTT: Final = 0.333  # [6]
GRANULARITY: Final = 0.002  # [6] timers are no finer than this

# --- Implementation: this side's own limits; a peer cannot tell ------------------------------------------

DEFAULT_PORT: Final = 1024
"""The original's port, and the lowest that needs no privilege."""

BASE_DATAGRAM_SIZE: Final = 1200
"""UDP payload that every path carries (RFC 9000, section 14). Path probing raises it, once that lands."""

INIT_SCHEDULE: Final = (0.0, 0.5, 1.5, 3.5)
"""When, within a round, the same INIT is sent. Backs off like WireGuard's and QUIC's first flights."""

INIT_ROUND: Final = 5.0
"""A fresh INIT (new e, id, timestamp, hint) this long after the last fresh one."""

INIT_JITTER: Final = 0.2
"""Share by which each wait varies, so that a power cut's worth of devices does not come back in step."""

INITIATOR_DH_RATE: Final = 20.0
"""DH attempts a second per handshake: an attacker may answer faster than the peer."""

SILENT_AFTER_PROBES: Final = 3
"""Probe timeouts in a row after which a peer gets a new INIT, on every way to it that is known."""

PROBE_WAIT: Final = 2.5
"""The longest probe timeout, as often as an idle peer that is silent is asked; longer where the path is that slow."""

PATHS_AFTER_PROBES: Final = 2
"""Probe timeouts in a row after which every other way to the peer is asked, and every interface used. One is
common on a lossy network."""

PATH_FRESH: Final = 5.0
"""A way that answered a challenge so recently is taken without asking again."""
PATH_SETTLE: Final = 1.0
"""Age of a session, or of a way, at which it is asked for the first time: most sessions end before."""
CHALLENGE_WAITS: Final = (0.25, 0.5, 1.25)
"""Waits after each PATH_CHALLENGE; an answer after the last one comes too late."""
CHALLENGE_RATE_ADDRESS: Final = 10.0
CHALLENGE_RATE_ALL: Final = 2000.0
"""Packets a second to an address that a peer has named and that has not answered yet, over all sessions; and to
all of them."""
UNPROVED_FACTOR: Final = 3
"""Bytes sent to such an address for each byte authenticated since (RFC 9000, section 8.1)."""
MAX_NAMED_ADDRESSES: Final = 8
"""Addresses kept that a peer has named, per session, and named to a peer."""
MAX_PROVED_ADDRESSES: Final = 3
"""Addresses kept that a peer's handshakes for new keys, or its packets, came from, besides the present one."""
FOLLOW_PAUSE: Final = 1.0
"""Between changes of path by which the side that connected follows the other one. That one waits for nothing, so
that two sides that follow each other meet."""

RETRY_SPACING: Final = 5.0
"""Between such handshakes, and between those for new keys."""

OFFERED_EPOCHS: Final = 4
"""Keys that a peer has asked for and not confirmed: one for each way that it tried."""

OLD_EPOCHS: Final = 3
"""Keys that were replaced and still open late packets, within EPOCH_OVERLAP: more than any honest pair has."""

SPARE_LIFE: Final = 10.0
"""The spare one of two sessions that were begun at once is closed when it has carried nothing for this long."""

SEARCH_ROUND: Final = 2
"""INITs of the first round of a search for a silent peer: the later ones are also for one that has lost its memory."""

CONFIRM_SCHEDULE: Final = (0.25, 0.5, 0.75)
"""Waits between confirmations sent before the peer has acknowledged one; the last one repeats."""

HANDSHAKE_RATE: Final = 200.0
"""Noise messages worked on per second; one costs about 0.2 ms, so 4 % of a core at the limit."""
HANDSHAKE_BURST: Final = 50.0
UNDER_LOAD_BELOW: Final = 25.0
"""Tokens left, of handshakes or of answers, below which a cookie is asked for."""

SOURCE_RATE: Final = 5.0
"""Handshakes a second per /24 or /64 once under load."""
SOURCE_BURST: Final = 10.0
STALE_RATE: Final = 1.0
"""Handshakes a second per peer whose clock went back."""
STALE_BURST: Final = 2.0

ANSWER_CACHE_SIZE: Final = 1024
ANSWER_REPEATS: Final = 8
ANSWER_SPACING: Final = 0.2

ANSWER_RATE_ADDRESS: Final = 10.0
ANSWER_RATE_ALL: Final = 200.0
COOKIE_RATE_ADDRESS: Final = 10.0
COOKIE_RATE_ALL: Final = 2000.0
COOKIE_RATE_HINT: Final = 2.0
COOKIE_RATE_HINTS: Final = 50.0

HALF_OPEN_SIZE: Final = 256
HALF_OPEN_LIFE: Final = 10.0
PEER_TABLE_SIZE: Final = 4096
"""Last confirmed timestamps remembered; the oldest goes."""
BUCKET_TABLE_SIZE: Final = 1024
MAX_SESSIONS: Final = 4096
"""Confirmed sessions of one node, whoever began them; more are answered with 'busy'."""
MAX_SESSIONS_PER_PEER: Final = 16
"""Sessions one key may hold: two processes may share an identity, ten thousand may not."""

MAX_QUEUED_MESSAGES: Final = 1024
"""Messages waiting for the application, or to be sent, per session; the oldest is dropped, as a socket would."""
MAX_SENT_RECORDS: Final = 4096
"""Unacknowledged packets remembered per session. Data waits above that; pings and probes push out the oldest.
Single datagrams of 1200 bytes make five megabytes in flight of it."""
SKIP_WITHIN: Final = 512
"""A packet number is left out at random within so many of the first, each later one within twice as many..."""
SKIP_WITHIN_LATER: Final = 262144
"""...up to these: each is a range more in the peer's ACKs for a while."""
MAX_ACK_RANGES: Final = 32
CLOSING_LIFE: Final = 1.0
"""A closed session answers late packets with its CLOSE for this long, then forgets."""

LOSS_THRESHOLD: Final = 3
"""A packet is lost when one sent this many later is acknowledged (RFC 9002, section 6.1.1)."""

KEEPALIVE_REPEATS: Final = 8
"""Pings between the first keepalive and the idle timeout."""

# --- Streams: what both sides begin with (specification, section 6) ---------------------------------------

STREAM_WINDOW: Final = 256 * 1024
"""Credit of a stream before the first MAX_STREAM."""
CONNECTION_WINDOW: Final = 1024 * 1024
"""Credit of a connection before the first MAX_DATA."""
MAX_OPEN_STREAMS: Final = 100
"""Streams a side may open before the first MAX_STREAMS, and has open at any time."""
MAX_STREAM_COUNT: Final = 2**31
"""Streams a side can number in 32 bits, half of them being the other side's."""

# --- Streams: this side's own limits (implementation) -----------------------------------------------------

STREAM_WINDOW_CAP: Final = 16 * 1024 * 1024
CONNECTION_WINDOW_CAP: Final = 32 * 1024 * 1024
"""Where auto-tuning ends. Also the most that is sent and unacknowledged, whatever credit the peer gives."""
TUNING_RTT: Final = 0.005
"""Shortest round trip that auto-tuning believes in: a busy event loop takes this long to come round."""
RESET_LIMIT: Final = 200
RESET_SPAN: Final = 10.0
"""More than RESET_LIMIT unserved streams cancelled within RESET_SPAN close the connection with code 9."""
MAX_PIECES: Final = 32768
"""Pieces received out of order, per connection. The largest window in datagrams of 1200 bytes, every other
one lost, makes half of it; more is an attack (code 9)."""
WHOLE_SIZE: Final = 64 * 1024
"""A stream of up to so many bytes that comes in one frame is handed over at once, and counts as read."""
JOIN_SIZE: Final = 4096
"""Neighbouring small pieces are joined up to this, so that a byte held costs no more than a few."""
UNSENT_STREAM: Final = 1024 * 1024
"""What a stream takes from the application ahead of sending."""
UNSENT_CONNECTION: Final = 16 * 1024 * 1024
"""What all streams together take ahead; once reached, each stream still takes UNSENT_FLOOR."""
UNSENT_FLOOR: Final = 64 * 1024
SMALLEST_FRAGMENT: Final = 64
"""Room in a packet below which no STREAM frame is begun, unless everything fits."""
STREAMS_REPORTED: Final = 25
"""Streams ended before MAX_STREAMS says so; at once when the peer has used up half of its streams."""
FORGOTTEN_STREAMS: Final = 256
"""Final sizes remembered of streams that are gone, to tell late packets from reused numbers."""

# --- Multicast channels: both sides must agree on these (specification, section 8) ------------------------

LABEL_TOPIC: Final = b"mp2p-v1 topic\0"
LABEL_GENERATION: Final = b"mp2p-v1 gen\1"
LABEL_GROUP_KEY: Final = b"mp2p-v1 key\1"
LABEL_GROUP: Final = b"mp2p-v1 group\0"
GROUP_HEADER_SIZE: Final = 20
MAX_GROUP_DATAGRAM: Final = 1500
"""Bytes: what is larger is a fragment of IP, and nobody's in whom a subscriber has reason to believe."""
MAX_GENERATION: Final = 64
"""Generations of an epoch, and steps that a member takes on its own: the next newcomer begins a new epoch."""
MAX_MANIFEST: Final = 64
"""Datagrams that one signature covers."""
MAX_PARTS: Final = 53
"""Datagrams of a large packet: with its manifest they are one train of 64 KiB."""
OLD_EPOCH_LIFE: Final = 30.0
"""An epoch that has ended is repaired, and taken in, for this long."""
HEARTBEAT_FIRST: Final = 0.05
"""After the last data; each further one waits twice as long."""
HEARTBEAT_LAST: Final = 2.0
"""The longest wait between heartbeats, also while data flows."""
MAX_GROUP_MESSAGE: Final = 1048576 - 1024
"""Bytes of a message, so that a reliable message of the session carries it with its description."""
PARITY_BLOCK: Final = 64
"""Datagrams of which a PARITY is the sum."""
MAX_NACK_BYTES: Final = 64
"""Bitmap of a GROUP_NACK: 512 datagrams."""

# --- Multicast channels: this side's own limits (implementation) ------------------------------------------

GROUP_WINDOW: Final = 4096
"""Datagrams of a channel between the first one missing and the newest, at a subscriber; and those that a
publisher keeps for repair. 5 megabytes at the most."""
GROUP_HELD: Final = 256
"""Datagrams that wait for their manifest, per epoch; a hostile member can fill these places and no more."""
GROUP_QUEUE: Final = 4194304
"""Bytes of memory that messages not sent yet take before a publisher calls itself full."""
MAX_MEMBERS: Final = 4096
"""Subscribers of a topic, as many as there are sessions."""
MAX_OLD_EPOCHS: Final = 4
"""Epochs that have ended and are still repaired."""
GROUP_EPOCH_LIFE: Final = 3600.0
"""New keys after an hour in any case: a key that is stolen later opens no more than that."""
GROUP_EPOCH_MESSAGES: Final = 2147483648
"""And after so many messages, of which numbers of 32 bits can tell twice as many apart."""
ROTATE_SCHEDULE: Final = (0.0, 0.05, 0.2)
"""When the same ROTATE goes out: it is not repaired."""
LEAVE_SPACING: Final = 1.0
"""Age of an epoch before somebody's leaving ends it; a revocation does so at once."""
JOIN_SPACING: Final = 0.02
"""Between two generations: those who come within it share one. And from then to a heartbeat, which they hear."""
SETTLE_MIN: Final = 0.005
SETTLE_MAX: Final = 0.1
"""A new epoch's first datagram waits two round trips for the keys to arrive, within these bounds."""

GROUP_MEMBERS_ASSUMED: Final = 1000
"""Until the first heartbeat says how many there are."""
GROUP_RTT_FLOOR: Final = 0.005
"""No event loop of many subscribers is faster; backing off for less than it spreads nothing."""
GROUP_RTT_MAX: Final = 1.0
"""The longest round trip that a publisher believes in."""
GROUP_REORDER: Final = 0.01
"""How long best effort waits for a datagram that was overtaken."""
NACK_BACKOFF: Final = 4.0
"""Round trips within which those who miss the same ask for it (RFC 5401, K)."""
NACK_TRIES: Final = 5
NACK_RATE: Final = 20000.0
NACK_BURST: Final = 8192.0
"""Datagrams that one key may ask for in a second: a fifth of what is sent at most; and at once: two windows."""
NACKS_TO_ALL: Final = 3
"""From this question of one subscriber for one datagram on, it is repaired over its session."""
NACK_PATIENCE: Final = 1
"""Questions for a manifest alone, before what waits for it is asked for too."""
REPAIR_SPACING: Final = 0.02
"""Between two repairs of one datagram, or a round trip if that is longer."""
REPAIR_SHARE: Final = 0.5
"""Repairs, as a share of the bytes of data."""
REPAIR_BURST: Final = 19200.0
"""Bytes of repairs that are saved up."""
REPAIR_TRICKLE: Final = 48000.0
"""Bytes of repairs a second while no data is sent, 40 datagrams: the last ones have to be repaired too."""
PARITY_SPAN: Final = 256
"""Datagrams over which losses are counted."""
PARITY_FROM: Final = 0.125
"""Share of datagrams missed by somebody above which sums are sent instead."""
PARITY_PATIENCE: Final = 0.2
"""Where sums are sent, a subscriber waits for the end of a block, or this long, before it asks."""
PARITY_MEMORY: Final = 2.0
"""How long after the last sum that goes on."""
GREEDY_SHARE: Final = 0.2
"""Who asks for more than this share of everything is repaired over its own session."""
GREEDY_SPAN: Final = 200
"""Datagrams over which that is counted."""
RELAY_QUEUE: Final = 1048576
"""Bytes that wait for one session before what multicast does not bring it is left to repair."""

LARGE_AFTER: Final = 1.0
"""Time without a GROUP_NACK after which messages travel in large packets again, of which each loss delays all."""
GATHER_TIME: Final = 0.00025
"""For each subscriber: how long messages wait for others while there is much to send: each batch costs each of them."""
GATHER_MAX: Final = 0.004
"""The longest such wait."""
GATHER_AFTER: Final = 0.01
"""Time after a batch of several datagrams for which there is much to send."""
GATHER_MUCH: Final = 131072
"""Bytes that left at a time after which those two times are longer..."""
GATHER_LONGER: Final = 4
"""...by this factor: a subscriber that wakes up less often pays less for each message."""
GATHER_MESSAGES: Final = 256
GATHER_BYTES: Final = 245760
"""Messages, or bytes of them, that are worth a batch at any time."""
GROUP_BEHIND: Final = 512
"""Datagrams that a subscriber has not passed on yet, at which it asks the publisher to wait."""
GROUP_AHEAD: Final = 1024
"""How many datagrams a publisher is ahead of a subscriber that has asked it to wait."""
GROUP_STALL: Final = 2.0
"""How long it waits for one that does not move at all."""
GROUP_PATIENCE: Final = 30.0
"""How long it waits in all for one that moves more slowly than the lowest rate."""
SLOW_SPACING: Final = 0.005
"""Between reports of a subscriber that is waited for, and an eighth of that more for each other member."""
REPORT_INTERVAL: Final = 1.0
"""Between reports of a subscriber, or a tenth of a second for each member if that is longer."""
GROUP_RATE_START: Final = 50000000.0
"""Bytes a second."""
GROUP_RATE_MIN: Final = 131072.0
GROUP_RATE_MAX: Final = 125000000.0
GROUP_LOSS_LIMIT: Final = 0.05
"""Loss at the worst subscriber above which the rate falls."""
GROUP_RATE_DECREASE: Final = 0.7
GROUP_RATE_FALL: Final = 0.3
"""The share it falls to at most, however much one subscriber says that it has lost."""
GROUP_RATE_INCREASE: Final = 1.05
"""A second, while the rate is what limits."""
GROUP_RATE_FIRST_RISE: Final = 2.0
"""The same from one report to the next, until somebody loses something for the first time."""
GROUP_HOPELESS_LOSS: Final = 0.2
GROUP_HOPELESS_TIME: Final = 30.0
"""A subscriber that loses more than that share for this long, less half of the time in which it does not, is
excluded."""
EXCLUSION_TIME: Final = 60.0
"""And may not come back before."""

ASK_FIRST: Final = 0.25
"""Before an ASK is repeated; each further wait is twice as long."""
ASK_LAST: Final = 8.0
ASK_RATE: Final = 5.0
"""ASKs a second of one subscriber that are answered."""
ASK_BURST: Final = 5.0
JOIN_BURST: Final = 128.0
"""Subscribers of one key that are let in at once; further ones, and those that come back, as fast as ASK_RATE."""
BACKLOG_PATIENCE: Final = 10.0
"""How long live messages wait for the older ones that were promised."""
DEAF_AT_FIRST: Final = 1.0
"""Nothing by multicast for this long after a session's first GRANT: the publisher is asked to use the session."""
DEAF_HEARTBEATS: Final = 4
"""The same once something has come. After a heartbeat more without anything on any way, the publisher is asked
for the keys again."""
SUSPICION_SPACING: Final = 10.0
"""Between two reports of datagrams that a member forged."""
