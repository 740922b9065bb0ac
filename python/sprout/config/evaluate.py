# SPDX-License-Identifier: Apache-2.0
"""`[evaluate]`: what directives cost in quality, and its sections."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from sprout.config.section import Section
from sprout.config.tenants import TenantName


class SamplingConfig(Section):
    """Of prompts for evaluations: kept in memory alone, from the node to the control plane."""

    share: float = Field(0.0, ge=0, le=1)  # of requests; 0 = nothing is kept
    prompt_bytes: int = Field(8192, ge=1, le=65_536)  # longer prompts are not sampled
    ring_prompts: int = Field(256, ge=1, le=65_536)  # per preprocessing instance, on the node
    reservoir_prompts: int = Field(2000, ge=1, le=20_000)  # in the control plane
    retention_hours: float = Field(24, gt=0, le=24 * 30)  # then a prompt is forgotten
    # A program that sees each prompt before it leaves the node, and its arguments: one JSON object
    # per line in, {"text": …} or {"text": null} per line out.
    redact_command: tuple[str, ...] = ()
    refuse_tenants: tuple[TenantName, ...] = ()  # whose prompts are never sampled

    @model_validator(mode="after")
    def _tenants(self) -> "SamplingConfig":
        for name in self.refuse_tenants:
            if "," in name:  # they travel to Triton as one list
                raise ValueError(f"refuse_tenants: a name there has no comma: {name!r}")
        return self


class JudgeConfig(Section):
    """Who says which answer is better."""

    kind: Literal["none", "openai", "triton", "exact", "recorded"] = "none"
    url: str = ""  # openai: up to and with /v1; triton: host:port of gRPC, "" = the stack's own
    model: str = ""  # openai: that the endpoint serves; triton: what to call it
    key_file: Path | None = None
    allow_plain_http: bool = False  # a key over http:// beyond loopback
    # "pairwise": each level against L0, in both orders; "choice": all at once, as published.
    method: Literal["pairwise", "choice"] = "pairwise"
    length_correction: bool = False  # q at equal length, as in length-controlled AlpacaEval
    length_instruction: Literal["ignore", "prefer_short", "none"] = "ignore"
    instructions_file: Path | None = None  # what "better" means, in place of our own words
    concurrency: int = Field(4, ge=1, le=256)  # calls at once
    timeout_s: float = Field(60, gt=0)  # of one call, to its last byte
    retries: int = Field(3, ge=0, le=20)  # of one comparison
    max_tokens: int = Field(512, ge=16)  # of a reply; a judge that reasons takes thousands
    max_answer_chars: int = Field(12_000, ge=100)  # of each text; longer: cut in the middle
    # Declared; 0: not known, and the report says so.
    joules_per_token: float = Field(0.0, ge=0)
    price_per_1k_input: float = Field(0.0, ge=0)  # in your currency
    price_per_1k_output: float = Field(0.0, ge=0)
    recorded_file: Path | None = None
    # exact: "task=number", "task=letter" or "task=aliases"; others are inferred by reference.
    exact_kinds: tuple[str, ...] = ()
    alias_separator: str = Field(";", min_length=1, max_length=8)

    @model_validator(mode="after")
    def _complete(self) -> "JudgeConfig":
        needs = {"openai": ("url", "model"), "recorded": ("recorded_file",)}
        for name in needs.get(self.kind, ()):
            if not getattr(self, name):
                raise ValueError(f"evaluate.judge.kind {self.kind!r} needs evaluate.judge.{name}")
        for pair in self.exact_kinds:
            task, _, kind = pair.partition("=")
            if not task or kind not in ("number", "letter", "aliases"):
                raise ValueError(
                    'evaluate.judge.exact_kinds: "task=number", "task=letter" or "task=aliases", '
                    f"not {pair!r}"
                )
        return self


class ScheduleConfig(Section):
    """When evaluations run, and how their answers are got without clients feeling it."""

    # "opportunistic": behind a minimum of the grid's intensity; "forecast": at the cleanest start
    # ahead; "fixed": every `fixed_hours`; "off": only when an operator says so.
    rule: Literal["off", "opportunistic", "forecast", "fixed"] = "off"
    beta_per_hour: float = Field(0.029, ge=0, le=1)  # of the urgency: 0.029 doubles in 24 h
    grace_hours: float = Field(6, ge=0)  # after one began, in which no other does
    max_idle_hours: float = Field(72, gt=0)  # after which one begins at any intensity
    mean_hours: int = Field(168, ge=1)  # trailing mean above which none begins
    fixed_hours: float = Field(24, gt=0)  # of the rule "fixed"
    duration_hours: float = Field(1, gt=0, le=24)  # that one is expected to take
    # A request of an evaluation starts only while fewer requests of clients are in flight.
    max_client_requests: int = Field(1, ge=1)
    # Requests of an evaluation in flight, its judge's among them where that is the same server.
    concurrency: int = Field(1, ge=1, le=64)
    hold_s: float = Field(3600, gt=0)  # that a request may be held back; the next try goes on
    prompts: int = Field(1000, ge=1)  # of one evaluation, at most
    # It ends before, once the decisions that rest on q can't be wrong by more than this: in grams,
    # as a share of the least possible, and in points of preference under the floor.
    stop_g_ratio: float = Field(1.0, gt=0)
    stop_points: float = Field(8.0, gt=0)
    least_prompts: int = Field(50, ge=1)  # judged before it may; fewer give a scheduled one no q
    max_tokens: int = Field(512, ge=1)  # of an answer, where the prompt names no other
    timeout_s: float = Field(300, gt=0)  # of an answer
    retries: int = Field(2, ge=0, le=10)  # of a request that failed; then its prompt is left out
    # "host:port" of the gRPC service of the Triton that answers; default: the stack's own. Of
    # another one the load is read from the control plane.
    endpoint: str = ""
    nodes: tuple[str, ...] = ()  # those whose load is the endpoint's, by name; default: all
    # What marks a request as an evaluation's; default: written when the stack's Triton starts.
    token_file: Path | None = None

    @field_validator("token_file")
    @classmethod
    def _home(cls, given: Path | None) -> Path | None:
        try:
            return None if given is None else given.expanduser()
        except RuntimeError as error:  # nobody's home
            raise ValueError(str(error)) from None

    @model_validator(mode="after")
    def _idle(self) -> "ScheduleConfig":
        if self.grace_hours >= self.max_idle_hours:
            raise ValueError("grace_hours leaves nothing of max_idle_hours")
        if self.rule != "off" and self.prompts < self.least_prompts:
            raise ValueError(
                f"prompts {self.prompts} is under least_prompts {self.least_prompts}: no scheduled "
                "evaluation could give a q"
            )
        return self


class EvaluateConfig(Section):
    """What directives cost in quality, measured off the request path."""

    sampling: SamplingConfig = SamplingConfig()
    prompts_file: Path | None = None  # JSON lines, in place of sampled prompts
    judge: JudgeConfig = JudgeConfig()
    schedule: ScheduleConfig = ScheduleConfig()

    @model_validator(mode="after")
    def _complete(self) -> "EvaluateConfig":
        if self.schedule.rule != "off" and self.judge.kind == "none":
            raise ValueError(
                f"evaluate.schedule.rule {self.schedule.rule!r} needs evaluate.judge.kind"
            )
        if self.schedule.rule != "off" and not self.sampling.share and self.prompts_file is None:
            raise ValueError(
                f"evaluate.schedule.rule {self.schedule.rule!r} needs prompts: sample them "
                "(evaluate.sampling.share) or name a file (evaluate.prompts_file)"
            )
        return self
