"""The wire is tested on every loop: how bytes are read and sent is the loop's own work."""

from __future__ import annotations

from support.loops import anyio_backend as anyio_backend
