"""What the server says on a pull inbox means what ADR-37's table of statuses says, row by row."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from nats_jobs.jetstream._status import PullStatus, StatusKind, read_status
from nats_jobs.wire import Msg

PENDING = {"Nats-Pending-Messages": "7", "Nats-Pending-Bytes": "0"}


def status(line: str, headers: dict[str, str] | None = None) -> PullStatus:
    lines = [f"NATS/1.0 {line}", *(f"{name}: {value}" for name, value in (headers or {}).items())]
    return read_status(Msg("_INBOX.a", 1, "", ("\r\n".join(lines) + "\r\n\r\n").encode(), b""))


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("100 Idle Heartbeat", StatusKind.HEARTBEAT),
        ("400 Bad Request - heartbeat value too large", StatusKind.UNPULLABLE),
        ("400 Bad Request - Priority Group missing", StatusKind.UNPULLABLE),
        ("404 No Messages", StatusKind.REQUEST_ENDED),
        ("408 Request Timeout", StatusKind.REQUEST_ENDED),
        ("408 Requests Pending", StatusKind.REQUEST_ENDED),
        ("408 Interest Expired", StatusKind.REQUEST_ENDED),
        ("409 Batch Completed", StatusKind.REQUEST_ENDED),
        ("409 Message Size Exceeds MaxBytes", StatusKind.REQUEST_ENDED),
        ("409 Exceeded MaxWaiting", StatusKind.RETRY_LATER),
        ("409 Exceeded MaxRequestBatch of 5", StatusKind.TOO_LARGE),
        ("409 Exceeded MaxRequestExpires of 5s", StatusKind.UNPULLABLE),
        ("409 Exceeded MaxRequestMaxBytes of 100", StatusKind.UNPULLABLE),
        ("409 Consumer is push based", StatusKind.UNPULLABLE),
        ("409 Consumer Deleted", StatusKind.CONSUMER_DELETED),
        ("409 Leadership Change", StatusKind.ALL_ENDED),
        ("409 Server Shutdown", StatusKind.RETRY_LATER),
        ("412 Required Api Level", StatusKind.RETRY_LATER),
        ("423 Nats-Wrong-Pin-Id", StatusKind.RETRY_LATER),
        ("423 Nats-Pin-Id mismatch", StatusKind.RETRY_LATER),
        ("503", StatusKind.RETRY_LATER),
        ("503 No Responders", StatusKind.RETRY_LATER),
    ],
)
def test_each_row_of_the_table(line: str, kind: StatusKind) -> None:
    read = status(line)
    assert (read.kind, read.text) == (kind, line)
    assert status(line.upper()).kind is kind


@pytest.mark.parametrize(
    "line", ["408 Request Timeout", "409 Batch Completed", "409 Message Size Exceeds MaxBytes"]
)
def test_a_request_that_ended_says_how_many_messages_it_did_not_get(line: str) -> None:
    assert status(line, PENDING).undelivered == 7
    assert status(line).undelivered == 0


def test_the_limit_of_a_request_is_read_from_its_refusal() -> None:
    assert status("409 Exceeded MaxRequestBatch of 5").limit == 5


@given(
    st.integers(0, 999), st.text(st.characters(codec="ascii", exclude_categories=["Cc"])), st.text(max_size=5)
)
def test_a_status_that_nobody_knows_means_back_off_and_is_never_an_error(
    code: int, text: str, number: str
) -> None:
    known = {100, 400, 404, 408, 409, 423, 503}
    read = status(f"{code:03d} {text}", {"Nats-Pending-Messages": number.replace("\r", "").replace("\n", "")})
    assert read.undelivered >= 0
    if code not in known:
        assert read.kind is StatusKind.RETRY_LATER


def test_a_message_without_a_status_means_back_off() -> None:
    assert read_status(Msg("_INBOX.a", 1, "", b"", b"who are you?")).kind is StatusKind.RETRY_LATER
