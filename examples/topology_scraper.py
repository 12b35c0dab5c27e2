"""A scraper as a job: when one of its steps fails, the next attempt goes on with that step, where it was.

Run it:  python examples/topology_scraper.py [nats://127.0.0.1:4222]      (BACKEND=trio runs it on Trio)
Without a URL it starts a NATS server of its own.

Prints::

    api
    details: 1 2 3
    attachments: 1
      nodes of topology 'scraper' failed: attachments: no answer for 2
    attachments: 2 3
    writeToDB: detail 1, detail 2, detail 3 | attachment 1, attachment 2, attachment 3
    completed in attempt 2
"""

import os
import sys
from secrets import token_hex
from typing import Any

import anyio

from nats_jobs import events, job_processor
from nats_jobs.server import run_server
from nats_jobs.topology import KVStore, NodeContext, Topology, node, topology_job

STREAM = f"SCRAPER_{token_hex(4)}"  # no other stream has this name


@node()
async def api(ctx: NodeContext[Any]) -> list[int]:
    print("api")
    return [1, 2, 3]


@node(deps=["api"])
async def details(ctx: NodeContext[Any]) -> dict[str, str]:
    return fetch_each(ctx, "detail")


@node(deps=["api"])
async def attachments(ctx: NodeContext[Any]) -> dict[str, str]:
    return fetch_each(ctx, "attachment", fails_at=1 if ctx.state is None else None)


def fetch_each(ctx: NodeContext[Any], what: str, fails_at: int | None = None) -> dict[str, str]:
    (ids,) = ctx.data
    # What an attempt before this one has recorded.
    state = ctx.state or {"index": -1, "output": {}}
    fetched: list[int] = []
    try:
        for index in range(state["index"] + 1, len(ids)):
            if index == fails_at:
                raise ConnectionError(f"no answer for {ids[index]}")

            fetched.append(ids[index])
            state = {"index": index, "output": state["output"] | {str(ids[index]): f"{what} {ids[index]}"}}
            ctx.update_state(state)
    finally:
        print(f"{ctx.node}:", *fetched)

    output: dict[str, str] = state["output"]
    return output


@node(deps=["details", "attachments"])
async def writeToDB(ctx: NodeContext[Any]) -> None:
    print("writeToDB:", " | ".join(", ".join(each.values()) for each in ctx.data))


SCRAPER = Topology([api, details, attachments, writeToDB], name="scraper")


def show(event: events.Event) -> None:
    if isinstance(event, events.Error):
        print(f"  {event.error}")


async def work(url: str) -> None:
    # One node at a time, so that they print in order. The snapshots are in a bucket that has the name of the stream.
    defn = topology_job(SCRAPER, stream=STREAM, store=STREAM, max_concurrency=1, backoff=0.1)
    async with job_processor(url, on_event=show) as p, p.events() as stream:
        await p.start(defn)
        await p.enqueue(defn, {"topologyId": "monday"})
        async for event in stream:
            if isinstance(event, events.Complete):
                break

        found = await KVStore(p, STREAM).load("monday")
        assert found is not None
        print(f"{found[0].status} in attempt {found[0].attempt}")
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
