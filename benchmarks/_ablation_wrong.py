# SPDX-License-Identifier: Apache-2.0
"""What becomes of a policy whose inputs are wrong, in one window.

Three policies aimed at one preference, in every fifth hour, with the window's grid foreseen, so
that nothing but the wrong input is wrong: PROMPT, the mix by task and hour, the mix by hour. Wrong
are

    energies     of one level, known so when the price was set; of all levels, since it was set
    stale        task mix, and with it q and q0, of one quarter of the window, taken for all of it
    shifted      half of the traffic is of one task; what was set for the old mix stays in force
    judge        likes shorter or longer answers better by so many points; predictor, prices and q
                 come from such judgments, what is counted does not
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from _ablation import (
    Array,
    Counted,
    Here,
    Means,
    Mixes,
    Point,
    Told,
    means,
    mixed,
    scaled,
)

from sprout.predict.document import Predictor
from sprout.replay.bundle import Bundle
from sprout.replay.prompted import Prompted
from sprout.replay.window import Window

TARGET = 0.95
TARGETS = tuple(round(0.75 + 0.05 * step, 2) for step in range(9))  # of the unharmed frontier
EVERY_H = 5  # hours that are looked at: all hours of the day come in turn
ERRORS = (-30, -20, -10, 10, 20, 30)  # percent
BIASES = (-10, -5, 5, 10)  # points; > 0: shorter answers
QUARTERS = 4
TEXT, CLASSES, NONE = "text", "classes", "none"


@dataclass(frozen=True, eq=False)
class Wrong:
    """What is told of the prompts and, as means, of the tasks."""

    group: str
    name: str
    told: Prompted
    known: Means
    mix: Array | None = None  # (1, C) that the policy is made for; None: the window's
    served: Array | None = None  # (C,) a task that half of the traffic is of
    price: Prompted | None = None  # whose price is in force; None: `told`'s own


def wrongs(
    base: Prompted, bundle: Bundle, counted: Counted, judges: dict[int, Predictor]
) -> list[Wrong]:
    """All of them, with their tables made. `bundle`: the one that is measured on."""
    known, levels = means(base.fitted, counted.folds), bundle.levels

    def energies(factors: Array) -> Means:
        return replace(
            known, energy_kwh=known.energy_kwh * factors, seconds=known.seconds * factors
        )

    found = []
    for error in ERRORS:
        every = np.full(levels, 1 + error / 100)
        name = f"{error:+} %"
        found.append(
            Wrong("all levels, price kept", name, scaled(base, every), energies(every), price=base)
        )
        for level in range(levels):
            one = np.ones(levels)
            one[level] = 1 + error / 100
            group = f"{bundle.meta.levels[level]} alone"
            found.append(Wrong(group, name, scaled(base, one), energies(one)))
    for number, part in enumerate(np.array_split(bundle.mix_of(bundle.meta.window_h), QUARTERS)):
        again = Told(base, base.fitted, base.own)  # curves of its own: they are by mix
        mean = part.mean(axis=0)[None]
        found.append(Wrong("stale task mix", f"of quarter {number + 1}", again, known, mix=mean))
    for task, name in enumerate(bundle.tasks):
        again = Told(base, base.fitted, base.own)
        one = np.eye(len(bundle.tasks))[task]
        found.append(Wrong("shifted task mix", f"half {name}", again, known, served=one))
    for points, predictor in judges.items():
        judged = Prompted(bundle, predictor)
        name = f"{points:+} points"
        found.append(Wrong("judge", name, judged, means(judged.fitted, counted.folds)))
    for each in found:
        _ = each.told.table  # made here, so that processes share it
    return found


def made(
    told: Prompted, known: Means, window: Window, mixes: Mixes, target: float = TARGET
) -> dict[str, Any]:
    """Policies as `Here` takes them."""
    return {
        TEXT: told.levels(window, target),
        CLASSES: mixes.find(window, known, target, classes=True, aware=True),
        NONE: mixes.find(window, known, target, classes=False, aware=True),
    }


def measured(here: Here, policies: dict[str, Any]) -> dict[str, Point]:
    return {name: here.point(each) for name, each in policies.items()}


def changes(
    counted: Counted, base: Prompted, known: Means, window: Window, kinds: list[Wrong]
) -> Iterator[tuple[str, str, str, Array]]:
    """Group, name, scheme and (3, R): points of saving, of preference, and of saving against the
    unharmed scheme's at the same realised preference (nan for a served mix that is another)."""
    here, mixes = Here(counted, window), Mixes()
    right = made(base, known, window, mixes)
    unharmed = measured(here, right)
    near = [made(base, known, window, mixes, target) for target in TARGETS]
    frontiers = {name: here.frontier(each[name] for each in near) for name in right}
    for kind in kinds:
        where, reference = here, unharmed
        if kind.served is not None:
            own = window.bundle.mix_of(window.hours)
            other = mixed(window, (own + kind.served) / 2)
            where = Here(counted, other)
            reference = measured(where, made(kind.told, kind.known, other, mixes))
            found = measured(where, right)
        else:
            assumed = window if kind.mix is None else mixed(window, kind.mix)
            policies = made(kind.told, kind.known, assumed, mixes)
            if kind.price is not None or kind.mix is not None:
                policies[TEXT] = _priced(kind, window, assumed)
            found = measured(here, policies)
        for name, point in found.items():
            off = np.full_like(point.saving, np.nan)
            if kind.served is None:
                off = point.saving - frontiers[name].at(point.preference)
            saving = point.saving - reference[name].saving
            preference = point.preference - reference[name].preference
            yield kind.group, kind.name, name, 100 * np.array([saving, preference, off])


def _priced(kind: Wrong, window: Window, assumed: Window) -> Any:
    """Levels by what is told of the prompts, at a price set for the assumed mix."""
    price = kind.price or kind.told
    return kind.told.levels_at(
        window, lambda fold: price.price(assumed, TARGET, fold) / price.q0(assumed, fold)
    )
