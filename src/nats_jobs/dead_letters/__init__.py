"""Dead letters: parked jobs that say why. Look at them, give them back, or throw them away.

Every function takes a `JobProcessor`. Each letter has a number of its own, its sequence in the stream `STREAM`::

    async for letter in dead_letters.browse(p, stream="ORDERS"):
        print(letter.sequence, letter.reason, letter.error)

    await dead_letters.redrive_many(p, stream="ORDERS", reason="exhausted", rate=10)

All raise, besides what each one names: `ApiError` when JetStream refuses, `NoResponders` when it does
not answer, `RequestTimeout`, `ConnectionLost`.
"""

from ._browse import Letters as Letters, browse as browse, count as count, show as show
from ._history import Round as Round
from ._letter import DeadLetter as DeadLetter
from ._park import park as park
from ._purge import purge as purge, remove as remove
from ._redrive import Redriven as Redriven, redrive as redrive, redrive_many as redrive_many
from ._stranded import Stranded as Stranded
from ._stream import (
    REASONS as REASONS,
    STREAM as STREAM,
    SUBJECTS as SUBJECTS,
    Header as Header,
    stream_config as stream_config,
)

__all__ = (
    "REASONS",
    "STREAM",
    "SUBJECTS",
    "DeadLetter",
    "Header",
    "Letters",
    "Redriven",
    "Round",
    "Stranded",
    "browse",
    "count",
    "park",
    "purge",
    "redrive",
    "redrive_many",
    "remove",
    "show",
    "stream_config",
)
