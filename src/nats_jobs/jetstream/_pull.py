"""Asks a pull consumer for deliveries, and keeps the asking honest.

A pull request lives at the server until it is served, expires, or its inbox has no listener. It dies
with its link, but survives a fast reconnect to the same inbox (seen on 2.15). So each epoch, that is the
time between two moments at which requests may have died unseen, has inboxes of its own, and begins
with nothing outstanding.

Within an epoch a single request can get lost, and all that is served meanwhile would hide it: the worker would go on
with fewer slots than it has. So when something was outstanding on an inbox for a while without a break, new requests go
to another one, and the former is watched until nothing is outstanding there, or nothing is heard.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from functools import partial

import anyio
from anyio.abc import TaskStatus

from .._clock import Clock
from ..backoff import jittered
from ..errors import (
    ConnectFailed,
    ConnectionClosed,
    ConnectionLost,
    ConsumerGone,
    NatsJobsError,
    PermissionDenied,
    PullRefused,
    ServerRefused,
)
from ..units import to_ns
from ..wire import Msg
from ._api import JetStreamApi
from ._delivery import Delivery, is_delivery
from ._pull_inbox import PullInbox
from ._status import PullStatus, StatusKind, read_status

__all__ = ("Puller",)

# Seconds.
_MAX_HEARTBEAT = 3.0
_FLUSH_TIMEOUT = 5.0
_NEW_LINK = PullStatus(StatusKind.ALL_ENDED, "the link is new")


class _State(enum.Enum):
    WAITING = "for a link, or for a while: no request can be sent"
    OPEN = "requests can be sent"
    CLOSED = "no request will be sent any more"


class Puller:
    """The pull requests of one worker on one consumer.

    `on_delivery` is called in the connection's reader for each delivery. `on_ready` is called when new requests can
    be sent after a time in which they could not, `on_trouble` when requests were refused or not answered: is the consumer
    there? All must return at once.

    Args:
        expires: seconds that one request waits at the server.
    """

    def __init__(
        self,
        api: JetStreamApi,
        stream: str,
        consumer: str,
        *,
        expires: float,
        clock: Clock,
        on_delivery: Callable[[Delivery], None],
        on_ready: Callable[[], None],
        on_trouble: Callable[[], None],
    ) -> None:
        self.stream = stream
        self.consumer = consumer
        self.expires = expires
        self.outstanding = 0
        self.max_batch: int | None = None
        self._connection = api.connection
        self._clock = clock
        self._on_delivery = on_delivery
        self._on_ready = on_ready
        self._on_trouble = on_trouble
        self._heartbeat = min(expires / 2, _MAX_HEARTBEAT)
        self._subject = api.subject(f"CONSUMER.MSG.NEXT.{stream}.{consumer}")
        self._limits = f'"expires":{to_ns(expires)},"idle_heartbeat":{to_ns(self._heartbeat)}'
        self._inbox = PullInbox("")
        self._former_inboxes: list[PullInbox] = []
        self._state = _State.WAITING
        # Why the epoch is over, once it is; an error is final.
        self._over: PullStatus | NatsJobsError | None = None
        self._changed = anyio.Event()

    @property
    def can_request(self) -> bool:
        """Whether a request can be sent now."""
        return self._state is _State.OPEN and self._connection.connected

    def pull(self, batch: int) -> int:
        """Ask for `batch` deliveries now, and return how many were asked for; 0 when that is not possible now."""
        if self._state is not _State.OPEN or batch < 1:
            return 0

        batch = min(batch, self.max_batch or batch)
        try:
            self._connection.lowlevel.publish_nowait(
                self._subject, self._inbox.subject, b"", b'{"batch":%d,%b}' % (batch, self._limits.encode())
            )
        except ConnectionLost:
            # `run` notices the new link and begins a new epoch.
            return 0

        self._inbox.asked(batch, self._clock())
        self.outstanding += batch
        return batch

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Watch over the requests until cancelled. It has started when requests can be sent, and `on_ready` was called.

        Raises:
            ConsumerGone: the server says so, or whoever called `end`.
            PullRefused: the consumer cannot be pulled.
            PermissionDenied: the account may not use the inbox.
        """
        self._over = None
        failures = 0
        while True:
            self._begin_epoch()
            status = await self._until_epoch_ends(task_status)
            task_status = anyio.TASK_STATUS_IGNORED
            if status.kind is StatusKind.ALL_ENDED:
                failures = 0
            else:
                await anyio.sleep(jittered(failures, first=0.1, most=1.0))
                failures += 1
                # A 503, or silence, may mean that the consumer is gone: nobody would ever say so.
                self._on_trouble()

    def recheck_consumer(self, error: NatsJobsError) -> None:
        """Something else was refused: end if that is for good; else ask again, after a while."""
        self._on_refusal(error)
        if self._state is _State.OPEN:
            self._end_epoch(PullStatus(StatusKind.RETRY_LATER, str(error)))

    def end(self, gone: ConsumerGone) -> None:
        """Somebody else found that the consumer is gone: let `run` raise that."""
        self._end_epoch(gone)

    def cancel_requests(self) -> None:
        """Take all requests back. What the server had already sent is still given to `on_delivery`."""
        if self._state is not _State.CLOSED:
            self._state = _State.CLOSED
            for inbox in self._inboxes():
                self._connection.lowlevel.unsubscribe(inbox.sid, drain=True)

    async def close(self) -> None:
        """Take all requests back, and wait for what the server had already sent."""
        self.cancel_requests()
        try:
            await self._connection.flush(_FLUSH_TIMEOUT)
        except NatsJobsError:
            # Without a link the requests are gone, too.
            pass
        finally:
            for inbox in self._inboxes():
                self._connection.lowlevel.unsubscribe(inbox.sid)

    def _begin_epoch(self) -> None:
        for inbox in self._inboxes():
            self._connection.lowlevel.unsubscribe(inbox.sid)

        self._former_inboxes.clear()
        self.outstanding = 0
        self._inbox = self._new_inbox()

    def _inboxes(self) -> Iterator[PullInbox]:
        yield from self._former_inboxes
        yield self._inbox

    def _new_inbox(self) -> PullInbox:
        inbox = PullInbox(self._connection.new_inbox())
        inbox.sid = self._connection.lowlevel.subscribe_nowait(
            inbox.subject,
            partial(self._receive, inbox),
            on_error=self._on_refusal,
            on_resubscribed=self._on_new_link,
            request_subject=self._subject,
        )
        return inbox

    def _end_epoch(self, reason: PullStatus | NatsJobsError) -> None:
        """The requests are dead. The first reason counts, but a new link tells more, and an error is final."""
        if self._state is _State.OPEN:
            self._state = _State.WAITING

        tells_more = reason is _NEW_LINK or isinstance(reason, NatsJobsError)
        if self._over is None or (tells_more and not isinstance(self._over, NatsJobsError)):
            self._over = reason

        self._changed.set()

    async def _until_epoch_ends(self, task_status: TaskStatus[None]) -> PullStatus:
        """Return why the requests must be thought dead."""
        try:
            await self._connection.wait_connected()
        except (ConnectionClosed, ConnectFailed):
            await anyio.sleep_forever()

        if not isinstance(self._over, NatsJobsError):
            self._over = None

        if self._state is _State.WAITING:
            self._state = _State.OPEN

        self._on_ready()
        task_status.started()
        while self._over is None:
            self._changed = anyio.Event()
            with anyio.move_on_after(self._heartbeat):
                await self._changed.wait()

            self._look_for_losses()

        if isinstance(self._over, NatsJobsError):
            raise self._over

        return self._over

    def _look_for_losses(self) -> None:
        """The time of a heartbeat has passed."""
        for inbox in self._inboxes():
            inbox.beat()

        if self._state is not _State.OPEN or not self._connection.connected:
            return

        waiting = [inbox for inbox in self._inboxes() if inbox.outstanding]
        if waiting and all(inbox.is_silent for inbox in waiting):
            self._end_epoch(PullStatus(StatusKind.RETRY_LATER, "no heartbeat"))
            return

        lost = self._forget_former_inboxes()
        if self._inbox.may_hide_a_loss():
            self._former_inboxes.append(self._inbox)
            self._inbox = self._new_inbox()

        if lost:
            self._on_ready()

    def _forget_former_inboxes(self) -> int:
        """Let go of those on which nothing can come any more; return how much was lost there."""
        over = [inbox for inbox in self._former_inboxes if inbox.is_done or inbox.is_silent]
        for inbox in over:
            self._former_inboxes.remove(inbox)
            self._connection.lowlevel.unsubscribe(inbox.sid)

        lost = sum(inbox.outstanding for inbox in over)
        self.outstanding -= lost
        return lost

    def _receive(self, inbox: PullInbox, message: Msg) -> None:
        inbox.heard()
        if is_delivery(message):
            self.outstanding -= inbox.settle(1)
            # Nothing is delivered before it is asked for: after a pause of ours that is the better bound.
            sent_not_before = max(self._connection.lowlevel.sent_not_before, inbox.asked_since)
            self._on_delivery(Delivery(self._connection, message, sent_not_before))
        elif self._state is not _State.CLOSED:
            self._on_status(inbox, read_status(message))

    def _on_status(self, inbox: PullInbox, status: PullStatus) -> None:
        match status.kind:
            case StatusKind.HEARTBEAT:
                pass
            case StatusKind.REQUEST_ENDED:
                self.outstanding -= inbox.settle(status.undelivered)
                self._on_ready()
            case StatusKind.TOO_LARGE:
                self.max_batch = status.limit
                self._end_epoch(status)
            case StatusKind.CONSUMER_DELETED:
                self._end_epoch(ConsumerGone(self.stream, self.consumer, status.text))
            case StatusKind.UNPULLABLE:
                self._end_epoch(PullRefused(self.stream, self.consumer, status.text))
            case _:
                self._end_epoch(status)

    def _on_refusal(self, error: Exception) -> None:
        # That the whole connection has ended is raised by its own block: saying it twice would hide the cause.
        if isinstance(error, PermissionDenied | ServerRefused):
            self._end_epoch(error)

    def _on_new_link(self) -> None:
        self._end_epoch(_NEW_LINK)
