# SPDX-License-Identifier: Apache-2.0
"""Decisions of the past: what each policy was solved from, so that it can be solved again.

Inputs are kept as JSON with every digit of a float, and `NaN` where there is no number, so that the
same solver comes to the same result.
"""

import json
from collections.abc import Sequence

from pydantic import TypeAdapter, ValidationError

from sprout.control.decide import plan
from sprout.control.inputs import Inputs
from sprout.control.plan import Plan
from sprout.control.store import Store
from sprout.errors import ControlError
from sprout.v1 import control_pb2 as pb

_INPUTS = TypeAdapter(Inputs)
# Simplex and the closed form may differ by as much, see lp.py.
SAME = 1e-6


def dump(inputs: Inputs) -> str:
    """Of a decision, for the store."""
    return json.dumps(_INPUTS.dump_python(inputs))


def load(text: str) -> Inputs:
    """What `dump` wrote. ControlError where another version of Sprout wrote what is not known."""
    try:
        return _INPUTS.validate_python(json.loads(text))
    except (ValidationError, json.JSONDecodeError) as error:
        first = str(error).partition("\n")[0]
        raise ControlError(f"inputs of this decision can't be read: {first}") from None


def solve_again(decision: pb.Decision) -> tuple[Plan, bool]:
    """(the plan for the inputs of then, whether it is the mix that was published).

    ControlError where the inputs are not known.
    """
    if not decision.inputs_json:
        raise ControlError("the inputs of this decision were not kept")
    made = plan(load(decision.inputs_json))
    then = [share.share for share in decision.policy.shares]
    same = len(then) == len(made.shares) and all(
        abs(a - b) <= SAME for a, b in zip(then, made.shares, strict=True)
    )
    return made, same


def last_shares(store: Store, levels: Sequence[str]) -> tuple[float, ...] | None:
    """(levels,) of the newest policy stored; None: there is none, or it is of another pack."""
    for _, message, _ in store.decisions(1):
        policy = pb.Policy.FromString(message)
        if [share.level for share in policy.shares] == list(levels):
            return tuple(s.share for s in policy.explanation.would_be or policy.shares)
    return None
