# SPDX-License-Identifier: Apache-2.0
"""`profile.json`: what `sprout profile` measured on one engine; the control plane reads it."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from sprout.errors import ConfigError
from sprout.profile.change import Reference
from sprout.profile.energy import AttributedEnergy, MarginalEnergy, marginal
from sprout.profile.power import PowerFit, Window
from sprout.profile.service import Demand, ServiceModel

LOG = logging.getLogger(__name__)

SCHEMA = 1
OUTCOMES = "settled outcomes"  # what the control plane compares with


@dataclass(frozen=True)
class Made:
    """Where the numbers come from."""

    time: datetime
    sprout_version: str
    commit: str  # of the checkout; "" where it is none
    model: str
    engine: str
    pack: str
    pack_hash: str  # hexadecimal
    meter: str
    energy_estimated: bool  # from a declared model, not from a meter
    nodes: int
    prompts: int
    prompts_sha256: str
    max_tokens: int
    seed: int


@dataclass(frozen=True)
class LevelTokens:
    level: str
    input_tokens: float  # per request, mean
    output_tokens: float
    requests: int


@dataclass(frozen=True)
class Profile:
    schema_version: int
    made: Made
    levels: tuple[LevelTokens, ...]  # in the pack's order
    windows: tuple[Window, ...]
    power: PowerFit | None  # None: too little for a fit
    service: ServiceModel | None
    attributed: tuple[AttributedEnergy, ...]  # by level and band of load
    reference: Reference | None  # for the change-point test; None: too few answers
    reference_basis: str = ""  # OUTCOMES; of older files "": receipts and the client's own times

    def marginal(self, traffic: Sequence[Demand]) -> tuple[MarginalEnergy, ...] | None:
        """By level at the load that the traffic of one node makes; None: no fit, or overloaded."""
        if self.power is None or self.service is None:
            return None
        return marginal(
            self.power.model, self.service, traffic, estimated=self.made.energy_estimated
        )


_PROFILE = TypeAdapter(Profile)


def dump(profile: Profile) -> str:
    return json.dumps(_PROFILE.dump_python(profile, mode="json"), indent=2, allow_nan=False) + "\n"


def load(path: Path, *, pack_hash: int) -> Profile:
    """What `dump` wrote. ConfigError where it can't be read, or speaks of another pack.

    A reference of another basis than outcomes is left out: compared with them it would raise false
    alarms.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"control.profile_file: can't read {path}: {error}") from None
    try:
        found = _PROFILE.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"control.profile_file: {path}: {where}: {first['msg']}") from None
    if found.schema_version != SCHEMA:
        raise ConfigError(
            f"control.profile_file: {path} is of schema {found.schema_version}, this Sprout reads "
            f"{SCHEMA}: profile again"
        )
    if found.made.pack_hash != f"{pack_hash:016x}":
        raise ConfigError(
            f"control.profile_file: {path} was made with other directives (pack "
            f"{found.made.pack!r}): profile again with the pack in force"
        )
    if found.reference is not None and found.reference_basis != OUTCOMES:
        LOG.warning(
            "%s: its reference for the change-point test is not of outcomes: the control plane "
            "learns its own; profile again to have one from the file",
            path,
        )
        return replace(found, reference=None)
    return found
