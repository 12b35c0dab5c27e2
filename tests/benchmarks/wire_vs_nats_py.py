"""The wire against nats-py: the same work on the same server, one after the other, in turns.

    python tests/benchmarks/wire_vs_nats_py.py [--rounds N] [--scale F]

Each measurement is a process of its own, so that no garbage and no warm cache is handed on. In each round
every work is done by nats-py and by ours on each backend, in another order each time; a ratio compares two
measurements of the same round. nats-py runs on asyncio, the only thing it knows; "uvloop" is compared with
nats-py on uvloop, "trio" with nats-py on asyncio.

| work | what is counted |
|---|---|
| publish | core publishes of 128 bytes, until a flush is answered |
| subscribe | messages of 128 bytes taken with `async for`, sent by a process that does nothing else |
| request | requests, one at a time, answered by a second connection of the same kind in the same process |
| requests | the same, 64 under way |
| pull + ack | JetStream messages pulled 256 at a time and acked without confirmation: `fetch` and `ack` of nats-py, a request for messages and `respond` on ours |
| pull + confirmed ack | ours has the server confirm every ack, many under way; nats-py does the same work as in the line before |
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from itertools import product
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import nats
import nats.errors
import nats.js.errors
from nats.js.api import ConsumerConfig, StorageType, StreamConfig

from nats_jobs._clock import running_clock
from nats_jobs.jetstream import ACK, Delivery, JetStreamApi, Puller, jetstream_context
from nats_jobs.server import run_server
from nats_jobs.wire import Reply, connect, unwrap_reply

COUNTS = {
    "publish": 500_000,
    "subscribe": 200_000,
    "request": 3_000,
    "requests": 20_000,
    "pull + ack": 60_000,
    "pull + confirmed ack": 60_000,
}
BACKENDS = ("asyncio", "uvloop", "trio")
DATA = bytes(128)
BATCH = 256
AT_ONCE = 64

Work = Callable[[str, int], Awaitable[float]]


def rival_of(backend: str) -> str:
    return "asyncio" if backend == "trio" else backend


# Ours.


async def our_publish(url: str, count: int) -> float:
    async with connect(url) as nc:
        await nc.flush()
        began = time.perf_counter()
        for _ in range(count):
            await nc.publish("bench.publish", DATA)

        await nc.flush(60)
        return time.perf_counter() - began


async def our_subscribe(url: str, count: int) -> float:
    async with connect(url) as nc, nc.subscribe("bench.subscribe", max_messages=count) as messages:
        await nc.flush()
        feeder = feed(url, count)
        await messages.receive()
        began = time.perf_counter()
        taken = 1
        async for _ in messages:
            taken += 1
            if taken == count:
                break

        seconds = time.perf_counter() - began
        feeder.wait(60)
        return seconds


async def our_request(url: str, count: int, at_once: int = 1) -> float:
    async def ask() -> None:
        for _ in range(count // at_once):
            await nc.request("bench.request", DATA)

    async def answer() -> None:
        async for message in requests:
            await message.respond(message.data)

    took: list[float] = []
    async with connect(url) as nc, connect(url) as other, other.subscribe("bench.request") as requests:
        async with anyio.create_task_group() as group:
            group.start_soon(answer)
            await other.flush()
            began = time.perf_counter()
            async with anyio.create_task_group() as asking:
                for _ in range(at_once):
                    asking.start_soon(ask)

            took.append(time.perf_counter() - began)
            group.cancel_scope.cancel("measured")

    return took[0]


async def our_requests(url: str, count: int) -> float:
    return await our_request(url, count, AT_ONCE)


async def our_pull(url: str, count: int) -> float:
    def ask() -> Awaitable[None]:
        return nc.publish("$JS.API.CONSUMER.MSG.NEXT.BENCH.bench", b'{"batch":%d}' % BATCH, messages.subject)

    async with connect(url) as nc, nc.subscribe(nc.new_inbox()) as messages:
        began = time.perf_counter()
        await ask()
        for taken in range(count):
            message = await messages.receive()
            await message.respond(b"+ACK")
            if taken % BATCH == BATCH // 2:
                await ask()

        await nc.flush(60)
        return time.perf_counter() - began


async def our_confirmed_pull(url: str, count: int) -> float:
    async with connect(url) as nc:
        took: list[float] = []
        left = count
        done = anyio.Event()

        def take(delivery: Delivery) -> None:
            delivery.settle(ACK, confirmed)
            if puller.outstanding <= BATCH // 2:
                ask()

        def confirmed(reply: Reply) -> None:
            nonlocal left
            unwrap_reply(reply, "ack")
            left -= 1
            if not left:
                done.set()

        def ask() -> None:
            puller.pull(BATCH - puller.outstanding)

        puller = Puller(
            JetStreamApi(nc),
            "BENCH",
            "bench",
            expires=5.0,
            clock=running_clock(),
            on_delivery=take,
            on_ready=ask,
            on_trouble=lambda: None,
        )
        began = time.perf_counter()
        async with anyio.create_task_group() as group:
            group.start_soon(puller.run)
            await done.wait()
            took.append(time.perf_counter() - began)
            group.cancel_scope.cancel("measured")

        return took[0]


# nats-py.


async def their_publish(url: str, count: int) -> float:
    nc = await nats.connect(url)
    began = time.perf_counter()
    for _ in range(count):
        await nc.publish("bench.publish", DATA)

    await nc.flush(60)
    seconds = time.perf_counter() - began
    await nc.close()
    return seconds


async def their_subscribe(url: str, count: int) -> float:
    nc = await nats.connect(url)
    subscription = await nc.subscribe(
        "bench.subscribe", pending_msgs_limit=count, pending_bytes_limit=1 << 30
    )
    await nc.flush()
    feeder = feed(url, count)
    messages = subscription.messages
    await anext(messages)
    began = time.perf_counter()
    taken = 1
    async for _ in messages:
        taken += 1
        if taken == count:
            break

    seconds = time.perf_counter() - began
    feeder.wait(60)
    await nc.close()
    return seconds


async def their_request(url: str, count: int, at_once: int = 1) -> float:
    async def answer(message: Any) -> None:
        await message.respond(message.data)

    async def ask() -> None:
        for _ in range(count // at_once):
            await nc.request("bench.request", DATA, timeout=30)

    nc, other = await nats.connect(url), await nats.connect(url)
    await other.subscribe("bench.request", cb=answer)
    await other.flush()
    # Its flush may be answered by an earlier PONG than its own: then the server does not know of the subscription yet.
    while True:
        try:
            await nc.request("bench.request", DATA, timeout=30)
            break
        except nats.errors.NoRespondersError:
            await asyncio.sleep(0.01)

    began = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(at_once)))
    seconds = time.perf_counter() - began
    await nc.close()
    await other.close()
    return seconds


async def their_requests(url: str, count: int) -> float:
    return await their_request(url, count, AT_ONCE)


async def their_pull(url: str, count: int) -> float:
    nc = await nats.connect(url)
    subscription = await nc.jetstream().pull_subscribe_bind("bench", "BENCH")
    began = time.perf_counter()
    left = count
    while left:
        for message in await subscription.fetch(min(BATCH, left), timeout=5):
            await message.ack()
            left -= 1

    await nc.flush(60)
    seconds = time.perf_counter() - began
    await nc.close()
    return seconds


WORKS: dict[tuple[str, str], Work] = {
    ("ours", "publish"): our_publish,
    ("ours", "subscribe"): our_subscribe,
    ("ours", "request"): our_request,
    ("ours", "requests"): our_requests,
    ("ours", "pull + ack"): our_pull,
    ("ours", "pull + confirmed ack"): our_confirmed_pull,
    ("nats-py", "publish"): their_publish,
    ("nats-py", "subscribe"): their_subscribe,
    ("nats-py", "request"): their_request,
    ("nats-py", "requests"): their_requests,
    ("nats-py", "pull + ack"): their_pull,
    ("nats-py", "pull + confirmed ack"): their_pull,
}


# The server's side of it.


def feed(url: str, count: int) -> subprocess.Popen[bytes]:
    """Publish from a process that does nothing else, and is faster than any reader here."""
    return subprocess.Popen([sys.executable, __file__, "--feed", url, "--count", str(count)])


def send_all(url: str, count: int) -> None:
    parts = urlsplit(url)
    frame = b"PUB bench.subscribe %d\r\n%b\r\n" % (len(DATA), DATA)
    with socket.create_connection((parts.hostname, parts.port)) as peer:
        peer.sendall(b'CONNECT {"verbose":false,"pedantic":false}\r\n')
        for start in range(0, count, 500):
            peer.sendall(frame * min(500, count - start))

        peer.sendall(b"PING\r\n")
        received = b""
        while b"PONG\r\n" not in received:
            received = received[-10:] + peer.recv(65536)


async def fill(url: str, count: int) -> None:
    """Make the stream and its consumer anew, with `count` messages."""
    async with connect(url) as nc:
        js = jetstream_context(nc)
        try:
            await js.delete_stream("BENCH")
        except nats.js.errors.NotFoundError:
            pass

        await js.add_stream(StreamConfig(name="BENCH", subjects=["BENCH"], storage=StorageType.MEMORY))
        await js.add_consumer("BENCH", ConsumerConfig(durable_name="bench", max_ack_pending=10_000))
        for _ in range(count):
            await nc.publish("BENCH", DATA)

        await nc.flush(60)
        while (await js.stream_info("BENCH")).state.messages < count:
            await anyio.sleep(0.05)


# One measurement, and all of them.


def measure(who: str, backend: str, work: str, url: str, count: int) -> float:
    """Do one work in a process of its own; return how many a second."""
    if work.startswith("pull"):
        anyio.run(fill, url, count)

    order = [sys.executable, __file__, "--run", who, backend, work, "--url", url, "--count", str(count)]
    answer = subprocess.run(order, capture_output=True, text=True, timeout=300, check=False)
    if answer.returncode:
        raise SystemExit(f"{who} {backend} {work} failed:\n{answer.stderr}")

    return count / float(json.loads(answer.stdout))


def run_one(who: str, backend: str, work: str, url: str, count: int) -> None:
    options = {"use_uvloop": True} if backend == "uvloop" else {}
    loop = "trio" if backend == "trio" else "asyncio"
    seconds = anyio.run(WORKS[who, work], url, count, backend=loop, backend_options=options)
    sys.stdout.write(json.dumps(seconds))


def all_rounds(url: str, rounds: int, scale: float) -> dict[tuple[str, str, str], list[float]]:
    rates: dict[tuple[str, str, str], list[float]] = {}
    runs = [("ours", backend) for backend in BACKENDS] + [("nats-py", "asyncio"), ("nats-py", "uvloop")]
    for _, (work, count) in product(range(rounds), COUNTS.items()):
        random.shuffle(runs)
        for who, backend in runs:
            rate = measure(who, backend, work, url, max(AT_ONCE, int(count * scale) // AT_ONCE * AT_ONCE))
            rates.setdefault((who, backend, work), []).append(rate)
            sys.stderr.write(f"{work:12} {who:8} {backend:8} {rate:12,.0f}/s\n")

    return rates


def table(rates: dict[tuple[str, str, str], list[float]]) -> str:
    lines = ["| work | backend | ours /s | nats-py /s | ratio (range) |", "|---|---|---|---|---|"]
    for work, backend in product(COUNTS, BACKENDS):
        ours, theirs = rates["ours", backend, work], rates["nats-py", rival_of(backend), work]
        ratios = [our / their for our, their in zip(ours, theirs, strict=True)]
        lines.append(
            f"| {work} | {backend} | {median(ours):,.0f} | {median(theirs):,.0f} "
            f"| {median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f}) |"
        )

    return "\n".join(lines)


async def compare(rounds: int, scale: float) -> None:
    async with run_server() as server:
        rates = await anyio.to_thread.run_sync(all_rounds, server.url, rounds, scale)

    sys.stdout.write(table(rates) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of messages")
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--feed", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.feed:
        send_all(given.feed, given.count)
    elif given.run:
        who, backend, work = given.run
        run_one(who, backend, work, given.url, given.count)
    else:
        anyio.run(compare, given.rounds, given.scale)


if __name__ == "__main__":
    main()
