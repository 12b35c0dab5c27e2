"""JetStream on our own connection: nats-py's manager, and what it cannot do on Trio or cannot do well."""

from ._config import (
    ServerConfig as ServerConfig,
    explicit_fields as explicit_fields,
)
from ._confirmation import Enqueued as Enqueued
from ._context import jetstream_context as jetstream_context
from ._delivery import (
    ACK as ACK,
    Answer as Answer,
    Delivery as Delivery,
    is_nak as is_nak,
    nak_answer as nak_answer,
    reply_error as reply_error,
    term_answer as term_answer,
)
from ._publish import publish as publish
from ._publish_many import publish_many as publish_many
from ._pull import Puller as Puller

__all__ = (
    "ACK",
    "Answer",
    "Delivery",
    "Enqueued",
    "Puller",
    "ServerConfig",
    "explicit_fields",
    "is_nak",
    "jetstream_context",
    "nak_answer",
    "publish",
    "publish_many",
    "reply_error",
    "term_answer",
)
