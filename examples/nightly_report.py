"""A report of the day before, each night at 02:30 in Berlin, by one process of however many there are.

The payload is a function of the tick, so the job knows which day it is about whenever it is performed: on time, after
an outage, or when somebody asks for it by hand, as here. When clocks are changed, each night still has one report.

Run it:  python examples/nightly_report.py [nats://127.0.0.1:4222]      (BACKEND=trio runs it on Trio)
Without a URL it starts a NATS server of its own.

Prints::

    the next tick is at night: True
    on the nights at which clocks are changed:
      2027-03-28 03:00:00+02:00 writes of 2027-03-27
      2027-10-31 02:30:00+02:00 writes of 2027-10-30
    asked for by hand: the report of yesterday
    paused, so the next tick is None
"""

import os
import sys
from datetime import UTC, datetime, timedelta
from secrets import token_hex
from zoneinfo import ZoneInfo

import anyio

from nats_jobs import Job, job, job_processor
from nats_jobs.scheduler import Schedule, parse_rule
from nats_jobs.server import run_server

STREAM = f"REPORTS_{token_hex(4)}"  # no other stream has this name
BERLIN = ZoneInfo("Europe/Berlin")
written = anyio.Event()


def day_before(tick: datetime) -> str:
    """The tick comes in the zone of the schedule."""
    return (tick.date() - timedelta(days=1)).isoformat()


@job(STREAM, timeout=600.0)
async def write_report(job: Job[str]) -> None:
    assert job.scheduled_for is not None
    yesterday = day_before(job.scheduled_for.astimezone(BERLIN))
    print("asked for by hand: the report of", "yesterday" if job.payload == yesterday else job.payload)
    written.set()


NIGHTLY = Schedule(
    id="nightly-report",
    rule="30 2 * * *",
    tz="Europe/Berlin",
    target=write_report,
    payload=day_before,
    catch_up="all",  # no night is left out
    window=7 * 86400.0,  # seconds
)


async def work(url: str) -> None:
    async with job_processor(url) as p:
        await p.start(write_report)
        nightly = await p.start_schedule(NIGHTLY)
        assert nightly.next_tick is not None
        print("the next tick is at night:", nightly.next_tick.astimezone(BERLIN).hour in (2, 3))
        print("on the nights at which clocks are changed:")
        for noon_before in (datetime(2027, 3, 27, 12, tzinfo=UTC), datetime(2027, 10, 30, 12, tzinfo=UTC)):
            tick = parse_rule("30 2 * * *", BERLIN).next(noon_before)
            assert tick is not None
            print(f"  {tick.astimezone(BERLIN)} writes of {day_before(tick.astimezone(BERLIN))}")

        await p.schedules.fire("nightly-report")
        await written.wait()
        await p.schedules.pause("nightly-report", note="until the books are closed")
        print("paused, so the next tick is", (await p.schedules.get("nightly-report")).next_tick)
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
