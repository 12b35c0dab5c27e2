"""Dead letters whose content somebody else chose: they can be read, redriven and removed, and lead nowhere else."""

from __future__ import annotations

import json
from base64 import b64decode
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest
from hypothesis import given, strategies as st

from nats_jobs import Job, JobDef, Reject, dead_letters, job, job_processor
from nats_jobs.cli import _formatting as texts
from nats_jobs.dead_letters import Header
from nats_jobs.dead_letters._dead_letter import read_history, write_history
from nats_jobs.server import run_server
from support.jobs import LIMIT, in_stream, until_empty

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
        letters = [letter async for letter in p.dead_letters.browse(stream=name)]
        assert [letter.payload() for letter in letters] == ["hostile", "harmless"]
        assert all(text.isprintable() for entry in letters[0].history for text in (entry.reason, entry.error))
        outcome = await p.dead_letters.redrive_many(stream=name)
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
        outcome = await p.dead_letters.redrive_many(stream=name)
        assert (outcome.redriven, outcome.kept) == (1, 0)
        assert await in_stream(p.js, other) == 0
        assert await in_stream(p.js, name) == 1
        await p.stop()


UNREADABLE_HEADERS = (
    b"NATS/1.0\r\nNats-Jobs-Reason: \xff\xfe\r\nNats-Jobs-Subject: \xff\r\n\r\n",
    b"NATS/1.0\r\nno colon\r\n\r\n",
    b"NATS/1.0\r\n: no name\r\n\r\n",
    b"NATS/1.0 503 not a status of the server\r\n\r\n",
    b"NATS/1.0\r\nA: no end",
    b"\r\n\r\n",
    b"no headers",
    b"NATS/1.0\r\nContent-Type: application/json\r\nNats-Jobs-Attempts: 99999999999999999999999\r\n\r\n",
    b"NATS/1.0\r\nNats-Jobs-Enqueued-At: 0001-01-01T00:00:00+14:00\r\n\r\n",
    b"NATS/1.0\r\nContent-Type: \xff/\x00\r\n\r\n",
)
SOME_DAY = datetime(9999, 1, 1, tzinfo=UTC)
UNREADABLE_SUBJECTS = (b"", b".\xff\xfe", b".\x01", b".>", b".*.x")


async def send_raw(url: str, subject: bytes, headers: bytes, data: bytes) -> None:
    """Publish what a client that checks nothing may publish."""
    host, _, port = url.removeprefix("nats://").rpartition(":")
    async with await anyio.connect_tcp(host, int(port)) as stream:
        await stream.receive()
        await stream.send(
            b'CONNECT {"verbose":false,"headers":true,"protocol":1,"lang":"x","version":"1"}\r\n'
        )
        sizes = b"%d %d" % (len(headers), len(headers) + len(data))
        await stream.send(b"HPUB %b %b\r\n%b%b\r\nPING\r\n" % (subject, sizes, headers, data))
        with anyio.fail_after(LIMIT):
            while b"PONG" not in await stream.receive():
                pass


@pytest.mark.anyio
async def test_a_letter_that_nobody_can_read_is_shown_as_it_is_can_be_removed_and_hides_no_other() -> None:
    """Each is read, shown by the command, redriven or kept with a reason, and removed; and so is the one after it."""
    async with run_server() as server, job_processor(server.url) as p:
        await p.api.create_stream(dead_letters.stream_config())
        await p.api.create_stream({"name": "JOBS", "subjects": ["JOBS"]})
        for headers in UNREADABLE_HEADERS:
            await send_raw(server.url, b"dead_letters.JOBS.JOBS", headers, b"[" * 70_000)

        for subject in UNREADABLE_SUBJECTS:
            await send_raw(server.url, b"dead_letters.JOBS" + subject, UNREADABLE_HEADERS[0], b"\xff")

        await send_raw(server.url, b"dead_letters.*.x", UNREADABLE_HEADERS[0], b"")
        await send_raw(server.url, b"dead_letters.JOBS.JOBS", b"NATS/1.0\r\n\r\n", b"harmless")
        total = len(UNREADABLE_HEADERS) + len(UNREADABLE_SUBJECTS) + 2

        letters = [letter async for letter in p.dead_letters.browse()]
        assert [letter.sequence for letter in letters] == list(range(1, total + 1))
        assert await p.dead_letters.count() == await p.dead_letters.count(before=SOME_DAY) == total
        assert letters[0].data == b"[" * 70_000
        for letter in letters:
            assert all(line.isprintable() for line in texts.details(letter).splitlines())
            assert all(cell for cell in texts.table_row(letter)[:5])
            json.loads(texts.as_json(letter, payload=True))

        outcome = await p.dead_letters.redrive_many()
        assert outcome.redriven == len(UNREADABLE_HEADERS) + 1
        assert outcome.kept == len(outcome.failures) == len(UNREADABLE_SUBJECTS) + 1
        last = await p.api.get_message("JOBS", {"last_by_subj": "JOBS"})
        assert last is not None
        assert b64decode(last["data"]) == b"harmless"
        for sequence in outcome.failures:
            await p.dead_letters.remove(sequence)

        assert await p.dead_letters.count() == 0
