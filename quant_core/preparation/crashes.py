"""Whether onnxruntime lives through a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_LOAD = """
import sys
import onnxruntime
onnxruntime.set_default_logger_severity(4)
onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
"""
_RAISED = 1


def crashes_onnxruntime(path: Path) -> bool:
    """Load a file in a process of its own, which onnxruntime may end.

    onnxruntime 1.31 ends with a segmentation fault on a product in float16 behind a Transpose.

    Args:
        path: An ONNX file.

    Returns:
        Whether the process was ended. A file that is refused, or loads, ends none.
    """
    command = [sys.executable, "-c", _LOAD, str(path)]
    done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603
    return done.returncode not in {0, _RAISED}
