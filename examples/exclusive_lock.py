"""Jobs of one customer are performed one at a time, on however many workers: a lock in NATS's key-value store.

The lock has a time limit and is renewed while it is held. When its holder dies it is free after that limit; a
job that loses it is cancelled, fails with the reason, and is tried again.

Run it:  python examples/exclusive_lock.py [nats://127.0.0.1:4222]      (BACKEND=trio runs it on Trio)
Without a URL it starts a NATS server of its own. Needs nats-server 2.11 or newer (time limits on keys).

Prints::

    job 1 has the lock
    job 2 wants it too, job 1 works on for longer than the limit
    job 1 is done
    job 2 has the lock
    an operator takes the lock away
    job 2 failed: lost the lock 'customer-7': it is not ours any more
    job 2 has the lock
    job 2 is done
"""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from secrets import token_hex

import anyio
import nats.errors
from nats.js import JetStreamContext
from nats.js.errors import BadRequestError, NotFoundError

from nats_jobs import Job, events, job, job_processor
from nats_jobs.server import run_server


class LockLost(Exception):
    """The block was cancelled, because the lock is no longer ours."""


@asynccontextmanager
async def lock(js: JetStreamContext, bucket: str, key: str, *, seconds: int) -> AsyncIterator[None]:
    """Hold the lock `key` in the block; waits until it is free. `seconds` is its time limit, 1 or more.

    Raises LockLost: another has it now, or may have it because it could not be renewed in time.
    """
    held = _Lock(js, bucket, key, seconds)
    await held.acquire()
    failure: Exception | None = None
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(held.renew, group.cancel_scope)
            try:
                yield
            except Exception as error:
                failure = error  # raised below: out of the group it would be inside an ExceptionGroup

            group.cancel_scope.cancel("the block has ended")
    finally:
        if not held.lost:
            # Without a link the time limit will release it.
            with anyio.move_on_after(2, shield=True), suppress(nats.errors.Error):
                await held.write(released=True)

    if held.lost:
        raise LockLost(f"lost the lock {key!r}: {held.lost}") from failure

    if failure:
        raise failure


class _Lock:
    """The newest message of a key is the lock, and knowing its revision is holding it.

    Each write names the revision it replaces, and the server refuses it when there is a newer one. So of two that
    acquire at once one wins; and who was paused beyond the limit can neither renew nor release the lock of the next
    holder. The revision only grows: a store of yours that remembers it can refuse late writes in the same way.
    """

    def __init__(self, js: JetStreamContext, bucket: str, key: str, seconds: int) -> None:
        self._js, self._bucket, self._key, self._seconds = js, bucket, key, seconds
        self._revision = 0
        self._ends = 0.0
        self.lost = ""

    async def acquire(self) -> None:
        while True:
            if await self._is_free() and await self.write():
                return

            await anyio.sleep(0.1)

    async def renew(self, scope: anyio.CancelScope) -> None:
        """Go on renewing; cancel `scope` when the lock is lost."""
        why = "it could not be renewed in time"
        with anyio.CancelScope(deadline=self._ends) as limit:
            while True:
                await anyio.sleep(self._seconds / 3)
                try:
                    if not await self.write():
                        why = "it is not ours any more"
                        break
                except nats.errors.Error:
                    continue  # no link just now; there may be time for another try

                limit.deadline = self._ends

        self.lost = why
        scope.cancel(why)

    async def write(self, *, released: bool = False) -> bool:
        """Replace our revision by a new one with its own time limit; False if ours is not the newest."""
        headers = {
            "Nats-Expected-Last-Subject-Sequence": str(self._revision),
            "Nats-TTL": f"{self._seconds}s",
        }
        if released:
            headers |= {"KV-Operation": "PURGE", "Nats-Rollup": "sub"}

        # The limit counts from asking: so it is over here before it is over at the server.
        ends = anyio.current_time() + self._seconds
        try:
            stored = await self._js.publish(f"$KV.{self._bucket}.{self._key}", headers=headers)
        except BadRequestError as error:
            if error.err_code not in (10071, 10164):  # wrong last sequence
                raise

            return False

        self._revision, self._ends = stored.seq, ends
        return True

    async def _is_free(self) -> bool:
        try:
            newest = await self._js.get_last_msg(f"KV_{self._bucket}", f"$KV.{self._bucket}.{self._key}")
        except NotFoundError:
            self._revision = 0
            return True

        self._revision = newest.seq or 0
        return "KV-Operation" in (newest.headers or {})  # what a release leaves behind


STREAM, LOCKS = f"INVOICES_{token_hex(4)}", f"LOCKS_{token_hex(4)}"  # nobody else has these names
LIMIT = 3  # seconds
one_has_it, two_wants_it, two_has_it, finished = (anyio.Event() for _ in range(4))


@job(STREAM, backoff=0.1)
async def write_invoice(job: Job[int]) -> None:
    number = job.payload
    if number == 2 and job.attempt == 1:
        print("job 2 wants it too, job 1 works on for longer than the limit")
        two_wants_it.set()

    async with lock(job.processor.js, LOCKS, "customer-7", seconds=LIMIT):
        print(f"job {number} has the lock")
        if number == 1:
            one_has_it.set()
            await two_wants_it.wait()
            await anyio.sleep(LIMIT + 0.5)
        elif job.attempt == 1:
            two_has_it.set()
            await anyio.sleep_forever()

        print(f"job {number} is done")

    if number == 2:
        finished.set()


def show(event: events.Event) -> None:
    if isinstance(event, events.Error):
        print(f"job 2 failed: {event.error}")


async def work(url: str) -> None:
    # Two workers, as on two machines.
    async with job_processor(url, on_event=show) as one, job_processor(url, on_event=show) as other:
        store = await one.js.create_key_value(bucket=LOCKS)
        await one.start(write_invoice)
        await other.start(write_invoice)
        await one.enqueue(write_invoice, 1)
        await one_has_it.wait()
        await one.enqueue(write_invoice, 2)
        await two_has_it.wait()
        print("an operator takes the lock away")
        await store.delete("customer-7")
        await finished.wait()
        await one.stop()
        await other.stop()
        await one.js.delete_stream(STREAM)
        await one.js.delete_key_value(LOCKS)


async def main() -> None:
    if len(sys.argv) > 1:
        await work(sys.argv[1])
    else:
        async with run_server() as server:
            await work(server.url)


if __name__ == "__main__":
    anyio.run(main, backend=os.environ.get("BACKEND", "asyncio"))
