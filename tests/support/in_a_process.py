"""Functions of nodes that run in processes: at the top of a module, where a process finds them."""

from __future__ import annotations

import os
import time
from pathlib import Path

from nats_jobs.topology import DetachedNode


def pid(ctx: DetachedNode) -> int:
    ctx.update_state("half")
    return os.getpid()


def give(ctx: DetachedNode) -> list[int]:
    return list(ctx.context["numbers"])


def double(ctx: DetachedNode) -> int:
    return 2 * int(ctx.data[0])


def fails(ctx: DetachedNode) -> None:
    raise ValueError(ctx.node)


def dies(ctx: DetachedNode) -> None:
    os._exit(3)


def sleeps(ctx: DetachedNode) -> None:
    Path(ctx.data[0]).write_text(str(os.getpid()))
    ctx.update_state("begun")
    time.sleep(60)
