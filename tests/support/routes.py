"""The links between the nodes of a cluster, each through a proxy: one node can be parted from the others."""

from __future__ import annotations

import itertools
from contextlib import AsyncExitStack

from support.proxy import Proxy, fault_proxy

__all__ = ("Routes", "open_routes")


class Routes:
    """By (who calls, who is called), as two nodes have a link whichever of them calls first."""

    def __init__(self, proxies: dict[tuple[int, int], Proxy]) -> None:
        self._proxies = proxies
        self._parted: list[Proxy] = []

    def calls(self, caller: int) -> list[int]:
        """Return the ports at which a node reaches the others."""
        return [proxy.port for (who, _), proxy in self._proxies.items() if who == caller]

    def isolate(self, node: int) -> None:
        """What is sent to it, or by it, disappears from now on."""
        self._parted = [proxy for ends, proxy in self._proxies.items() if node in ends]
        for proxy in self._parted:
            proxy.swallow()

    def unite(self) -> None:
        """Links on which something is missing are of no use any more: they are reset, and the nodes call anew."""
        for proxy in self._parted:
            proxy.cut()
            proxy.restore()


async def open_routes(stack: AsyncExitStack, ports: list[int]) -> Routes:
    """Stand before each node, which listens at its port or will soon, once for each other node."""
    proxies = {
        (caller, called): await stack.enter_async_context(fault_proxy(f"nats://127.0.0.1:{ports[called]}"))
        for caller, called in itertools.permutations(range(len(ports)), 2)
    }
    return Routes(proxies)
