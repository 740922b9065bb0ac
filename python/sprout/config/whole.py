# SPDX-License-Identifier: Apache-2.0
"""All sections, and what they say of each other."""

from pydantic import model_validator

from sprout.config.agent import AgentConfig
from sprout.config.carbon import CarbonConfig
from sprout.config.control import ControlConfig
from sprout.config.energy import EnergyConfig
from sprout.config.engine import EngineConfig
from sprout.config.evaluate import EvaluateConfig
from sprout.config.request import RequestConfig
from sprout.config.section import Section
from sprout.config.stack import StackConfig
from sprout.config.triton import TritonConfig


class Config(Section):
    stack: StackConfig = StackConfig()
    triton: TritonConfig = TritonConfig()
    engine: EngineConfig = EngineConfig()
    request: RequestConfig = RequestConfig()
    energy: EnergyConfig = EnergyConfig()
    agent: AgentConfig = AgentConfig()
    control: ControlConfig = ControlConfig()
    carbon: CarbonConfig = CarbonConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    @model_validator(mode="after")
    def _tenants_are_heard(self) -> "Config":
        if "sprout_tenant" not in self.request.hints:
            promised = {
                "evaluate.sampling.refuse_tenants": self.evaluate.sampling.refuse_tenants,
                "control.tenants": self.control.tenants,
            }
            for key, names in promised.items():
                if names:
                    raise ValueError(
                        f"{key} names tenants, and request.hints lacks sprout_tenant, so no "
                        "request says whose it is: allow the hint, or name no tenant"
                    )
        return self
