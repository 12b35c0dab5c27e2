"""For tests of your handlers, without a server: one job to call a handler with, or one whole attempt.

job = fake_job(ship, {"order": 7})
await job.perform()

outcome = await run_job(ship, {"order": 7}, attempt=5)
assert outcome.kind == "dead_lettered"
"""

from ._delivery import DeliveryOptions as DeliveryOptions
from ._fake_job import FakeJob as FakeJob, fake_job as fake_job
from ._run_job import Outcome as Outcome, OutcomeKind as OutcomeKind, run_job as run_job

__all__ = ("DeliveryOptions", "FakeJob", "Outcome", "OutcomeKind", "fake_job", "run_job")
