# SPDX-License-Identifier: Apache-2.0
"""What `sprout evaluate` tells people: q with its intervals, what it took, what to look at."""

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

from rich.table import Table

from sprout.console.output import grams, joules, out
from sprout.evaluate.dry_run import Expected
from sprout.evaluate.findings import WIDEST
from sprout.evaluate.journal import Entry, Journal
from sprout.evaluate.statistics.agreement import kappa
from sprout.proof.interval import Absent, Interval

SHOWN = 3  # disagreements
SHOWN_CHARS = 400  # of a text
VERDICTS = (0.0, 0.5, 1.0)  # lost, tied, won


def expected(found: Expected) -> None:
    """Of a dry run."""
    tag = found.energy_estimated
    rows = [
        ("prompts", f"{found.prompts} of {found.said}"),
        ("answers", f"{found.requests} requests, {found.seconds:.3g} s on the device"),
        ("energy", f"{joules(found.joules, tag)} ({found.joules_basis})"),
        ("carbon", "unknown: no intensity" if found.carbon_g is None else grams(found.carbon_g)),
        (
            "judge",
            f"{found.judge}: at most {found.judge_calls} calls, some {found.judge_tokens} tokens",
        ),
    ]
    if found.judge_joules is not None:
        rows.append(("", f"{joules(found.judge_joules, True)} as declared"))
    if found.judge_price is not None:
        rows.append(("", f"{found.judge_price:.2f} in your currency, its input alone"))
    for name, text in rows:
        out.print(f"{name:<11} {text}", markup=False)
    out.print("at most: it ends as soon as the decisions that rest on q are sure enough")


def show(found: dict[str, Any]) -> None:
    """An evaluation, as JSON has it."""
    levels = found["levels"]
    out.print(
        f"{found['id']}: judged by {found['judge']} ({found['method']}), prompts: "
        f"{found['prompts']}",
        markup=False,
    )
    table = Table(box=None, pad_edge=False)
    for column in ("class", "prompts", *levels[1:], "borrowed"):
        table.add_column(column, justify="left" if column == "class" else "right")
    for one in found["classes"]:
        table.add_row(
            one.get("task") or "all",
            str(one["judged"]),
            *_ratios(one),
            f"{100 * one.get('shrunk', 0.0):.0f} %" if one.get("task") else "",
        )
    out.print(table)
    out.print(f"% of {levels[0]}'s preference, with 95 % intervals; borrowed: from other classes")
    for line in _lines(found):
        out.print(line, markup=False)


def _ratios(one: dict[str, Any]) -> Iterator[str]:
    q = one["preference"]
    low, high = one.get("low") or [], one.get("high") or []
    for i in range(1, len(q)):
        text = f"{100 * q[i] / q[0]:.1f}" if q[0] > 0 else "-"
        if low:
            most = "∞" if high[i] >= WIDEST else f"{100 * high[i]:.0f}"
            text += f" ({100 * low[i]:.0f} to {most})"
        yield text


def _lines(found: dict[str, Any]) -> Iterator[str]:
    cost, bias = found.get("cost", {}), found.get("bias", {})
    yield f"ended       {found['stopped']}"
    if int(found.get("unusable", 0)):
        yield f"unusable    {found['unusable']} judgments could not be used, and count nowhere"
    if "position" in bias:
        yield (
            f"position    what stands first wins {100 * bias['position']:+.1f} points too often "
            f"(cancelled: both orders are asked); one verdict in both orders in "
            f"{100 * bias.get('consistent', 0):.0f} %"
        )
    if "length" in bias:
        yield f"length      the longer answer gains {bias['length']:+.2f} log-odds a deviation"
    for note in found.get("notes", ()):
        yield f"note        {note}"
    yield (
        f"answers     {cost.get('requests', 0)} requests, {cost.get('output_tokens', 0)} tokens, "
        f"{joules(cost.get('energy_joules', 0.0), cost.get('energy_estimated', False))}, "
        f"{_grams(cost.get('carbon_g', 0.0), cost.get('carbon_unknown', False))}"
    )
    if int(cost.get("left_out", 0)):
        yield f"left out    {cost['left_out']} prompts that the engine did not answer whole"
    if int(cost.get("judge_calls", 0)) or int(cost.get("judge_cached", 0)):
        yield (
            f"judge       {cost.get('judge_calls', 0)} calls, {cost.get('judge_cached', 0)} from "
            f"the cache, {cost.get('judge_input_tokens', 0)} + "
            f"{cost.get('judge_output_tokens', 0)} tokens, "
            + (
                f"{joules(cost['judge_joules'], False)}, {grams(cost.get('judge_g', 0.0))}"
                if cost.get("judge_joules")
                else "joules not known"
            )
            + (", of some calls not known" if _partly_known(cost) else "")
            + (f", {cost['judge_price']:.2f} in your currency" if cost.get("judge_price") else "")
        )


def _grams(value: float, unknown: bool) -> str:
    """A sum that may lack some."""
    return f"at least {grams(value)} (of some answers not known)" if unknown else grams(value)


def _partly_known(cost: dict[str, Any]) -> bool:
    return bool(cost.get("judge_joules_unknown") and cost.get("judge_joules"))


def show_share(saved: dict[str, Any]) -> None:
    """What all evaluations took against what receipts say the policy saved in the same time."""
    if "not_known" in saved:
        out.print(f"share       not known: {saved['not_known']}", markup=False)
        return
    total = saved["attributed_g"]
    took = saved["answers_g"] + saved["judge_g"]
    share = f": {100 * took / total:.2g} %" if total > 0 else ""
    judge = "" if saved["judge_known"] else ", without judges whose joules are not known"
    all_took = _grams(took, saved["carbon_unknown"]) + judge
    out.print(
        f"share       all evaluations so far: {all_took}, against "
        f"{grams(total) if total > 0 else 'nothing'} that the receipts of {saved['requests']} "
        f"requests under the policy say less than the control group's{share}",
        markup=False,
    )


def unusable(found: Journal) -> None:
    """Why judgments could not be used."""
    reasons = Counter(why for entry in found.entries for _, why in entry.unusable)
    if reasons:
        said = ", ".join(f"{why} {n}" for why, n in reasons.most_common())
        out.print(f"            by reason: {said}", markup=False)


def disagreements(found: Journal) -> None:
    """Answers side by side where the judge minded the level most."""
    with_texts = [entry for entry in found.entries if entry.scores and entry.answers]
    if not with_texts:
        out.print("no texts are kept of sampled prompts: nothing to read side by side")
        return
    levels = (found.evaluation or {}).get("levels", [])
    worst = sorted(with_texts, key=lambda entry: min(entry.scores) - entry.scores[0])
    for entry in islice((e for e in worst if min(e.scores) < e.scores[0]), SHOWN):
        level = min(range(len(entry.scores)), key=lambda i: entry.scores[i])
        out.print(f"\n{entry.id} ({entry.task or 'no class'})", markup=False)
        for name, text in (
            ("prompt", entry.prompt or ""),
            (levels[0], entry.answers[0]),
            (levels[level], entry.answers[level]),
        ):
            out.print(f"  {name}: {_short(text)}", markup=False)


def _short(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= SHOWN_CHARS else plain[: SHOWN_CHARS - 1] + "…"


def agreement(one: Journal, other: Journal) -> Interval | Absent:
    """Cohen's kappa of two evaluations' verdicts on the same questions and levels; by order as
    well, where both judges were asked in both."""
    theirs = {entry.id: entry for entry in other.entries if entry.scores}
    pairs: list[tuple[float, float]] = []
    for entry in one.entries:
        match = theirs.get(entry.id)
        if not entry.scores or match is None:
            continue
        by_order = bool(entry.orders and match.orders)
        pairs += zip(
            _verdicts(entry, by_order=by_order), _verdicts(match, by_order=by_order), strict=True
        )
    return kappa([a for a, _ in pairs], [b for _, b in pairs], verdicts=VERDICTS, weights="linear")


def _verdicts(entry: Entry, *, by_order: bool) -> Iterator[float]:
    """Of each level against L0: lost, tied, won."""
    if by_order:
        yield from (verdict for pair in entry.orders for verdict in pair)
        return
    for score in entry.scores[1:]:
        yield 0.5 if score == entry.scores[0] else float(score > entry.scores[0])


def show_agreement(found: Interval | Absent, other: str) -> None:
    if isinstance(found, Absent):
        out.print(f"agreement   with {other}: {found.reason}", markup=False)
        return
    out.print(
        f"agreement   with {other}: Cohen's kappa {found.value:.2f} "
        f"({found.low:.2f} to {found.high:.2f})",
        markup=False,
    )


def interval(found: Interval | Absent) -> dict[str, Any]:
    """For JSON."""
    if isinstance(found, Absent):
        return {"absent": found.reason}
    return {"kappa": found.value, "low": found.low, "high": found.high}
