# SPDX-License-Identifier: Apache-2.0
"""Renders results as Markdown tables.

    python benchmarks/gpu/table.py results/*.json [--g-per-kwh 50 300 600]

Nothing is measured here. What is worked out from measurements rather than read off a counter is
headed "estimated".
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from _figures import mean, percentile, saved
from _table_arrivals import arrivals
from _table_live import LIVE
from _table_release import release

from sprout.energy.embodied import Unmatched, match, rate
from sprout.units import request_g

G_PER_KWH = (50.0, 300.0, 600.0)  # a clean, a middling and a dirty grid
Found = dict[str, Any]
Row = Sequence[object]


def render(results: Iterable[Found], g_per_kwh: Sequence[float] = G_PER_KWH) -> str:
    parts, arrived = [], []
    for found in results:
        if found["measurement"] == "energy_tokens":
            parts.append(energy_tokens(found, g_per_kwh))
        elif found["measurement"] == "closed_loop":
            parts.append(closed_loop(found))
        elif found["measurement"] == "arrivals":
            arrived.append(found)
        elif found["measurement"] == "release":
            parts.append(release(found))
        elif found["measurement"] in LIVE:
            parts.append(LIVE[found["measurement"]](found))
        else:
            parts.append(open_loop(found))
    if arrived:  # those of several GPUs are one measurement
        parts.append(arrivals(arrived))
    return "\n\n".join(parts)


def head(found: Found) -> str:
    idle = ", ".join(f"{w['watts']:.0f}" for w in found["idle"])
    return (
        f"{found['model']}; {found['gpu']}, driver {found['driver']}, vLLM {found['vllm']}, torch "
        f"{found['torch']}; commit {found['commit']}, seed {found['seed']}. Idle with the model "
        f"loaded, before and after: {idle} W."
    )


def energy_tokens(found: Found, g_per_kwh: Sequence[float]) -> str:
    by: dict[tuple[int, int, int], list[Found]] = defaultdict(list)
    for cell in found["cells"]:
        by[cell["batch"], cell["prompt_tokens"], cell["output_tokens"]].append(cell)
    known = match(found["gpu"])
    embodied = 0.0 if isinstance(known, Unmatched) else rate(known, None, with_host=False)
    rows, joules = [], {}
    for (batch, prompt, output), cells in sorted(by.items()):
        energy = mean([c["joules_per_request"] for c in cells])
        seconds = sum(c["device_seconds_per_request"] for c in cells) / len(cells)
        joules[batch, prompt, output] = energy["mean"]
        prefill = joules.get((batch, prompt, 1))
        decode = None
        if output > 1 and prefill is not None:
            decode = (energy["mean"] - prefill) / (output - 1)
        grams = [
            1e3 * request_g(
                energy["mean"], seconds, intensity_g_per_kwh=g, pue=1.0, embodied_g_per_s=embodied
            )
            for g in g_per_kwh
        ]  # fmt: skip
        rows.append(
            (
                *(batch, prompt, output, interval(energy)),
                number(prefill / prompt if output == 1 and prefill is not None else None, 4),
                number(decode, 3),
                f"{sum(c['watts'] for c in cells) / len(cells):.0f}",
                f"{sum(c['latency_s'] for c in cells) / len(cells):.3f}",
                *(f"{g:.3g}" for g in grams),
            )
        )
    columns = ["batch", "prompt tokens", "answer tokens", "J/request", "J/token prefill"]
    columns += ["J/token decode", "W", "s", *(f"mg at {g:g} g/kWh" for g in g_per_kwh)]
    about = (
        f"Milligrams: measured joules at the stated intensity, PUE 1, and embodied carbon at "
        f"{embodied:.3g} g per device-second, shared by the batch."
        if embodied
        else "Milligrams: measured joules at the stated intensity, PUE 1; no embodied carbon, "
        f"because {known.reason}."
        if isinstance(known, Unmatched)
        else ""
    )
    return f"### Energy by tokens\n\n{head(found)}\n\n{markdown(columns, rows)}\n\n{about}"


def closed_loop(found: Found) -> str:
    by: dict[tuple[int, int], list[Found]] = defaultdict(list)
    for cell in found["cells"]:
        by[cell["concurrency"], cell["level"]].append(cell)
    rows = []
    for (n, level), cells in sorted(by.items()):
        energy = [c["joules_per_request"] for c in cells]
        ended = [s for c in cells for s in c["latencies_s"]]
        rows.append(
            (
                *(n, f"L{level}", interval(mean(energy))),
                share(saved([c["joules_per_request"] for c in by[n, 0]], energy)) if level else "",
                f"{mean([c['joules_per_token'] for c in cells])['mean']:.3f}",
                f"{mean([c['watts'] for c in cells])['mean']:.0f}",
                f"{mean([c['requests_per_s'] for c in cells])['mean']:.2f}",
                number(percentile(ended, 50), 2),
                number(percentile(ended, 99), 2),
            )
        )
    columns = ["in flight", "level", "J/request", "saved against L0", "J/token", "W"]
    columns += ["requests/s", "p50 s", "p99 s"]
    return f"### Closed loop\n\n{head(found)}\n\n{markdown(columns, rows)}"


def open_loop(found: Found) -> str:
    by: dict[tuple[str, float, int], list[Found]] = defaultdict(list)
    for cell in found["cells"]:
        by[cell["kind"], cell["share"], cell["level"]].append(cell)
    idle = mean([w["watts"] for w in found["idle"]])["mean"]
    rows, own = [], []
    for (kind, part, level), cells in sorted(by.items()):
        row = open_row(cells, level)
        if kind == "own":
            own.append(row)
            continue
        base = {c["round"]: c for c in by[kind, part, 0]}
        paired = [(base[c["round"]], c) for c in cells if c["round"] in base]
        node = above = ""
        if level and paired:
            node = share(saved([a["watts"] for a, _ in paired], [b["watts"] for _, b in paired]))
            above = share(
                saved(
                    [a["watts"] - idle for a, _ in paired], [b["watts"] - idle for _, b in paired]
                )
            )
        rows.append((f"{part:.0%}", *row[:3], node, above, *row[3:]))
    columns = ["of L0's most", "requests/s", "level", "W"]
    columns += ["GPU energy saved", "above idle saved", "in flight", "busy", "p50 s", "p99 s"]
    carried = ", ".join(f"L{i} {x:.1f}" for i, x in enumerate(found["carried_per_s"]))
    text = (
        f"### Open loop\n\n{head(found)} Carried with {found['requests_at_once']} in flight, "
        f"requests/s: {carried}.\n\n{markdown(columns, rows)}"
    )
    if own and ("equal", 0.7, 0) in by:
        text += f"\n\n{released(by, own, columns, idle)}"
    return f"{text}\n\n{fitted(found)}"


def open_row(cells: Sequence[Found], level: int) -> list[object]:
    ended = [s for c in cells for s in c["latencies_s"]]
    return [
        f"{cells[0]['per_s']:.2f}",
        f"L{level}",
        interval(mean([c["watts"] for c in cells])),
        f"{mean([c['in_flight'] for c in cells])['mean']:.1f}",
        f"{mean([c['busy'] for c in cells])['mean']:.2f}",
        number(percentile(ended, 50), 2),
        number(percentile(ended, 99), 2),
    ]


def released(
    by: dict[tuple[str, float, int], list[Found]],
    own: Sequence[Sequence[object]],
    columns: Sequence[str],
    idle: float,
) -> str:
    """A GPU at 70 % of a level's own capacity is measured; how many take the traffic, estimated."""
    base = mean([c["watts"] for c in by["equal", 0.7, 0]])["mean"]
    base_rate = by["equal", 0.7, 0][0]["per_s"]
    rows = []
    for (kind, _, level), cells in sorted(by.items()):
        if kind == "own":
            gpus = base_rate / cells[0]["per_s"]
            watts = mean([c["watts"] for c in cells])["mean"]
            off = 1 - gpus * watts / base
            on = 1 - (gpus * watts + (1 - gpus) * idle) / base
            rows.append((f"L{level}", f"{gpus:.3f}", f"{off:.1%}", f"{on:.1%}"))
    measured = [c for c in columns if not c.endswith("saved") and not c.startswith("of ")]
    return (
        "Measured, one GPU at 70 % of what the level itself carries:\n\n"
        f"{markdown(measured, own)}\n\n"
        "Estimated from it, not measured: many such GPUs, each as full as L0's at its 70 %, for "
        "the same traffic.\n\n"
        + markdown(
            ["level", "GPUs for each of L0's", "saved, the others off", "saved, the others idle"],
            rows,
        )
    )


def fitted(found: Found) -> str:
    fit = found["fit"]
    rows = [
        (name, f"{value:.4g}", " to ".join(f"{end:.4g}" for end in fit["intervals"][name]))
        for name, value in fit["model"].items()
    ]
    left = fit["left_out_rmse_watts"]
    return (
        f"Power model, fitted to {fit['windows']} windows of {fit['blocks']} cells (r2 "
        f"{fit['r2']:.3f}; misses by {fit['rmse_watts']:.1f} W root mean square, "
        f"{'' if left is None else f'{left:.1f} W on cells left out, '}at worst "
        f"{fit['worst_watts']:+.0f} W):\n\n" + markdown(["coefficient", "value", "95 %"], rows)
    )


def interval(found: Found) -> str:
    value, half = found["mean"], found["half_width"]
    places = 1 if value >= 10 else 2
    return f"{value:.{places}f}" + ("" if half is None else f" ± {half:.{places}f}")


def share(found: Found) -> str:
    half = found["half_width"]
    return f"{found['mean']:.1%}" + ("" if half is None else f" ± {half:.1%}")


def number(value: float | None, places: int) -> str:
    return "-" if value is None else f"{value:.{places}f}"


def markdown(columns: Sequence[str], rows: Iterable[Row]) -> str:
    lines = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    lines += [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", nargs="+", type=Path)
    parser.add_argument("--g-per-kwh", nargs="+", type=float, default=list(G_PER_KWH))
    given = parser.parse_args()
    print(render([json.loads(path.read_text()) for path in given.results], given.g_per_kwh))
    return 0


if __name__ == "__main__":
    sys.exit(main())
