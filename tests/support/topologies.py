"""The three graphs that the Node library's documentation shows, with effects that tests can count."""

from __future__ import annotations

from typing import Any

from nats_jobs.topology import Node, NodeContext, Topology

PEOPLE = {
    "long": {"years": 5},
    "short": {"years": 2},
}


class Scraper:
    """`attachments` fails at the second id until `works` is set."""

    def __init__(self) -> None:
        self.works = False
        self.calls: list[str] = []
        self.written: list[Any] = []
        self.topology = Topology(
            {
                "api": Node(self.api),
                "details": Node(self.details, deps=["api"]),
                "attachments": Node(self.attachments, deps=["api"]),
                "writeToDB": Node(self.write, deps=["details", "attachments"]),
            },
            name="scraper",
        )

    async def api(self, ctx: NodeContext[Any]) -> list[int]:
        self.calls.append("api")
        return [1, 2, 3]

    async def details(self, ctx: NodeContext[Any]) -> dict[str, str]:
        self.calls.append("details")
        return self._each(ctx, fails_at=None)

    async def attachments(self, ctx: NodeContext[Any]) -> dict[str, str]:
        self.calls.append("attachments")
        return self._each(ctx, fails_at=None if self.works else 1)

    def _each(self, ctx: NodeContext[Any], fails_at: int | None) -> dict[str, str]:
        (ids,) = ctx.data
        state = ctx.state or {"index": -1, "output": {}}
        output = state["output"]
        for index in range(state["index"] + 1, len(ids)):
            if index == fails_at:
                raise ValueError("no such attachment")

            output[str(ids[index])] = f"{ctx.node} {ids[index]}"
            ctx.update_state({"index": index, "output": output})

        return output  # type: ignore[no-any-return]

    async def write(self, ctx: NodeContext[Any]) -> None:
        self.calls.append("writeToDB")
        self.written.append(ctx.data)


def candidate() -> Topology:
    async def lookup(ctx: NodeContext[Any]) -> Any:
        return PEOPLE.get(ctx.data[0])

    async def determine(ctx: NodeContext[Any]) -> Any:
        (person,) = ctx.data
        if ctx.context == "typo":
            return ctx.branch("qualifed")

        if person is None:
            return ctx.none("unknown")

        return ctx.branch("qualified", "experience") if person["years"] > 3 else ctx.branch("notQualified")

    async def nothing(ctx: NodeContext[Any]) -> None:
        pass

    return Topology(
        {
            "lookup": Node(lookup),
            "determineIfQualified": Node(determine, deps=["lookup"], type="branching"),
            "qualified": Node(nothing, deps=["determineIfQualified"]),
            "notQualified": Node(nothing, deps=["determineIfQualified"]),
            "removeCandidate": Node(nothing, deps=["notQualified"]),
        },
        name="candidate",
    )


def authorisation(mails: list[Any]) -> Topology:
    async def give(ctx: NodeContext[Any]) -> str:
        return f"{ctx.node} of {ctx.data[0]}"

    async def mail(ctx: NodeContext[Any]) -> None:
        mails.append((ctx.data, ctx.answer))

    return Topology(
        {
            "input": Node(give),
            "lookupA": Node(give, deps=["input"]),
            "lookupB": Node(give, deps=["input"]),
            "authorization": Node(deps=["lookupA", "lookupB"], type="suspension"),
            "email": Node(mail, deps=["authorization"]),
        },
        name="authorisation",
    )
