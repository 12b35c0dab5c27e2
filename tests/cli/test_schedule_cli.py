"""`nats-jobs schedule`, as a shell sees it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from nats.js.api import StreamConfig

from nats_jobs import JobDef, job_processor
from nats_jobs.cli import main
from nats_jobs.server import Server

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            code = main(["schedule", *arguments])
        except SystemExit as left:
            code = int(str(left.code))

        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def test_the_coming_ticks_of_a_rule_are_printed_without_a_server(run: Run) -> None:
    found = run("next", "30 2 * * *", "--tz", "Europe/Berlin", "--after", "2027-03-27T00:00Z", "--count", "3")
    assert found == (
        0,
        (
            "At 02:30 every day, Europe/Berlin time.\n"
            "2027-03-27 02:30:00+01:00  Sat  2027-03-27T01:30:00.000000Z\n"
            "2027-03-28 03:00:00+02:00  Sun  2027-03-28T01:00:00.000000Z\n"
            "2027-03-29 02:30:00+02:00  Mon  2027-03-29T00:30:00.000000Z\n"
        ),
        "",
    )


def test_the_ticks_as_json(run: Run) -> None:
    code, out, _ = run(
        "next", "@every 90s offset 5s", "--after", "2027-01-01T00:00", "--count", "2", "--json"
    )
    assert code == 0
    assert [json.loads(line)["tick"] for line in out.splitlines()] == [
        "2027-01-01T00:00:05.000000Z",
        "2027-01-01T00:01:35.000000Z",
    ]


def test_ten_ticks_from_now_are_the_default(run: Run) -> None:
    assert len(run("next", "@hourly")[1].splitlines()) == 11


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["61 * * * *"], 1, "nats-jobs: schedule, rule: '61 * * * *': bad minute (0-59)\n"),
        (["@hourly", "--tz", "Mars"], 1, "'Mars' is not the name of a time zone"),
        (["@hourly", "--after", "noon"], 2, "a date and time is needed, not 'noon'"),
        (["@hourly", "--count", "0"], 2, "a number, 1 or more, is needed, not '0'"),
    ],
)
def test_what_is_no_rule_is_an_error(run: Run, arguments: list[str], code: int, reason: str) -> None:
    found, out, error = run("next", *arguments)
    assert (found, out) == (code, "")
    assert reason in error


# Stored schedules...


@pytest.fixture
def stream(url: str, name: str) -> str:
    """A stream that takes the subject of its name."""

    async def create() -> None:
        async with job_processor(url) as p:
            await p.js.add_stream(StreamConfig(name=name, subjects=[name]))

    anyio.run(create)
    return name


def perform(url: str, stream: str, count: int) -> list[tuple[Any, str | None]]:
    """Perform jobs; return the payload of each and the schedule that it is of."""
    found: list[tuple[Any, str | None]] = []

    async def work() -> None:
        async with job_processor(url) as p:

            async def handler(job: Any) -> None:
                found.append((job.payload, job.schedule_id))
                if len(found) == count:
                    p.stop_soon()

            p.start_soon(JobDef[Any](stream=stream, perform=handler))

    anyio.run(work)
    return found


def test_a_schedule_from_its_declaration_to_its_end(run: Run, shared_server: Server, stream: str) -> None:
    def command(action: str, *arguments: str) -> tuple[int, str, str]:
        return run(action, "--server", shared_server.url, *arguments)

    id = f"report-{stream}"
    declaration = [id, "30 2 * * *", stream, "--tz", "Europe/Berlin", "--payload", '{"of": "sales"}']
    assert command("add", *declaration, "--catch-up", "all", "--limit", "3") == (0, f"Declared: {id}.\n", "")
    (line,) = (line for line in command("ls")[1].splitlines() if id in line)
    assert line.startswith(f"{id}  30 2 * * * Europe/Berlin  {stream}  0 jobs  next 2")

    code, shown, _ = command("show", id)
    assert code == 0
    assert "At 02:30 every day, Europe/Berlin time" in shown
    assert "catch up     all, 1000 at most, none older than 86400 s" in shown
    assert "jobs         0 of 3" in shown
    assert shown.count(" 02:30:00+0") + shown.count(" 03:00:00+0") == 5

    assert command("fire", id)[1].startswith("Enqueued: job ")
    assert perform(shared_server.url, stream, 1) == [({"of": "sales"}, id)]

    assert command("pause", id, "--note", "holidays\x1b[2J") == (0, f"Paused: {id}.\n", "")
    assert "paused: holidays?[2J" in command("show", id)[1]
    assert command("resume", id, "--json") == (0, json.dumps({"resumed": id}) + "\n", "")
    fields = json.loads(command("show", id, "--json")[1])
    assert (fields["id"], fields["paused"], fields["rule"]) == (id, False, "30 2 * * *")

    assert command("remove", id) == (0, f"Removed: {id}.\n", "")
    assert command("show", id) == (
        1,
        "",
        f"nats-jobs: schedule '{id}', id: there is no schedule of that id\n",
    )
    assert id not in command("ls", "--json")[1]


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["a.b", "@hourly", "SUBJECT"], 1, "schedule, id: 'a.b'"),
        (["a", "61 * * * *", "SUBJECT"], 1, "schedule 'a', rule: '61 * * * *': bad minute"),
        (["a", "@hourly", "nobody.takes.this"], 1, "no stream takes the subject 'nobody.takes.this'"),
        (["a", "@hourly", "SUBJECT", "--window", "0"], 1, "schedule 'a', window: "),
        (["a", "@hourly", "SUBJECT", "--payload", "{"], 2, "JSON is needed, not '{'"),
        (["a", "@hourly", "SUBJECT", "--start", "noon"], 2, "a date and time is needed"),
        (["a", "@hourly", "SUBJECT", "--catch-up", "some"], 2, "invalid choice"),
    ],
)
def test_what_cannot_be_declared_is_an_error(
    run: Run, shared_server: Server, stream: str, arguments: list[str], code: int, reason: str
) -> None:
    arguments = [stream if argument == "SUBJECT" else argument for argument in arguments]
    found, out, error = run("add", "--server", shared_server.url, *arguments)
    assert (found, out) == (code, "")
    assert reason in error
