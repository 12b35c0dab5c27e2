"""`nats-jobs topology`: list the runs of topologies, show one, answer one that waits, cancel one."""

from __future__ import annotations

import argparse
import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from ..errors import UsageError
from ..processor import JobProcessor, job_processor
from ..topology import KVStore, Node, Snapshot, Topology, cancel_topology, dump_snapshot, topology_job
from ._formatting import printable

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ("add_parser",)

_Action = Callable[[JobProcessor, argparse.Namespace], Awaitable[None]]


def add_parser(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("topology", help="look at runs of topologies, answer those that wait")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    _add(actions, "ls", _list, "list the runs")

    showing = _add(actions, "show", _show, "show the nodes of one run")
    showing.add_argument("id", metavar="ID", help="of the run, from the list")
    showing.add_argument("--mermaid", action="store_true", help="as a Mermaid flowchart")

    resuming = _add(
        actions, "resume", _resume, "answer a suspended run, and enqueue a job that goes on with it"
    )
    resuming.add_argument("id", metavar="ID", help="of the run, from the list")
    resuming.add_argument("--stream", metavar="NAME", required=True, help="where its jobs are")
    resuming.add_argument(
        "--answer",
        metavar="NODE=JSON",
        type=_answer,
        action="append",
        default=[],
        help="for each node that waits",
    )

    cancelling = _add(actions, "cancel", _cancel, "cancel a run for good: no job goes on with it")
    cancelling.add_argument("id", metavar="ID", help="of the run, from the list")
    cancelling.add_argument(
        "--reason", default="cancelled", help="for who looks at it (default: %(default)s)"
    )


def _add(
    actions: _SubParsersAction[argparse.ArgumentParser], name: str, action: _Action, text: str
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument("--server", metavar="URL", help="default: $NATS_URL, else nats://127.0.0.1:4222")
    parser.add_argument(
        "--bucket", default="topologies", help="where the snapshots are (default: %(default)s)"
    )
    if name in ("ls", "show"):
        parser.add_argument("--json", action="store_true", help="one JSON object on each line")

    parser.set_defaults(command=partial(_command, action))
    return parser


def _command(action: _Action, options: argparse.Namespace) -> None:
    try:
        anyio.run(_with_processor, action, options)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


async def _with_processor(action: _Action, options: argparse.Namespace) -> None:
    async with job_processor(options.server) as processor:
        await action(processor, options)


async def _list(processor: JobProcessor, options: argparse.Namespace) -> None:
    store = KVStore(processor, options.bucket)
    ids = await store.ids()
    width = max(map(len, ids), default=0)
    for id in ids:
        if (found := await store.load(id)) is not None:
            print(json.dumps(_summary(id, found[0])) if options.json else _row(id.ljust(width), found[0]))

    if not ids and not options.json:
        print("No runs.")


def _summary(id: str, snapshot: Snapshot) -> dict[str, Any]:
    return {
        "id": id,
        "topology": snapshot.name,
        "status": snapshot.status,
        "attempt": snapshot.attempt,
        "completed": len(snapshot.names("completed")),
        "nodes": len(snapshot.nodes),
        "waits_for": snapshot.suspended,
        "cancelled": snapshot.cancelled,
    }


def _row(id: str, snapshot: Snapshot) -> str:
    fields = _summary(id, snapshot)
    remark = f"  waits for {', '.join(snapshot.suspended)}" if snapshot.suspended else ""
    if snapshot.cancelled is not None:
        remark = f"  cancelled: {snapshot.cancelled}"

    done = f"{fields['completed']} of {fields['nodes']} nodes"
    return f"{id}  {printable(snapshot.name)}  {snapshot.status}  {done}, attempt {snapshot.attempt}{printable(remark)}"


async def _show(processor: JobProcessor, options: argparse.Namespace) -> None:
    found = await KVStore(processor, options.bucket).load(options.id)
    if found is None:
        raise UsageError(f"there is no run {options.id!r} in bucket {options.bucket!r}")

    snapshot, _ = found
    if options.json:
        print(dump_snapshot(snapshot).decode())
    else:
        text = snapshot.to_mermaid() if options.mermaid else snapshot.to_text()
        print("\n".join(map(printable, text.splitlines())))


async def _resume(processor: JobProcessor, options: argparse.Namespace) -> None:
    # What is enqueued names the run only: the functions are with the workers.
    defn = topology_job(_ELSEWHERE, stream=options.stream, store=options.bucket)
    enqueued = await processor.resume_topology(defn, options.id, answers=dict(options.answer))
    print(f"Enqueued: job {enqueued.sequence} of stream {options.stream}.")


async def _cancel(processor: JobProcessor, options: argparse.Namespace) -> None:
    await cancel_topology(KVStore(processor, options.bucket), options.id, reason=options.reason)
    print(f"Cancelled: run {options.id}.")


def _elsewhere(_: object) -> None: ...


_ELSEWHERE = Topology({"elsewhere": Node(_elsewhere)})


def _answer(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"NODE=JSON is needed, such as approval=true, not {text!r}"
        ) from None
