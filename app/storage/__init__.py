"""Blobs behind one protocol: uploads and results, addressed by key."""

from app.storage.local import LocalStorage
from app.storage.protocol import Storage

__all__ = ["LocalStorage", "Storage"]
