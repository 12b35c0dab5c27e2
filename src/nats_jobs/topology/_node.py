"""What a user declares for one step: `Node`, and the decorator that makes one."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ..backoff import Backoff, check_backoff
from ..errors import UsageError
from ..jobs import is_async
from ._errors import TopologyError

if TYPE_CHECKING:
    from ._topology import Topology

__all__ = ("Kind", "Node", "check_token", "node")

Kind: TypeAlias = Literal["work", "branching", "suspension"]
KINDS: tuple[Kind, ...] = ("work", "branching", "suspension")
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,128}(\.[A-Za-z0-9_-]{1,128})*\Z")


@dataclass(frozen=True, eq=False)
class Node:
    """One step of a topology.

    Raises:
        TopologyError: a value out of its range. The text names the field.
    """

    run: Callable[[Any], Any] | Topology | None = None
    """`async def run(ctx)`; a plain `def` runs in a worker thread; a `Topology` is a sub-graph. Only a suspension may
    have none."""

    _: KW_ONLY

    deps: Iterable[str] = ()
    """Names of the nodes that must be completed first. Their order is that of the input."""

    type: Kind = "work"
    """`work` returns an output, `branching` selects one of its dependents, `suspension` waits for an answer."""

    timeout: float | None = None
    """Seconds for one attempt, above 0; then it is cancelled with TIMEOUT."""

    retries: int = 0
    """Further attempts after the first has failed; 0 or more."""

    backoff: Backoff = 1.0
    """Seconds before each further attempt, as `JobDef.backoff`."""

    join: Literal["all", "any"] = "all"
    """`any`: runs when every dependency is settled and at least one is completed, skipped ones give no input."""

    map: bool = False
    """Call `run` for each item of the one list that is its input; the output is the list of what they return."""

    run_in: Literal["thread", "process"] = "thread"
    """Where a plain `def` runs. `process`: a `work` function at the top of a module, which is given a `DetachedNode`. A
    node that is cut short is killed there; what it returns must be such that JSON can carry it."""

    def __post_init__(self) -> None:
        if isinstance(self.deps, str):
            raise TopologyError(f"deps is the text {self.deps!r}; a list of names is needed")

        object.__setattr__(self, "deps", tuple(self.deps))
        if self.type not in KINDS:
            raise TopologyError(f"type is {self.type!r}; there are: {', '.join(KINDS)}")

        if self.run is None and self.type != "suspension":
            raise TopologyError(f"a node of type {self.type!r} needs something to run")

        if self.join not in ("all", "any"):
            raise TopologyError(f"join is {self.join!r}; 'all' or 'any' is needed")

        if self.map and self.type != "work":
            raise TopologyError(f"map is for nodes of type 'work', not {self.type!r}")

        self._check_run_in()
        self._check_numbers()

    @property
    def __handler__(self) -> object:
        """What a process finds in the place of the function that `@node` was put above."""
        return self.run

    def _check_run_in(self) -> None:
        if self.run_in not in ("thread", "process"):
            raise TopologyError(f"run_in is {self.run_in!r}; 'thread' or 'process' is needed")

        if self.run_in == "process" and (self.type != "work" or is_async(self.run)):
            raise TopologyError("run_in='process' is for a plain def of a node of type 'work'")

    def _check_numbers(self) -> None:
        if self.timeout is not None and not 0 < self.timeout < math.inf:
            raise TopologyError(f"timeout is {self.timeout!r}; seconds above 0 are needed")

        if type(self.retries) is not int or self.retries < 0:
            raise TopologyError(f"retries is {self.retries!r}; a number of 0 or more is needed")

        try:
            check_backoff(self.backoff)
        except UsageError as error:
            raise TopologyError(str(error)) from None


def node(deps: Iterable[str] = (), **options: Any) -> Callable[[Callable[[Any], Any]], Node]:
    """Make a `Node` from the function below it, whose name is the node's: `Topology([fetch, parse])`.

    Args:
        deps: see `Node.deps`.
        **options: the other fields of `Node`.
    """

    def define(run: Callable[[Any], Any]) -> Node:
        return Node(run, deps=deps, **options)

    return define


def check_token(what: str, name: object) -> str:
    """Return `name` when it can be a key in every store.

    Raises:
        TopologyError: it cannot.
    """
    if not isinstance(name, str) or len(name) > 512 or not _TOKEN.match(name):
        raise TopologyError(
            f"{what} {name!r} is not a valid name; only letters, digits, '_' and '-' are allowed"
        )

    return name
