"""JetStream on our own connection: nats-py's manager, and what it cannot do on Trio or cannot do well."""

from ._api import (
    ApiPrefix as ApiPrefix,
    Info as Info,
    JetStreamApi as JetStreamApi,
    api_prefix as api_prefix,
)
from ._change_lock import STREAM_OF_LOCKS as STREAM_OF_LOCKS, changing as changing
from ._delivery import (
    ACK as ACK,
    Delivery as Delivery,
    Settlement as Settlement,
    reply_error as reply_error,
)
from ._error_codes import ErrorCode as ErrorCode
from ._explicit import default_fields as default_fields, explicit_fields as explicit_fields
from ._nats_py import jetstream_context as jetstream_context
from ._pub_ack import Enqueued as Enqueued, parse_pub_ack as parse_pub_ack
from ._publish import publish as publish
from ._publish_batch import (
    MAX_BATCH as MAX_BATCH,
    BatchMessage as BatchMessage,
    publish_all_or_none as publish_all_or_none,
    publish_batch as publish_batch,
)
from ._publish_many import publish_many as publish_many
from ._pull import Puller as Puller
from ._retrying import is_retryable as is_retryable, retrying as retrying

__all__ = (
    "ACK",
    "MAX_BATCH",
    "STREAM_OF_LOCKS",
    "ApiPrefix",
    "BatchMessage",
    "Delivery",
    "Enqueued",
    "ErrorCode",
    "Info",
    "JetStreamApi",
    "Puller",
    "Settlement",
    "api_prefix",
    "changing",
    "default_fields",
    "explicit_fields",
    "is_retryable",
    "jetstream_context",
    "parse_pub_ack",
    "publish",
    "publish_all_or_none",
    "publish_batch",
    "publish_many",
    "reply_error",
    "retrying",
)
