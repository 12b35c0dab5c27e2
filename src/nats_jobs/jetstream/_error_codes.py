"""The `err_code`s of JetStream that we act on, by names near those of nats-server's `errors.json`."""

from __future__ import annotations

from enum import IntEnum

__all__ = ("ErrorCode",)


class ErrorCode(IntEnum):
    """Compares equal to the number in `ApiError.err_code` and `PublishRefused.err_code`."""

    CLUSTER_NOT_AVAILABLE = 10008
    CONSUMER_NAME_IN_USE = 10013
    CONSUMER_NOT_FOUND = 10014
    INSUFFICIENT_RESOURCES = 10023
    MESSAGE_NOT_FOUND = 10037
    MESSAGE_TOO_LARGE = 10054
    STREAM_NAME_IN_USE = 10058
    STREAM_NOT_FOUND = 10059
    OTHER_STREAM_EXPECTED = 10060
    SUBJECTS_OVERLAP = 10065
    WRONG_LAST_SEQUENCE = 10071
    HEADERS_TOO_LARGE = 10097
    CONSUMER_EXISTS = 10148
    CONSUMER_DOES_NOT_EXIST = 10149
    DUPLICATE_IN_PROCESS = 10158
    LAST_SEQUENCE_UNAVAILABLE = 10163
    LAST_SEQUENCE_CONFLICT = 10164
    TOO_MANY_REQUESTS = 10167
    BATCH_DISABLED = 10174
    BATCH_INCOMPLETE = 10176
    BATCH_HAS_DUPLICATE_ID = 10201
    TOO_MANY_BATCHES = 10210
