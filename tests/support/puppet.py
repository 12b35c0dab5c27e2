"""A server that keeps the books of a real one, and misbehaves as it is told: for models of what a client may see."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import SocketAttribute, SocketStream

from .peer import INFO, leave

__all__ = ("Puppet", "PuppetLink", "puppet")

_CLOSED = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError)


class Puppet:
    """Made by `puppet`.

    Attributes:
        links: every link that was greeted, the last one last.
        open: how many stand now.
        turned_away: how many that come next are closed at once.
        answering: whether requests get a reply, which is their own payload.
        wrong: what no client may say.
    """

    def __init__(self, port: int) -> None:
        self.url = f"nats://127.0.0.1:{port}"
        self.links: list[PuppetLink] = []
        self.open = self.turned_away = 0
        self.answering = True
        self.wrong: list[bytes] = []

    async def serve(self, stream: SocketStream) -> None:
        async with stream:
            if self.turned_away:
                self.turned_away -= 1
                return

            link = PuppetLink(self, stream)
            self.links.append(link)
            self.open += 1
            try:
                await link.say(INFO)
                await link.listen()
            except _CLOSED:
                pass
            finally:
                self.open -= 1


class PuppetLink:
    """One client's link.

    Attributes:
        subjects: what it listens to, by the number of the subscription.
        published: the payloads that came over it, requests left out.
        deaf: whether it reads on, and does and says nothing any more.
    """

    def __init__(self, owner: Puppet, stream: SocketStream) -> None:
        self.subjects: dict[int, str] = {}
        self.published: list[bytes] = []
        self.deaf = False
        self._owner = owner
        self._stream = stream
        self._unread = b""
        self._saying = anyio.Lock()

    async def say(self, data: bytes) -> None:
        async with self._saying:
            await self._stream.send(data)

    async def tell(self, subject: str, data: bytes) -> None:
        """Send a message to whoever listens to exactly that."""
        for sid, listened in list(self.subjects.items()):
            if listened == subject:
                await self.say(b"MSG %b %d %d\r\n%b\r\n" % (subject.encode(), sid, len(data), data))

    async def leave(self, *, reset: bool) -> None:
        await leave(self._stream, reset=reset)

    async def listen(self) -> None:
        while True:
            line = await self._up_to(b"\r\n")
            op, *fields = line.split() or [b""]
            if op in (b"PUB", b"HPUB"):
                payload = await self._exactly(int(fields[-1]) + 2)
                await self._take(fields, payload[:-2])
            else:
                await self._obey(op, fields, line)

    async def _obey(self, op: bytes, fields: list[bytes], line: bytes) -> None:
        match op:
            case b"PING":
                await self.say(b"PONG\r\n")
            case b"SUB":
                self.subjects[int(fields[-1])] = fields[0].decode()
            case b"UNSUB":
                self.subjects.pop(int(fields[0]), None)
            case b"CONNECT" | b"PONG":
                pass
            case _:
                self._owner.wrong.append(line)

    async def _take(self, fields: list[bytes], payload: bytes) -> None:
        if len(fields) == 2:
            self.published.append(payload)
        elif self._owner.answering:
            await self._reply(fields[1], payload)

    async def _reply(self, inbox: bytes, payload: bytes) -> None:
        for sid, listened in list(self.subjects.items()):
            if inbox.decode().startswith(listened.removesuffix("*")):
                await self.say(b"MSG %b %d %d\r\n%b\r\n" % (inbox, sid, len(payload), payload))

    async def _up_to(self, mark: bytes) -> bytes:
        while mark not in self._unread:
            await self._read()

        line, _, self._unread = self._unread.partition(mark)
        return line

    async def _exactly(self, size: int) -> bytes:
        while len(self._unread) < size:
            await self._read()

        data, self._unread = self._unread[:size], self._unread[size:]
        return data

    async def _read(self) -> None:
        data = await self._stream.receive()
        while self.deaf:
            await self._stream.receive()

        self._unread += data


@asynccontextmanager
async def puppet() -> AsyncIterator[Puppet]:
    """Let it serve for as long as the block lasts."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    server = Puppet(listener.extra(SocketAttribute.local_port))
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, server.serve)
        yield server
        group.cancel_scope.cancel("the puppet's block was left")
