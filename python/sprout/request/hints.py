# SPDX-License-Identifier: Apache-2.0
"""What a client may ask of Sprout, as Triton request parameters.

`sprout_level` pins a level by name, `sprout_off` true asks for L0. `sprout_tenant` names who asks
and `sprout_task` a task class: for the statistics, and for the mix where the policy has one of that
name. `sprout_probe` marks the stack's own readiness probe, by a token that only it knows. A hint
that the operator switched off is ignored and counted, as is one that doesn't exist; parameters of
other names are none of our business.
"""

import hmac
import json
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

from sprout.directives import Pack
from sprout.errors import ConfigError, RequestError
from sprout_ext.board import NAME_LENGTH


@dataclass(frozen=True, slots=True)
class Hints:
    level: int | None = None
    off: bool = False
    tenant: bytes = b""
    task: bytes = b""
    probe: bool = False
    ignored: int = 0  # how many hints were given in vain


NONE = Hints()


def read(parameters: str, pack: Pack, allowed: Set[str], probe_token: str | None) -> Hints:
    """Hints in a request's parameters, a JSON object as text.

    RequestError if a hint that is allowed has the wrong type or an unknown value.
    """
    if "sprout_" not in parameters:  # nearly always
        return NONE
    values: dict[str, Any] = json.loads(parameters)
    given = {name: value for name, value in values.items() if name.startswith("sprout_")}
    token = given.pop("sprout_probe", None)
    probe = (
        probe_token is not None
        and isinstance(token, str)
        and hmac.compare_digest(token.encode(), probe_token.encode())
    )
    heard = {name: value for name, value in given.items() if name in allowed}
    return Hints(
        level=_level(heard["sprout_level"], pack) if "sprout_level" in heard else None,
        off=_off(heard["sprout_off"]) if "sprout_off" in heard else False,
        # Whoever fills it in for everybody says of some that they belong to nobody: "" is none.
        tenant=_name(heard, "sprout_tenant") if heard.get("sprout_tenant", "") != "" else b"",
        task=_name(heard, "sprout_task") if "sprout_task" in heard else b"",
        probe=probe,
        ignored=len(given) - len(heard) + (token is not None and not probe),
    )


def _level(value: Any, pack: Pack) -> int:
    if not isinstance(value, str):
        raise RequestError(f"sprout_level must be the name of a level, not {value!r}")
    try:
        return pack.level(value)
    except ConfigError as error:
        raise RequestError(f"sprout_level: {error}") from None


def _off(value: Any) -> bool:
    if not isinstance(value, bool):
        raise RequestError(f"sprout_off must be true or false, not {value!r}")
    return value


def _name(heard: Mapping[str, Any], hint: str) -> bytes:
    value = heard[hint]
    if not isinstance(value, str) or not value.isascii() or not value.isprintable():
        raise RequestError(f"{hint} must be printable ASCII text, not {value!r}")
    if not 0 < len(value) <= NAME_LENGTH:
        raise RequestError(f"{hint} must have 1 to {NAME_LENGTH} characters")
    return value.encode()
