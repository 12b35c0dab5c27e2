"""Graphs of work that resume where they stopped."""

from ._attempt import NodeTimeout as NodeTimeout
from ._call import DetachedNode as DetachedNode, NodeDied as NodeDied
from ._context import NodeContext as NodeContext, Selected as Selected, branch as branch, none as none
from ._errors import (
    Conflict as Conflict,
    GraphChanged as GraphChanged,
    SnapshotTooLarge as SnapshotTooLarge,
    TopologyError as TopologyError,
    TopologyFailed as TopologyFailed,
)
from ._file_store import FileStore as FileStore
from ._intervene import cancel_topology as cancel_topology, enqueue_resume as enqueue_resume
from ._job import topology_job as topology_job
from ._json_form import dump_snapshot as dump_snapshot, load_snapshot as load_snapshot
from ._kv_store import KVStore as KVStore
from ._memory_store import MemoryStore as MemoryStore
from ._node import Node as Node, node as node
from ._run import Run as Run
from ._snapshot import ItemState as ItemState, NodeState as NodeState, Snapshot as Snapshot
from ._start import resume_topology as resume_topology, run_topology as run_topology, start as start
from ._topology import Topology as Topology
from ._unset import UNSET as UNSET
from ._writer import Revision as Revision, Store as Store

__all__ = (
    "UNSET",
    "Conflict",
    "DetachedNode",
    "FileStore",
    "GraphChanged",
    "ItemState",
    "KVStore",
    "MemoryStore",
    "Node",
    "NodeContext",
    "NodeDied",
    "NodeState",
    "NodeTimeout",
    "Revision",
    "Run",
    "Selected",
    "Snapshot",
    "SnapshotTooLarge",
    "Store",
    "Topology",
    "TopologyError",
    "TopologyFailed",
    "branch",
    "cancel_topology",
    "dump_snapshot",
    "enqueue_resume",
    "load_snapshot",
    "node",
    "none",
    "resume_topology",
    "run_topology",
    "start",
    "topology_job",
)
