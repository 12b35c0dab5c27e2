"""What the settling and the setting up of jobs need of dead letters."""

from __future__ import annotations

from ..dead_letters import (
    STREAM as STREAM,
    Stranded as Stranded,
    park as park,
    stream_config as stream_config,
)

__all__ = ("STREAM", "Stranded", "park", "stream_config")
