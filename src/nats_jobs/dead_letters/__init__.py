"""Dead letters: parked jobs that say why. `JobProcessor.dead_letters` looks at them, gives them back, or throws them away::

    async for letter in p.dead_letters.browse(stream="ORDERS"):
        print(letter.sequence, letter.reason, letter.error)

    await p.dead_letters.redrive_many(stream="ORDERS", reason="exhausted", rate=10)

This room has what belongs to them: the stream `STREAM`, the `Header` names, and what the methods return.
"""

from ._browse import DeadLetterIterator as DeadLetterIterator
from ._dead_letter import DeadLetter as DeadLetter, Failure as Failure
from ._dead_letters import DeadLetters as DeadLetters
from ._headers import (
    REASONS as REASONS,
    STREAM as STREAM,
    SUBJECTS as SUBJECTS,
    Header as Header,
    stream_config as stream_config,
)
from ._park import park as park
from ._redrive import RedriveResult as RedriveResult
from ._store import StoredMessage as StoredMessage

__all__ = (
    "REASONS",
    "STREAM",
    "SUBJECTS",
    "DeadLetter",
    "DeadLetterIterator",
    "DeadLetters",
    "Failure",
    "Header",
    "RedriveResult",
    "StoredMessage",
    "park",
    "stream_config",
)
