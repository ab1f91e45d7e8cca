"""What processes that open users' files must not inherit."""

from __future__ import annotations

import ctypes
import os
import re
import sys

_HARMLESS = re.compile(
    r"PATH|HOME|USER|SHELL|PWD|LANG|LC_\w+|TZ|TMPDIR|TEMP|TMP|SYSTEMROOT|VIRTUAL_ENV|XDG_\w+|LD_LIBRARY_PATH|"
    r"SSL_CERT_\w+|(PYTHON|CUDA|NVIDIA|NCCL|OMP|MKL|OPENBLAS|ORT|TORCH|KMP|MALLOC)\w*|COVERAGE_\w+"
)
_PR_SET_DUMPABLE = 4


def forget_secrets() -> None:
    """Drop every variable that is not known to be harmless, and close this process' memory to others of its user.

    Call it once settings, database and storage have read what they need. Processes that are started afterwards inherit
    what is left; what the kernel remembers of the first environment is readable by root alone.
    """
    for name in tuple(os.environ):
        if not _HARMLESS.fullmatch(name):
            del os.environ[name]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0)
