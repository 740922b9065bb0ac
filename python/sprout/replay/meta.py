# SPDX-License-Identifier: Apache-2.0
"""meta.json of a bundle, and what stands in where it is silent: the paper's constants."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sprout.energy import embodied
from sprout.errors import ConfigError
from sprout.evaluate.schedule import Rule

WINDOW_H = 720


@dataclass(frozen=True)
class Meta:
    name: str
    levels: tuple[str, ...]  # names
    directives: dict[str, str]  # level → text
    small_model_preference: tuple[float, float] | None  # (large, small) share of wins
    starts: tuple[int, ...]  # hours of the trace at which windows begin
    window_h: int
    embodied_g_per_s: float
    pue: float
    xi: float
    evaluation_prompts: int  # that one evaluation judges
    rule: Rule  # when it evaluates


def read_meta(path: Path, levels: int, name: str, notes: list[str]) -> Meta:
    """ConfigError for what is no number or out of range; `notes` says what stands in."""
    raw: dict[str, Any] = {}
    if path.is_file():
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"can't read {path}: {error}") from None
        if not isinstance(raw, dict):
            raise ConfigError(f"{path} is no JSON object")
    else:
        notes.append("no meta.json: the paper's constants, one window from the first hour on")
    default_g_per_s = embodied.rate("a100-40gb", None, with_host=False)
    names = raw.get("levels") or [f"L{i}" for i in range(levels)]
    if len(names) != levels:
        raise ConfigError(f"{path}: {len(names)} levels, requests have {levels}")
    evaluator = raw.get("evaluator") or {}
    small = raw.get("small_model_preference")
    try:
        return Meta(
            name=str(raw.get("name", name)),
            levels=tuple(map(str, names)),
            directives={str(k): str(v) for k, v in (raw.get("directives") or {}).items()},
            small_model_preference=None
            if small is None
            else (_positive(small["large"]), _positive(small["small"])),
            starts=tuple(int(s) for s in raw.get("windows_start_hour", (0,))),
            window_h=int(_positive(raw.get("window_hours", WINDOW_H))),
            embodied_g_per_s=_positive(raw.get("embodied_g_per_s", default_g_per_s)),
            pue=_positive(raw.get("pue", 1.0)),
            xi=_share(raw.get("xi", 0.1)),
            evaluation_prompts=int(_positive(evaluator.get("sample_prompts", 1000))),
            rule=Rule(
                beta_per_hour=float(evaluator.get("urgency_per_hour", 0.029)),
                grace_hours=float(evaluator.get("grace_hours", 6)),
                max_idle_hours=float(evaluator.get("max_idle_hours", 72)),
                # As published: the mean of the whole window, its future included.
                mean="window",
            ),
        )
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ConfigError(f"{path}: {error}") from None


def _positive(value: Any) -> float:
    number = float(value)
    if not 0 < number < math.inf:
        raise ValueError(f"{value} must be above 0")
    return number


def _share(value: Any) -> float:
    number = float(value)
    if not 0 <= number <= 1:
        raise ValueError(f"{value} must be in [0, 1]")
    return number
