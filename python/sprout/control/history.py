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
    policy = decision.policy
    then = {("", ""): policy.shares} | {(m.tenant, m.task): m.shares for m in policy.mixes}
    now = {("", ""): made.shares} | {group.key: group.shares for group in made.groups}
    if not policy.mixes and len(policy.shares) and policy.shares[0].share == 1:
        # All at L0: a control plane of before did not name those who had opted out, who have no
        # other mix now either.
        now = {key: mix for key, mix in now.items() if key == ("", "") or mix[0] != 1}
    same = then.keys() == now.keys() and all(
        len(mix) == len(now[key])
        and all(abs(a.share - b) <= SAME for a, b in zip(mix, now[key], strict=True))
        for key, mix in then.items()
    )
    return made, same


Mixes = dict[tuple[str, str], tuple[float, ...]]


def last_shares(store: Store, levels: Sequence[str]) -> Mixes:
    """(levels,) by tenant and task of the newest policy stored, the default mix under ("", "").

    {}: there is none, or it is of another pack. What was decided and not applied is kept of the
    default mix alone.
    """
    for _, message, _ in store.decisions(1):
        policy = pb.Policy.FromString(message)
        if [share.level for share in policy.shares] == list(levels):
            found = {("", ""): policy.explanation.would_be or policy.shares}
            found |= {(m.tenant, m.task): m.shares for m in policy.mixes}
            return {key: tuple(s.share for s in mix) for key, mix in found.items()}
    return {}
