"""A topic whose subscribers, network and publisher do whatever they may, against a model of what each is told."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mp2p_core.proto.group.control import ORDERED, REPAIRED
from mp2p_core.testing.group import GroupSim, SimSubscriber

WHICH = st.integers(0, 1000)
LIMIT = 12
"""Subscribers, those that are gone included."""


class Followed:
    """A subscriber, and what it may be told."""

    def __init__(self, each: SimSubscriber, run: int, first: int) -> None:
        self.each = each
        self.first = {run: first}
        """In each life of the publisher, the first number that it may read."""
        self.end: dict[int, int] = {}
        """And the first one that it may not read any more."""
        self.connected = True
        self.gone = False
        self.checked = 0
        self.seen: set[tuple[int, int]] = set()
        self.last = (0, -1)


class GroupMachine(RuleBasedStateMachine):
    """One topic."""

    @initialize(
        seed=st.integers(0, 2**32),
        mode=st.sampled_from([REPAIRED, ORDERED]),
        kept=st.sampled_from([0, 3, 50]),
    )
    def begin(self, seed: int, mode: int, kept: int) -> None:
        """Make the publisher, and one subscriber."""
        self.kept = kept
        self.ordered = mode == ORDERED
        self.sim = GroupSim(seed, mode=mode, history=kept, jitter=0.002 * (seed % 2))
        self.run = self.count = self.departed = 0
        self.all: list[Followed] = []
        self.join(0)

    def _pick(self, which: int) -> Followed | None:
        found = [each for each in self.all if not each.gone]
        return found[which % len(found)] if found else None

    # --- what may happen --------------------------------------------------------------------------------

    @rule(history=st.sampled_from([0, 2, 100]))
    def join(self, history: int) -> None:
        """Let somebody come."""
        if len(self.all) < LIMIT:
            first = max(0, self.departed - min(history, self.kept))
            self.all.append(Followed(self.sim.add(history=history), self.run, first))

    @rule(count=st.sampled_from([1, 1, 5, 40]), size=st.sampled_from([0, 200, 3000]))
    def publish(self, count: int, size: int) -> None:
        """Send some messages."""
        numbers = range(self.count, self.count + count)
        self.sim.publish(*(b"%d %d " % (self.run, n) + bytes(size) for n in numbers))
        self.count += count

    @rule(seconds=st.sampled_from([0.0005, 0.01, 0.1, 1.0, 40.0]))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.sim.run(seconds)

    @rule(loss=st.sampled_from([0.0, 0.0, 0.05, 0.15]), questions=st.sampled_from([0.0, 0.1]))
    def lose(self, loss: float, questions: float) -> None:
        """Change what the network loses."""
        self.sim.loss, self.sim.nack_loss = loss, questions

    @rule(which=WHICH)
    def flap(self, which: int) -> None:
        """Take an interface down, or up."""
        if (found := self._pick(which)) is not None:
            found.each.online = not found.each.online

    @rule(which=WHICH)
    def reconnect(self, which: int) -> None:
        """Break a session, or make it anew."""
        if (found := self._pick(which)) is not None:
            if found.connected:
                self.sim.disconnect(found.each)
            else:
                self.sim.connect(found.each)
            found.connected = not found.connected

    @rule(which=WHICH)
    def leave(self, which: int) -> None:
        """Have somebody go by itself."""
        if (found := self._pick(which)) is not None:
            found.each.subscriber.leave()
            self.sim.serve(found.each)
            found.gone = True

    @rule(which=WHICH)
    def revoke(self, which: int) -> None:
        """Take the topic away from somebody."""
        if (found := self._pick(which)) is not None:
            self.sim.publisher.revoke(found.each.key, self.sim.now)
            self.sim.serve_publisher()
            found.end[self.run] = self.count
            found.gone = True

    @precondition(lambda self: self.run < 3)
    @rule()
    def restart(self) -> None:
        """Have the publisher lose its memory."""
        self.sim.restart_publisher()
        self.run += 1
        self.count = self.departed = 0
        for found in self.all:
            found.connected = True
            found.first[self.run] = 0

    # --- what always holds ------------------------------------------------------------------------------

    @invariant()
    def everybody_is_told_the_truth(self) -> None:
        """Each message once, as it was sent, in order where that is promised, and to those who may read it."""
        if not self.sim.publisher.waiting:
            self.departed = self.count  # what still waits to leave is for those who come meanwhile, too
        for found in self.all:
            each = found.each
            new = zip(each.numbers[found.checked :], each.messages[found.checked :], strict=True)
            for number, message in new:
                run, sent = map(int, bytes(message).split(b" ")[:2])
                assert sent == number, self.sim.seed
                assert (run, number) not in found.seen, f"twice, {self.sim.seed}"
                assert number >= found.first[run], f"from before it came, {self.sim.seed}"
                assert number < found.end.get(run, 1 << 62), f"after it was revoked, {self.sim.seed}"
                if self.ordered:
                    assert (run, number) > found.last, f"out of order, {self.sim.seed}"
                found.seen.add((run, number))
                found.last = (run, number)
            found.checked = len(each.numbers)
            assert not each.suspicions, f"nobody forges here, {self.sim.seed}"
        assert self.sim.shared.repeats == 0, f"a nonce twice, {self.sim.seed}"

    def teardown(self) -> None:
        """Mend everything: each is told of every number, as a message or as a gap, up to the last one."""
        if not hasattr(self, "sim"):
            return
        self.sim.loss = self.sim.nack_loss = 0.0
        for found in self.all:
            found.each.online = True
            if not found.gone and not found.connected:
                self.sim.connect(found.each)
        self.sim.run(30)
        self.publish(1, 0)
        self.sim.run(30)
        self.everybody_is_told_the_truth()
        for found in self.all:
            if found.gone:
                continue
            if found.each.refused:
                continue  # it loses too much, and was told
            told = {number for run, number in found.seen if run == self.run}
            for gap in found.each.gaps:
                if gap.number is not None:
                    told |= set(range(gap.number, gap.number + (gap.missing or 0)))
            assert self.count - 1 in told, f"the last one is missing, {self.sim.seed}"
            begun = min(number for run, number in found.seen if run == self.run)
            assert set(range(begun, self.count)) <= told, f"silence, {self.sim.seed}"


# The same programs each time; thousands of others were tried.
GroupMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, derandomize=True, database=None
)


class TestGroup(GroupMachine.TestCase):  # type: ignore[valid-type, misc]  # made at run time
    """Whatever all of them do, nobody is told anything else than what was sent, or nothing."""
