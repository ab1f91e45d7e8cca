"""Where jobs run: one protocol, and the local executor with one process per device."""

from app.executors.local import LocalExecutor
from app.executors.protocol import Executor, Task, Ticket, Update

__all__ = ["Executor", "LocalExecutor", "Task", "Ticket", "Update"]
