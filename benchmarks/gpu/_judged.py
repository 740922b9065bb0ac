# SPDX-License-Identifier: Apache-2.0
"""Prompts whose answers were judged at every level, and a predictor that has not seen them.

One half of the bundle's judged prompts is served, the other half and those that nobody judged are
what the predictor is fitted on. Both halves have the same judgments within each task, so that L0's
preference is the same in them.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))
from _arms import L0, MIX, PROMPT
from _policies import Decision
from _send import Ask
from _work import Floats, Lengths, lengths
from bench_prompt import fitted, halves

from sprout.control.part import choose
from sprout.predict.document import load, save
from sprout.predict.sample import fingerprint
from sprout.replay.bundle import read
from sprout.units import JOULES_PER_KWH


@dataclass(frozen=True, eq=False)
class Served:
    """m prompts, L levels."""

    prompts: tuple[str, ...]  # (m,)
    preferred: NDArray[np.int64]  # (m,) the level whose answer was
    lengths: Lengths
    scores: Floats  # (m, 2 L) the predictor's preferences and joules

    @property
    def levels(self) -> int:
        return int(self.lengths.output.shape[1])

    def won(self, key: int, level: int) -> bool:
        return bool(self.preferred[key] == level)

    def expected(self, decided: Decision) -> dict[str, float]:
        """Preference of each arm, were all of these prompts served once: as they were judged."""
        levels = np.arange(self.levels)
        won = (self.preferred[:, None] == levels).astype(np.float64)
        chosen = np.zeros_like(won)
        preferences, joules = np.split(self.scores, [self.levels], axis=1)
        for point in decided.points:
            taken = choose(np.array(decided.g_per_joule), point, joules, preferences)
            chosen += point.fraction * (taken[:, None] == levels)
        at_l0 = float(won[:, 0].sum())
        mix = float((won @ np.array(list(decided.shares.values()))).sum()) / at_l0
        prompt = float((won * chosen).sum()) / at_l0
        return {L0: 1.0, MIX: mix, PROMPT: decided.blend(prompt, mix)}

    def asks(self, count: int, rng: np.random.Generator, *, stream: bool) -> list[Ask]:
        """Prompts at random; keys are their numbers."""
        return [self.ask(int(i), stream=stream) for i in self.lengths.drawn(count, rng)]

    def ask(self, i: int, *, stream: bool) -> Ask:
        own = tuple(int(n) for n in self.lengths.output[i])
        return Ask(self.prompts[i], max_tokens=max(own), lengths=own, key=i, stream=stream)


def served(bundle: Path, longest: int, predictor: Path) -> Served:
    """Those that are kept for it. `predictor` is loaded if it is there and fitted (some seconds)
    and written there if not. SystemExit if it is one of other prompts."""
    whole = read(bundle)
    ours, theirs = halves(whole, "preferred")
    if not predictor.exists():
        own = predictor.with_name(f"{predictor.name}.{os.getpid()}")  # several may run at once
        save(fitted(ours), own)
        own.replace(predictor)
    known = load(predictor)
    before = set(known.judged.fingerprint.tolist())
    texts = [prompt.encode("utf-8", "surrogatepass") for prompt in theirs.prompts]
    if (seen := sum(fingerprint(text) in before for text in texts)) > 0:
        raise SystemExit(f"{predictor} was fitted on {seen} of the prompts that are served")
    characters = np.array([len(prompt) for prompt in theirs.prompts])
    joules = theirs.energy_kwh * JOULES_PER_KWH
    return Served(
        theirs.prompts,
        theirs.preferred,
        lengths(characters, joules, longest=longest),
        known.scorer().score_many(texts),
    )
