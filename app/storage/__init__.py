"""Uploads and results: folders and uploads by name, their bytes by digest, in a local folder or a bucket."""

from app.storage.opening import StorageUrlError, open_storage
from app.storage.records import Upload
from app.storage.storage import DigestError, Storage, file_digest
from app.storage.uploads import UPLOAD_ID, Uploads, is_digest

__all__ = [
    "UPLOAD_ID",
    "DigestError",
    "Storage",
    "StorageUrlError",
    "Upload",
    "Uploads",
    "file_digest",
    "is_digest",
    "open_storage",
]
