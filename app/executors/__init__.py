"""Where jobs run: one protocol; on this machine with one process per device, or on a Ray cluster."""

from app.executors.local import LocalExecutor
from app.executors.protocol import Executor, Task, Ticket, Update
from app.executors.ray_executor import Cluster, RayExecutor

__all__ = ["Cluster", "Executor", "LocalExecutor", "RayExecutor", "Task", "Ticket", "Update"]
