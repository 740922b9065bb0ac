# SPDX-License-Identifier: Apache-2.0
"""`[triton]`: the server."""

from pathlib import Path

from pydantic import Field

from sprout.config.section import Section


class TritonConfig(Section):
    host: str = "127.0.0.1"
    http_port: int = Field(8000, ge=0, le=65535)  # 0 = a free one
    grpc_port: int = Field(8001, ge=0, le=65535)
    metrics_port: int = Field(8002, ge=0, le=65535)
    max_batch_size: int = Field(64, ge=1)
    exit_timeout_s: int = Field(3, ge=1)
    preprocessing_instances: int = Field(1, ge=1, le=16)
    start_timeout_s: float = Field(60, gt=0)
    model_repositories: tuple[Path, ...] = ()  # more models for the same server, as they are
