# SPDX-License-Identifier: Apache-2.0
"""`[control]`: what decides, and its sections."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from sprout.config.section import Section
from sprout.config.tenants import TenantConfig, TenantName


class TlsConfig(Section):
    """All four are needed as soon as the control plane listens on more than loopback."""

    certificate: Path | None = None  # this side's chain, PEM
    key: Path | None = None
    ca: Path | None = None  # what the other side's certificate is checked against (mTLS)
    token_file: Path | None = None  # bearer token that agents and operators present


class SwitchbackConfig(Section):
    """Whole-node blocks of L0 and of the policy in turn: the only proof of carbon saved."""

    enabled: bool = False
    block_s: float = Field(1800, gt=0)
    washout_s: float = Field(300, ge=0)  # of each block, not measured: longer than any request
    share: float = Field(1.0, gt=0, le=1)  # of the pairs of blocks that are an experiment

    @model_validator(mode="after")
    def _complete(self) -> "SwitchbackConfig":
        if self.washout_s >= self.block_s:
            raise ValueError("washout_s leaves nothing of block_s to measure")
        return self


class BankConfig(Section):
    """Of the mode "bank": quality as a budget over a horizon."""

    target: float = Field(0.95, ge=0, le=1)  # mean preference, relative to L0's
    hours: int = Field(672, ge=24, le=1344)  # that it spans, the present one included: 4 weeks


class GuardConfig(Section):
    """Rolls the policy back when answers go wrong more often than at L0."""

    enabled: bool = True
    bound: float = Field(0.05, ge=0, lt=1)  # of all answers: how much more often is tolerable
    alpha: float = Field(0.001, gt=0, lt=1)  # probability of a false alarm in a window
    window_hours: float = Field(24, gt=0)  # then the counts begin anew


class PromptConfig(Section):
    """Levels by what a prompt says: see prompt_aware.md."""

    predictor: Path | None = None  # of `sprout predictor fit`; default: every level is drawn
    share: float = Field(0.9, ge=0, le=1)  # of requests without a mix of their own; the rest: drawn


class ControlConfig(Section):
    host: str = "127.0.0.1"
    port: int = Field(8003, ge=0, le=65535)
    tls: TlsConfig = TlsConfig()
    metrics_host: str = "127.0.0.1"  # of Prometheus's scrapes
    metrics_port: int = Field(0, ge=0, le=65535)  # 0 = a free one; `sprout status` tells which
    xi: float = Field(0.1, ge=0, le=1)  # the most normalised preference that may be given up
    ttl_s: float = Field(900, gt=0, le=7 * 86_400)  # agents refuse more
    interval_s: float = Field(5, gt=0)  # how often inputs are looked at
    republish_s: float = Field(3600, gt=0)  # at least this often
    republish_intensity_g_per_kwh: float = Field(5, ge=0)  # moved by more: solve again
    republish_profile_ratio: float = Field(0.1, ge=0)  # e, p or q moved by more: solve again
    control_share: float = Field(0.02, ge=0, le=1)
    canary_share: float = Field(1.0, ge=0, le=1)
    range_mode: Literal["trailing", "trace"] = "trailing"
    range_hours: float = Field(168, gt=0)  # trailing window of intensities
    range_min_hours: float = Field(24, ge=0)  # shorter history: the configured fraction
    range_fraction: float = Field(0.5, ge=0, le=1)  # where no range exists
    min_outcomes: int = Field(30, ge=1)  # per level, before measured e and p replace the priors
    profile_outcomes: int = Field(1000, ge=1)  # newest per level that e and p are the mean of
    profile_half_life_outcomes: float = Field(2000, gt=0)  # of all levels, after which one is half
    # What `sprout profile` wrote: with it the loop decides on marginal energy at the present load,
    # and says when the engine is no longer the one that was profiled.
    profile_file: Path | None = None
    retention_days: float = Field(90, gt=0)  # of outcomes, intensities and policies in the store
    retention_outcomes: int = Field(1_000_000, ge=1)  # the newest; about 300 MB
    # Priors, by level of the pack: means of the measurements published with arXiv 2403.12900
    # (Llama-2-13b-chat, one A100, batch size 1; 26,464 prompts, 6,000 of them judged by GPT-4).
    # Not this model's; the status says so.
    prior_energy_joules: tuple[float, ...] = (1214.0, 281.0, 188.0)
    prior_device_s: tuple[float, ...] = (4.88, 1.13, 0.76)
    prior_preference: tuple[float, ...] = (0.381, 0.343, 0.276)
    # "paper": a floor each hour, as published; "bank": a budget over a horizon, 1 - xi each hour.
    mode: Literal["paper", "bank"] = "paper"
    bank: BankConfig = BankConfig()
    # The least share of each level, to keep its profile measured; yields to the floor. 0: off.
    exploration_share: float = Field(0.01, ge=0, le=0.1)
    # That the floor holds, given how few judgments an evaluated q rests on. 0.5: the plain floor.
    confidence: float = Field(0.9, ge=0.5, lt=1)
    # Of whichever mix is chosen by that q, or of one that was set beforehand: see optimizer.md.
    confidence_of: Literal["choice", "mix"] = "choice"
    classes: bool = True  # a mix of its own for each task class that was evaluated and measured
    class_against: Literal["own", "pooled"] = "own"  # which L0 a class's preference is relative to
    class_minimum: float = Field(0.0, ge=0, le=1)  # of each class, against its own L0. 0: none
    tenants: dict[TenantName, TenantConfig] = Field({}, max_length=16)
    prompt: PromptConfig = PromptConfig()
    shadow: bool = False  # decide and report, apply nothing: everybody gets L0
    switchback: SwitchbackConfig = SwitchbackConfig()
    guard: GuardConfig = GuardConfig()

    @model_validator(mode="after")
    def _apart(self) -> "ControlConfig":
        if self.shadow and self.switchback.enabled:
            raise ValueError("shadow applies nothing that a switchback could compare with L0")
        return self
