"""A native AnyIO client for the NATS protocol. Usable by itself; knows nothing of jobs."""

from ._connect import connect as connect
from ._connection import Connection as Connection
from ._messages import (
    HeaderInput as HeaderInput,
    Headers as Headers,
    Msg as Msg,
    encode_headers as encode_headers,
    parse_headers as parse_headers,
)
from ._options import ConnectOptions as ConnectOptions, Options as Options
from ._parser import Parser as Parser
from ._requests import OnReply as OnReply, Reply as Reply, answer_of as answer_of
from ._statistics import Statistics as Statistics
from ._subjects import (
    check_publish_subject as check_publish_subject,
    check_subscribe_subject as check_subscribe_subject,
    unique_token as unique_token,
)
from ._subscription import Subscription as Subscription
from ._watcher import LinkWatcher as LinkWatcher

__all__ = (
    "ConnectOptions",
    "Connection",
    "HeaderInput",
    "Headers",
    "LinkWatcher",
    "Msg",
    "OnReply",
    "Options",
    "Parser",
    "Reply",
    "Statistics",
    "Subscription",
    "answer_of",
    "check_publish_subject",
    "check_subscribe_subject",
    "connect",
    "encode_headers",
    "parse_headers",
    "unique_token",
)
