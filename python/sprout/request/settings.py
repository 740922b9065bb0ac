# SPDX-License-Identifier: Apache-2.0
"""Settings of the request path: the `parameters` of a Triton model configuration.

A value that is empty or still a `${placeholder}` is unset and gets the default written here.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sprout.errors import ConfigError

HINTS = frozenset({"sprout_level", "sprout_off", "sprout_task", "sprout_tenant"})
CHAT_TEMPLATES = ("auto", "chatml", "llama2", "none")
_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


class Parameters:
    """Typed reading of a model configuration's parameters; ConfigError names the key."""

    def __init__(self, values: Mapping[str, str], outputs: tuple[str, ...] = ()) -> None:
        self.outputs = outputs  # names of the model's outputs
        self._values = {k: v for k, v in values.items() if v and not v.startswith("${")}

    @classmethod
    def of_model(cls, model_config: str) -> "Parameters":
        """From the JSON text that Triton gives to `initialize`."""
        config = json.loads(model_config)
        parameters = config.get("parameters", {})
        return cls(
            {key: value.get("string_value", "") for key, value in parameters.items()},
            tuple(output["name"] for output in config.get("output", ())),
        )

    def text(self, key: str) -> str | None:
        return self._values.get(key)

    def path(self, key: str) -> Path | None:
        value = self._values.get(key)
        return None if value is None else Path(value)

    def integer(self, key: str, default: int) -> int:
        value = self._values.get(key)
        try:
            return default if value is None else int(value)
        except ValueError:
            raise ConfigError(f"{key}: {value!r} is no whole number") from None

    def share(self, key: str) -> float:
        """0 … 1, 0 where unset."""
        value = self._values.get(key, "0")
        try:
            share = float(value)
        except ValueError:
            share = math.nan
        if not 0 <= share <= 1:
            raise ConfigError(f"{key}: {value!r} is no number from 0 to 1")
        return share

    def boolean(self, key: str, default: bool) -> bool:
        value = self._values.get(key)
        try:
            return default if value is None else _BOOLEANS[value.lower()]
        except KeyError:
            raise ConfigError(f"{key}: {value!r} is neither true nor false") from None

    def choice(self, key: str, allowed: tuple[str, ...]) -> str:
        """One of `allowed`, the first where unset."""
        value = self._values.get(key, allowed[0])
        if value not in allowed:
            raise ConfigError(f"{key}: {value!r} is none of {', '.join(allowed)}")
        return value

    def required_path(self, key: str) -> Path:
        value = self.path(key)
        if value is None:
            raise ConfigError(f"{key} is not set in the model's config.pbtxt")
        return value


@dataclass(frozen=True)
class PreprocessSettings:
    """Of one preprocessing stub."""

    tokenizer_dir: Path
    shm_dir: Path | None = None  # None: L0, no ledger
    node_id: int = 0
    stub_index: int = 0
    pack: str = "explicit"
    chat_template: str = "auto"
    hints: frozenset[str] = frozenset()  # those that clients may give
    accept_rendered: bool = True
    max_prompt_bytes: int = 1 << 20
    flights: int = 4096
    probe_token: str | None = None
    evaluate_token: str | None = None
    add_special_tokens: bool = True  # stock parameter: the tokenizer's own BOS
    # The tokenizer's end and padding ids where the client gives none, as stock. An engine that
    # knows its model's own needs none, and each tensor costs.
    send_end_id: bool = True
    sample_share: float = 0.0  # of requests, whose prompts are kept for evaluations
    sample_prompt_bytes: int = 8192  # longer ones are not
    sample_ring_prompts: int = 256
    sample_refuse_tenants: frozenset[bytes] = frozenset()

    @classmethod
    def read(cls, parameters: Parameters, instance: str) -> "PreprocessSettings":
        """`instance` is Triton's name of it, e.g. `preprocessing_0_1`."""
        named = {hint.strip() for hint in (parameters.text("sprout_hints") or "").split(",")} - {""}
        if unknown := named - HINTS:
            raise ConfigError(f"sprout_hints: {min(unknown)!r} is none of {sorted(HINTS)}")
        return cls(
            tokenizer_dir=parameters.required_path("tokenizer_dir"),
            shm_dir=parameters.path("sprout_shm_dir"),
            node_id=parameters.integer("sprout_node_id", 0),
            stub_index=stub_index(instance),
            pack=parameters.text("sprout_pack") or cls.pack,
            chat_template=parameters.choice("sprout_chat_template", CHAT_TEMPLATES),
            hints=frozenset(named),
            accept_rendered=parameters.boolean("sprout_accept_rendered", True),
            max_prompt_bytes=parameters.integer("sprout_max_prompt_bytes", cls.max_prompt_bytes),
            flights=parameters.integer("sprout_flights", cls.flights),
            probe_token=_token(parameters, "sprout_probe_token_file"),
            evaluate_token=_token(parameters, "sprout_evaluate_token_file"),
            add_special_tokens=parameters.boolean("add_special_tokens", True),
            send_end_id=parameters.boolean("sprout_send_end_id", True),
            sample_share=parameters.share("sprout_sample_share"),
            sample_prompt_bytes=parameters.integer(
                "sprout_sample_prompt_bytes", cls.sample_prompt_bytes
            ),
            sample_ring_prompts=parameters.integer(
                "sprout_sample_ring_prompts", cls.sample_ring_prompts
            ),
            sample_refuse_tenants=frozenset(
                name.strip().encode()
                for name in (parameters.text("sprout_sample_refuse_tenants") or "").split(",")
                if name.strip()
            ),
        )


@dataclass(frozen=True)
class PostprocessSettings:
    """Of the postprocessing stub."""

    tokenizer_dir: Path
    shm_dir: Path | None = None  # None: no receipts
    node_id: int = 0
    stub_index: int = 0
    skip_special_tokens: bool = True  # stock parameter
    pieces: bool = False  # a decoupled engine that can't echo flights

    @classmethod
    def read(cls, parameters: Parameters, instance: str) -> "PostprocessSettings":
        """`instance` is Triton's name of it, e.g. `postprocessing_0_0`."""
        return cls(
            tokenizer_dir=parameters.required_path("tokenizer_dir"),
            shm_dir=parameters.path("sprout_shm_dir"),
            node_id=parameters.integer("sprout_node_id", 0),
            stub_index=stub_index(instance),
            skip_special_tokens=parameters.boolean("skip_special_tokens", True),
            pieces=parameters.boolean("sprout_pieces", False),
        )


@dataclass(frozen=True)
class BlsSettings:
    """Of the `tensorrt_llm_bls` stub."""

    chain: str = "ensemble"  # the model that answers
    engine: str = "tensorrt_llm"  # the model that is told to stop
    outputs: tuple[str, ...] = ()  # names, from the model's own configuration
    # More wait. Fewer than the 32 threads that Triton has for inner requests: stops need some.
    max_in_flight: int = 24
    shm_dir: Path | None = None  # None: nothing is counted
    node_id: int = 0
    stub_index: int = 0

    @classmethod
    def read(cls, parameters: Parameters, instance: str) -> "BlsSettings":
        """`instance` is Triton's name of it, e.g. `tensorrt_llm_bls_0_0`."""
        max_in_flight = parameters.integer("bls_max_in_flight", cls.max_in_flight)
        if max_in_flight < 1:
            raise ConfigError(f"bls_max_in_flight must be at least 1, not {max_in_flight}")
        return cls(
            chain=parameters.text("sprout_chain_model_name") or cls.chain,
            engine=parameters.text("tensorrt_llm_model_name") or cls.engine,
            outputs=parameters.outputs,
            max_in_flight=max_in_flight,
            shm_dir=parameters.path("sprout_shm_dir"),
            node_id=parameters.integer("sprout_node_id", 0),
            stub_index=stub_index(instance),
        )


def stub_index(instance: str) -> int:
    """Number of a model instance, the last part of its name."""
    number = instance.rpartition("_")[2]
    return int(number) if number.isdigit() else 0


def _token(parameters: Parameters, key: str) -> str | None:
    file = parameters.path(key)
    if file is None:
        return None
    try:
        return file.read_text().strip() or None
    except OSError as error:
        raise ConfigError(f"{key}: can't read {file}: {error.strerror}") from None
