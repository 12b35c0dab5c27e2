"""The Node library, installed once for a run of the tests, and its workers as processes.

Skips with a reason where Node.js is missing or its packages cannot be had.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

__all__ = ("NODE_WORKER", "NodeProcess", "install_node_library", "node_process")

NODE_WORKER = Path(__file__).with_name("node_worker.js")
# The last release of the Node library, and the client it was made for.
_PACKAGES = ("nats-jobs@0.3.0", "nats@2.9.2", "@msgpack/msgpack@2.8.0")
_INSTALL_LIMIT = 120.0
_END_LIMIT = 20.0


def install_node_library(directory: Path) -> Path:
    """Install the Node library into `directory` and return the directory to run scripts in."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("no Node.js (node and npm) on this machine")

    command = [
        npm,
        "install",
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
        "--prefix",
        str(directory),
        *_PACKAGES,
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_LIMIT, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm did not install {', '.join(_PACKAGES)} within {_INSTALL_LIMIT:g} s")

    if done.returncode != 0:
        pytest.skip(f"npm cannot install {', '.join(_PACKAGES)}: {done.stderr.strip()[-300:]}")

    shutil.copy(NODE_WORKER, directory)
    return directory


class NodeProcess:
    """A running script, whose lines on stdout are JSON."""

    def __init__(self, process: subprocess.Popen[str], output: Path) -> None:
        self.process = process
        self._output = output

    def told(self, what: str) -> list[dict[str, Any]]:
        """Return what it told so far, of one kind."""
        lines = self._output.read_text().splitlines(keepends=True)
        entries = [json.loads(line) for line in lines if line.endswith("\n")]
        return [entry for entry in entries if entry["what"] == what]

    def stop(self) -> int:
        """Ask it to end (SIGTERM), wait, and return its exit code."""
        self.process.terminate()
        return self.process.wait(_END_LIMIT)


@contextmanager
def node_process(directory: Path, role: str, url: str, stream: str) -> Iterator[NodeProcess]:
    """Run `node_worker.js` in a role; it is killed when the block is left, if it still runs."""
    output = directory / f"{stream}-{role}.out"
    with output.open("w") as lines:
        process = subprocess.Popen(
            ["node", NODE_WORKER.name, role, url, stream], cwd=directory, stdout=lines, text=True
        )

    try:
        yield NodeProcess(process, output)
    finally:
        process.kill()
        process.wait()
