"""A transactional outbox: an order in the database and its job never disagree, whatever dies in between.

The program that takes orders writes each order and the row of its job in one transaction, and knows nothing of
NATS. A relay enqueues the rows, oldest first, and deletes those that are confirmed. If it is killed between the two,
it enqueues the same rows again: their ids are those of the rows, so the server stores each once (within the stream's
duplicate window; after it, a job is performed twice: make it idempotent, as always).

Here the second order is rolled back, and the relay is killed after it has enqueued and before it has deleted.

Run it:  python examples/outbox.py [nats://127.0.0.1:4222]      (BACKEND=trio runs it on Trio)
Without a URL it starts a NATS server of its own.

Prints::

    order 1: taken
    order 2: rolled back, out of stock
    order 3: taken
    relay: 2 enqueued, then killed
    relay: 2 in the outbox, 2 of them duplicates
    relay: 0 in the outbox
    shipped: apples, pears
"""

import os
import sqlite3
import sys
from contextlib import closing
from secrets import token_hex

import anyio

from nats_jobs import Job, JobProcessor, codecs, job, job_processor
from nats_jobs.server import run_server

BATCH = 100
TABLES = """
    CREATE TABLE orders (number INTEGER PRIMARY KEY, item TEXT NOT NULL);
    CREATE TABLE outbox (id INTEGER PRIMARY KEY AUTOINCREMENT, item TEXT NOT NULL);
"""
STREAM = f"ORDERS_{token_hex(4)}"  # no other stream has this name
OUTBOX = token_hex(4)  # the ids of two databases must not meet
shipped: list[str] = []
finished = anyio.Event()


@job(STREAM, codec=codecs.TEXT)
async def ship(job: Job[str]) -> None:
    shipped.append(job.payload)
    if len(shipped) == 2:
        finished.set()


def take_order(database: sqlite3.Connection, number: int, item: str) -> None:
    try:
        with database:  # one transaction
            database.execute("INSERT INTO orders VALUES (?, ?)", (number, item))
            database.execute("INSERT INTO outbox (item) VALUES (?)", (item,))
            if item == "unicorns":
                raise LookupError("out of stock")
    except LookupError as error:
        print(f"order {number}: rolled back, {error}")
    else:
        print(f"order {number}: taken")


async def relay(p: JobProcessor, database: sqlite3.Connection, *, killed: bool = False) -> None:
    """Enqueue what is in the outbox, and delete what the server has confirmed. A real one does that in a loop."""
    rows = database.execute("SELECT id, item FROM outbox ORDER BY id LIMIT ?", (BATCH,)).fetchall()
    jobs = await p.enqueue_many(
        ship, [item for _, item in rows], ids=[f"{OUTBOX}-{row_id}" for row_id, _ in rows]
    )
    if killed:
        print(f"relay: {len(jobs)} enqueued, then killed")
        return

    with database:
        database.executemany("DELETE FROM outbox WHERE id = ?", [(row_id,) for row_id, _ in rows])

    duplicates = sum(job.duplicate for job in jobs)
    print(f"relay: {len(rows)} in the outbox" + (f", {duplicates} of them duplicates" if rows else ""))


async def work(url: str) -> None:
    with closing(sqlite3.connect(":memory:")) as database:
        database.executescript(TABLES)
        take_order(database, 1, "apples")
        take_order(database, 2, "unicorns")
        take_order(database, 3, "pears")
        async with job_processor(url) as p:
            await p.start(ship)
            await relay(p, database, killed=True)
            await relay(p, database)
            await relay(p, database)
            await finished.wait()
            print("shipped:", ", ".join(sorted(shipped)))
            await p.stop()
            await p.js.delete_stream(STREAM)


async def main() -> None:
    if len(sys.argv) > 1:
        await work(sys.argv[1])
    else:
        async with run_server() as server:
            await work(server.url)


if __name__ == "__main__":
    anyio.run(main, backend=os.environ.get("BACKEND", "asyncio"))
