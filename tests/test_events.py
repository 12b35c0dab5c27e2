"""Events are values: frozen, compared by their fields, and refused when a field is missing."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from nats_jobs.events import Connected, Disconnected, TickSkipped


def test_an_event_is_a_value() -> None:
    event = Connected(server="s", reconnects=1)
    assert (
        event == Connected(server="s", reconnects=1) == pickle.loads(pickle.dumps(event)) == copy.copy(event)
    )
    assert len({event, Connected(reconnects=1, server="s"), Connected(server="s", reconnects=2)}) == 2
    assert event != Disconnected(server="s", reason="1")
    assert repr(event) == "Connected(server='s', reconnects=1)"
    assert vars(event) == {"server": "s", "reconnects": 1}


def test_an_event_cannot_be_changed() -> None:
    event = Connected(server="s", reconnects=1)
    with pytest.raises(FrozenInstanceError):
        event.server = "another"  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        del event.server  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("fields", "wrong"), [({"server": "s"}, "reconnects"), ({"colour": 1}, "colour, reconnects")]
)
def test_an_event_has_all_of_its_fields_and_no_others(fields: dict[str, str], wrong: str) -> None:
    with pytest.raises(TypeError, match=wrong):
        Connected(**fields)  # type: ignore[arg-type]


def test_a_field_may_have_a_default() -> None:
    given: dict[str, Any] = dict.fromkeys(TickSkipped._fields - TickSkipped._defaults.keys(), "x")
    assert vars(TickSkipped(**given)) == given | {"until": None}
    assert vars(TickSkipped(**given, until=None)) == given | {"until": None}
