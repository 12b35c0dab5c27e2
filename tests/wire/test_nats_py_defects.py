"""The defects of nats-py that must not come back here (NATS.md 7), and the test that holds each of them off.

Left out are those that have nothing to do with the wire: 1 to 5 and 12, 17 and 21 are JetStream's, 20 is about speed.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

HERE = Path(__file__).parent

HELD_OFF_BY = {
    "6: an error closes the client for good": [
        "test_server_errors.test_an_error_that_closes_nothing_is_reported_and_nothing_more",
        "test_server_errors.test_an_error_before_the_socket_closes_is_why_the_link_broke",
        "test_server_errors.test_too_many_subscriptions_fail_those_that_came_last",
    ],
    "7: the reader dies silently": ["test_connection.test_a_bug_in_the_reader_is_loud"],
    "8: the read loop spins": ["test_servers.test_a_server_that_takes_us_and_throws_us_out_is_not_stormed"],
    "9: a cancellation is swallowed, or loses a message": [
        "test_subscription.test_cancelling_a_receiver_loses_no_message",
        "test_connection.test_a_cancelled_request_leaves_nothing",
        "test_connection.test_publishing_in_a_loop_can_be_cancelled",
    ],
    "10: flush and drain hang when the link is gone": [
        "test_faults.test_a_flush_fails_at_once_when_the_link_breaks",
        "test_closing.test_leaving_takes_no_longer_than_draining",
        "test_connection.test_a_connection_that_was_left_says_so",
    ],
    "11: requests under way sit until their timeout": [
        "test_faults.test_outstanding_requests_fail_at_once_when_the_link_breaks"
    ],
    "13: the wait before reconnecting is fixed; what is sent meanwhile overflows": [
        "test_servers.test_a_server_that_takes_us_and_throws_us_out_is_not_stormed",
        "test_faults.test_publishes_wait_while_the_link_is_down_and_arrive_afterwards",
        "test_connection.test_what_is_queued_is_bounded",
    ],
    "14: an unreachable peer is kept": [
        "test_faults.test_a_half_open_peer_is_noticed",
        "test_faults.test_a_send_that_is_stuck_is_noticed_while_the_server_still_talks",
    ],
    "15: wrong accounting drops messages": ["test_subscription.test_an_empty_mailbox_counts_no_bytes"],
    "16: headers vanish": [
        "test_messages.test_bytes_that_are_no_utf8_do_not_make_the_headers_vanish",
        "test_messages.test_a_header_may_stand_more_than_once_and_keeps_its_case",
    ],
    "18: tasks leak": [
        "test_closing.test_connections_cancelled_at_random_points_leave_no_task_socket_or_subscription"
    ],
    "19: INFO is ignored": [
        "test_server_errors.test_the_limit_for_payloads_follows_the_server",
        "test_lame_duck.test_the_connection_moves_to_another_server_before_it_is_thrown_out",
    ],
    "22: a response repeats the headers of its request": [
        "test_connection.test_a_request_gets_the_reply_and_responding_repeats_no_headers"
    ],
}


@pytest.mark.parametrize("defect", HELD_OFF_BY)
def test_each_has_a_test(defect: str) -> None:
    for place in HELD_OFF_BY[defect]:
        module, _, test = place.partition(".")
        nodes = ast.parse((HERE / f"{module}.py").read_text()).body
        assert test in {
            node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
