"""A JetStream consumer in memory, and links to it that can be slow, lossy and cut.

The server does what a real one was found to do: it knows answers by their stream sequence alone,
so a former holder's word counts. `tests/contract` holds it against the real server. Besides, it writes
down everything that was sent to it, and whether the sender owned the message in that moment: `offences`
must stay empty.

Both run on a clock that is handed in. The server does its work at the times it is due even when nobody
looks; a link reads what has arrived only when it is told to (`run` does so all the time), as a process that
is stopped or whose event loop is held reads nothing.
"""

from __future__ import annotations

import heapq
import itertools
import json
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import anyio

from nats_jobs.errors import ConnectionLost, NoResponders
from nats_jobs.jetstream import ACK
from nats_jobs.wire import Msg, OnReply

__all__ = ("Delivered", "FakeLink", "FakeServer", "Sent")

Clock = Callable[[], float]

IN_PROGRESS = b"+WPI"
NAK = b"-NAK"
_PULL = "$JS.API.CONSUMER.MSG.NEXT."
_ACK = "$JS.ACK."
# Seconds of virtual time between two looks at the links, when nothing else happens.
_READ_EVERY = 0.5
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Delivered:
    """The server gave a message to somebody."""

    at: float
    link: str
    sequence: int
    attempt: int


@dataclass(frozen=True)
class Sent:
    """Somebody answered for a delivery, or asked for more time."""

    at: float
    link: str
    sequence: int
    attempt: int
    data: bytes


@dataclass
class _Message:
    sequence: int
    subject: str
    data: bytes
    attempt: int = 0
    # Until when somebody has it, or until when it rests after a nak with a delay.
    deadline: float = math.inf
    held: bool = False


@dataclass(eq=False)
class _Request:
    link: FakeLink
    epoch: int
    inbox: str
    remaining: int
    ends: float


class FakeServer:
    """A work queue with one pull consumer."""

    def __init__(
        self, clock: Clock, *, ack_wait: float = 10.0, stream: str = "S", consumer: str = "C"
    ) -> None:
        self._ack_wait = ack_wait
        self.stream = stream
        self.consumer = consumer
        self.clock = clock
        self.now = clock()
        self.has_leader = True
        # Which consumer of this name it is; None while there is none.
        self.created: int | None = 1
        # The consumer was created again, or edited, and nobody has looked yet: who has jobs in hand cannot know.
        self.unnoticed = False
        self.links: list[FakeLink] = []
        self.delivered: list[Delivered] = []
        self.sent: list[Sent] = []
        self.offences: list[str] = []
        self.messages: dict[int, _Message] = {}
        self._settled: dict[int, tuple[int, bytes]] = {}
        self._answered: dict[tuple[int, int], bytes] = {}
        self._last_sequence = 0
        self._fresh: deque[_Message] = deque()
        self._again: list[_Message] = []
        self._requests: deque[_Request] = deque()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._changed: anyio.Event | None = None
        self._consumers = itertools.count(2)
        # The last delivery of a consumer that has been deleted.
        self._last_former = 0
        self._crossed: set[int] = set()

    def link(self, name: str) -> FakeLink:
        """Return a new link to this server, which is up."""
        link = FakeLink(self, name)
        self.links.append(link)
        return link

    def publish(self, data: bytes = b"", subject: str | None = None) -> int:
        """Store a message; return its sequence."""
        self.catch_up()
        self._last_sequence += 1
        message = _Message(self._last_sequence, subject or self.stream, data)
        self.messages[message.sequence] = message
        self._fresh.append(message)
        self._serve()
        return message.sequence

    @property
    def ack_wait(self) -> float:
        """Seconds that a delivery is its worker's. When edited, what is pending follows, as on a real server."""
        return self._ack_wait

    @ack_wait.setter
    def ack_wait(self, seconds: float) -> None:
        self.catch_up()
        longer_by, self._ack_wait = seconds - self._ack_wait, seconds
        self.unnoticed = self.unnoticed or longer_by != 0
        for message in self.messages.values():
            if message.deadline < math.inf:
                self._set_deadline(message, max(self.now, message.deadline + longer_by))

    def delete_consumer(self) -> None:
        """Forget all that was delivered; who waits for jobs is told."""
        self.catch_up()
        self.created = None
        self.unnoticed = True
        self._last_former = len(self.delivered)
        self._answered.clear()
        self._again.clear()
        self._fresh = deque(message for _, message in sorted(self.messages.items()))
        for message in self._fresh:
            message.attempt, message.held, message.deadline = 0, False, math.inf

        while self._requests:
            request = self._requests.popleft()
            self._tell(request.link, request.epoch, request.inbox, b"NATS/1.0 409 Consumer Deleted\r\n\r\n")

    def create_consumer(self) -> None:
        """Create it, unless it is there."""
        if self.created is None:
            self.created = next(self._consumers)

    # Time...

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Have something done at a time, whether or not anybody looks then."""
        heapq.heappush(self._events, (when, next(self._numbers), action))
        if self._changed is not None:
            self._changed.set()

    def catch_up(self) -> None:
        """Do what was due until now, each thing at its time."""
        now = self.clock()
        while self._events and self._events[0][0] <= now + _ROUNDING:
            when, _, action = heapq.heappop(self._events)
            self.now = max(self.now, when)
            action()

        self.now = max(self.now, now)

    async def run(self) -> None:
        """Live by the clock, and let the links read, until cancelled."""
        while True:
            self.catch_up()
            for link in self.links:
                link.read()

            self._changed = anyio.Event()
            wait = min(_READ_EVERY, self._events[0][0] - self.clock() if self._events else math.inf)
            with anyio.move_on_after(wait):
                await self._changed.wait()

    # What comes in...

    def receive(self, link: FakeLink, epoch: int, subject: str, reply: str, data: bytes) -> None:
        """Take one frame from a link."""
        if epoch != link.epoch:
            return

        if not self.has_leader or (self.created is None and subject.startswith(_PULL)):
            self._tell(link, epoch, reply, b"NATS/1.0 503\r\n\r\n")
        elif subject.startswith(_PULL):
            self._take_request(link, epoch, reply, json.loads(data))
        elif subject.startswith(_ACK):
            sequence = int(subject.split(".")[5])
            if 0 < sequence <= self._last_sequence:
                self._take_answer(sequence, int(subject.split(".")[4]), data)
                self._tell(link, epoch, reply, b"")
        else:
            for other in self.links:
                other.arrive(other.epoch, Msg(subject, 0, reply, b"", data))

    def note(self, link: str, subject: str, data: bytes) -> None:
        """Write down what is being sent about a delivery, and whether its sender may."""
        self.catch_up()
        tokens = subject.split(".")
        attempt, sequence, delivery = int(tokens[4]), int(tokens[5]), int(tokens[6])
        self.sent.append(Sent(self.now, link, sequence, attempt, data))
        if self.unnoticed and data != IN_PROGRESS:
            # The server may take it for an answer to a later delivery, whose holder cannot know that.
            self._crossed.add(sequence)

        if self.unnoticed or sequence in self._crossed:
            return

        if delivery <= self._last_former:
            self.offences.append(
                f"{link} sent {data!r} for {sequence}/{attempt} of a consumer that was deleted"
            )
            return

        before = self._answered.get((sequence, attempt))
        if before is not None and before != data:
            self.offences.append(f"{link} sent {data!r} for {sequence}/{attempt} after {before!r}")

        if not self._is_owner(sequence, attempt, data):
            self.offences.append(
                f"{link} sent {data!r} for {sequence}/{attempt} at {self.now}, and did not own it"
            )

        if data != IN_PROGRESS:
            self._answered[sequence, attempt] = data

    def owner(self, sequence: int) -> int | None:
        """Return the attempt that holds a message now."""
        self.catch_up()
        message = self.messages.get(sequence)
        return (
            message.attempt if message is not None and message.held and self.now < message.deadline else None
        )

    def _is_owner(self, sequence: int, attempt: int, data: bytes) -> bool:
        if sequence in self._settled:
            # The same word again, because its confirmation was lost.
            return self._settled[sequence] == (attempt, data)

        return self.owner(sequence) == attempt

    def _take_answer(self, sequence: int, attempt: int, data: bytes) -> None:
        message = self.messages.get(sequence)
        if message is None or not message.attempt:
            return

        if data in (b"", ACK.body) or data.startswith(b"+TERM"):
            self._settle(message, attempt, data)
        elif data == IN_PROGRESS:
            self._set_deadline(message, self.now + self.ack_wait)
        elif data.startswith(NAK):
            message.held = False
            delay = json.loads(data[len(NAK) :] or b"{}").get("delay", 0) / 1e9
            if delay:
                self._set_deadline(message, self.now + delay)
            else:
                self._queue_again(message)

    def _settle(self, message: _Message, attempt: int, data: bytes) -> None:
        del self.messages[message.sequence]
        self._settled[message.sequence] = (attempt, data)
        if message in self._again:
            self._again.remove(message)

    def _set_deadline(self, message: _Message, deadline: float) -> None:
        message.deadline = deadline
        self.at(deadline, lambda: self._look_at(message))

    def _look_at(self, message: _Message) -> None:
        if message.sequence in self.messages and self.now >= message.deadline and message not in self._again:
            self._queue_again(message)
            self._again.sort(key=lambda each: each.sequence)

    def _queue_again(self, message: _Message) -> None:
        message.held = False
        message.deadline = math.inf
        if message not in self._again:
            self._again.append(message)

        # Whether it is at this very moment or the next is not for anybody to rely on.
        self.at(self.now, self._serve)

    def forget(self, sequence: int) -> None:
        """Lose the last delivery of a message, as a crash just after it does."""
        message = self.messages[sequence]
        message.attempt -= 1
        self._queue_again(message)

    # What goes out...

    def drop_requests(self, link: FakeLink, inbox: str | None = None) -> None:
        """Nobody listens there any more."""
        self._requests = deque(
            request
            for request in self._requests
            if request.link is not link or inbox not in (None, request.inbox)
        )

    def _take_request(self, link: FakeLink, epoch: int, inbox: str, body: dict[str, Any]) -> None:
        request = _Request(link, epoch, inbox, body["batch"], self.now + body["expires"] / 1e9)
        self._requests.append(request)
        self._beat_later(request, body["idle_heartbeat"] / 1e9)
        self._serve()

    def _beat_later(self, request: _Request, period: float) -> None:
        self.at(min(self.now + period, request.ends), lambda: self._beat(request, period))

    def _beat(self, request: _Request, period: float) -> None:
        if request not in self._requests:
            return

        if self.now < request.ends:
            self._beat_later(request, period)
            status = "100 Idle Heartbeat\r\n"
        else:
            self._requests.remove(request)
            status = f"408 Request Timeout\r\nNats-Pending-Messages: {request.remaining}\r\n"

        self._tell(request.link, request.epoch, request.inbox, f"NATS/1.0 {status}\r\n".encode())

    def _serve(self) -> None:
        while self._requests and (self._again or self._fresh) and self.has_leader:
            message = self._again.pop(0) if self._again else self._fresh.popleft()
            request = self._requests.popleft()
            request.remaining -= 1
            if request.remaining:
                self._requests.append(request)

            self._deliver(message, request)

    def _deliver(self, message: _Message, request: _Request) -> None:
        message.attempt += 1
        message.held = True
        self._set_deadline(message, self.now + self.ack_wait)
        self.delivered.append(Delivered(self.now, request.link.name, message.sequence, message.attempt))
        place = f"{self.stream}.{self.consumer}.{message.attempt}.{message.sequence}"
        reply = f"{_ACK}{place}.{len(self.delivered)}.0.{len(self._fresh)}"
        self._push(
            request.link, request.epoch, Msg(message.subject, 0, reply, b"", message.data), request.inbox
        )

    def _tell(self, link: FakeLink, epoch: int, subject: str, block: bytes) -> None:
        self._push(link, epoch, Msg(subject, 0, "", block, b""), subject)

    def _push(self, link: FakeLink, epoch: int, message: Msg, inbox: str) -> None:
        self.at(self.now + link.delay_in, lambda: link.arrive(epoch, message, inbox))


@dataclass(eq=False)
class FakeLink:
    """What a worker has of a `Connection`. Down, slow and lossy when told to be."""

    server: FakeServer
    name: str
    connected: bool = True
    epoch: int = 1
    # Seconds that a frame is under way.
    delay_in: float = 0.0
    delay_out: float = 0.0
    # How many of the next replies get lost, and whether everything sent does.
    lose_replies: int = 0
    swallow: bool = False
    sent_not_before: float = 0.0
    reconnects: int = 0
    _asks: dict[str, OnReply] = field(default_factory=dict)
    _interests: dict[int, tuple[str, Callable[[Msg], None], Callable[[], None]]] = field(default_factory=dict)
    _socket: deque[tuple[Msg, str]] = field(default_factory=deque)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _last_read: float = 0.0
    _linked: anyio.Event | None = None

    def __post_init__(self) -> None:
        self.sent_not_before = self._last_read = self.server.clock()

    # As in `Connection`, and its `lowlevel`...

    @property
    def lowlevel(self) -> FakeLink:
        return self

    def new_inbox(self) -> str:
        return f"_INBOX.{self.name}.{next(self._numbers)}"

    def publish_nowait(self, subject: str, reply: str, header_bytes: bytes, data: bytes) -> None:
        if not self.connected:
            raise self._lost()

        if subject.startswith(_ACK):
            self.server.note(self.name, subject, data)

        if not self.swallow:
            epoch = self.epoch
            leaves = self.server.clock() + self.delay_out
            self.server.at(leaves, lambda: self.server.receive(self, epoch, subject, reply, data))

    def request_nowait(self, subject: str, data: bytes, on_reply: OnReply, header_bytes: bytes = b"") -> str:
        reply = self.new_inbox()
        self.publish_nowait(subject, reply, header_bytes, data)
        self._asks[reply] = on_reply
        return reply

    def cancel_request(self, reply_subject: str) -> None:
        self._asks.pop(reply_subject, None)

    def subscribe_nowait(
        self,
        subject: str,
        on_message: Callable[[Msg], None],
        *,
        queue: str = "",
        on_error: Callable[[Exception], None] = lambda error: None,
        on_resubscribed: Callable[[], None] = lambda: None,
        request_subject: str = "",
    ) -> int:
        sid = next(self._numbers)
        self._interests[sid] = (subject, on_message, on_resubscribed)
        return sid

    def unsubscribe(self, sid: int, *, drain: bool = False) -> None:
        if sid in self._interests:
            self.server.catch_up()
            self.server.drop_requests(self, self._interests[sid][0])
            if not drain:
                del self._interests[sid]

    async def request(
        self, subject: str, data: bytes = b"", *, timeout: float = 5.0, **kwargs: object
    ) -> Msg:
        raise NoResponders(subject)

    async def flush(self, timeout: float = 10.0) -> None:
        await anyio.sleep(self.delay_in + self.delay_out)
        self.server.catch_up()
        self.read()

    async def wait_connected(self) -> None:
        while not self.connected:
            self._linked = anyio.Event()
            await self._linked.wait()

    # What happens to it...

    @property
    def outstanding(self) -> int:
        """How many requests wait for their reply."""
        return len(self._asks)

    def arrive(self, epoch: int, message: Msg, inbox: str | None = None) -> None:
        """Put a message into the socket."""
        if epoch != self.epoch or not self.connected:
            return

        if inbox in self._asks and self.lose_replies:
            self.lose_replies -= 1
            return

        self._socket.append((message, inbox or message.subject))

    def read(self) -> None:
        """Hand out what has arrived. It has arrived since the last time we looked, and was sent a while before."""
        self.sent_not_before = self._last_read - self.delay_in
        self._last_read = self.server.clock()
        while self._socket:
            message, inbox = self._socket.popleft()
            on_reply = self._asks.pop(inbox, None)
            if on_reply is not None:
                on_reply(message)

            for subject, on_message, _ in list(self._interests.values()):
                if subject == inbox:
                    on_message(message)

    def cut(self) -> None:
        """Break the link. What was under way, in either direction, is gone."""
        self.server.catch_up()
        if not self.connected:
            return

        self.connected = False
        self.epoch += 1
        self._socket.clear()
        self.server.drop_requests(self)
        asks, self._asks = self._asks, {}
        for on_reply in asks.values():
            on_reply(self._lost())

    def mend(self) -> None:
        """Be connected again."""
        if self.connected:
            return

        self.connected = True
        self.reconnects += 1
        self._last_read = self.sent_not_before = self.server.clock()
        if self._linked is not None:
            self._linked.set()

        for _, _, on_resubscribed in list(self._interests.values()):
            on_resubscribed()

    def _lost(self) -> ConnectionLost:
        return ConnectionLost(self.name, "cut by the test")
