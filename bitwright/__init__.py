"""The client of a Bitwright service: send a model and samples, get a smaller ONNX model and a report.

```python
from bitwright import Client

with Client() as client:
    job = client.quantize("model.onnx", data="calib.npz", size=0.18)
    job.wait(progress=True)
    print(job.report().model.quantized_bytes)
    job.download("out")
```

Each name is loaded when it is first used, so that a command that needs no service does not load its client.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bitwright.async_client import AsyncClient
    from bitwright.async_job import AsyncJob
    from bitwright.client import Client
    from bitwright.errors import (
        AuthenticationError,
        BitwrightError,
        ConflictError,
        ForbiddenError,
        InvalidRequestError,
        JobCanceledError,
        JobFailedError,
        NotFoundError,
        RateLimitedError,
        ResponseError,
        ServerError,
        ServiceBusyError,
        ServiceUnreachableError,
        WaitTimeoutError,
    )
    from bitwright.job import Job
    from bitwright.operations.batch import BatchResult, QuantizeRequest
    from bitwright.results import Health, JobFailure, JobInfo, JobState, JobSummary
    from quant_core.spec import AnalyzeSpec, Budget, LayerRule, QuantizeSpec, Report, SensitivityTable

_PLACES = {
    "bitwright.async_client": "AsyncClient",
    "bitwright.async_job": "AsyncJob",
    "bitwright.operations.batch": "BatchResult QuantizeRequest",
    "bitwright.client": "Client",
    "bitwright.errors": "AuthenticationError BitwrightError ConflictError ForbiddenError InvalidRequestError "
    "JobCanceledError JobFailedError NotFoundError RateLimitedError ResponseError ServerError ServiceBusyError "
    "ServiceUnreachableError WaitTimeoutError",
    "bitwright.job": "Job",
    "bitwright.results": "Health JobFailure JobInfo JobState JobSummary",
    "quant_core.spec": "AnalyzeSpec Budget LayerRule QuantizeSpec Report SensitivityTable",
}
_PLACE = {name: place for place, names in _PLACES.items() for name in names.split()}

__all__ = [
    "AnalyzeSpec",
    "AsyncClient",
    "AsyncJob",
    "AuthenticationError",
    "BatchResult",
    "BitwrightError",
    "Budget",
    "Client",
    "ConflictError",
    "ForbiddenError",
    "Health",
    "InvalidRequestError",
    "Job",
    "JobCanceledError",
    "JobFailedError",
    "JobFailure",
    "JobInfo",
    "JobState",
    "JobSummary",
    "LayerRule",
    "NotFoundError",
    "QuantizeRequest",
    "QuantizeSpec",
    "RateLimitedError",
    "Report",
    "ResponseError",
    "SensitivityTable",
    "ServerError",
    "ServiceBusyError",
    "ServiceUnreachableError",
    "WaitTimeoutError",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_PLACE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
