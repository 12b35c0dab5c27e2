"""Where a run takes place: one server or three nodes, each to be reached by links that can be spoilt."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from nats_jobs.server import Server, run_server
from support.cluster import Cluster, run_cluster
from support.proxy import Proxy, fault_proxy

__all__ = ("Site", "run_site")

_LINKS = 3


@dataclass(frozen=True)
class Site:
    """`urls` lead straight to the servers, for who looks on; `links` are for who takes part.

    A worker is given one of the `routes`. To a single server they are one link each, so that some workers lose
    it while others do not. To a cluster there is one, by all nodes: who loses one link goes to another node.
    """

    servers: Server | Cluster
    urls: list[str]
    links: list[Proxy]
    routes: list[str]
    replicas: int


@asynccontextmanager
async def run_site(*, cluster: bool) -> AsyncIterator[Site]:
    """Run the servers and the proxies in front of them. The event loop that this runs in carries all bytes."""
    async with AsyncExitStack() as stack:
        if cluster:
            nodes = await stack.enter_async_context(run_cluster(proxied=True))
            links = await _open_links(stack, nodes.urls)
            yield Site(nodes, nodes.urls, links, [",".join(link.url for link in links)], len(nodes.nodes))
        else:
            server = await stack.enter_async_context(run_server())
            links = await _open_links(stack, [server.url] * _LINKS)
            yield Site(server, [server.url], links, [link.url for link in links], 1)


async def _open_links(stack: AsyncExitStack, urls: list[str]) -> list[Proxy]:
    return [await stack.enter_async_context(fault_proxy(url)) for url in urls]
