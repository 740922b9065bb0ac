# SPDX-License-Identifier: Apache-2.0
"""Reads `sprout.toml`, then the `SPROUT_*` environment, then flags; the last one wins.

Environment: `SPROUT_<SECTION>__<KEY>`, e.g. `SPROUT_CONTROL__XI=0.2`; lists as comma-separated text
there and in flags. Unknown keys are errors that name the nearest right one.
"""

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from sprout.config.tenants import TenantConfig, TenantName
from sprout.config.whole import Config
from sprout.errors import ConfigError

ENV_PREFIX = "SPROUT_"
# Environment variables that belong to Sprout but are no setting of the stack.
ENV_RESERVED = {"SPROUT_CONFIG", "SPROUT_DATA"}


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
