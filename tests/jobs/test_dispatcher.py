"""The dispatcher: first in, first out; what cannot start is handed back, and never what is no longer ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest
from hypothesis import given, settings, strategies as st

from nats_jobs.errors import NatsJobsError, NoResponders, WorkerStalled
from nats_jobs.jetstream import ACK, Delivery, Puller, Settlement
from nats_jobs.jobs._demand import Demand
from nats_jobs.jobs._dispatcher import Dispatcher
from nats_jobs.jobs._lease import Lease
from nats_jobs.jobs._slots import Slots
from nats_jobs.jobs._stall_watch import StallWatch
from nats_jobs.jobs._task_watch import TaskWatch
from nats_jobs.wire import Msg
from support.desk import Desk, Office
from support.virtual_time import VirtualClock

ACK_WAIT = 10.0


class Pulls:
    """What the dispatcher has of a puller: it notes what is asked for, and sends it when told to."""

    def __init__(self, desk: Desk) -> None:
        self.outstanding = 0
        self.can_request = True
        self.asked: list[int] = []
        self.suspicions: list[NatsJobsError] = []
        self._desk = desk

    def pull(self, batch: int) -> int:
        self.asked.append(batch)
        self.outstanding += batch
        self._desk.pull(batch)
        return batch

    def cancel_requests(self) -> None:
        # What was sent before has arrived by then.
        self._desk.link.server.catch_up()
        self._desk.link.server.drop_requests(self._desk.link)

    def recheck_consumer(self, error: NatsJobsError) -> None:
        self.suspicions.append(error)


async def _never(lease: Lease, watch: TaskWatch) -> None:
    raise AssertionError("the slots are a fake here")


class Setting:
    """A dispatcher on a desk, with time that is moved by hand."""

    def __init__(self, concurrency: int = 5, batch: int | None = None, demand: Demand | None = None) -> None:
        self.clock = VirtualClock(100.0)
        self.office = Office(self.clock, ACK_WAIT)
        self.desk = self.office.desk(start=False)
        self.other = self.office.desk()
        self.busy = 0
        self.woken = 0
        self.redelivered: list[Delivery] = []
        self.pulled: list[int] = []
        self.pulls = Pulls(self.desk)
        self.dispatcher = Dispatcher(
            demand or Demand(concurrency, batch),
            self.desk.keeper,
            cast(Puller, self.pulls),
            self.clock,
            _never,
            on_redelivered=self.redelivered.append,
            on_pulled=self.pulled.append,
        )
        self.dispatcher.slots = cast(Slots[Lease], self)
        self.desk.lease_idle = self.dispatcher.on_idle  # type: ignore[method-assign]
        self.desk.link._interests.clear()
        self.desk.link.lowlevel.subscribe_nowait(self.desk._inbox, self._receive)

    def wake(self) -> None:
        self.woken += 1

    def _receive(self, message: Msg) -> None:
        if message.reply:
            self.pulls.outstanding -= 1
            self.dispatcher.receive(Delivery(self.desk.connection, message, self.desk.link.sent_not_before))

    def publish(self, count: int = 1) -> None:
        for _ in range(count):
            self.office.server.publish()

    def take_requests_back(self) -> None:
        """Unsubscribe: what is handed back must not come to us again."""
        self.office.server.catch_up()
        self.office.server.drop_requests(self.desk.link)

    def settle_down(self) -> None:
        """Let everything happen that is due, without time passing."""
        for _ in range(3):
            self.office.server.catch_up()
            for link in self.office.server.links:
                link.read()

    def pass_time(self, seconds: float) -> None:
        """Let time pass, with everybody awake."""
        ends = self.clock() + seconds
        while self.clock() < ends:
            self.clock.advance(min(0.25, ends - self.clock()))
            self.settle_down()
            for desk in self.office.desks:
                desk.keeper.tick()

    def filled(self, count: int) -> Setting:
        """Have that many deliveries come in."""
        self.publish(count)
        self.dispatcher.refill()
        self.settle_down()
        assert len(self.dispatcher) == count
        return self

    def sent(self) -> list[tuple[int, bytes]]:
        return [(sent.sequence, sent.data) for sent in self.office.sent() if sent.link == self.desk.link.name]


def test_it_asks_for_what_can_start() -> None:
    setting = Setting(concurrency=5)
    setting.busy = 2
    setting.dispatcher.refill()
    assert setting.pulls.asked == setting.pulled == [3]
    setting.dispatcher.refill()
    assert setting.pulls.asked == [3]


def test_once_closed_it_asks_for_nothing() -> None:
    setting = Setting()
    setting.dispatcher.close()
    setting.dispatcher.refill()
    setting.dispatcher.completed()
    setting.dispatcher.recheck_consumer(NoResponders("no matter"))
    assert not setting.pulls.asked
    assert not setting.pulls.suspicions


def test_what_came_first_is_taken_first() -> None:
    setting = Setting().filled(4)
    taken = [setting.dispatcher.take() for _ in range(5)]
    assert [lease and lease.delivery.sequence for lease in taken] == [1, 2, 3, 4, None]
    assert all(lease.started for lease in taken if lease)
    assert setting.woken == 4


def test_when_all_that_waited_is_lost_more_is_asked_for() -> None:
    setting = Setting(concurrency=4).filled(4)
    setting.clock.advance(2 * ACK_WAIT)
    setting.pulls.asked.clear()
    assert setting.dispatcher.take() is None
    assert setting.pulls.asked == [4]


def test_what_is_about_to_start_counts_when_others_were_lost() -> None:
    setting = Setting(concurrency=4).filled(3)
    setting.clock.advance(2 * ACK_WAIT)
    setting.publish()
    setting.pulls.asked.clear()
    setting.dispatcher.refill()
    setting.settle_down()
    taken = setting.dispatcher.take()
    assert taken is not None
    assert taken.delivery.sequence in (1, 2, 3, 4)
    assert setting.pulls.outstanding + 1 + len(setting.dispatcher) == 4


def test_free_slots_without_a_request_or_with_work_that_does_not_start_are_a_standstill() -> None:
    setting = Setting(concurrency=3)
    assert setting.dispatcher.standing() == "3 slots are free, 0 jobs wait for one, 0 are asked for"
    setting.dispatcher.nudge()
    assert setting.dispatcher.standing() is None
    setting.publish(3)
    setting.settle_down()
    assert setting.dispatcher.standing() == "3 slots are free, 3 jobs wait for one, 0 are asked for"
    setting.busy = 3
    assert setting.dispatcher.standing() is None
    setting.busy, setting.pulls.can_request = 0, False
    assert setting.dispatcher.standing() is None
    setting.pulls.can_request = True
    setting.dispatcher.close()
    assert setting.dispatcher.standing() is None


def test_a_standstill_that_nudging_does_not_end_is_an_error_that_says_how_it_stands() -> None:
    nudges: list[None] = []
    watch = StallWatch("ORDERS", "W", lambda: "2 slots are free", lambda: nudges.append(None))
    with pytest.raises(WorkerStalled, match=r"ORDERS/W.*2 slots are free"):
        for _ in range(100):
            watch.check()

    assert nudges


def test_a_standstill_that_ends_is_forgotten() -> None:
    states = iter(["stands", None] * 50)
    watch = StallWatch("ORDERS", "W", lambda: next(states), lambda: None)
    for _ in range(100):
        watch.check()


LIVES = st.lists(
    st.sampled_from(
        ["publish", "take", "end", "pause", "long pause", "lose the link", "refill", "settle down"]
    ),
    max_size=60,
)


@given(steps=LIVES, concurrency=st.integers(1, 6))
@settings(max_examples=150, deadline=None)
def test_whatever_happens_a_worker_whose_slots_have_looked_does_not_stand_still(
    steps: list[str], concurrency: int
) -> None:
    setting = Setting(concurrency)
    running: list[Lease] = []

    def take() -> None:
        """What a woken slot does: it takes until there is nothing, or no slot, left."""
        while setting.busy < concurrency and (lease := setting.dispatcher.take()) is not None:
            setting.busy += 1
            running.append(lease)

    def end() -> None:
        if running:
            setting.desk.keeper.settle(running.pop(), ACK)
            setting.busy -= 1
            setting.dispatcher.completed()

    actions: dict[str, Callable[[], object]] = {
        "publish": lambda: setting.publish(3),
        "take": take,
        "end": end,
        "pause": lambda: setting.clock.advance(ACK_WAIT / 2),
        "long pause": lambda: setting.clock.advance(2 * ACK_WAIT),
        "lose the link": lambda: setattr(setting.pulls, "can_request", not setting.pulls.can_request),
        "refill": setting.dispatcher.refill,
        "settle down": setting.settle_down,
    }
    setting.dispatcher.refill()
    for step in steps:
        actions[step]()

    take()
    setting.pulls.can_request = True
    assert setting.dispatcher.standing() is None


def test_what_came_again_is_announced() -> None:
    setting = Setting().filled(1)
    lease = setting.dispatcher.take()
    assert lease is not None
    assert not setting.redelivered
    assert setting.desk.keeper.settle(lease, Settlement.nak())
    setting.dispatcher.refill()
    setting.settle_down()
    (again,) = setting.redelivered
    assert (again.sequence, again.attempt) == (1, 2)


def test_closing_hands_back_at_once_what_has_not_started() -> None:
    setting = Setting().filled(4)
    first = setting.dispatcher.take()
    assert first is not None
    setting.other.pull(4)
    setting.settle_down()
    setting.take_requests_back()
    setting.dispatcher.close()
    setting.settle_down()
    assert setting.sent() == [(2, b"-NAK"), (3, b"-NAK"), (4, b"-NAK")]
    assert sorted(lease.delivery.sequence for lease in setting.other.leases) == [2, 3, 4]
    assert setting.desk.keeper.is_held(first)
    assert len(setting.desk.keeper) == 1
    setting.dispatcher.close()
    assert len(setting.sent()) == 3
    setting.office.check()


def test_what_is_handed_back_does_not_come_here_again() -> None:
    setting = Setting(concurrency=5).filled(3)
    assert setting.pulls.outstanding == 2
    setting.dispatcher.close()
    setting.settle_down()
    assert setting.sent() == [(1, b"-NAK"), (2, b"-NAK"), (3, b"-NAK")]
    assert len(setting.office.deliveries()) == 3


def test_what_still_comes_after_closing_is_handed_back_at_once() -> None:
    setting = Setting()
    setting.dispatcher.refill()
    setting.settle_down()
    setting.publish(2)
    setting.take_requests_back()
    setting.dispatcher.close()
    setting.settle_down()
    assert setting.sent() == [(1, b"-NAK"), (2, b"-NAK")]
    assert setting.dispatcher.take() is None
    assert not setting.woken
    setting.office.check()


def test_what_comes_after_closing_is_handed_back_once_more_when_there_was_no_link() -> None:
    setting = Setting()
    setting.dispatcher.refill()
    setting.publish(1)
    setting.office.server.catch_up()
    setting.dispatcher.close()
    message, _ = setting.desk.link._socket[0]
    setting.desk.link.cut()
    setting.dispatcher.receive(Delivery(setting.desk.connection, message, setting.clock()))
    assert not setting.sent()
    setting.desk.link.mend()
    setting.pass_time(1)
    assert setting.sent() == [(1, b"-NAK")]
    assert not len(setting.desk.keeper)


def test_what_was_used_up_on_the_way_is_not_handed_back_after_closing() -> None:
    setting = Setting()
    setting.other.pull(2)
    setting.dispatcher.refill()
    setting.settle_down()
    setting.publish(3)
    setting.dispatcher.close()
    # The process stands still; the server gives away what nobody answered for.
    setting.clock.advance(1.2 * ACK_WAIT)
    setting.settle_down()
    assert not setting.sent()
    setting.office.check()


def test_what_was_used_up_on_the_way_is_not_performed() -> None:
    setting = Setting()
    setting.dispatcher.refill()
    setting.settle_down()
    setting.publish(1)
    setting.clock.advance(ACK_WAIT)
    setting.settle_down()
    assert setting.dispatcher.take() is None
    assert not setting.sent()


def test_what_was_lost_while_it_waited_is_not_performed() -> None:
    setting = Setting().filled(2)
    setting.desk.keeper.on_claim(1, 2)
    lease = setting.dispatcher.take()
    assert lease is not None
    assert lease.delivery.sequence == 2
    setting.filled(1)
    setting.clock.advance(0.95 * ACK_WAIT)
    assert setting.dispatcher.take() is None
    assert not setting.sent()


def test_what_waited_for_a_third_is_handed_back_and_not_performed() -> None:
    setting = Setting().filled(2)
    setting.desk.link.delay_in = 2.0
    setting.pass_time(0.4 * ACK_WAIT)
    assert setting.sent() == [(1, b"-NAK"), (2, b"-NAK")]
    # Not confirmed yet; it may be with somebody else.
    assert setting.dispatcher.take() is None
    setting.dispatcher.close()
    assert len(setting.sent()) == 2
    setting.office.check()


def test_after_something_waited_for_a_third_nothing_is_asked_for_in_advance() -> None:
    demand = Demand(5, None)
    setting = Setting(concurrency=5, demand=demand).filled(1)
    for number in range(10):
        for _ in range(10):
            demand.completed()

        demand.batch(setting.clock() + 0.01 * number, 5, 0, 0)

    assert demand.missing(5, 0) > 0
    setting.pass_time(0.4 * ACK_WAIT)
    assert setting.sent() == [(1, b"-NAK")]
    assert demand.missing(5, 0) == 0


def test_what_the_user_asked_to_hoard_is_kept() -> None:
    setting = Setting(concurrency=1, batch=3).filled(3)
    setting.pass_time(5 * ACK_WAIT)
    assert {data for _, data in setting.sent()} == {b"+WPI"}
    taken = [setting.dispatcher.take() for _ in range(3)]
    assert [lease and lease.delivery.sequence for lease in taken] == [1, 2, 3]
    assert all(setting.desk.keeper.settle(lease, ACK) for lease in taken if lease)
    setting.office.check()


def test_a_suspicion_reaches_the_puller() -> None:
    setting = Setting()
    nobody = NoResponders("$JS.ACK")
    setting.dispatcher.recheck_consumer(nobody)
    assert setting.pulls.suspicions == [nobody]


@pytest.mark.parametrize("count", [1, 7])
def test_for_a_delivery_that_was_used_up_another_one_is_asked_for(count: int) -> None:
    setting = Setting(concurrency=count)
    setting.dispatcher.refill()
    setting.settle_down()
    setting.publish(count)
    setting.clock.advance(ACK_WAIT)
    setting.settle_down()
    assert sum(setting.pulls.asked) > count
