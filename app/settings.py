"""What the service can be told from outside: environment variables that start with `BITWRIGHT_`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.log import LogFormat


class Settings(BaseSettings):
    """Settings of one service process.

    Attributes:
        data_dir: Folder of what is being worked on; also of the database and the results, where they have no URL.
        database_url: The jobs' database, `postgresql://user:password@host/name`; empty for SQLite in the data folder.
        storage_url: Where uploads and results are kept: `s3://bucket/prefix?endpoint=...&region=...` or
            `file:///folder`; empty for the data folder.
        storage_public_endpoint: The S3 endpoint as clients reach it, for uploads and downloads past the service.
        host: Address to listen on.
        keys: Whether requests need a key: `auto` unless the host is loopback; or `on`, or `off`.
        port: Port to listen on; 0 takes a free one.
        devices: `auto`, or a list such as `cpu` or `cuda:0,cuda:1`; one job at a time for each.
        executor: Where jobs run: `local`, in processes of this machine, or `ray`, on a cluster.
        ray_address: Host and port of the cluster's head.
        ray_token: What the cluster is entered with.
        ray_cpus: Processors that each job is given on the cluster.
        upload_hours: How long an upload is kept that no job uses.
        upload_quota: The most bytes of uploads that one owner may have at a time; 0 for no limit.
        result_days: How many days results are kept; 0 for as long as nobody deletes them.
        upload_limit: Largest request body in bytes, all files together.
        model_nodes: Most nodes of a model, functions expanded and subgraphs by their depth; 100,000 at most.
        model_nesting: How deep subgraphs may lie in each other, 16 at most.
        tensor_limit: Most bytes of one stored tensor; 0 for no limit.
        check_timeout: Seconds the checks of an upload may take before it is refused.
        checkers: Processes that check uploads.
        lease_seconds: How long a job stays with a service that has fallen silent, before another takes it over.
        renew_seconds: Seconds between two signs of life.
        max_interruptions: A job fails when its process, or its service, was lost this often; each counts for itself.
        job_memory: The most memory, in bytes of address space, that a job on a CPU, or the check of an upload, may
            take; 0 for no limit.
        webhook_secret: What webhooks are signed with; 16 characters or more.
        webhook_hosts: Hosts that webhooks may name, separated by commas; none without a secret.
        log_level: Level of the service's own log.
        log_format: `text`, or `json` for one object a line.
        engine: Dotted name of what quantizes, `module:function`.
        validator: Dotted name of its checks.
        analyzer: Dotted name of what analyses.
        analysis_validator: Dotted name of its checks.
        inspector: Dotted name of what tells about a model before any job.
    """

    model_config = SettingsConfigDict(env_prefix="BITWRIGHT_", frozen=True, extra="ignore")

    data_dir: Path = Path("data")
    database_url: str = ""
    storage_url: str = ""
    storage_public_endpoint: str = ""
    host: str = "127.0.0.1"
    keys: Literal["auto", "on", "off"] = "auto"
    port: int = Field(default=8000, ge=0, le=65535)
    devices: Annotated[tuple[str, ...], NoDecode] = ("auto",)
    executor: Literal["local", "ray"] = "local"
    ray_address: str = ""
    ray_token: SecretStr = SecretStr("")
    ray_cpus: float = Field(default=1.0, ge=1)
    upload_hours: float = Field(default=24.0, gt=0, le=876_000)
    upload_quota: int = Field(default=0, ge=0)
    result_days: float = Field(default=0.0, ge=0, le=36_500)
    upload_limit: int = Field(default=4 * 2**30, gt=0)
    model_nodes: int = Field(default=100_000, ge=1, le=100_000)
    model_nesting: int = Field(default=16, ge=1, le=16)
    tensor_limit: int = Field(default=0, ge=0)
    check_timeout: float = Field(default=120.0, gt=0)
    checkers: int = Field(default=1, ge=1)
    lease_seconds: float = Field(default=90.0, gt=0)
    renew_seconds: float = Field(default=10.0, gt=0)
    max_interruptions: int = Field(default=2, ge=1)
    job_memory: int = Field(default=0, ge=0)
    webhook_secret: SecretStr = SecretStr("")
    webhook_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    log_format: LogFormat = "text"
    log_level: str = Field(default="info", pattern="^(critical|error|warning|info|debug)$")
    engine: str = "quant_core.pipeline:quantize"
    validator: str = "quant_core.pipeline:validate"
    analyzer: str = "quant_core.analysis:analyze"
    analysis_validator: str = "quant_core.analysis:validate"
    inspector: str = "quant_core.preflight:inspect_model"

    @field_validator("devices", "webhook_hosts", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(part.strip() for part in value.split(",") if part.strip())

    @model_validator(mode="after")
    def _signed(self) -> Settings:
        if self.webhook_hosts and len(self.webhook_secret.get_secret_value()) < 16:
            raise ValueError(
                "BITWRIGHT_WEBHOOK_HOSTS needs a BITWRIGHT_WEBHOOK_SECRET of at least 16 characters"
            )
        if self.renew_seconds * 2 > self.lease_seconds:
            raise ValueError(
                f"BITWRIGHT_LEASE_SECONDS is {self.lease_seconds:g}, and with BITWRIGHT_RENEW_SECONDS "
                f"{self.renew_seconds:g} it must be at least {2 * self.renew_seconds:g}"
            )
        return self

    @model_validator(mode="after")
    def _reachable(self) -> Settings:
        if self.executor == "ray":
            if not re.fullmatch(r"[^\s/]+:\d+", self.ray_address):
                raise ValueError(
                    "BITWRIGHT_EXECUTOR=ray needs BITWRIGHT_RAY_ADDRESS, host:port of the cluster's head"
                )
            if len(self.ray_token.get_secret_value()) < 16:
                raise ValueError(
                    "BITWRIGHT_EXECUTOR=ray needs a BITWRIGHT_RAY_TOKEN of at least 16 characters, the cluster's own"
                )
        return self

    @field_validator("devices")
    @classmethod
    def _known(cls, devices: tuple[str, ...]) -> tuple[str, ...]:
        if devices == ("auto",):
            return devices
        for device in devices:
            if not re.fullmatch(r"cpu|cuda:\d+", device):
                raise ValueError(f"{device!r} is not a device; write auto, or a list of cpu and cuda:N")
        if not devices or len(set(devices)) != len(devices):
            raise ValueError("name each device once, and at least one")
        return devices

    @field_validator("engine", "validator", "analyzer", "analysis_validator", "inspector")
    @classmethod
    def _dotted(cls, name: str) -> str:
        if not re.fullmatch(r"[\w.]+:\w+", name):
            raise ValueError(f"{name!r} is not of the form module:function")
        return name
