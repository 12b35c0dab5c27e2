"""The NATS client by itself: publish and subscribe, request and reply, a queue group, on asyncio and on Trio.

Run it:  python examples/plain_nats.py [nats://127.0.0.1:4222]
Without a URL it starts a NATS server of its own.
"""

import sys

import anyio

from nats_jobs.errors import NoResponders
from nats_jobs.server import run_server
from nats_jobs.wire import Connection, Subscription, connect


async def publish_and_subscribe(nc: Connection) -> None:
    async with nc.subscribe("weather.*") as reports:
        await nc.publish("weather.oslo", b"snow", headers={"Station": "Blindern"})
        await nc.publish("weather.rome", b"sun")
        await reports.drain()
        async for report in reports:
            print(f"{report.subject}: {report.data.decode()} {dict(report.headers)}")


async def shout(requests: Subscription) -> None:
    async for request in requests:
        await request.respond(request.data.upper())


async def request_and_reply(nc: Connection) -> None:
    async with nc.subscribe("shout") as requests, anyio.create_task_group() as group:
        group.start_soon(shout, requests)
        reply = await nc.request("shout", b"hello", timeout=5)
        print("reply:", reply.data.decode())
        await requests.drain()

    try:
        await nc.request("shout", b"anybody?")
    except NoResponders as error:
        print(error)


async def share_in_a_queue_group(nc: Connection) -> None:
    async with nc.subscribe("work", "team") as one, nc.subscribe("work", "team") as other:
        for number in range(100):
            await nc.publish("work", b"%d" % number)

        await nc.drain()
        done = [int(message.data) async for message in one]
        done += [int(message.data) async for message in other]
        print("the team did each piece of work once:", sorted(done) == list(range(100)))


async def main(url: str) -> None:
    async with connect(url, name="plain") as nc:
        await publish_and_subscribe(nc)
        await request_and_reply(nc)
        await share_in_a_queue_group(nc)


async def start() -> None:
    if sys.argv[1:]:
        await main(sys.argv[1])
    else:
        async with run_server(jetstream=False) as server:
            await main(server.url)


for backend in ("asyncio", "trio"):
    print(f"-- {backend}")
    anyio.run(start, backend=backend)
