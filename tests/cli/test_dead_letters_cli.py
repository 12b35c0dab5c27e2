"""`nats-jobs dead-letters`, as a shell sees it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from nats_jobs import Reject, job_processor
from nats_jobs.cli import main
from nats_jobs.dead_letters import Header
from support.jobs import in_stream, until
from support.letters import hopeless, letters_of, park_jobs

COMMAND = (sys.executable, "-W", "error", "-m", "nats_jobs", "dead-letters")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(url: str, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run one action in this process: exit code, stdout, stderr."""

    def run(action: str, *arguments: str) -> tuple[int, str, str]:
        try:
            code = main(["dead-letters", action, "--server", url, *arguments])
        except SystemExit as left:
            code = int(str(left.code))

        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def park(url: str, name: str, *payloads: Any, **options: Any) -> list[int]:
    """Park jobs: rejected when the payload is odd, else exhausted. Return the numbers of the letters."""

    async def parked() -> list[int]:
        fail = hopeless(name, lambda job: Reject("odd") if job.payload % 2 else ValueError("even"))
        await park_jobs(url, fail, payloads, **options)
        async with job_processor(url) as p:
            return [letter.sequence for letter in await letters_of(p, name)]

    return anyio.run(parked)


def count(url: str, name: str) -> tuple[int, int]:
    """How many jobs and how many dead letters a stream has."""

    async def counted() -> tuple[int, int]:
        async with job_processor(url) as p:
            return await in_stream(p.js, name), await p.dead_letters.count(stream=name)

    return anyio.run(counted)


def test_a_list_is_a_table_with_a_line_for_each_letter(url: str, name: str, run: Run) -> None:
    """In columns, so that a program can cut it."""
    first, second = park(url, name, 0, 1)
    code, out, err = run("list", "--stream", name)
    assert (code, err) == (0, "")
    head, *lines = out.splitlines()
    starts = [
        head.index(title) for title in ("NUMBER", "STREAM", "JOB", "REASON", "ATTEMPTS", "REDRIVEN", "ERROR")
    ]
    cells = [[line[start:].split("  ")[0].strip() for start in starts] for line in lines]
    assert [cell[:2] + cell[3:] for cell in cells] == [
        [str(first), name, "exhausted", "1", "0", "ValueError: even"],
        [str(second), name, "rejected", "1", "0", "Reject: odd"],
    ]


def test_a_list_can_be_narrowed_and_gone_on_with(url: str, name: str, run: Run) -> None:
    """When there are more, stderr says how to see them."""
    numbers = park(url, name, *range(6))
    assert len(run("list", "--stream", name, "--reason", "rejected")[1].splitlines()) == 1 + 3
    code, out, err = run("list", "--stream", name, "--limit", "4")
    assert (code, len(out.splitlines())) == (0, 1 + 4)
    assert f"--after {numbers[3]}" in err
    code, out, err = run("list", "--stream", name, "--limit", "2", "--after", str(numbers[3]))
    assert (code, len(out.splitlines()), err) == (0, 1 + 2, "")
    assert len(run("list", "--stream", name, "--all")[1].splitlines()) == 1 + 6
    assert run("list", "--stream", name, "--before", "2020-01-01") == (0, "No dead letters.\n", "")


def test_a_long_list_comes_in_pieces_with_one_head(url: str, name: str, run: Run) -> None:
    """So that memory is bounded."""
    park(url, name, *range(230))
    lines = run("list", "--stream", name, "--all")[1].splitlines()
    assert len(lines) == 1 + 230
    assert sum(line.startswith("NUMBER") for line in lines) == 1


def test_a_list_in_json_has_an_object_on_each_line(url: str, name: str, run: Run) -> None:
    """No payloads: `show` has them."""
    numbers = park(url, name, 0, 1)
    code, out, err = run("list", "--stream", name, "--json")
    letters = [json.loads(line) for line in out.splitlines()]
    assert (code, err, [letter["number"] for letter in letters]) == (0, "", numbers)
    assert [(letter["reason"], letter["error"]) for letter in letters] == [
        ("exhausted", "even"),
        ("rejected", "odd"),
    ]
    assert not {"data", "payload"} & set(letters[0])
    assert run("list", "--stream", name, "--json", "--before", "2020-01-01") == (0, "", "")


def test_one_letter_is_shown_with_everything(url: str, name: str, run: Run) -> None:
    """Headers, history and payload."""
    [number] = park(url, name, 7, id="job-7", headers={"X-Mine": ["a", "\x1b[31m"]})
    code, out, err = run("show", str(number))
    facts = [line.split(None, 1) for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert ["id", "job-7"] in facts
    assert ["payload", "7"] in facts
    assert [fact[1].split() for fact in facts if fact[0] == "header" and "X-Mine" in fact[1]] == [
        ["X-Mine", "a"],
        ["X-Mine", "?[31m"],
    ]
    assert "\x1b" not in out
    assert "rejected, attempt 1: Reject: odd" in out
    shown = json.loads(run("show", str(number), "--json")[1])
    assert (shown["id"], shown["payload"], shown["headers"]["X-Mine"]) == ("job-7", 7, ["a", "\x1b[31m"])
    assert [entry["reason"] for entry in shown["history"]] == ["rejected"]


def test_a_payload_that_json_cannot_carry_is_shown_all_the_same(url: str, name: str, run: Run) -> None:
    """As bytes."""

    async def parked() -> int:
        async with job_processor(url) as p:
            await park_jobs(url, hopeless(name), [])
            await p.connection.request(
                f"dead_letters.{name}.x", b"\xff{", headers={"Content-Type": "application/json"}
            )
            [letter] = await letters_of(p, name)
            return letter.sequence

    number = str(anyio.run(parked))
    assert r"b'\xff{'" in run("show", number)[1]
    shown = json.loads(run("show", number, "--json")[1])
    assert (shown["data"], "payload" in shown) == ("/3s=", False)


def test_a_letter_that_cannot_be_read_is_listed_and_removed_and_the_others_stay(
    url: str, name: str, run: Run
) -> None:
    """Anybody may have stored it: its history nests too deeply, its numbers are none, its payload is no JSON."""
    [readable] = park(url, name, 0)

    async def stored() -> int:
        headers = {
            Header.HISTORY: "[" * 60_000,
            Header.ATTEMPTS: "9" * 5000,
            "Content-Type": "application/json",
        }
        async with job_processor(url) as p:
            await p.connection.request(f"dead_letters.{name}.x", b"\xff{", headers=headers)
            return [letter.sequence for letter in await letters_of(p, name)][-1]

    number = anyio.run(stored)
    code, out, _ = run("list", "--stream", name)
    assert (code, len(out.splitlines())) == (0, 1 + 2)
    assert run("show", str(number))[0] == 0
    assert run("purge", str(number), "--yes") == (0, "Purged: 1.\n", "")
    assert [
        json.loads(line)["number"] for line in run("list", "--stream", name, "--json")[1].splitlines()
    ] == [readable]


def test_letters_are_redriven_by_number_by_filter_and_all(url: str, name: str, run: Run) -> None:
    """It says what became of each."""
    numbers = park(url, name, *range(6))
    code, out, err = run("redrive", str(numbers[0]), str(numbers[2]))
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"Dead letter {numbers[0]} is job 7 of stream {name}.",
        f"Dead letter {numbers[2]} is job 8 of stream {name}.",
    ]
    assert run("redrive", "--stream", name, "--reason", "rejected", "--limit", "2") == (
        0,
        "Redriven: 2.\n",
        "",
    )
    assert count(url, name) == (4, 2)
    code, out, err = run("redrive", "--stream", name, "--rate", "50", "--json")
    assert (code, json.loads(out), err) == (0, {"redriven": 2, "kept": 0}, "")
    assert count(url, name) == (6, 0)


def test_all_and_purging_need_a_yes(url: str, name: str, run: Run) -> None:
    """Without it nothing is done, and the number of letters is told."""
    numbers = park(url, name, *range(4))
    for arguments in (("purge", "--stream", name), ("purge", *map(str, numbers))):
        code, out, err = run(*arguments)
        assert (code, out) == (1, "")
        assert "purge 4 dead letters, say --yes" in err

    for action in ("redrive", "purge"):
        code, out, err = run(action, "--all")
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert "--yes" in err

    assert count(url, name) == (0, 4)
    assert run("purge", "--yes", str(numbers[0])) == (0, "Purged: 1.\n", "")
    assert run("purge", "--yes", "--stream", name, "--reason", "rejected") == (0, "Purged: 2.\n", "")
    code, out, _ = run("purge", "--yes", "--stream", name, "--json")
    assert (code, json.loads(out)) == (0, {"purged": 1})
    assert count(url, name) == (0, 0)


def test_what_could_not_be_redriven_ends_with_1_and_is_counted(url: str, name: str, run: Run) -> None:
    """The others are redriven."""
    [number] = park(url, name, 0)

    async def forget_stream() -> None:
        async with job_processor(url) as p:
            await p.js.delete_stream(name)

    anyio.run(forget_stream)
    code, out, err = run("redrive", "--stream", name)
    assert (code, out, err.count("\n")) == (1, "Redriven: 0.\n", 1)
    assert f"1 could not be redriven and are kept; the first, number {number}" in err
    code, out, err = run("redrive", str(number))
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "does not exist any more" in err
    assert run("purge", "--yes", str(number))[0] == 0


@pytest.mark.parametrize("action", ["show", "redrive"])
def test_a_number_that_is_not_there_ends_with_1_and_one_line(run: Run, action: str) -> None:
    """No traceback."""
    code, out, err = run(action, "999999999")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("nats-jobs: there is no dead letter 999999999")


def test_no_server_ends_with_1_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """It names the server."""
    assert main(["dead-letters", "list", "--server", "nats://127.0.0.1:1"]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "127.0.0.1:1" in err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["frobnicate"],
        ["show"],
        ["show", "x"],
        ["show", "0"],
        ["list", "--reason", "bored"],
        ["list", "--limit", "0"],
        ["list", "--after", "-1"],
        ["list", "--before", "yesterday"],
        ["redrive"],
        ["redrive", "1", "--all"],
        ["redrive", "--all", "--stream", "X"],
        ["redrive", "1", "--rate", "2"],
        ["redrive", "--all", "--rate", "0"],
        ["redrive", "--all", "--rate", "fast"],
        ["purge", "--yes"],
    ],
)
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Also when it does not say which letters are meant."""
    with pytest.raises(SystemExit) as caught:
        main(["dead-letters", *arguments])

    assert caught.value.code == 2
    assert "usage: nats-jobs dead-letters" in capsys.readouterr().err


def test_ctrl_c_ends_a_slow_redrive_without_a_traceback(url: str, name: str) -> None:
    """What was redriven stays so, and what was not stays a letter."""
    park(url, name, 0, 2)
    arguments = ["redrive", "--server", url, "--stream", name, "--rate", "0.01"]
    with subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            anyio.run(until_redriven, url, name)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()

    assert (process.returncode, out, err) == (130, "", "")
    assert count(url, name) == (1, 1)


async def until_redriven(url: str, name: str) -> None:
    async with job_processor(url) as p:

        async def one_is() -> bool:
            return await p.dead_letters.count(stream=name) == 1

        await until(one_is)
