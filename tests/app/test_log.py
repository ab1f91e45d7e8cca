"""The log is JSON where asked for, and keeps no secrets."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from app.log import hide_secrets


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("key bw_0123456789ab_s3cr-et_x came", "key bw_0123456789ab_*** came"),
        ("postgresql://bw:hunter2@host/name", "postgresql://bw:***@host/name"),
        ("Authorization: Bearer abc.def-ghi=", "Authorization: Bearer ***"),
        ("job 12: 3 of 4 http://host/path", "job 12: 3 of 4 http://host/path"),
    ],
)
def test_secrets_are_taken_out(text: str, hidden: str) -> None:
    assert hide_secrets(text) == hidden


def test_json_lines_carry_fields_and_traces_without_secrets() -> None:
    code = (
        "import logging; from app.log import configure; configure('info', 'json')\n"
        "log = logging.getLogger('x')\n"
        "log.info('a %s', 'b', extra={'request_id': 'r', 'status': 200})\n"
        "try: raise ValueError('postgresql://u:hunter2@h/n')\n"
        "except ValueError: log.exception('oh')\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr
    first, second = (json.loads(line) for line in out.splitlines())
    assert (first["message"], first["request_id"], first["status"], first["level"]) == (
        "a b",
        "r",
        200,
        "info",
    )
    assert "ValueError" in second["exception"]
    assert "hunter2" not in out
