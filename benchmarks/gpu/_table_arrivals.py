# SPDX-License-Identifier: Apache-2.0
"""Tables of `arrivals.py`: one result, or the parts of one run on several GPUs together."""

from collections.abc import Sequence
from typing import Any

from _arms import ARMS, L0, MIX, PROMPT, SAYS
from _figures import mean, percentile, saved
from _pairs import Pair, ratio, zones

Found = dict[str, Any]


def arrivals(parts: Sequence[Found]) -> str:
    hours = [h for found in parts for h in found["hours"] if set(ARMS) <= set(h["arms"])]
    if not hours:
        return "### Recorded arrivals\n\nNo hour has all of its blocks."
    text = f"### Recorded arrivals\n\n{_head(parts, hours)}\n\n{_arms(hours)}\n\n{_zones(hours)}"
    return f"{text}\n\n{_hours(hours)}"


def pairs(hours: Sequence[Found], base: str, arm: str) -> list[Pair]:
    return [
        Pair(
            zone=h["zone"],
            g_per_kwh=h["g_per_kwh"],
            weight=h["weight"],
            given_up=1 - h["floor"],
            base_watts=h["arms"][base]["watts"],
            watts=h["arms"][arm]["watts"],
        )
        for h in hours
    ]


def _head(parts: Sequence[Found], hours: Sequence[Found]) -> str:
    first, trace = parts[0], parts[0]["trace"]
    idle = ", ".join(f"{w:.0f}" for found in parts for one in found["idle_watts"] for w in one)
    carried = ", ".join(f"{found['carried_per_s']:.1f}" for found in parts)
    missing = sum(len(found.get("left_out", [])) for found in parts)
    older = sum(h["arms"][arm]["under_an_older_policy"] for h in hours for arm in ARMS)
    return (
        f"{first['model']}; {len(parts)} x {first['gpu']}, driver {first['driver']}, "
        f"{first['engine']}; commit {first['commit']}, seed {first['seed']}. Idle with the model "
        f"loaded, before and after: {idle} W. A GPU carries {carried} requests/s at L0 "
        f"({first['carried_is']}); mean load {first['load']:.0%} of it. Arrivals: "
        f"{trace['name']}, {trace['seconds']:.0f} s from second {trace['start_s']:.0f} on, "
        f"{trace['speed']:.2f} times as fast. {len(hours)} hours, each a block of "
        f"{hours[0]['arms'][L0]['seconds']:.0f} s for every arm, after {first['washout_s']:g} s of "
        f"wash-out; {missing} hours left out; {older} "
        "requests had the policy of the block before."
    )


def _arms(hours: Sequence[Found]) -> str:
    from table import markdown, number, share  # noqa: PLC0415  # which imports this one

    rows = []
    base = [h["arms"][L0] for h in hours]
    for arm in ARMS:
        own = [h["arms"][arm] for h in hours]
        latencies = [s for one in own for s in one["latencies_s"]]
        answered = sum(one["answered"] for one in own)
        levels = [sum(one["levels"][i] for one in own) for i in range(len(own[0]["levels"]))]
        watts = [one["watts"] for one in own]
        receipt = [_mean(one["receipt_joules"]) for one in own]
        rows.append(
            (
                *(SAYS[arm], f"{mean(watts)['mean']:.1f}"),
                share(saved([one["watts"] for one in base], watts)) if arm != L0 else "",
                f"{mean(receipt)['mean']:.1f}",
                share(saved([_mean(one["receipt_joules"]) for one in base], receipt))
                if arm != L0
                else "",
                f"{mean([one['ended_per_s'] for one in own])['mean']:.2f}",
                f"{mean([one['in_flight'] for one in own])['mean']:.1f}",
                number(percentile(latencies, 50), 2),
                number(percentile(latencies, 99), 2),
                " / ".join(f"{n / max(1, answered):.0%}" for n in levels),
                sum(one["failed"] for one in own),
                f"{mean([_expected(h, arm) for h in hours])['mean']:.1%}",
                f"{mean([h['preference'][arm] for h in hours])['mean']:.1%}",
                _with(ratio([o["preferred"] for o in own], [o["preferred_at_l0"] for o in own]), 1),
            )
        )
    columns = ["arm", "W", "GPU energy saved", "J/request by receipts", "saved by receipts"]
    columns += ["answers/s", "in flight", "p50 s", "p99 s", "L0 / L1 / L2", "failed"]
    columns += ["preference expected", "of all judged", "of what was served"]
    direct = saved(
        [h["arms"][MIX]["watts"] for h in hours], [h["arms"][PROMPT]["watts"] for h in hours]
    )
    return (
        f"{markdown(columns, rows)}\n\nLevels by prompt against the paper's policy, at the same "
        f"floor hour by hour: {share(direct)} of the GPU's energy. ± are Student's, 95 %, over "
        f"{len(hours)} hours; of preferences a jackknife's. Measured: watts, receipts, latencies, "
        "levels. Preference, against L0's: *expected* by the control plane; *of all judged*: what "
        "its policy comes to on all prompts that were served from, none of which the predictor had "
        "seen; *of what was served*: on the requests themselves; both from recorded judgments."
    )


def _zones(hours: Sequence[Found]) -> str:
    from table import markdown  # noqa: PLC0415

    paper, prompt = (zones(pairs(hours, L0, arm)) for arm in (MIX, PROMPT))
    between = zones(pairs(hours, MIX, PROMPT))
    rows = []
    for name in sorted(paper):
        own = [h for h in hours if h["zone"] == name]
        rows.append(
            (
                *(name, len(own)),
                f"{_weighted(own, [h['floor'] for h in own]):.1%}",
                f"{paper[name].base_g_per_h:.1f}",
                f"{paper[name].g_per_h:.1f}",
                f"{prompt[name].g_per_h:.1f}",
                *(
                    _with((found[name].saved, found[name].half_width), 1)
                    for found in (paper, prompt, between)
                ),
            )
        )
    columns = ["zone", "hours", "floor", "L0 g/h", "paper's policy g/h", "by prompt g/h"]
    columns += ["paper's policy saves", "by prompt saves", "by prompt against the paper's"]
    return (
        "Grams of one GPU in an hour: its measured watts at the recorded intensities of the hours, "
        "weighted by what they stand for (derived; PUE 1, direct emissions; embodied carbon is the "
        f"same in all arms and not in it). ± 95 %, of the measurement alone, from the scatter of "
        f"all zones' pairs around a line in the floor:\n\n{markdown(columns, rows)}"
    )


def _hours(hours: Sequence[Found]) -> str:
    from table import markdown  # noqa: PLC0415

    rows = []
    for h in sorted(hours, key=lambda h: (h["zone"], h["rank"])):
        mix = ", ".join(f"{k} {v:.0%}" for k, v in h["decision"]["shares"].items() if v > 0)
        by_prompt = h["arms"][PROMPT]["levels"]
        total = max(1, sum(by_prompt))
        watts = (f"{h['arms'][arm]['watts']:.0f}" for arm in ARMS)
        levels = " / ".join(f"{n / total:.0%}" for n in by_prompt)
        hour = (h["zone"], h["at"][:16], f"{h['g_per_kwh']:.0f}", f"{h['floor']:.1%}")
        rows.append((*hour, f"{h['per_s']:.1f}", mix, levels, *watts))
    columns = ["zone", "hour (UTC)", "g/kWh", "floor", "requests/s", "the paper's mix"]
    columns += ["by prompt, served", *(f"W {SAYS[arm]}" for arm in ARMS)]
    return markdown(columns, rows)


def _expected(hour: Found, arm: str) -> float:
    if arm == L0:
        return 1.0
    key = "mix_preference" if arm == MIX else "blended_preference"
    return float(hour["decision"][key])


def _weighted(hours: Sequence[Found], values: Sequence[float]) -> float:
    weights = [h["weight"] for h in hours]
    return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def _with(found: tuple[float, float | None], places: int) -> str:
    value, half = found
    return f"{value:.{places}%}" + ("" if half is None else f" ± {half:.{places}%}")
