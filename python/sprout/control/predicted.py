# SPDX-License-Identifier: Apache-2.0
"""The predictor that levels are chosen by: looked for at each look, taken where it fits the pack.

A file that can't be used is a stated reason, and nobody's level is chosen by a prompt then.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sprout.config import ControlConfig
from sprout.control.classes import TRAFFIC_OUTCOMES
from sprout.control.inputs import Group, Prompts, Traffic
from sprout.control.store import Store
from sprout.directives import Pack
from sprout.errors import PredictorError
from sprout.predict.document import Predictor, parse, read
from sprout_ext import weights

Array = NDArray[np.float64]

LOG = logging.getLogger(__name__)

LEAST_TRAFFIC = 200  # requests, before their classes weigh the judged prompts
SAME_TRAFFIC = 0.05  # of the requests: classes move by less all the time
DIGITS = 2  # of a share of the traffic
MOST_PROMPTS = 10_000  # judged, that prices are set on: seconds for as many mixes as there may be
LEAST_OF_CLASS = 300  # of them, where so many were judged


@dataclass(frozen=True, eq=False)
class Predicted:
    """A predictor that fits the pack. m judged prompts, L levels."""

    sha256: str  # of its file
    basis: str  # for people
    weights: bytes  # that scorers compute with
    weights_sha256: str
    classes: tuple[str, ...]
    label: NDArray[np.int64]  # (m,) of the class
    preferred: NDArray[np.int64]  # (m,) the level whose answer was judged to be the best
    preferences: Array  # (m, L) by models that have not seen the prompt, as the next
    joules: Array  # (m, L)
    stands_for: Array | None = None  # (m,) so many judged prompts each; None: itself alone


def fitting(found: Predictor, pack: Pack) -> Predicted:
    """PredictorError: it is of other levels or directives, refused, or too large."""
    meta = found.meta
    if meta.levels != pack.levels:
        raise PredictorError(
            f"of levels {', '.join(meta.levels)}; the pack {pack.name!r} has "
            f"{', '.join(pack.levels)}"
        )
    for level, theirs, ours in zip(meta.levels, meta.directives, pack.directives, strict=True):
        if theirs != ours:
            raise PredictorError(
                f"fitted on another directive of {level}: {theirs[:80]!r}; the pack {pack.name!r} "
                f"has {ours[:80]!r}"
            )
    if (why := meta.report.refusal()) is not None:
        raise PredictorError(why)
    judged, judged_on = found.judged, f"{len(found.judged.label)} judged prompts"
    if not (judged.predicted_preference[:, 0].any() and judged.predicted_joules.any(0).all()):
        raise PredictorError("it expects nothing of a level: no preference of L0, or no energy")
    try:
        packed = weights.pack(
            found.orders,
            found.bits,
            found.table,
            found.scales,
            found.biases,
            found.second,
            len(meta.levels),
            len(meta.classes),
        )
    except ValueError as error:
        raise PredictorError(f"its weights can't be sent to nodes: {error}") from None
    rows, stands_for = thinned(judged.label, int(found.sha256[:16], 16))
    if stands_for is not None:
        judged_on = f"{len(rows)} of its {judged_on}"
    return Predicted(
        sha256=found.sha256,
        basis=f"predictor {found.sha256[:12]} on {judged_on} of "
        f"{meta.source[:80]}, {meta.made[:10]}",
        weights=packed,
        weights_sha256=weights.name(packed),
        classes=meta.classes,
        label=judged.label[rows],
        preferred=judged.preferred[rows],
        preferences=judged.predicted_preference[rows],
        joules=judged.predicted_joules[rows],
        stands_for=stands_for,
    )


def thinned(label: NDArray[np.int64], seed: int) -> tuple[NDArray[np.int64], Array | None]:
    """(rows that are kept, how many prompts each stands for; None: all are kept). label: (m,).

    At random, of each class the same part of its prompts, but at least `LEAST_OF_CLASS`.
    """
    m = len(label)
    if m <= MOST_PROMPTS:
        return np.arange(m), None
    rng, kept, stands_for = np.random.default_rng(seed), [], []
    for number in np.unique(label):
        own = np.flatnonzero(label == number)
        count = min(max(len(own) * MOST_PROMPTS // m, LEAST_OF_CLASS), len(own))
        kept.append(rng.choice(own, count, replace=False))
        stands_for.append(np.full(count, len(own) / count))
    rows, each = np.concatenate(kept), np.concatenate(stands_for)
    order = np.argsort(rows)
    return rows[order], each[order]


class PredictorFile:
    """`control.prompt.predictor` as it is now. One thread at a time."""

    def __init__(self, config: ControlConfig, pack: Pack) -> None:
        self._path, self._share, self._pack = config.prompt.predictor, config.prompt.share, pack
        self._tenants = frozenset(config.tenants)
        self._promised = sorted(name for name, t in config.tenants.items() if not t.opt_out)
        self._seen: tuple[int, ...] | None = None  # of the file that `_found` was read from
        self._found: Predicted | None = None
        self._problem = ""
        self._traffic: dict[str, dict[str, float]] = {}  # by tenant with a minimum; "": the others

    def look(
        self, store: Store, groups: Sequence[Group]
    ) -> tuple[Predicted | None, Prompts | None, str]:
        """(the predictor, what is decided on with it, "") or (None, None, what is wrong: "" where
        none is configured). ControlError where the store fails."""
        if self._path is None:
            return None, None, ""
        self._read(self._path)
        if self._found is None:
            return None, None, self._problem
        return self._found, self._prompts(self._found, store, groups), ""

    def _read(self, path: Path) -> None:
        """Again if it is another file than at the last look."""
        try:
            stat = path.stat()
        except OSError as error:
            self._seen, self._found = None, None
            self._problem = f"can't read {path}: {error.strerror}"
            return
        seen = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        if seen == self._seen:
            return
        before, self._seen, self._found = self._found, None, None
        try:
            raw = read(path)
        except PredictorError as error:  # that may pass: it is read again at the next look
            self._problem = f"{path}: {error}"
            return
        self._problem = f"{path} can't be taken up"  # whatever ends this
        try:
            found = parse(raw)
        except PredictorError as error:
            self._seen, self._problem = seen, f"{path}: {error}"
            LOG.error("no level is chosen by its prompt: %s", self._problem)
            return
        self._seen = seen
        if before is not None and before.sha256 == found.sha256:  # touched, or copied over itself
            self._found = before
            return
        try:
            self._found = fitting(found, self._pack)
        except PredictorError as error:
            self._problem = f"{path}: {error}"
            LOG.error("no level is chosen by its prompt: %s", self._problem)
        else:
            LOG.info("levels by prompt: %s", self._found.basis)

    def _prompts(self, found: Predicted, store: Store, groups: Sequence[Group]) -> Prompts:
        apart = {group.task for group in groups if group.task}
        counted: dict[str, dict[str, int]] = {}
        for tenant, task, requests in store.traffic(self._pack.hash, TRAFFIC_OUTCOMES):
            if tenant not in self._tenants and task in apart:
                continue  # of a class with a mix: all of it is of that class
            own = counted.setdefault(tenant if tenant in self._tenants else "", {})
            known = task if task in found.classes else ""
            own[known] = own.get(known, 0) + requests
        for name in ("", *self._promised):
            self._traffic[name] = _moved(self._traffic.get(name, {}), counted.get(name, {}))
        return Prompts(
            found.sha256,
            self._share,
            _shown(self._traffic[""]),
            tuple(
                (name, _shown(self._traffic[name]))
                for name in self._promised
                if self._traffic[name]
            ),
        )


def _moved(last: dict[str, float], counted: dict[str, int]) -> dict[str, float]:
    """Shares of the traffic by class; those of last time where they moved by little."""
    total = sum(counted.values())
    enough = any(counted) and total >= LEAST_TRAFFIC  # else as if nothing were known
    fresh = {task: round(n / total, DIGITS) for task, n in counted.items() if enough}
    keys = fresh.keys() | last.keys()
    moved = any(abs(fresh.get(k, 0.0) - last.get(k, 0.0)) > SAME_TRAFFIC for k in keys)
    return fresh if moved else last


def _shown(traffic: dict[str, float]) -> Traffic:
    return tuple(sorted((task, share) for task, share in traffic.items() if share > 0))
