"""A real nats-server of one's own: started, ready when entered, gone when left."""

from ._binary import find_server as find_server
from ._server import Server as Server, run_server as run_server

__all__ = ("Server", "find_server", "run_server")
