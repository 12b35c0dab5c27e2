"""JetStream on our own connection: nats-py's manager, and what it cannot do on Trio or cannot do well."""

from ._api import (
    ApiPrefix as ApiPrefix,
    Info as Info,
    JetStreamApi as JetStreamApi,
    api_prefix as api_prefix,
)
from ._delivery import (
    ACK as ACK,
    Answer as Answer,
    Delivery as Delivery,
    is_nak as is_nak,
    nak_answer as nak_answer,
    reply_error as reply_error,
    term_answer as term_answer,
)
from ._error_codes import ErrorCode as ErrorCode
from ._explicit import explicit_fields as explicit_fields
from ._nats_py import jetstream_context as jetstream_context
from ._pub_ack import Enqueued as Enqueued
from ._publish import publish as publish
from ._publish_many import publish_many as publish_many
from ._pull import Puller as Puller
from ._retrying import is_retryable as is_retryable, retrying as retrying

__all__ = (
    "ACK",
    "Answer",
    "ApiPrefix",
    "Delivery",
    "Enqueued",
    "ErrorCode",
    "Info",
    "JetStreamApi",
    "Puller",
    "api_prefix",
    "explicit_fields",
    "is_nak",
    "is_retryable",
    "jetstream_context",
    "nak_answer",
    "publish",
    "publish_many",
    "reply_error",
    "retrying",
    "term_answer",
)
