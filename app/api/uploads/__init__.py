"""`/uploads`: large files as raw bytes, through the service or past it, taken up again where a connection broke."""
