"""A native AnyIO client for the NATS protocol. Usable by itself; knows nothing of jobs."""

from ._connect import connect as connect
from ._connection import Connection as Connection
from ._listener import ConnectionListener as ConnectionListener
from ._messages import (
    HeaderInput as HeaderInput,
    Headers as Headers,
    Msg as Msg,
    encode_headers as encode_headers,
    parse_headers as parse_headers,
)
from ._options import ConnectOptions as ConnectOptions, Options as Options
from ._parser import Parser as Parser
from ._request_mux import OnReply as OnReply, Reply as Reply, unwrap_reply as unwrap_reply
from ._statistics import Statistics as Statistics
from ._subjects import (
    check_publish_subject as check_publish_subject,
    check_subscribe_subject as check_subscribe_subject,
    subject_matches as subject_matches,
    unique_token as unique_token,
)
from ._subscription import Subscription as Subscription

__all__ = (
    "ConnectOptions",
    "Connection",
    "ConnectionListener",
    "HeaderInput",
    "Headers",
    "Msg",
    "OnReply",
    "Options",
    "Parser",
    "Reply",
    "Statistics",
    "Subscription",
    "check_publish_subject",
    "check_subscribe_subject",
    "connect",
    "encode_headers",
    "parse_headers",
    "subject_matches",
    "unique_token",
    "unwrap_reply",
)
