"""The service's log: lines for people or JSON for machines, without secrets."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Literal

LogFormat = Literal["text", "json"]

_SECRETS = re.compile(
    r"(\bbw_[0-9a-f]{12}_)[\w-]+|(\w+://[^\s:/@]*:)[^\s@/]+(?=@)|((?:Bearer|Basic) )[\w.~+/=-]+"
)
_FIELDS = ("method", "path", "status", "seconds", "request_id", "key", "job")


def configure(level: str, form: LogFormat) -> None:
    """Send everything to standard error.

    Args:
        level: The least level that is told.
        form: `text`, or `json` for one object a line.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in (
        "httpx",
        "httpcore",
        "alembic",
    ):  # they tell of every request, and of what is nobody's business
        logging.getLogger(name).setLevel(logging.WARNING)


def hide_secrets(text: str) -> str:
    """Take out keys, and passwords in addresses.

    Args:
        text: Any text.

    Returns:
        The same with `***` in their places.
    """
    return _SECRETS.sub(lambda found: f"{found[1] or found[2] or found[3]}***", text)


class _Text(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        request = getattr(record, "request_id", None)
        return hide_secrets(super().format(record)) + (f" [{request}]" if request else "")


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        told = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
        }
        told |= {name: value for name in _FIELDS if (value := getattr(record, name, None)) is not None}
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return hide_secrets(json.dumps(told, default=str))
