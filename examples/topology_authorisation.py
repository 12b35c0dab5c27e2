"""A run that waits for a person: it takes up no worker while it does, and goes on with the answer.

Run it:  python examples/topology_authorisation.py [nats://127.0.0.1:4222]      (BACKEND=trio runs it on Trio)
Without a URL it starts a NATS server of its own.

Prints::

    suspended, waits for authorization
    delivered again: still suspended
    email: balance 100, limit 500, authorised by Eve
    completed
"""

import os
import sys
from secrets import token_hex
from typing import Any

import anyio

from nats_jobs import events, job_processor
from nats_jobs.server import run_server
from nats_jobs.topology import KVStore, Node, NodeContext, Snapshot, Topology, topology_job

STREAM = f"AUTHORISATION_{token_hex(4)}"  # no other stream has this name


async def customer(ctx: NodeContext[Any]) -> str:
    return str(ctx.data[0])


async def balance(ctx: NodeContext[Any]) -> str:
    return "balance 100"


async def limit(ctx: NodeContext[Any]) -> str:
    return "limit 500"


async def email(ctx: NodeContext[Any]) -> None:
    print(f"email: {', '.join(ctx.data)}, authorised by {ctx.answer['by']}")


AUTHORISATION = Topology(
    {
        "input": Node(customer),
        "lookupA": Node(balance, deps=["input"]),
        "lookupB": Node(limit, deps=["input"]),
        "authorization": Node(deps=["lookupA", "lookupB"], type="suspension"),
        "email": Node(email, deps=["authorization"]),
    },
    name="authorisation",
)


async def work(url: str) -> None:
    # The snapshots are in a bucket that has the name of the stream.
    defn = topology_job(AUTHORISATION, stream=STREAM, store=STREAM)
    async with job_processor(url) as p, p.events() as stream:

        async def performed() -> Snapshot:
            async for event in stream:
                if isinstance(event, events.Complete):
                    break

            found = await KVStore(p, STREAM).load("order-1")
            assert found is not None
            return found[0]

        await p.start(defn)
        await p.enqueue(defn, {"topologyId": "order-1", "data": "Ann"})
        snapshot = await performed()
        print(f"{snapshot.status}, waits for {', '.join(snapshot.suspended)}")

        # As when the acknowledgement was lost: nobody has authorised anything.
        await p.enqueue(defn, {"topologyId": "order-1"})
        print(f"delivered again: still {(await performed()).status}")

        await p.resume_topology(defn, "order-1", answers={"authorization": {"by": "Eve"}})
        print((await performed()).status)
        await p.stop()
        await p.js.delete_stream(STREAM)
        await p.js.delete_key_value(STREAM)


async def main() -> None:
    if len(sys.argv) > 1:
        await work(sys.argv[1])
    else:
        async with run_server() as server:
            await work(server.url)


if __name__ == "__main__":
    anyio.run(main, backend=os.environ.get("BACKEND", "asyncio"))
