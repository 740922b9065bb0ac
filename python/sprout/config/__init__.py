# SPDX-License-Identifier: Apache-2.0
"""Configuration, one module a section; where a value comes from stands in `loading.load`.

Sections are frozen. Secrets are given by file and never printed.
"""

from sprout.config.agent import AgentConfig
from sprout.config.carbon import CarbonConfig, SourceName
from sprout.config.control import (
    BankConfig,
    ControlConfig,
    GuardConfig,
    PromptConfig,
    SwitchbackConfig,
    TlsConfig,
)
from sprout.config.energy import EnergyConfig
from sprout.config.engine import EngineConfig
from sprout.config.evaluate import EvaluateConfig, JudgeConfig, SamplingConfig, ScheduleConfig
from sprout.config.loading import ENV_PREFIX, ENV_RESERVED, load
from sprout.config.privacy import no_core_dumps, private_folder
from sprout.config.request import RequestConfig
from sprout.config.section import Section
from sprout.config.stack import StackConfig
from sprout.config.tenants import TenantConfig, TenantName
from sprout.config.triton import TritonConfig
from sprout.config.whole import Config

__all__ = [
    "ENV_PREFIX",
    "ENV_RESERVED",
    "AgentConfig",
    "BankConfig",
    "CarbonConfig",
    "Config",
    "ControlConfig",
    "EnergyConfig",
    "EngineConfig",
    "EvaluateConfig",
    "GuardConfig",
    "JudgeConfig",
    "PromptConfig",
    "RequestConfig",
    "SamplingConfig",
    "ScheduleConfig",
    "Section",
    "SourceName",
    "StackConfig",
    "SwitchbackConfig",
    "TenantConfig",
    "TenantName",
    "TlsConfig",
    "TritonConfig",
    "load",
    "no_core_dumps",
    "private_folder",
]
