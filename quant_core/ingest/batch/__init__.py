"""A batch that the graph fixes at 1, made free."""

from quant_core.ingest.batch.free import FreeBatch, free_batch
from quant_core.ingest.batch.operands import BatchBoundError

__all__ = ["BatchBoundError", "FreeBatch", "free_batch"]
