"""SIGTERM in the middle of a job: it is finished and acknowledged, and what has not started is left for others.

The processor does this by itself with `stop_signals`. Running jobs have `stop_grace` seconds (30 by default);
what takes longer is cancelled and handed back. A second signal ends the grace at once.

Run it:  python examples/graceful_success.py [nats://127.0.0.1:4222]      (BACKEND=trio runs it on Trio)
Without a URL it starts a NATS server of its own.

Prints::

    Start
    Receive first
    Complete first
    Receive second
      half done, when SIGTERM comes
    Stop: 1 job in hand has 30 s
      finished in spite of it
    Complete second
    left for the next worker: 1 job
"""

import os
import signal
import sys
from secrets import token_hex

import anyio

from nats_jobs import Job, codecs, events, job, job_processor
from nats_jobs.server import run_server

STREAM = f"MAILS_{token_hex(4)}"  # no other stream has this name


@job(STREAM, codec=codecs.TEXT)
async def send_mail(job: Job[str]) -> None:
    if job.payload == "second":
        print("  half done, when SIGTERM comes")
        os.kill(os.getpid(), signal.SIGTERM)  # as `docker stop` or systemd would
        await job.wait_stopping()
        print("  finished in spite of it")


def show(event: events.Event) -> None:
    match event:
        case events.Stop(running=running, grace=grace):
            print(f"Stop: {running} job in hand has {grace:.0f} s")
        case events.Receive() | events.Complete():
            print(type(event).__name__, event.id)
        case events.Start():
            print("Start")


async def work(url: str) -> None:
    async with job_processor(url, stop_signals=(signal.SIGTERM, signal.SIGINT), on_event=show) as p:
        worker = await p.start(send_mail)
        for name in ("first", "second", "third"):
            await p.enqueue(send_mail, name, id=name)

        await worker.wait_stopped()
        info = await p.js.stream_info(STREAM)
        print(f"left for the next worker: {info.state.messages} job")
        await p.js.delete_stream(STREAM)


async def main() -> None:
    if len(sys.argv) > 1:
        await work(sys.argv[1])
    else:
        async with run_server() as server:
            await work(server.url)


if __name__ == "__main__":
    anyio.run(main, backend=os.environ.get("BACKEND", "asyncio"))
