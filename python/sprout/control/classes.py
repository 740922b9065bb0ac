# SPDX-License-Identifier: Apache-2.0
"""Which requests get a mix of their own: tenants that were promised something, and task classes
that are known well enough.

A class is known where the evaluation has a q for it and at least `control.min_outcomes` of its
outcomes are there; it stays known down to half of them, so that it does not come and go. Its e and
p at a level with fewer are those of all requests, in the ratio that its other levels have to them.
Costs a bounded number of rows at each look, however many there are in the store.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sprout.config import ControlConfig
from sprout.control.inputs import Group
from sprout.control.quality import Quality
from sprout.control.store import Store
from sprout.directives import Pack
from sprout.profile import MARGINAL, MEASURED, PRIOR, LevelProfile, Measured, build

MAX_CLASSES = 16
TRAFFIC_OUTCOMES = 10_000  # newest, that shares of the traffic are counted in
SPREAD = 4  # times `profile_outcomes` are looked through for those of a class
DIGITS = 3  # of a share of the traffic: more is noise
# Bases of a class's e and p where a level has too few outcomes of its own.
OF_ALL = "that of all classes"
SCALED = "that of all classes, scaled to the measured levels"


class Classes:
    """One thread at a time."""

    def __init__(self, config: ControlConfig, pack: Pack) -> None:
        self._config, self._pack = config, pack
        self._seen: tuple[int, str] | None = None  # revision of the store, evaluation
        self._traffic: dict[tuple[str, str], float] = {}
        self._measured: Mapping[str, Sequence[Measured]] = {}
        self._known: tuple[str, ...] = ()

    def look(
        self,
        store: Store,
        found: Quality | None,
        attributed: Sequence[LevelProfile],
        decided: Sequence[LevelProfile],
        now: float,
    ) -> tuple[Group, ...]:
        """Tenants, then classes, each in the order of its name. ControlError where the store fails.

        attributed, decided: (levels,) profiles of all requests, with attributed energy and with the
        one that is decided on. now: seconds since 1970.
        """
        if not self._config.tenants and not (self._config.classes and found):
            self._known, self._seen = (), None
            return ()
        seen = (store.revision, found.id if found else "")
        if seen != self._seen:
            self._traffic = self._shares(store)
            self._measured = self._outcomes(store, found, now)
            self._known = self._choose(found)
            self._seen = seen
        tenants = [
            Group(
                tenant=name,
                traffic=self._traffic.get((name, ""), 0.0),
                minimum=tenant.minimum or 0.0,
                opted_out=tenant.opt_out,
            )
            for name, tenant in sorted(self._config.tenants.items())
        ]
        if found is None:
            return tuple(tenants)
        return (*tenants, *(self._group(t, found, attributed, decided) for t in self._known))

    def _shares(self, store: Store) -> dict[tuple[str, str], float]:
        """Of the traffic, by (tenant, "") of tenants with a mix and ("", task) of all others."""
        counted: dict[tuple[str, str], int] = {}
        for tenant, task, requests in store.traffic(self._pack.hash, TRAFFIC_OUTCOMES):
            key = (tenant, "") if tenant in self._config.tenants else ("", task)
            counted[key] = counted.get(key, 0) + requests
        total = sum(counted.values())
        return {key: round(n / total, DIGITS) for key, n in counted.items()}

    def _outcomes(
        self, store: Store, found: Quality | None, now: float
    ) -> Mapping[str, Sequence[Measured]]:
        if found is None or not self._config.classes:
            return {}
        c = self._config
        return store.measured_by_task(
            len(self._pack.levels),
            self._pack.hash,
            [task for task, of in found.classes.items() if task and of.preference[0] > 0],
            SPREAD * c.profile_outcomes,
            half_life_outcomes=c.profile_half_life_outcomes,
            now=now,
        )

    def _choose(self, found: Quality | None) -> tuple[str, ...]:
        least = self._config.min_outcomes
        enough = [
            task
            for task, levels in self._measured.items()
            if sum(m.outcomes for m in levels) >= (least / 2 if task in self._known else least)
        ]
        # Those that have a mix keep it; then by traffic.
        enough.sort(
            key=lambda task: (task not in self._known, -self._traffic.get(("", task), 0.0), task)
        )
        return tuple(sorted(enough[:MAX_CLASSES]))

    def _group(
        self,
        task: str,
        found: Quality,
        attributed: Sequence[LevelProfile],
        decided: Sequence[LevelProfile],
    ) -> Group:
        of = found.classes[task]
        own = build(
            self._pack.levels,
            self._measured[task],
            prior_energy_joules=[p.energy_joules for p in attributed],
            prior_device_s=[p.device_seconds for p in attributed],
            prior_preference=of.preference,
            min_outcomes=self._config.min_outcomes,
        )
        rows = zip(own, attributed, decided, strict=True)
        return Group(
            task=task,
            traffic=self._traffic.get(("", task), 0.0),
            minimum=self._config.class_minimum,
            profile=found.on([_decide_on(*row) for row in rows], task),
            covariance=of.covariance,
            judged=of.judged,
            shrunk=of.shrunk,
            weight_share=of.weight_share,
        )


def _decide_on(own: LevelProfile, attributed: LevelProfile, decided: LevelProfile) -> LevelProfile:
    """A class's level as that of all requests is decided on: marginal, in attributed's ratio."""
    basis = own.energy_basis
    if basis != MEASURED:
        own = replace(
            own,
            energy_basis=OF_ALL if basis == PRIOR else SCALED,
            energy_estimated=attributed.energy_estimated,
        )
    if decided.energy_basis != MARGINAL:
        return own
    joules = _ratio(own.energy_joules, attributed.energy_joules)
    return replace(
        own,
        energy_joules=decided.energy_joules * joules,
        device_seconds=decided.device_seconds
        * _ratio(own.device_seconds, attributed.device_seconds),
        energy_basis=MARGINAL,
        energy_estimated=decided.energy_estimated,
        energy_se_joules=None,
    )


def _ratio(own: float, of_all: float) -> float:
    return own / of_all if of_all > 0 else 1.0
