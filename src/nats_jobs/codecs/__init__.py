"""Payloads to bytes and back, and the codec that a content type asks for."""

from __future__ import annotations

from ._base import Codec as Codec
from ._content_types import by_content_type as by_content_type
from ._json import JSON as JSON
from ._msgpack import MSGPACK as MSGPACK
from ._plain import RAW as RAW, TEXT as TEXT
from ._typed import TypedCodec as TypedCodec, typed as typed

__all__ = ("JSON", "MSGPACK", "RAW", "TEXT", "Codec", "TypedCodec", "by_content_type", "typed")
