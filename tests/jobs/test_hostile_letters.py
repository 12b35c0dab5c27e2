"""Dead letters whose content somebody else chose: they can be read, redriven and removed, and lead nowhere else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from nats_jobs import Job, JobDef, Reject, dead_letters, job, job_processor
from nats_jobs.dead_letters import Header
from nats_jobs.dead_letters._history import read_history, write_history
from support.jobs import in_stream, until_empty

ENTRIES = st.fixed_dictionaries(
    {
        "at": st.datetimes(timezones=st.timezones()).map(lambda moment: moment.isoformat()),
        "reason": st.text(),
        "attempts": st.integers(),
        "type": st.text(),
        "error": st.text(),
    }
)


async def perform(job: Job[Any]) -> None: ...


HOSTILE_HISTORIES = {
    "deep": "[" * 60_000,
    "infinite": '[{"at":"2024-01-01T00:00:00+00:00","reason":"x","attempts":Infinity,"type":"t","error":"e"}]',
    "without a zone": '[{"at":"2024-01-01","reason":"x","attempts":1,"type":"t","error":"e"}]',
    "before time": '[{"at":"0001-01-01T00:00:00+14:00","reason":"x","attempts":1,"type":"t","error":"e"}]',
    "after time": '[{"at":"9999-12-31T23:59:59-14:00","reason":"x","attempts":1,"type":"t","error":"e"}]',
    "surrogates": '[{"at":"2024-01-01T00:00:00+00:00","reason":"\\ud800","attempts":1,"type":"\\udfff","error":""}]',
    "many digits": '[{"at":"2024-01-01T00:00:00Z","reason":"x","attempts":%s,"type":"t","error":"e"}]'
    % ("9" * 4000),
    "not a list": '{"a":1}',
}


@pytest.mark.anyio
@pytest.mark.parametrize("history", HOSTILE_HISTORIES.values(), ids=HOSTILE_HISTORIES)
async def test_whatever_history_a_producer_sends_its_letter_and_the_others_can_be_read_and_redriven(
    url: str, name: str, history: str
) -> None:
    @job(name)
    async def refuse(job: Job[str]) -> None:
        raise Reject("no")

    async with job_processor(url) as p:
        handle = await p.start(refuse)
        await p.enqueue(refuse, "hostile", headers={Header.HISTORY: history})
        await p.enqueue(refuse, "harmless")
        await until_empty(p.js, name)
        await handle.stop()
        letters = [letter async for letter in dead_letters.browse(p, stream=name)]
        assert [letter.payload() for letter in letters] == ["hostile", "harmless"]
        assert all(text.isprintable() for entry in letters[0].history for text in (entry.reason, entry.error))
        outcome = await dead_letters.redrive_many(p, stream=name)
        await p.stop()

    assert (outcome.redriven, outcome.kept) == (2, 0)


@given(st.text() | st.lists(ENTRIES).map(json.dumps))
def test_any_history_is_read_and_can_be_written_again(text: str) -> None:
    rounds = read_history(text)
    again = write_history(rounds)
    assert len(again.encode()) <= 8192
    newest = read_history(again)
    assert newest == rounds[len(rounds) - len(newest) :]
    assert newest or not rounds


@pytest.mark.anyio
async def test_a_letter_is_redriven_to_the_stream_under_whose_subject_it_lies_whatever_its_headers_say(
    url: str, name: str
) -> None:
    other = f"{name}_OTHER"
    async with job_processor(url) as p:
        for stream in (name, other):
            await (await p.start(JobDef(stream=stream, perform=perform))).stop()

        forged = {
            Header.REASON: "exhausted",
            Header.STREAM: other,
            Header.SUBJECT: other,
            Header.SEQUENCE: "1",
        }
        await p.connection.request(f"dead_letters.{name}.{name}", b"forged", headers=forged)
        outcome = await dead_letters.redrive_many(p, stream=name)
        assert (outcome.redriven, outcome.kept) == (1, 0)
        assert await in_stream(p.js, other) == 0
        assert await in_stream(p.js, name) == 1
        await p.stop()
