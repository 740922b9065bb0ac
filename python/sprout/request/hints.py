# SPDX-License-Identifier: Apache-2.0
"""What a client may ask of Sprout, as Triton request parameters.

`sprout_level` pins a level by name, `sprout_off` true asks for L0. `sprout_tenant` names who asks
and `sprout_task` a task class: for the statistics, and for the mix where the policy has one of that
name. `sprout_probe` marks the stack's own readiness probe, by a token that only it knows. So does
`sprout_evaluate` an evaluation's request: with its token hints are heard that no client may give,
because the answer is no client's. `sprout_sample` false keeps the prompt from being sampled for
evaluations, and no operator can switch that off; true does nothing. A wrong `sprout_evaluate` is an
error: it is never a client's, and its answer would count as one's. Any other hint that the
operator switched off is ignored and counted, as is one that doesn't exist; parameters of other
names are none of our business.
"""

import hmac
import json
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

from sprout.directives import Pack
from sprout.errors import ConfigError, RequestError
from sprout_ext.board import NAME_LENGTH

EVALUATION = frozenset({"sprout_level", "sprout_task"})  # heard with the token


@dataclass(frozen=True, slots=True)
class Hints:
    level: int | None = None
    off: bool = False
    tenant: bytes = b""
    task: bytes = b""
    probe: bool = False
    evaluation: bool = False
    sample: bool = True  # may its prompt be kept for evaluations?
    ignored: int = 0  # how many hints were given in vain


NONE = Hints()


def read(
    parameters: str,
    pack: Pack,
    allowed: Set[str],
    probe_token: str | None,
    evaluate_token: str | None = None,
) -> Hints:
    """Hints in a request's parameters, a JSON object as text.

    RequestError if a hint that is allowed has the wrong type or an unknown value.
    """
    if "sprout_" not in parameters:  # nearly always
        return NONE
    values: dict[str, Any] = json.loads(parameters)
    given = {name: value for name, value in values.items() if name.startswith("sprout_")}
    tokens = [given.pop("sprout_probe", None), given.pop("sprout_evaluate", None)]
    probe, evaluation = map(_known, tokens, (probe_token, evaluate_token))
    if tokens[1] is not None and not evaluation:
        raise RequestError("sprout_evaluate: this token of an evaluation is not the server's")
    if evaluation:
        allowed = allowed | EVALUATION
    # Always heard, and whatever is not true refuses: better than a refusal that is misread.
    sample = given.pop("sprout_sample", True) is True
    heard = {name: value for name, value in given.items() if name in allowed}
    return Hints(
        level=_level(heard["sprout_level"], pack) if "sprout_level" in heard else None,
        off=_off(heard["sprout_off"]) if "sprout_off" in heard else False,
        # Whoever fills it in for everybody says of some that they belong to nobody: "" is none.
        tenant=_name(heard, "sprout_tenant") if heard.get("sprout_tenant", "") != "" else b"",
        task=_name(heard, "sprout_task") if "sprout_task" in heard else b"",
        probe=probe,
        evaluation=evaluation,
        sample=sample,
        ignored=len(given) - len(heard) + sum(t is not None for t in tokens) - probe - evaluation,
    )


def _known(token: Any, right: str | None) -> bool:
    if right is None or not isinstance(token, str):
        return False
    # JSON may hold half of a surrogate pair, which has no encoding; as bytes it is no token's.
    return hmac.compare_digest(token.encode(errors="surrogatepass"), right.encode())


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
