"""The lease to the letter, in virtual time, against a server that remembers everything."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import pytest

from nats_jobs.jetstream import ACK, Delivery, Settlement
from support.desk import Desk, Office, office
from support.fake_link import IN_PROGRESS
from support.virtual_time import anyio_backend as anyio_backend, pause

pytestmark = pytest.mark.anyio

ACK_WAIT = 10.0
TICK = ACK_WAIT / 20
# What virtual clocks may be off by, being floats.
ROUNDING = 1e-6

Change = Callable[[Desk], None]


@asynccontextmanager
async def one_desk(*, auto_extend: bool = True, start: bool = True) -> AsyncIterator[tuple[Office, Desk]]:
    async with office(ACK_WAIT) as built:
        yield built, built.desk(auto_extend=auto_extend, start=start)


@asynccontextmanager
async def two_desks(*, auto_extend: bool = True) -> AsyncIterator[tuple[Office, Desk, Desk]]:
    """The second desk is for what comes again."""
    async with one_desk(auto_extend=auto_extend) as (built, desk):
        yield built, desk, built.desk()


async def in_hand(built: Office, desk: Desk, count: int = 1) -> None:
    """Publish, and wait until the desk has it."""
    desk.pull(count)
    for _ in range(count):
        built.server.publish()

    await until(lambda: len(desk.leases) >= count)


async def until(condition: Callable[[], object], seconds: float = 100.0) -> None:
    with anyio.fail_after(seconds):
        while not condition():
            await anyio.sleep(0.05)


def publishing(built: Office) -> Callable[[], None]:
    def publish() -> None:
        built.server.publish()

    return publish


def cut(desk: Desk) -> None:
    desk.link.cut()


def swallow(desk: Desk) -> None:
    desk.link.swallow = True


def lose_replies(desk: Desk) -> None:
    desk.link.lose_replies = 1000


def lose_the_leader(desk: Desk) -> None:
    desk.link.server.has_leader = False


TROUBLES = [cut, swallow, lose_replies, lose_the_leader]


# 1. Since when.


@pytest.mark.parametrize("delay", [0.0, 0.3, 2.0])
async def test_a_lease_is_trusted_from_not_later_than_the_delivery(delay: float) -> None:
    async with one_desk() as (built, desk):
        desk.link.delay_in = delay
        await in_hand(built, desk)
        (delivered,) = built.server.delivered
        assert desk.lease.delivery.sent_not_before <= delivered.at
        assert desk.lease.trusted_until == desk.lease.delivery.sent_not_before + 0.9 * ACK_WAIT


async def test_a_message_that_waited_through_a_pause_has_a_lease_from_before_it() -> None:
    async with one_desk(auto_extend=False) as (built, desk):
        desk.pull()
        await anyio.sleep(1)
        built.server.at(anyio.current_time() + 0.1, publishing(built))
        pause(5)
        await until(lambda: desk.leases)
        (delivered,) = built.server.delivered
        assert desk.lease.trusted_until < delivered.at + ACK_WAIT
        await until(lambda: desk.lost)
        assert desk.lost[0].at < delivered.at + ACK_WAIT


async def test_a_message_whose_lease_was_used_up_in_a_pause_is_dropped_unstarted() -> None:
    async with one_desk() as (built, desk):
        desk.pull()
        await anyio.sleep(1)
        built.server.at(anyio.current_time() + 0.1, publishing(built))
        pause(ACK_WAIT + 1)
        await until(lambda: desk.dropped)
        assert not desk.leases
        assert not desk.lost
        assert not len(desk.keeper)
        desk.pull()
        await until(lambda: desk.leases)
        assert desk.lease.delivery.attempt == 2

    assert not built.sent(ACK)


# 2. Extending.


async def test_an_extension_is_asked_for_after_a_third_and_again_a_third_later() -> None:
    async with one_desk() as (built, desk):
        await in_hand(built, desk)
        since = desk.lease.delivery.sent_not_before
        await anyio.sleep(ACK_WAIT)
        asked = [sent.at - since for sent in built.sent(IN_PROGRESS)]
        assert len(asked) == len(desk.extended) >= 2
        assert ACK_WAIT / 3 <= asked[0] <= ACK_WAIT / 3 + TICK + ROUNDING
        assert ACK_WAIT / 3 <= asked[1] - asked[0] <= ACK_WAIT / 3 + TICK + ROUNDING


async def test_a_lease_is_kept_for_as_long_as_the_job_runs_and_no_longer() -> None:
    async with two_desks() as (built, desk, other):
        await in_hand(built, desk)
        other.pull()
        await anyio.sleep(10 * ACK_WAIT)
        assert desk.keeper.is_held(desk.lease)
        assert desk.keeper.settle(desk.lease, ACK)
        await desk.keeper.wait_empty()
        asked = len(built.sent(IN_PROGRESS))
        await anyio.sleep(ACK_WAIT)
        assert len(built.sent(IN_PROGRESS)) == asked
        assert built.deliveries() == [("desk0", 1, 1)]
        assert not built.server.messages


async def test_an_extension_counts_from_the_asking_however_late_it_is_confirmed() -> None:
    async with one_desk() as (built, desk):
        await in_hand(built, desk)
        desk.link.delay_in = 2.5
        await until(lambda: desk.extended)
        (asked_at,) = desk.extended
        before = desk.lease.trusted_until
        await until(lambda: desk.lease.trusted_until != before)
        assert anyio.current_time() >= asked_at + 2.5 - ROUNDING
        assert desk.lease.trusted_until == asked_at + 0.9 * ACK_WAIT


@pytest.mark.parametrize("delay", [0.5, 1.5, 2.5])
async def test_slow_confirmations_do_not_lose_a_lease(delay: float) -> None:
    async with two_desks() as (built, desk, other):
        await in_hand(built, desk)
        other.pull()
        desk.link.delay_in = desk.link.delay_out = delay
        await anyio.sleep(5 * ACK_WAIT)
        assert desk.keeper.is_held(desk.lease)
        assert len(built.deliveries()) == 1


@pytest.mark.parametrize("delay", [3.0, 5.0, 20.0])
async def test_confirmations_that_are_too_slow_never_stretch_a_lease(delay: float) -> None:
    async with two_desks(auto_extend=True) as (built, desk, other):
        await in_hand(built, desk)
        other.pull()
        desk.link.delay_in = desk.link.delay_out = delay
        desk.link.delay_out *= 2
        await until(lambda: other.leases)
        assert [told.lease for told in desk.lost] == [desk.lease]
        built.check_lost_before_redelivery()


async def test_a_confirmation_that_is_read_after_the_lease_was_used_up_does_not_revive_it() -> None:
    async with two_desks() as (built, desk, other):
        await in_hand(built, desk)
        other.pull()
        # The extension arrives at the server when the message has been given to the other desk.
        desk.link.delay_out = 0.7 * ACK_WAIT
        await until(lambda: desk.extended)
        # What has come in until then is read first, the clock is looked at afterwards.
        pause(0.75 * ACK_WAIT)
        built.server.catch_up()
        desk.link.read()
        assert anyio.current_time() < desk.extended[0] + 0.9 * ACK_WAIT
        assert not desk.keeper.is_held(desk.lease)
        assert [told.lease for told in desk.lost] == [desk.lease]
        await until(lambda: other.leases)


async def test_a_confirmation_that_was_overtaken_takes_nothing_back() -> None:
    async with one_desk() as (built, desk):
        await in_hand(built, desk)
        desk.link.delay_out = 2.5
        await until(lambda: desk.extended)
        desk.link.delay_out = 0.0
        await until(lambda: len(desk.extended) == 2)
        # Now both are confirmed, the earlier one last.
        await anyio.sleep(1.0)
        assert not desk.link.outstanding
        assert desk.lease.trusted_until == desk.extended[1] + 0.9 * ACK_WAIT


async def test_many_extensions_leave_nothing_behind() -> None:
    async with one_desk() as (built, desk):
        await in_hand(built, desk)
        await anyio.sleep(30 * ACK_WAIT)
        assert len(built.sent(IN_PROGRESS)) > 75
        assert len(desk.lease.tokens) < 20
        desk.link.lose_replies = 2
        await anyio.sleep(3 * ACK_WAIT)
        assert desk.keeper.settle(desk.lease, ACK)
        await desk.keeper.wait_empty()
        assert desk.link.outstanding == 0


async def test_without_auto_extend_a_lease_is_not_extended() -> None:
    async with two_desks(auto_extend=False) as (built, desk, other):
        await in_hand(built, desk)
        other.pull()
        await until(lambda: other.leases)
        assert not built.sent(IN_PROGRESS)[:1] or built.sent(IN_PROGRESS)[0].link == "desk1"
        assert "ack_wait is over" in desk.lost[0].reason
        built.check_lost_before_redelivery()


# Extending by hand.


async def test_extending_by_hand_returns_when_it_is_confirmed() -> None:
    async with one_desk(auto_extend=False) as (built, desk):
        await in_hand(built, desk)
        desk.link.delay_in = 1.0
        await anyio.sleep(5)
        asked_at = anyio.current_time()
        await desk.keeper.extend(desk.lease)
        assert anyio.current_time() >= asked_at + 1 - ROUNDING
        assert desk.lease.trusted_until == asked_at + 0.9 * ACK_WAIT


async def test_extending_by_hand_goes_on_until_it_is_confirmed() -> None:
    async with one_desk(auto_extend=False) as (built, desk):
        await in_hand(built, desk)
        desk.link.cut()
        built.server.at(anyio.current_time() + 3, desk.link.mend)
        await desk.keeper.extend(desk.lease)
        assert desk.keeper.is_held(desk.lease)
        assert desk.lease.trusted_until > desk.lease.delivery.sent_not_before + ACK_WAIT


async def test_tasks_that_extend_the_same_lease_all_return() -> None:
    async with one_desk(auto_extend=False) as (built, desk):
        await in_hand(built, desk)
        desk.link.delay_in = 0.5
        with anyio.fail_after(ACK_WAIT / 2):
            async with anyio.create_task_group() as group:
                for _ in range(3):
                    group.start_soon(desk.keeper.extend, desk.lease)


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_extending_by_hand_ends_with_the_lease(trouble: Change) -> None:
    async with one_desk(auto_extend=False) as (built, desk):
        await in_hand(built, desk)
        trouble(desk)
        with anyio.fail_after(ACK_WAIT):
            await desk.keeper.extend(desk.lease)

        assert desk.lost
        with anyio.fail_after(1):
            await desk.keeper.extend(desk.lease)


async def test_nothing_is_asked_for_a_lease_that_was_used_up_in_a_pause() -> None:
    async with two_desks() as (built, desk, other):
        await in_hand(built, desk)
        other.pull()
        pause(1.5 * ACK_WAIT)
        built.server.catch_up()
        with anyio.fail_after(1):
            await desk.keeper.extend(desk.lease)

        assert not [sent for sent in built.server.sent if sent.link == desk.link.name]
        assert desk.lost


async def test_nothing_is_asked_for_a_job_that_was_given_back() -> None:
    async with one_desk(auto_extend=False) as (built, desk):
        await in_hand(built, desk)
        desk.link.delay_out = 1.0
        assert desk.keeper.settle(desk.lease, Settlement.nak(5))
        with anyio.fail_after(1):
            await desk.keeper.extend(desk.lease)

        assert not built.sent(IN_PROGRESS)


# 3. Losing.


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("after", [0.1, 3.4, 4.0, 8.9])
async def test_a_lease_is_lost_before_the_server_can_deliver_again(trouble: Change, after: float) -> None:
    async with two_desks() as (built, desk, other):
        await in_hand(built, desk)
        other.pull()
        await anyio.sleep(after)
        trouble(desk)
        await until(lambda: desk.lost)
        desk.link.server.has_leader = True
        if trouble is lose_replies:
            # The server has extended it, and we could not know.
            assert built.sent(IN_PROGRESS)
        else:
            await until(lambda: other.leases)

        sent = len([sent for sent in built.server.sent if sent.link == "desk0"])
        desk.link.mend()
        await anyio.sleep(3 * ACK_WAIT)
        assert len([sent for sent in built.server.sent if sent.link == "desk0"]) == sent
        built.check_lost_before_redelivery()


@pytest.mark.parametrize("away", [0.5, 3.0, 5.0])
async def test_a_lease_survives_a_link_that_comes_back_in_time(away: float) -> None:
    async with two_desks() as (built, desk, other):
        await in_hand(built, desk)
        other.pull()
        for _ in range(5):
            await anyio.sleep(3)
            desk.link.cut()
            await anyio.sleep(away)
            desk.link.mend()

        await anyio.sleep(3)
        assert desk.keeper.is_held(desk.lease)
        assert len(built.deliveries()) == 1


async def test_an_extension_without_a_leader_is_asked_for_again_and_told() -> None:
    async with two_desks() as (built, desk, other):
        await in_hand(built, desk)
        other.pull()
        await anyio.sleep(3)
        built.server.has_leader = False
        await anyio.sleep(4)
        assert len(desk.refusals) > 3
        built.server.has_leader = True
        await anyio.sleep(3 * ACK_WAIT)
        assert desk.keeper.is_held(desk.lease)


async def test_a_loss_names_what_stood_in_the_way() -> None:
    async with one_desk() as (built, desk):
        await in_hand(built, desk)
        desk.link.cut()
        await until(lambda: desk.lost)
        assert "cut by the test" in desk.lost[0].reason


async def test_a_loss_does_not_name_what_was_overcome_before() -> None:
    async with one_desk() as (built, desk):
        await in_hand(built, desk)
        built.server.has_leader = False
        await until(lambda: desk.refusals)
        built.server.has_leader = True
        await anyio.sleep(ACK_WAIT)
        desk.link.swallow = True
        await until(lambda: desk.lost)
        assert desk.lost[0].reason.endswith("the event loop or the process was held up")


async def test_a_loss_is_noticed_when_the_lease_is_used_up_and_not_at_the_next_look() -> None:
    async with one_desk() as (built, desk):
        desk.link.delay_in = 0.3
        await in_hand(built, desk)
        desk.link.cut()
        await until(lambda: desk.lost)
        assert desk.lost[0].at == pytest.approx(desk.lease.trusted_until, abs=ROUNDING)


@pytest.mark.parametrize("seconds", [0.95 * ACK_WAIT, 1.5 * ACK_WAIT, 10 * ACK_WAIT])
async def test_after_a_pause_everything_is_found_lost_and_nothing_is_sent(seconds: float) -> None:
    async with two_desks() as (built, desk, other):
        await in_hand(built, desk, 5)
        other.pull(5)
        assert desk.keeper.settle(desk.leases[0], ACK)
        await until(lambda: len(desk.keeper) == 4)
        before = len(built.server.sent)
        pause(seconds)
        assert not any(desk.keeper.settle(lease, ACK) for lease in desk.leases[1:3])
        await until(lambda: len(desk.lost) == 4)
        assert not len(desk.keeper)
        # What came to the other desk in the pause may be used up, too.
        other.pull(5)
        await until(lambda: len(other.leases) >= 4)
        assert not [sent for sent in built.server.sent[before:] if sent.link == "desk0"]


async def test_when_the_consumer_is_gone_every_lease_is_lost() -> None:
    async with one_desk() as (built, desk):
        await in_hand(built, desk, 3)
        desk.keeper.lose_all("deleted")
        assert [told.reason for told in desk.lost] == ["deleted"] * 3
        with anyio.fail_after(1):
            await desk.keeper.wait_empty()


# Settling.


@pytest.mark.parametrize("answer", [ACK, Settlement.nak(), Settlement.nak(3), Settlement.term("enough")])
async def test_an_answer_is_sent_once_and_ends_the_lease_when_it_is_confirmed(answer: Settlement) -> None:
    async with one_desk() as (built, desk):
        await in_hand(built, desk)
        desk.link.delay_in = 0.5
        assert desk.keeper.settle(desk.lease, answer)
        assert len(desk.keeper) == 1
        await desk.keeper.wait_empty()
        assert [sent.data for sent in built.server.sent] == [answer.body]
        assert not desk.lost
        assert not desk.unconfirmed
        assert desk.link.outstanding == 0


async def test_a_lapsed_lease_cannot_be_settled() -> None:
    async with one_desk(auto_extend=False) as (built, desk):
        await in_hand(built, desk)
        pause(0.9 * ACK_WAIT)
        assert not desk.keeper.settle(desk.lease, ACK)
        assert not built.server.sent
        assert [told.lease for told in desk.lost] == [desk.lease]
        assert not desk.keeper.settle(desk.lease, ACK)


async def test_what_was_answered_is_not_ours_any_more() -> None:
    async with one_desk() as (built, desk):
        await in_hand(built, desk)
        desk.link.delay_out = 1.0
        assert desk.keeper.settle(desk.lease, Settlement.nak())
        assert not desk.keeper.is_held(desk.lease)
        assert not desk.keeper.settle(desk.lease, ACK)
        assert [sent.data for sent in built.server.sent] == [Settlement.nak().body]


@pytest.mark.parametrize("answer", [ACK, Settlement.term("enough")])
@pytest.mark.parametrize("trouble", TROUBLES)
async def test_an_answer_without_a_confirmation_is_repeated(answer: Settlement, trouble: Change) -> None:
    async with one_desk() as (built, desk):
        await in_hand(built, desk)
        trouble(desk)
        assert desk.keeper.settle(desk.lease, answer)
        await anyio.sleep(4)
        desk.link.swallow = False
        desk.link.lose_replies = 0
        built.server.has_leader = True
        desk.link.mend()
        await desk.keeper.wait_empty()
        assert not desk.unconfirmed
        assert not built.server.messages


async def test_an_ack_that_was_under_way_when_the_link_broke_is_repeated() -> None:
    async with one_desk() as (built, desk):
        await in_hand(built, desk)
        desk.link.delay_out = 1
        assert desk.keeper.settle(desk.lease, ACK)
        desk.link.cut()
        desk.link.mend()
        await desk.keeper.wait_empty()
        assert len(built.sent(ACK)) == 2
        assert not built.server.messages


@pytest.mark.parametrize("delay", [0.0, 1.0])
@pytest.mark.parametrize("trouble", [cut, lose_replies])
async def test_a_nak_that_may_have_been_heard_is_not_repeated(delay: float, trouble: Change) -> None:
    async with two_desks() as (built, desk, other):
        await in_hand(built, desk)
        other.pull()
        desk.link.delay_in = 0.2
        assert desk.keeper.settle(desk.lease, Settlement.nak(delay))
        await anyio.sleep(0.1)
        trouble(desk)
        desk.link.mend()
        await until(lambda: other.leases)
        await anyio.sleep(3 * ACK_WAIT)
        assert built.deliveries() == [("desk0", 1, 1), ("desk1", 1, 2)]
        assert [told.lease for told in desk.unconfirmed] == [desk.lease]
        assert not len(desk.keeper)


@pytest.mark.parametrize("trouble", [cut, lose_the_leader])
async def test_a_nak_that_nobody_can_have_heard_is_repeated(trouble: Change) -> None:
    async with two_desks() as (built, desk, other):
        await in_hand(built, desk)
        other.pull()
        await anyio.sleep(0.1)
        trouble(desk)
        assert desk.keeper.settle(desk.lease, Settlement.nak())
        await anyio.sleep(3)
        built.server.has_leader = True
        desk.link.mend()
        await until(lambda: other.leases)
        assert built.server.delivered[-1].at < ACK_WAIT / 2
        await desk.keeper.wait_empty()
        assert not desk.unconfirmed


@pytest.mark.parametrize("answer", [ACK, Settlement.nak(), Settlement.term("enough")])
@pytest.mark.parametrize("trouble", TROUBLES)
async def test_an_answer_that_stays_unconfirmed_is_given_up_when_the_lease_is_used_up(
    answer: Settlement, trouble: Change
) -> None:
    async with one_desk() as (built, desk):
        await in_hand(built, desk)
        trouble(desk)
        assert desk.keeper.settle(desk.lease, answer)
        with anyio.fail_after(ACK_WAIT):
            await desk.keeper.wait_empty()

        assert [told.lease for told in desk.unconfirmed] == [desk.lease]
        assert not desk.lost
        sent = len(built.server.sent)
        built.server.has_leader = True
        desk.link.mend()
        await anyio.sleep(3 * ACK_WAIT)
        assert len(built.server.sent) == sent


async def test_a_lease_that_is_being_settled_is_not_extended() -> None:
    async with one_desk() as (built, desk):
        await in_hand(built, desk)
        desk.link.lose_replies = 1000
        assert desk.keeper.settle(desk.lease, ACK)
        await desk.keeper.wait_empty()
        assert not built.sent(IN_PROGRESS)


# 4. Deliveries that nobody starts.


async def test_a_delivery_that_nobody_started_is_handed_back_after_a_third() -> None:
    async with one_desk(start=False) as (built, desk):
        await in_hand(built, desk)
        await until(lambda: desk.idle)
        assert (
            ACK_WAIT / 3
            <= desk.idle[0] - desk.lease.delivery.sent_not_before
            <= ACK_WAIT / 3 + TICK + ROUNDING
        )
        await desk.keeper.wait_empty()
        assert [sent.data for sent in built.server.sent] == [Settlement.nak().body]
        assert not desk.lost


async def test_a_hoarded_delivery_is_extended_unstarted() -> None:
    async with two_desks() as (built, desk, other):
        await in_hand(built, desk)
        other.pull()
        desk.lease.started = False
        desk.keeps_idle = True
        await anyio.sleep(5 * ACK_WAIT)
        assert desk.keeper.is_held(desk.lease)
        assert len(built.deliveries()) == 1


# 6. Of two deliveries the later one counts.


async def test_a_delivery_that_comes_again_takes_the_lease_from_the_former_one() -> None:
    async with one_desk() as (built, desk):
        await in_hand(built, desk)
        former = desk.lease
        # A leader that forgot the delivery gives it to the same worker again.
        built.server.messages[1].deadline = 0.0
        built.server._look_at(built.server.messages[1])
        desk.pull()
        await until(lambda: desk.lease is not former)
        assert [told.lease for told in desk.lost] == [former]
        assert not desk.keeper.settle(former, ACK)
        assert desk.keeper.settle(desk.lease, ACK)


async def test_an_older_delivery_that_arrives_late_is_dropped() -> None:
    async with one_desk() as (built, desk):
        await in_hand(built, desk)
        first = desk.lease.delivery
        desk.pull()
        assert desk.keeper.settle(desk.lease, Settlement.nak())
        await until(lambda: len(desk.leases) == 2)
        assert desk.keeper.add(first) is None
        assert desk.keeper.is_held(desk.lease)
        same = Delivery(desk.connection, desk.lease.delivery._message, desk.clock())
        assert desk.keeper.add(same) is None
        assert not desk.lost


async def test_a_claim_of_another_worker_takes_the_lease_away() -> None:
    async with two_desks() as (built, desk, other):
        await in_hand(built, desk)
        claims = [each.listen_to_claims() for each in (desk, other)]
        other.pull()
        built.server.messages[1].deadline = 0.0
        built.server._look_at(built.server.messages[1])
        await until(lambda: other.leases)
        claims[1].announce(other.lease.delivery)
        await until(lambda: desk.lost)
        assert "another worker" in desk.lost[0].reason
        assert other.keeper.is_held(other.lease)
        assert not other.lost


async def test_a_claim_of_an_earlier_delivery_changes_nothing() -> None:
    async with one_desk() as (built, desk):
        await in_hand(built, desk)
        desk.keeper.on_claim(1, 1)
        desk.keeper.on_claim(2, 7)
        assert desk.keeper.is_held(desk.lease)
        assert not desk.lost


async def test_a_claim_without_numbers_is_ignored() -> None:
    async with one_desk() as (built, desk):
        await in_hand(built, desk)
        desk.listen_to_claims()
        for data in (b"", b"1", b"1 ", b"x 9", b"1 -9", b"\xff 9"):
            desk.link.lowlevel.publish_nowait("nats_jobs.claims.S.C.id", "", b"", data)

        await anyio.sleep(1)
        assert desk.keeper.is_held(desk.lease)


@pytest.mark.parametrize("answer", [Settlement.nak(), Settlement.nak(1)])
async def test_what_was_given_back_and_comes_again_was_not_lost(answer: Settlement) -> None:
    async with one_desk() as (built, desk):
        await in_hand(built, desk)
        desk.pull()
        # The delivery overtakes the confirmation.
        desk.link.lose_replies = 1
        assert desk.keeper.settle(desk.lease, answer)
        await until(lambda: len(desk.leases) == 2)
        assert not desk.lost
        assert not desk.unconfirmed
        assert len(desk.keeper) == 1


async def test_an_answer_that_a_later_delivery_overtakes_was_not_confirmed() -> None:
    async with one_desk() as (built, desk):
        await in_hand(built, desk)
        desk.link.lose_replies = 1
        assert desk.keeper.settle(desk.lease, ACK)
        desk.keeper.on_claim(1, 2)
        assert [told.lease for told in desk.unconfirmed] == [desk.lease]
        assert not desk.lost


# The keeper.


async def test_the_keeper_wakes_for_the_first_lease_and_after_an_idle_time() -> None:
    async with one_desk() as (built, desk):
        await anyio.sleep(100)
        for count in (1, 2):
            await in_hand(built, desk, count)
            await anyio.sleep(2 * ACK_WAIT)
            assert all(desk.keeper.is_held(lease) for lease in desk.leases[-count:])
            for lease in desk.leases[-count:]:
                assert desk.keeper.settle(lease, ACK)

            await desk.keeper.wait_empty()
            await anyio.sleep(100)


async def test_who_announces_an_earlier_delivery_than_ours_is_answered() -> None:
    """After a broken link a former holder announces what it believes to hold: so it learns better."""
    async with one_desk() as (built, desk):
        await in_hand(built, desk)
        desk.lease.delivery.attempt = 3
        desk.keeper.on_claim(desk.lease.delivery.sequence, 2)
        assert desk.rival_claims == [desk.lease]
        assert not desk.lost


@pytest.mark.parametrize("answer", [ACK, Settlement.nak(5)])
async def test_who_has_answered_claims_nothing_any_more(answer: Settlement) -> None:
    async with one_desk() as (built, desk):
        await in_hand(built, desk)
        desk.lease.delivery.attempt = 3
        desk.link.lose_replies = 1
        assert desk.keeper.settle(desk.lease, answer)
        desk.keeper.on_claim(desk.lease.delivery.sequence, 2)
        assert not desk.rival_claims
        assert not desk.keeper.mark_doubtful()


async def test_who_held_a_job_before_a_broken_link_learns_from_the_later_holder() -> None:
    """It announces what it holds as soon as it has a link, and is answered."""
    async with two_desks() as (built, desk, other):
        await in_hand(built, desk)
        claims = [each.listen_to_claims() for each in (desk, other)]
        desk.link.cut()
        other.pull()
        built.server.messages[1].deadline = 0.0
        built.server._look_at(built.server.messages[1])
        await until(lambda: other.leases)
        claims[1].announce(other.lease.delivery)
        await anyio.sleep(0.1)
        assert desk.keeper.is_held(desk.lease)
        desk.link.mend()
        await anyio.sleep(0.1)
        assert other.rival_claims == [other.lease]
        claims[1].announce(other.lease.delivery)
        await anyio.sleep(0.1)
        assert [told.lease for told in desk.lost] == [desk.lease]
        assert not other.lost


async def test_of_two_deliveries_that_a_forgetful_server_counts_alike_one_is_given_up() -> None:
    """And not both: it is made known by whom."""
    async with two_desks() as (built, desk, other):
        await in_hand(built, desk)
        claims = [each.listen_to_claims() for each in (desk, other)]
        built.server.forget(1)
        other.pull()
        await until(lambda: other.leases)
        assert desk.lease.delivery.attempt == other.lease.delivery.attempt == 1
        claims[0].announce(desk.lease.delivery)
        claims[1].announce(other.lease.delivery)
        await until(lambda: desk.lost or other.lost)
        await anyio.sleep(1)
        assert len(desk.lost + other.lost) == 1


async def test_what_is_held_from_before_a_broken_link_is_announced_with_each_extension() -> None:
    """Somebody may have been given it by a server that remembers nothing, and cannot know either."""
    async with one_desk() as (built, desk):
        await in_hand(built, desk)
        desk.listen_to_claims()
        await anyio.sleep(ACK_WAIT)
        assert desk.keeper.is_held(desk.lease)
        assert not desk.rival_claims
        desk.link.cut()
        desk.link.mend()
        await anyio.sleep(ACK_WAIT)
        assert desk.keeper.is_held(desk.lease)
        assert set(desk.rival_claims) == {desk.lease}
        assert len(desk.rival_claims) >= 2


# 9. What the consumer is now.


async def test_a_shorter_ack_wait_counts_at_once_and_from_the_moments_that_are_known() -> None:
    async with one_desk() as (built, desk):
        await in_hand(built, desk)
        await anyio.sleep(1)
        desk.keeper.adopt(ACK_WAIT / 4)
        known = desk.lease.delivery.sent_not_before
        assert desk.lease.trusted_until <= known + ACK_WAIT / 4
        assert desk.keeper.is_held(desk.lease)
        built.server.ack_wait = ACK_WAIT / 4
        await anyio.sleep(ACK_WAIT)
        assert desk.keeper.is_held(desk.lease)
        assert len(built.deliveries()) == 1


async def test_a_lease_that_a_shorter_ack_wait_has_used_up_is_lost() -> None:
    async with one_desk() as (built, desk):
        await in_hand(built, desk)
        await anyio.sleep(ACK_WAIT / 4)
        desk.keeper.adopt(ACK_WAIT / 10)
        await anyio.sleep(0.01)
        assert [told.lease for told in desk.lost] == desk.leases
        assert not built.server.sent


async def test_an_extension_that_was_late_for_the_shorter_ack_wait_counts_for_nothing() -> None:
    async with one_desk() as (built, desk):
        await in_hand(built, desk)
        await until(lambda: desk.lease.counted_from > desk.lease.delivery.sent_not_before)
        assert desk.lease.longest_gap > ACK_WAIT / 4
        desk.keeper.adopt(ACK_WAIT / 4)
        # It was confirmed, and was the server's to give to somebody else before.
        assert [told.reason for told in desk.lost] == [
            "ack_wait is 2.5 s now, and the job was not extended as often as that"
        ]


async def test_a_look_that_finds_the_same_ack_wait_forgets_how_late_extensions_were() -> None:
    async with one_desk() as (built, desk):
        await in_hand(built, desk)
        await until(lambda: desk.lease.counted_from > desk.lease.delivery.sent_not_before)
        desk.keeper.adopt(ACK_WAIT)
        desk.keeper.adopt(ACK_WAIT / 4)
        assert desk.keeper.is_held(desk.lease)


async def test_a_longer_ack_wait_counts_with_the_next_extension_only() -> None:
    async with one_desk() as (built, desk):
        await in_hand(built, desk)
        before = desk.lease.trusted_until
        desk.keeper.adopt(10 * ACK_WAIT)
        assert desk.lease.trusted_until == before
        built.server.ack_wait = 10 * ACK_WAIT
        await until(lambda: desk.lease.trusted_until > before)
        assert desk.lease.trusted_until > before + 5 * ACK_WAIT


async def test_while_it_is_not_known_whose_the_deliveries_are_nothing_is_sent() -> None:
    async with two_desks() as (built, desk, _):
        await in_hand(built, desk)
        desk.keeper.hold()
        assert desk.keeper.settle(desk.lease, ACK)
        await anyio.sleep(ACK_WAIT / 2)
        assert not built.server.sent
        desk.keeper.adopt(ACK_WAIT)
        await desk.keeper.wait_empty()
        assert len(built.sent(ACK)) == 1


async def test_what_was_held_back_for_a_consumer_that_is_gone_is_never_sent() -> None:
    async with one_desk() as (built, desk):
        await in_hand(built, desk)
        desk.keeper.hold()
        assert desk.keeper.settle(desk.lease, ACK)
        desk.keeper.lose_all("another one was created")
        desk.keeper.adopt(ACK_WAIT)
        await anyio.sleep(ACK_WAIT)
        assert not built.server.sent
