"""`nats-jobs schedule`, as a shell sees it."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from nats_jobs.cli import main

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
