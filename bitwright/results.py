"""What the service tells, as frozen values; service, engine and client share one model of them."""

from quant_core.spec import DeviceHealth, Health, JobFailure, JobInfo, JobKind, JobState, JobSummary

__all__ = ["DeviceHealth", "Health", "JobFailure", "JobInfo", "JobKind", "JobState", "JobSummary"]
