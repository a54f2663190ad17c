"""Plait's Python worker: functions that do the work of a graph's nodes.

`plait_worker.session` holds the protocol without I/O, for simulators and for workers on other event loops.
"""

from plait_worker.access import Access
from plait_worker.context import Context
from plait_worker.failures import NodeFailure, WorkerRefused
from plait_worker.logs import AttemptFilter
from plait_worker.worker import Worker

__all__ = ["Access", "AttemptFilter", "Context", "NodeFailure", "Worker", "WorkerRefused"]
