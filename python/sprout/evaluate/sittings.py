# SPDX-License-Identifier: Apache-2.0
"""What an evaluation took, over all its sittings: what is paid for counts, used or not.

A sitting is a run of the evaluator on one journal. Each has the names of EvaluationCost, and of
Handling what they do not cover.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from sprout.evaluate.answering import Tally
from sprout.evaluate.judges.account import JudgeCost
from sprout.v1 import control_pb2 as pb

Sitting = Mapping[str, Any]
_COST = tuple(pb.EvaluationCost.DESCRIPTOR.fields_by_name)


@dataclass(frozen=True, slots=True)
class Handling:
    """What befell the requests."""

    repeated: int = 0  # after a failure
    failed: int = 0  # without a receipt in the end: what they used is not known
    unmetered: int = 0  # answers whose receipt names no joules
    held: int = 0  # requests that waited for clients
    held_s: float = 0.0


def sitting(tally: Tally, judge: JudgeCost) -> Sitting:
    """Of the answers and the judge, so far."""
    handling = Handling(
        tally.repeated, tally.failed, tally.unmetered, tally.held, round(tally.held_s, 3)
    )
    return {
        "requests": tally.requests,
        "output_tokens": tally.output_tokens,
        "energy_joules": tally.energy_joules,
        "energy_estimated": bool(tally.estimated or tally.failed),
        "carbon_g": tally.carbon_g,
        "carbon_unknown": bool(tally.carbon_unknown or tally.failed)
        or (judge.joules is not None and judge.carbon_g is None and judge.joules > 0),
        "judge_calls": judge.calls,
        "judge_cached": judge.cached,
        "judge_input_tokens": judge.input_tokens,
        "judge_output_tokens": judge.output_tokens,
        "judge_joules": judge.joules or 0.0,
        "judge_joules_unknown": judge.joules is None or judge.uncounted_calls > 0,
        "judge_g": judge.carbon_g or 0.0,
        "judge_price": judge.price or 0.0,
        **asdict(handling),
    }


def cost(sittings: Iterable[Sitting], *, left_out: int = 0) -> pb.EvaluationCost:
    """Of all sittings together. left_out: questions that the engine never answered."""
    total = pb.EvaluationCost(left_out=left_out)
    for one in sittings:
        for name in _COST:
            value = one.get(name, 0)
            old = getattr(total, name)
            setattr(total, name, old or value if isinstance(old, bool) else old + value)
    return total


def notes(sittings: Sequence[Sitting], left_out: Mapping[str, str]) -> Iterator[str]:
    """For people: what happened on the way that q does not show."""
    if left_out:
        kinds = ", ".join(f"{kind} {n}" for kind, n in Counter(left_out.values()).most_common())
        yield f"{len(left_out)} prompts were left out, for the engine did not answer them ({kinds})"
    of = {f.name: sum(one.get(f.name, 0) for one in sittings) for f in fields(Handling)}
    if of["repeated"]:
        yield f"{of['repeated']} requests were tried again after a failure"
    if of["failed"]:
        yield (
            f"{of['failed']} requests ended without a receipt (they failed, or were taken back): "
            "what they used is not in the cost"
        )
    if of["unmetered"]:
        yield f"{of['unmetered']} answers came without joules: nothing metered them"
    if of["held"]:
        yield f"{of['held']} requests waited for clients, {of['held_s']:.3g} s in all"
