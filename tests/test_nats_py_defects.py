"""The defects of nats-py that must not come back here, and the tests that hold each of them off.

Of 17 the half that is about keys is not here: key-value is nats-py's own on our connection, and no part of this
library uses it.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

HERE = Path(__file__).parent

HELD_OFF_BY = {
    "1: a cancelled fetch leaves its request at the server": [
        "jetstream/test_pull.py::test_closing_takes_every_request_back",
        "jetstream/test_pull.py::test_what_is_under_way_while_it_closes_is_still_taken",
        "contract/test_consumer.py::test_a_pull_request_that_was_taken_back_is_not_served",
        "jobs/test_cutting_short.py::test_a_job_that_is_stopped_goes_back_and_loses_no_attempt",
    ],
    "2: a request that has expired makes the next one stall": [
        "jetstream/test_pull.py::test_a_request_that_expires_is_no_longer_outstanding_and_may_be_repeated"
    ],
    "3: a fetch returns early, or with less than is there": [
        "jetstream/test_pull.py::test_what_was_asked_for_arrives_and_no_more",
        "jetstream/test_pull.py::test_a_request_waits_at_the_server_for_messages_to_come",
    ],
    "4: every 409 is taken for a passing one": [
        "jetstream/test_status.py::test_each_row_of_the_table",
        "jetstream/test_pull.py::test_a_consumer_that_is_deleted_while_a_request_waits_is_gone",
        "jetstream/test_pull.py::test_a_consumer_that_does_not_let_a_request_wait_so_long_is_refused",
        "cluster/test_cluster.py::test_a_job_that_outlives_a_change_of_leaders_is_performed_once",
    ],
    "5: nothing is asked for again after a reconnect, and no requests overlap": [
        "jetstream/test_pull.py::test_after_a_restart_of_the_server_it_asks_anew_on_a_fresh_inbox",
        "jetstream/test_pull.py::test_closing_takes_every_request_back",
        "jobs/test_demand.py::test_small_jobs_are_asked_for_in_advance",
    ],
    "6: an error closes the client for good": [
        "wire/test_server_errors.py::test_an_error_that_closes_nothing_is_reported_and_nothing_more",
        "wire/test_server_errors.py::test_an_error_before_the_socket_closes_is_why_the_link_broke",
        "wire/test_server_errors.py::test_too_many_subscriptions_fail_those_that_came_last",
    ],
    "7: the reader dies silently": ["wire/test_connection.py::test_a_bug_in_the_reader_is_loud"],
    "8: the read loop spins": [
        "wire/test_servers.py::test_a_server_that_takes_us_and_throws_us_out_is_not_stormed"
    ],
    "9: a cancellation is swallowed, or loses a message": [
        "wire/test_subscription.py::test_cancelling_a_receiver_loses_no_message",
        "wire/test_connection.py::test_a_cancelled_request_leaves_nothing",
        "wire/test_connection.py::test_publishing_in_a_loop_can_be_cancelled",
    ],
    "10: flush and drain hang when the link is gone": [
        "wire/test_faults.py::test_a_flush_fails_at_once_when_the_link_breaks",
        "wire/test_closing.py::test_leaving_takes_no_longer_than_draining",
        "wire/test_connection.py::test_a_connection_that_was_left_says_so",
    ],
    "11: requests under way sit until their timeout": [
        "wire/test_faults.py::test_outstanding_requests_fail_at_once_when_the_link_breaks"
    ],
    "12: a publish is not repeated while there is no leader": [
        "jobs/test_enqueue.py::test_a_stream_that_is_made_meanwhile_still_gets_the_job",
        "jobs/test_enqueue.py::test_an_enqueue_waits_for_a_server_that_comes_back_and_is_stored_once",
        "cluster/test_cluster.py::test_no_job_is_lost_when_the_leader_of_the_stream_is_killed",
    ],
    "13: the wait before reconnecting is fixed; what is sent meanwhile overflows": [
        "wire/test_servers.py::test_a_server_that_takes_us_and_throws_us_out_is_not_stormed",
        "wire/test_faults.py::test_publishes_wait_while_the_link_is_down_and_arrive_afterwards",
        "wire/test_connection.py::test_what_is_queued_is_bounded",
    ],
    "14: an unreachable peer is kept": [
        "wire/test_faults.py::test_a_half_open_peer_is_noticed",
        "wire/test_faults.py::test_a_send_that_is_stuck_is_noticed_while_the_server_still_talks",
    ],
    "15: wrong accounting drops messages": [
        "wire/test_subscription.py::test_an_empty_mailbox_counts_no_bytes"
    ],
    "16: headers vanish": [
        "wire/test_messages.py::test_bytes_that_are_no_utf8_do_not_make_the_headers_vanish",
        "wire/test_messages.py::test_a_header_may_stand_more_than_once_and_keeps_its_case",
    ],
    "17: ack subjects of other forms are not understood": [
        "jetstream/test_delivery.py::test_the_long_form_with_domain_and_account_and_whatever_comes_after_it"
    ],
    "18: tasks leak": [
        "wire/test_closing.py::test_connections_cancelled_at_random_points_leave_no_task_socket_or_subscription"
    ],
    "19: INFO is ignored": [
        "wire/test_server_errors.py::test_the_limit_for_payloads_follows_the_server",
        "wire/test_lame_duck.py::test_the_connection_moves_to_another_server_before_it_is_thrown_out",
    ],
    "20: a message is copied again and again, and each wait has a task of its own": [
        "wire/test_parser.py::test_the_payload_is_not_looked_at",
        "wire/test_parser.py::test_what_is_kept_is_no_more_than_the_message_under_way",
        "wire/test_subscription.py::test_reading_a_full_mailbox_lets_others_have_their_turns",
    ],
    "21: what a refusal means is read from its HTTP-like code": [
        "jobs/test_enqueue.py::test_a_full_stream_refuses_at_once",
        "jobs/test_enqueue.py::test_a_subject_that_belongs_to_another_stream_is_refused",
    ],
    "22: a response repeats the headers of its request, and an ack is not repeated when its answer is lost": [
        "jetstream/test_delivery.py::test_it_is_settled_once_and_only_the_same_answer_may_be_repeated",
        "wire/test_connection.py::test_a_request_gets_the_reply_and_responding_repeats_no_headers",
    ],
}


@pytest.mark.parametrize("defect", HELD_OFF_BY)
def test_each_has_its_tests(defect: str) -> None:
    for place in HELD_OFF_BY[defect]:
        file, _, test = place.partition("::")
        nodes = ast.walk(ast.parse((HERE / file).read_text()))
        assert test in {
            node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }


def test_none_is_left_out() -> None:
    assert [int(defect.partition(":")[0]) for defect in HELD_OFF_BY] == list(range(1, 23))
