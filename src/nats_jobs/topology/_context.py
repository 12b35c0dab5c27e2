"""What a node's function is given."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from threading import get_ident
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio
from anyio import from_thread

from ..jobs import CancelReason
from ._errors import TopologyError
from ._unset import UNSET

if TYPE_CHECKING:
    from ._run import Run

__all__ = ("NodeContext", "Selected", "branch", "none")

C = TypeVar("C")

_SHIELD_LIMIT = 30.0


@dataclass(frozen=True, slots=True)
class Selected:
    """What a branching node returns: made by `branch` or `none`."""

    name: str | None
    reason: str | None = None


def branch(name: str, reason: str | None = None) -> Selected:
    """Select the dependent `name`; the other direct ones are skipped."""
    return Selected(name, reason)


def none(reason: str | None = None) -> Selected:
    """Select none of the dependents."""
    return Selected(None, reason)


class NodeContext(Generic[C]):
    """One attempt at one node, or at one item of a node with `map`."""

    branch = staticmethod(branch)
    none = staticmethod(none)

    def __init__(
        self,
        run: Run,
        node: str,
        data: tuple[Any, ...],
        state: Any,
        attempt: int,
        store_state: Callable[[Any], None],
    ) -> None:
        self.data = data
        """What the dependencies gave, in their order: a copy of this node's own."""
        self.node = node
        self.attempt = attempt
        """Counts the attempts in this run, from 1."""
        self.scope = anyio.CancelScope()
        self._run = run
        self._state = state
        self._store_state = store_state
        self._reason: CancelReason | None = None
        self._times_out_at = math.inf
        self._thread = get_ident()
        self._deadline = math.inf
        self._started = False

    @property
    def context(self) -> C:
        """What was given to the run as `context`; it is never stored."""
        context: C = self._run.context
        return context

    @property
    def state(self) -> Any:
        """What was last passed to `update_state`, in this run or the one that is resumed; None if nothing was."""
        return None if self._state is UNSET else deepcopy(self._state)

    def update_state(self, value: Any) -> None:
        """Record how far the node is, for a later run to go on from. It never waits; a thread may call it."""
        value = deepcopy(value)
        self._state = value
        if get_ident() == self._thread:
            self._store_state(value)
        else:
            from_thread.run_sync(self._store_state, value)

    @property
    def answers(self) -> Mapping[str, Any]:
        """The answers of the suspensions that this node depends on, by name."""
        return deepcopy(self._run.answers_for(self.node))

    @property
    def answer(self) -> Any:
        """The answer of the one suspension that this node depends on; None without an answer.

        Raises:
            TopologyError: there are several; use `answers`.
        """
        answers = self.answers
        if len(answers) > 1:
            raise TopologyError(
                f"node {self.node!r} has several answers ({', '.join(answers)}); use ctx.answers"
            )

        return next(iter(answers.values()), None)

    @property
    def stopping(self) -> bool:
        """Whether the run was told to stop: a long node should come to an end."""
        return self._run.stopping

    @property
    def reason(self) -> CancelReason | None:
        """Why the node was cut short; None as long as it was not."""
        if self._reason is None and self._run.clock() >= self._deadline:
            self._reason = CancelReason.TIMEOUT if self._deadline >= self._times_out_at else CancelReason.STOP

        return self._reason or self._run.reason

    @contextmanager
    def shield(self, seconds: float = _SHIELD_LIMIT) -> Iterator[None]:
        """Let what is in the block finish, even when the node is cut short meanwhile, within `seconds`."""
        with anyio.move_on_after(seconds, shield=True):
            yield

    # For the run...

    def start_clock(self, timeout: float | None, stop_at: float) -> None:
        """Called when the function starts."""
        self._started = True
        if timeout is not None:
            self._times_out_at = self._run.clock() + timeout

        self.scope.deadline = self._deadline = min(self._times_out_at, stop_at)

    def ask_to_stop(self, at: float) -> None:
        """The grace period of a stop ends then; what only waits for another attempt is cut short now."""
        if self._started:
            self.scope.deadline = self._deadline = min(self._deadline, at)
        else:
            self.cut_short(CancelReason.STOP)

    def cut_short(self, reason: CancelReason) -> None:
        """Cancel the attempt, unless it is being cancelled already."""
        if self.reason is None:
            self._reason = reason

        self.scope.deadline = math.inf
        self.scope.cancel(reason.text)
