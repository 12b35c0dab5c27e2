"""Publishing many messages at a time, every one confirmed."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import anyio
from anyio.lowlevel import checkpoint

from ..errors import ConnectionLost, NatsJobsError, NotConfirmed, RequestTimeout
from ..wire import Connection, Reply, unwrap_reply
from ._pub_ack import Enqueued, parse_pub_ack
from ._retrying import TRY_TIMEOUT, is_retryable, retry_delay

__all__ = ("publish_many",)

# What may be unanswered at a time: enough to keep a distant server busy, and no gigabytes.
_MAX_IN_FLIGHT = 4096
_MAX_BYTES_IN_FLIGHT = 4 * 1024 * 1024
# Messages after which the link gets a turn: the server works on them while the next are made.
_YIELD_INTERVAL = 128

# Subject, encoded headers, and data.
_Message = tuple[str, bytes, bytes]


async def publish_many(
    connection: Connection, messages: Iterable[_Message], *, timeout: float
) -> tuple[dict[int, Enqueued], dict[int, Exception]]:
    """Publish messages, many at a time, and wait for every confirmation.

    Returns the confirmed and the failed ones by position. Those that had to be repeated are stored later
    than their neighbours. Cancelling leaves open which were stored.

    Args:
        messages: for each its subject, its encoded headers, with a message id so that it can be repeated, and its data.
        timeout: seconds that a message may be repeated after it was first tried.
    """
    acks: dict[int, Enqueued] = {}
    failures: dict[int, Exception] = {}
    todo: Iterable[tuple[int, _Message]] = enumerate(messages)
    tries = 0
    deadline: float | None = None
    while True:
        one_pass = _Pass(connection, acks, failures)
        await one_pass.run(todo)
        if not one_pass.retryable:
            return acks, failures

        wait = retry_delay(tries)
        tries += 1
        deadline = deadline or anyio.current_time() + timeout
        if anyio.current_time() + wait >= deadline:
            for index, ((subject, _, _), error) in one_pass.retryable.items():
                failures[index] = NotConfirmed(subject, timeout, str(error))

            return acks, failures

        await anyio.sleep(wait)
        todo = [(index, message) for index, (message, _) in sorted(one_pass.retryable.items())]


class _Pass:
    """One try of each message, with a bounded number of them unanswered."""

    def __init__(
        self,
        connection: Connection,
        acks: dict[int, Enqueued],
        failures: dict[int, Exception],
    ) -> None:
        self.retryable: dict[int, tuple[_Message, Exception]] = {}
        self._connection = connection
        self._acks = acks
        self._failures = failures
        self._unanswered: dict[int, tuple[_Message, str]] = {}
        self._bytes = 0
        self._goal = 0
        self._reached = anyio.Event()

    async def run(self, todo: Iterable[tuple[int, _Message]]) -> None:
        try:
            for sent, (index, message) in enumerate(todo, 1):
                if len(self._unanswered) >= _MAX_IN_FLIGHT or self._bytes >= _MAX_BYTES_IN_FLIGHT:
                    # Half: so that the frames of many messages leave in one send.
                    await self._wait_until_unanswered(len(self._unanswered) // 2)

                self._send(index, message)
                if sent % _YIELD_INTERVAL == 0:
                    await checkpoint()

            await self._wait_until_unanswered(0)
        finally:
            for _, reply_subject in self._unanswered.values():
                self._connection.lowlevel.cancel_request(reply_subject)

    def _send(self, index: int, message: _Message) -> None:
        subject, block, data = message
        try:
            reply_subject = self._connection.lowlevel.request_nowait(
                subject, data, partial(self._on_reply, index), block
            )
        except ConnectionLost as error:
            self.retryable[index] = message, error
        except NatsJobsError as error:
            self._failures[index] = error
        else:
            self._unanswered[index] = message, reply_subject
            self._bytes += len(data)

    async def _wait_until_unanswered(self, goal: int) -> None:
        """Wait until no more than `goal` are unanswered; give up those that stay silent."""
        while len(self._unanswered) > goal:
            before = len(self._unanswered)
            self._goal = goal
            self._reached = anyio.Event()
            with anyio.move_on_after(TRY_TIMEOUT):
                await self._reached.wait()

            if len(self._unanswered) == before:
                self._give_up_silent()

    def _give_up_silent(self) -> None:
        for index, (message, reply_subject) in self._unanswered.items():
            self._connection.lowlevel.cancel_request(reply_subject)
            self.retryable[index] = message, RequestTimeout(message[0], TRY_TIMEOUT)

        self._unanswered.clear()
        self._bytes = 0

    def _on_reply(self, index: int, reply: Reply) -> None:
        message, _ = self._unanswered.pop(index)
        subject, _, data = message
        self._bytes -= len(data)
        try:
            self._acks[index] = parse_pub_ack(subject, unwrap_reply(reply, subject))
        except NatsJobsError as error:
            if is_retryable(error):
                self.retryable[index] = message, error
            else:
                self._failures[index] = error

        if len(self._unanswered) <= self._goal:
            self._reached.set()
