"""The life of deliveries as a state machine: whatever happens in whatever order, the rules of the lease hold.

Two workers share a consumer; time is moved by hand, in steps shorter than the keeper's, and a worker that
is held up does nothing at all meanwhile: its socket fills, its clock runs on. Nothing may be sent by
anyone who does not own the message (the server takes note), no two handlers may believe at one moment that a
message is theirs, and a book must empty itself once nobody extends.

What the design cannot exclude is left out here: a leader that forgets what it confirmed, and a network
slower than the margin.
"""

from __future__ import annotations

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from nats_jobs.jetstream import ACK, Settlement
from nats_jobs.jobs._lease import Lease
from support.desk import Desk, Office
from support.virtual_time import VirtualClock

ACK_WAIT = 10.0
# The keeper looks at least so often.
TICK = ACK_WAIT / 20
# What we say is heard within the margin of a lease; what we hear may be as late as it likes.
DELAYS_OUT = st.sampled_from([0.0, 0.05, 0.2, 0.4])
DELAYS_IN = st.sampled_from([0.0, 0.05, 0.4, 2.0, 4.0])
# Until a worker has so many it pulls, one at a time.
IN_HAND = 3
ANSWERS = st.sampled_from(
    [ACK, Settlement.nak(), Settlement.nak(0.5), Settlement.nak(15), Settlement.term("enough")]
)
WORKERS = st.integers(0, 1)
TIMES = st.sampled_from([0.5, 1.0, 3.0, 4.0, 8.0, 12.0])


class Worker:
    """A desk, awake or held up, with its next look at the book."""

    def __init__(self, office: Office, *, auto_extend: bool) -> None:
        self.desk = office.desk(auto_extend=auto_extend)
        self.looks_at = 0.0
        self.held_up = False
        self.claims = self.desk.listen_to_claims()
        self.announced = 0
        self.pulls_at = 0.0

    def live(self, now: float) -> None:
        """Do what the tasks of a worker do when the event loop turns."""
        if self.held_up:
            return

        self.desk.link.read()
        for lease in self.desk.leases[self.announced :]:
            self.announced += 1
            if lease.delivery.attempt > 1:
                self.claims.announce(lease.delivery)

        if now >= self.pulls_at and self.desk.link.connected and len(self.desk.keeper) < IN_HAND:
            self.pulls_at = now + 1.0
            self.desk.pull()

        if now >= self.looks_at:
            self.looks_at = self.desk.keeper.tick()

    def adopt(self, ack_wait: float) -> None:
        """It looks at its leases at once, as the keeper's clockwork is woken."""
        self.desk.keeper.adopt(ack_wait)
        self.looks_at = self.desk.keeper.tick()


class Life(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock = VirtualClock(1000.0)
        self.office = Office(self.clock, ACK_WAIT)
        self.workers: list[Worker] = []

    @initialize(auto_extend=st.tuples(st.booleans(), st.booleans()), delay_in=DELAYS_IN, delay_out=DELAYS_OUT)
    def begin(self, auto_extend: tuple[bool, bool], delay_in: float, delay_out: float) -> None:
        self.workers = [Worker(self.office, auto_extend=each) for each in auto_extend]
        for worker in self.workers:
            worker.desk.link.delay_in, worker.desk.link.delay_out = delay_in, delay_out

    # What the world does...

    @rule(count=st.integers(1, 3))
    def publish(self, count: int) -> None:
        for _ in range(count):
            self.office.server.publish()

    @rule(seconds=TIMES)
    def pass_time(self, seconds: float) -> None:
        """Time goes by in small steps, and who is awake does what is due."""
        ends = self.clock() + seconds
        while self.clock() < ends:
            self.clock.advance(0.05)
            self.turn()

    @rule(who=WORKERS, seconds=TIMES)
    def cut_the_link(self, who: int, seconds: float) -> None:
        self.workers[who].desk.link.cut()
        self.pass_time(seconds)
        self.workers[who].desk.link.mend()

    @rule(who=WORKERS, count=st.integers(1, 3))
    def lose_replies(self, who: int, count: int) -> None:
        self.workers[who].desk.link.lose_replies = count

    @rule(who=WORKERS, seconds=TIMES)
    def swallow_what_is_sent(self, who: int, seconds: float) -> None:
        self.workers[who].desk.link.swallow = True
        self.pass_time(seconds)
        self.workers[who].desk.link.swallow = False

    @rule(seconds=TIMES)
    def lose_the_leader(self, seconds: float) -> None:
        self.office.server.has_leader = False
        self.pass_time(seconds)
        self.office.server.has_leader = True

    @rule(
        who=WORKERS,
        seconds=TIMES,
        then=st.sampled_from(["read", "look", "settle", "turn"]),
        count=st.integers(0, 2),
    )
    def hold_up(self, who: int, seconds: float, then: str, count: int) -> None:
        """A blocked event loop, or a stopped process; whose turn comes first afterwards is up to the event loop."""
        worker = self.workers[who]
        worker.held_up = True
        self.publish(count)
        self.pass_time(seconds)
        worker.held_up = False
        if then == "read":
            worker.desk.link.read()
        elif then == "look":
            worker.looks_at = worker.desk.keeper.tick()
        elif then == "settle":
            for lease in worker.desk.leases:
                worker.desk.keeper.settle(lease, ACK)

        self.turn()

    @rule(factor=st.sampled_from([0.5, 1.0]))
    def edit_ack_wait(self, factor: float) -> None:
        """The workers learn of it in time: when it is longer after it counts, when it is shorter before that.

        So long before that what they sent under the longer one has arrived.
        """
        ack_wait = ACK_WAIT * factor
        server = self.office.server
        server.ack_wait = max(server.ack_wait, ack_wait)
        for worker in self.workers:
            worker.adopt(ack_wait)

        self.pass_time(max(worker.desk.link.delay_out for worker in self.workers) + TICK / 10)
        server.ack_wait = ack_wait

    @rule(who=WORKERS, seconds=TIMES, same=st.booleans())
    def wonder_whether_the_consumer_is_the_same(self, who: int, seconds: float, same: bool) -> None:
        """As after a new link. Nothing is sent meanwhile, and never for what belongs to a consumer that is gone."""
        desk = self.workers[who].desk
        desk.keeper.hold()
        on_its_way_until = self.clock() + desk.link.delay_out + 0.1
        self.pass_time(seconds)
        assert not [s for s in self.office.sent() if s.link == desk.link.name and s.at > on_its_way_until]
        if not same:
            desk.keeper.lose_all("another one was created")
            assert not len(desk.keeper)

        self.workers[who].adopt(desk.keeper.ack_wait)

    # What a worker does...

    @rule(who=WORKERS, which=st.integers(0, 5), settlement=ANSWERS)
    def settle(self, who: int, which: int, settlement: Settlement) -> None:
        """A handler ends, or is stopped, or times out; perhaps long after its lease was lost."""
        worker = self.workers[who]
        if which < len(worker.desk.leases):
            lease = worker.desk.leases[-1 - which]
            before = self.believes(worker.desk, lease)
            settled = worker.desk.keeper.settle(lease, settlement)
            assert not settled or before

    @rule(who=WORKERS)
    def stop(self, who: int) -> None:
        """Everything in hand is given back."""
        worker = self.workers[who]
        for lease in worker.desk.leases:
            worker.desk.keeper.settle(lease, Settlement.nak())

    @rule(who=WORKERS, which=st.integers(0, 3))
    def look_at(self, who: int, which: int) -> None:
        worker = self.workers[who]
        if which < len(worker.desk.leases):
            lease = worker.desk.leases[-1 - which]
            held = worker.desk.keeper.is_held(lease)
            assert held == self.believes(worker.desk, lease)

    # What must hold...

    def turn(self) -> None:
        self.office.server.catch_up()
        for worker in self.workers:
            worker.live(self.clock())

        self.nobody_else_believes_that_it_has_it()

    def believes(self, desk: Desk, lease: Lease) -> bool:
        """Whether a handler would be let go on now, if it asked the clock."""
        return desk.takes_to_own(lease) and self.clock() < lease.trusted_until

    @invariant()
    def nothing_is_sent_by_one_who_does_not_own_the_message(self) -> None:
        assert not self.office.server.offences

    @invariant()
    def nobody_else_believes_that_it_has_it(self) -> None:
        believers = [
            (lease.delivery.sequence, lease.delivery.attempt)
            for worker in self.workers
            for lease in worker.desk.leases
            if self.believes(worker.desk, lease)
        ]
        for sequence, attempt in believers:
            assert self.office.server.owner(sequence) == attempt
            assert [number for number, _ in believers].count(sequence) == 1

    @invariant()
    def a_worker_that_is_awake_knows_what_it_has_lost(self) -> None:
        for worker in self.workers:
            for lease in worker.desk.leases:
                if worker.desk.takes_to_own(lease) and not worker.held_up:
                    assert self.clock() < lease.trusted_until + 2 * TICK

    @invariant()
    def each_ending_is_told_once_and_in_one_way(self) -> None:
        for worker in self.workers:
            desk = worker.desk
            lost = [told.lease for told in desk.lost]
            unconfirmed = [told.lease for told in desk.unconfirmed]
            assert all(lease.settlement is None for lease in lost)
            assert all(lease.settlement is not None for lease in unconfirmed)
            assert all(lease.closed for lease in lost + unconfirmed)
            assert all(lease in lost for lease in desk.leases if lease.closed and lease.settlement is None)

    @invariant()
    def the_book_has_what_is_not_closed(self) -> None:
        for worker in self.workers:
            open_leases = [lease for lease in worker.desk.leases if not lease.closed]
            assert len(worker.desk.keeper) == len(open_leases)

    def teardown(self) -> None:
        """Once nobody extends any more, each book empties itself within `ack_wait`."""
        if not self.workers:
            return

        for worker in self.workers:
            worker.desk.link.cut()

        since = self.clock()
        while self.clock() < since + ACK_WAIT:
            self.clock.advance(0.05)
            self.turn()

        for worker in self.workers:
            assert not len(worker.desk.keeper)
            assert worker.desk.link.outstanding == 0

        self.office.check()
        self.check_that_what_was_acked_never_came_again()

    def check_that_what_was_acked_never_came_again(self) -> None:
        """A confirmed ack or term is the end of a message, a confirmed nak of a delivery."""
        for worker in self.workers:
            untold = [told.lease for told in worker.desk.lost + worker.desk.unconfirmed]
            for lease in worker.desk.leases:
                if lease not in untold and lease.settlement is not None and not lease.settlement.is_nak:
                    assert lease.delivery.sequence not in self.office.server.messages


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=150, stateful_step_count=30)


# Found by it, and kept by name...


def machine() -> Life:
    life = Life()
    life.begin((True, True), 0.0, 0.0)
    return life


def with_one_in_hand() -> Life:
    life = machine()
    life.publish(1)
    life.pass_time(0.5)
    assert life.workers[0].desk.leases
    return life


def test_a_nak_whose_reply_was_lost_is_not_sent_to_the_next_holder() -> None:
    life = with_one_in_hand()
    life.lose_replies(0, 1)
    life.settle(0, 0, Settlement.nak())
    life.pass_time(4.0)
    life.nothing_is_sent_by_one_who_does_not_own_the_message()
    life.teardown()


@pytest.mark.parametrize("then", ["read", "look", "settle", "turn"])
def test_after_a_hold_up_the_order_of_things_does_not_matter(then: str) -> None:
    life = with_one_in_hand()
    life.workers[0].desk.link.delay_out = 7.0
    life.pass_time(4.0)
    life.hold_up(0, 8.0, then, 0)
    life.nothing_is_sent_by_one_who_does_not_own_the_message()
    life.nobody_else_believes_that_it_has_it()
    life.teardown()
