"""A graph that branches: what is done about a candidate, and what is skipped, depends on what is known of them.

Run it:  python examples/topology_candidate.py      (BACKEND=trio runs it on Trio)
It needs no server.

Prints::

    Ann    qualified                      because of 5 years
    Bob    notQualified, removeCandidate  because of 2 years
    Carol  nothing                        because of no such candidate
    Dave   failed: branch not found: node 'determineIfQualified' selected 'qualifed'; its dependents are qualified, notQualified
"""

import os
from typing import Any

import anyio

from nats_jobs.topology import NodeContext, Selected, Topology, TopologyFailed, node, run_topology

YEARS = {"Ann": 5, "Bob": 2, "Dave": 7}


@node()
async def lookup(ctx: NodeContext[Any]) -> int | None:
    (name,) = ctx.data
    return YEARS.get(name)


@node(deps=["lookup"], type="branching")
async def determineIfQualified(ctx: NodeContext[Any]) -> Selected:
    (years,) = ctx.data
    if years is None:
        return ctx.none("no such candidate")

    if years == 7:
        return ctx.branch("qualifed")  # a typing error

    return ctx.branch("qualified" if years > 3 else "notQualified", f"{years} years")


@node(deps=["determineIfQualified"])
async def qualified(ctx: NodeContext[Any]) -> None:
    """Invite them."""


@node(deps=["determineIfQualified"])
async def notQualified(ctx: NodeContext[Any]) -> None:
    """Tell them."""


@node(deps=["notQualified"])
async def removeCandidate(ctx: NodeContext[Any]) -> None:
    """Forget them."""


CANDIDATE = Topology(
    [lookup, determineIfQualified, qualified, notQualified, removeCandidate], name="candidate"
)


async def main() -> None:
    for name in ("Ann", "Bob", "Carol", "Dave"):
        try:
            snapshot = await run_topology(CANDIDATE, name)
        except TopologyFailed as failed:
            print(f"{name.ljust(6)} failed: {failed.errors['determineIfQualified']}")
        else:
            done = [
                each for each in snapshot.names("completed") if each not in ("lookup", "determineIfQualified")
            ]
            print(
                name.ljust(6),
                (", ".join(done) or "nothing").ljust(30),
                "because of",
                snapshot["determineIfQualified"].reason,
            )


if __name__ == "__main__":
    anyio.run(main, backend=os.environ.get("BACKEND", "asyncio"))
