"""Middleware: a database transaction around each job, an error report, and a header that every job carries.

The first of the list is outermost: `Reports` sees what a handler raises after `Transactions` has rolled back. Both
learn of a timeout, a stop and a lost lease, too: these are cancellations, and `job.reason` says which.
(One job at a time here: they share a connection to the database.)

Run it:  python examples/middleware.py [nats://127.0.0.1:4222]      (BACKEND=trio runs it on Trio)
Without a URL it starts a NATS server of its own.

Prints::

    report: apples of the shop in Bern, attempt 1: OutOfStock
    sold: pears, apples
"""

import os
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from secrets import token_hex
from typing import Any

import anyio

from nats_jobs import EnqueueRequest, Job, Middleware, codecs, job, job_processor
from nats_jobs.server import run_server

STREAM = f"ORDERS_{token_hex(4)}"  # no other stream has this name
database = sqlite3.connect(":memory:", isolation_level=None)
finished = anyio.Event()


class OutOfStock(Exception):
    pass


class Transactions(Middleware):
    """What a job writes is kept if it succeeds, and only then."""

    @asynccontextmanager
    async def around_attempt(self, job: Job[Any]) -> AsyncIterator[None]:
        database.execute("BEGIN")
        try:
            yield
        except BaseException:
            database.execute("ROLLBACK")
            raise
        else:
            database.execute("COMMIT")


class Reports(Middleware):
    @asynccontextmanager
    async def around_attempt(self, job: Job[Any]) -> AsyncIterator[None]:
        try:
            yield
        except Exception as error:
            shop = job.headers["Shop"]
            print(
                f"report: {job.payload} of the shop in {shop}, attempt {job.attempt}: {type(error).__name__}"
            )
            raise


class Shop(Middleware):
    """A header for every job: what a tracer does, which also reads it again in `around_attempt`."""

    @asynccontextmanager
    async def around_enqueue(self, request: EnqueueRequest) -> AsyncIterator[None]:
        request.headers["Shop"] = "Bern"
        yield


@job(STREAM, codec=codecs.TEXT, backoff=0.5)
async def sell(job: Job[str]) -> None:
    database.execute("INSERT INTO sold VALUES (?)", (job.payload,))
    if job.payload == "apples" and job.attempt == 1:
        raise OutOfStock

    if job.payload == "apples":
        finished.set()


async def work(url: str) -> None:
    with closing(database):
        database.execute("CREATE TABLE sold (item TEXT)")
        async with job_processor(url, middleware=[Reports(), Transactions(), Shop()]) as p:
            await p.start(sell)
            await p.enqueue_many(sell, ["apples", "pears"])
            await finished.wait()
            await p.stop()
            print("sold:", ", ".join(item for (item,) in database.execute("SELECT item FROM sold")))
            await p.js.delete_stream(STREAM)


async def main() -> None:
    if len(sys.argv) > 1:
        await work(sys.argv[1])
    else:
        async with run_server() as server:
            await work(server.url)


if __name__ == "__main__":
    anyio.run(main, backend=os.environ.get("BACKEND", "asyncio"))
