"""A job that can never be performed becomes a dead letter: whole, with why it failed. Repair the cause, and redrive it.

Redriven, it goes back to where it came from, under the id it had, and its attempts are counted from 1 again. When it
fails again its letter tells of every round.

Run it:  python examples/dead_letters.py [nats://127.0.0.1:4222]      (BACKEND=trio runs it on Trio)
Without a URL it starts a NATS server of its own.

Prints::

    parked: ann, rejected: nobody has this address
    parked: bob, exhausted: the mail server is down
    parked: eve, exhausted: the mail server is down
    the mail server is up again
    sent: bob, which was a dead letter once
    sent: eve, which was a dead letter once
    redriven: 2, kept: 0
    redriven once more: ann
    parked: ann, rejected: nobody has this address
      round 1: nobody has this address
      round 2: nobody has this address
    thrown away: 1
"""

import os
import sys
from secrets import token_hex

import anyio

from nats_jobs import Job, JobProcessor, Reject, codecs, dead_letters, events, job, job_processor
from nats_jobs.server import run_server

STREAM = f"MAILS_{token_hex(4)}"  # no other stream has this name
server_is_up = anyio.Event()


@job(STREAM, codec=codecs.TEXT, num_attempts=2, backoff=0.1)
async def send_mail(job: Job[str]) -> None:
    if job.payload == "ann":
        raise Reject("nobody has this address")

    if not server_is_up.is_set():
        raise ConnectionError("the mail server is down")

    was_parked = dead_letters.Header.REDRIVEN in job.headers
    print(f"sent: {job.payload}{', which was a dead letter once' if was_parked else ''}")


async def work(url: str) -> None:
    async with job_processor(url) as p, p.events() as stream:

        async def wait_for(ended: int) -> None:
            async for event in stream:
                ended -= isinstance(event, events.Complete | events.DeadLettered)
                if not ended:
                    return

        await p.start(send_mail)
        for name in ("ann", "bob", "eve"):
            await p.enqueue(send_mail, name)
            await wait_for(ended=1)

        await show_letters(p)
        server_is_up.set()
        print("the mail server is up again")

        # Not those that were rejected: it would not help them. At most 10 a second, so that nothing is flooded.
        outcome = await p.dead_letters.redrive_many(stream=STREAM, reason="exhausted", rate=10)
        await wait_for(ended=outcome.redriven)
        print(f"redriven: {outcome.redriven}, kept: {outcome.kept}")

        async for letter in p.dead_letters.browse(stream=STREAM, limit=1):
            print("redriven once more:", letter.payload())
            await p.dead_letters.redrive(letter.sequence)

        await wait_for(ended=1)
        await show_letters(p)
        print("thrown away:", await p.dead_letters.purge(stream=STREAM))
        await p.stop()
        await p.js.delete_stream(STREAM)


async def show_letters(p: JobProcessor) -> None:
    async for letter in p.dead_letters.browse(stream=STREAM):
        print(f"parked: {letter.payload()}, {letter.reason}: {letter.error}")
        if letter.redriven:
            for number, entry in enumerate(letter.history, 1):
                print(f"  round {number}: {entry.error}")


async def main() -> None:
    if len(sys.argv) > 1:
        await work(sys.argv[1])
    else:
        async with run_server() as server:
            await work(server.url)


if __name__ == "__main__":
    anyio.run(main, backend=os.environ.get("BACKEND", "asyncio"))
