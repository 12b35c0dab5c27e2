"""For tests of your handlers without a server: one job to call a handler with, or one whole attempt.

job = fake_job(ship, {"order": 7})
await job.perform()

outcome = await run_job(ship, {"order": 7}, attempt=5)
assert outcome.kind == "dead_lettered"

With a server, which the fixture `nats_url` of the pytest plugin gives: what was enqueued, and when all of it is done.

await assert_enqueued(p, ship, {"order": 7})
await drain(p)
"""

from ._delivery import DeliveryOptions as DeliveryOptions
from ._drain import drain as drain
from ._fake_job import FakeJob as FakeJob, fake_job as fake_job
from ._run_job import Outcome as Outcome, OutcomeKind as OutcomeKind, run_job as run_job
from ._stored import (
    assert_enqueued as assert_enqueued,
    enqueued_payloads as enqueued_payloads,
    set_up_streams as set_up_streams,
)

__all__ = (
    "DeliveryOptions",
    "FakeJob",
    "Outcome",
    "OutcomeKind",
    "assert_enqueued",
    "drain",
    "enqueued_payloads",
    "fake_job",
    "run_job",
    "set_up_streams",
)
