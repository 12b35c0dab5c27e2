"""How many messages to ask for: never more than can start soon, and always some when slots are idle."""

from __future__ import annotations

from hypothesis import given, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nats_jobs.jobs._demand import Demand

CONCURRENCY = st.integers(1, 300)
BATCH = st.none() | st.integers(1, 1000)


def ask(demand: Demand, now: float, *, busy: int = 0, waiting: int = 0, outstanding: int = 0) -> int:
    missing = demand.missing(busy + waiting, outstanding)
    return demand.batch(now, missing, waiting, outstanding)


@given(CONCURRENCY)
def test_an_idle_worker_asks_for_as_many_as_can_start(concurrency: int) -> None:
    assert ask(Demand(concurrency, None), 0.0) == concurrency


@given(CONCURRENCY, st.integers(1, 1000))
def test_one_request_never_asks_for_more_than_the_users_batch(concurrency: int, batch: int) -> None:
    assert ask(Demand(concurrency, batch), 0.0) == min(batch, max(concurrency, batch))


@given(CONCURRENCY, st.integers(1, 1000))
def test_a_batch_above_concurrency_is_how_many_may_be_in_hand(concurrency: int, more: int) -> None:
    demand = Demand(concurrency, concurrency + more)
    assert demand.prefetches
    assert demand.missing(0, 0) == concurrency + more
    assert not Demand(concurrency, concurrency).prefetches


@given(CONCURRENCY)
def test_with_every_slot_busy_and_slow_jobs_nothing_is_asked_for(concurrency: int) -> None:
    demand = Demand(concurrency, None)
    ask(demand, 0.0)
    assert ask(demand, 100.0, busy=concurrency) == 0


@given(CONCURRENCY, st.floats(0.011, 3600))
def test_jobs_slower_than_a_message_travels_are_never_asked_for_in_advance(
    concurrency: int, each: float
) -> None:
    demand = Demand(concurrency, None)
    now = 0.0
    assert ask(demand, now) == concurrency
    for _ in range(5):
        # One slot after the other becomes free, `each` seconds after the last.
        now += each
        demand.completed()
        assert ask(demand, now, busy=concurrency - 1) == 1


def test_while_enough_is_under_way_a_few_free_slots_wait_for_more() -> None:
    """One request for many jobs, and not one for each."""
    demand = Demand(100, None)
    assert ask(demand, 0.0, busy=80, outstanding=10) == 0
    assert ask(demand, 0.0, busy=80, waiting=10) == 0
    assert ask(demand, 0.0, busy=90) == 10
    assert ask(demand, 0.0, busy=60, outstanding=10) == 30


@given(st.integers(2, 300))
def test_small_jobs_are_asked_for_in_advance(concurrency: int) -> None:
    demand = Demand(concurrency, None)
    now = 0.0
    for _ in range(20):
        now += 0.001
        for _ in range(concurrency):
            demand.completed()

        ask(demand, now)

    # Twice as many as run at once, and no more.
    assert demand.missing(0, 0) == 2 * concurrency
    demand.slowed_down()
    assert demand.missing(0, 0) == concurrency


class Worker(RuleBasedStateMachine):
    """A worker whose jobs come, start and end in any order and at any speed."""

    @initialize(concurrency=CONCURRENCY, batch=BATCH)
    def begin(self, concurrency: int, batch: int | None) -> None:
        self.demand = Demand(concurrency, batch)
        self.concurrency, self.most = concurrency, batch
        self.busy = self.waiting = self.outstanding = 0
        self.now = 0.0
        self.refill()

    def refill(self) -> None:
        missing = self.demand.missing(self.busy + self.waiting, self.outstanding)
        batch = self.demand.batch(self.now, missing, self.waiting, self.outstanding)
        assert batch >= 0
        assert self.most is None or batch <= self.most
        self.outstanding += batch

    def start_what_can(self) -> None:
        starting = min(self.waiting, self.concurrency - self.busy)
        self.waiting -= starting
        self.busy += starting

    @rule(share=st.floats(0, 1))
    def messages_come(self, share: float) -> None:
        coming = int(self.outstanding * share)
        self.outstanding -= coming
        self.waiting += coming
        self.start_what_can()

    @rule(seconds=st.floats(0, 100))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.busy)
    @rule(share=st.floats(0.01, 1))
    def jobs_end(self, share: float) -> None:
        for _ in range(max(1, int(self.busy * share))):
            self.busy -= 1
            self.demand.completed()
            self.start_what_can()
            self.refill()

    @rule()
    def requests_end_unserved(self) -> None:
        self.outstanding = 0
        self.refill()

    @invariant()
    def no_more_is_under_way_than_can_start_soon(self) -> None:
        in_hand = self.busy + self.waiting + self.outstanding
        assert in_hand <= max(2 * self.concurrency, self.most or 0)

    @invariant()
    def an_idle_worker_has_asked(self) -> None:
        if not self.busy and not self.waiting:
            assert self.outstanding > 0


test_in_every_order_of_things_enough_and_not_too_much_is_asked_for = Worker.TestCase
