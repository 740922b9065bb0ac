# SPDX-License-Identifier: Apache-2.0
"""The profile that the loop decides on: from outcomes, and from `profile.json` where there is one.

Costs a bounded number of rows at each look, however many there are in the store.
"""

from dataclasses import replace

from sprout.config import Config
from sprout.control.store import Store
from sprout.directives import Pack
from sprout.profile import LevelProfile, build, decide_on, document
from sprout.profile.change import Monitor
from sprout.profile.service import Demand

RECENT_OUTCOMES = 2000  # that load and change are judged by at each look
LOAD_WINDOW_S = 300.0


class Live:
    """One thread at a time. ConfigError where `control.profile_file` can't be used."""

    def __init__(self, config: Config, pack: Pack, priors: tuple[LevelProfile, ...]) -> None:
        self._config, self._pack = config.control, pack
        path = config.control.profile_file
        self._document = None if path is None else document.load(path, pack_hash=pack.hash)
        given = None if self._document is None else self._document.reference
        self.monitor = Monitor(given)
        self._ended: dict[str, float] = {}  # of the outcomes that the monitor has seen, by node
        self._revision = -1  # of the store, that `_attributed` was made from
        self._attributed, self._made_at = priors, 0.0

    @property
    def attributed(self) -> tuple[LevelProfile, ...]:
        """(levels,) at the last look, with attributed energy; the q of the priors."""
        return self._attributed

    def look(self, store: Store, now: float) -> tuple[tuple[LevelProfile, ...], dict[str, str]]:
        """(the profile, reasons). Raises ControlError where the store can't be read.

        now: seconds since 1970.
        """
        revision = store.revision  # before what it stands for is read
        fresh = revision != self._revision
        if fresh:
            self._attributed, self._made_at = self._measured(store, now), now
        else:  # nothing came, and what there is grows older
            self._age(now)
        if not fresh and self._document is None:
            return self._attributed, self._engine()
        recent = store.recent(self._pack.hash, RECENT_OUTCOMES, now - LOAD_WINDOW_S)
        if fresh:
            costs, self._ended = recent.costs(self._ended, now)
            self.monitor.take(costs)
        self._revision = revision
        reasons = self._engine()
        if self._document is None:
            return self._attributed, reasons
        traffic = [
            self._tokens(demand, row)
            for demand, row in zip(
                recent.demand(
                    self._pack.levels,
                    LOAD_WINDOW_S,
                    now,
                    whole=len(recent) < RECENT_OUTCOMES and store.last_ids()[0] > len(recent),
                ),
                self._attributed,
                strict=True,
            )
        ]
        energies = self._document.marginal(traffic)
        if energies is None:
            reasons["profile"] = (
                "no marginal energy (no fit in control.profile_file, or more traffic than was "
                "profiled): deciding on attributed energy"
            )
            return self._attributed, reasons
        return decide_on(self._attributed, energies), reasons

    def _age(self, now: float) -> None:
        passed, self._made_at = max(0.0, now - self._made_at), now
        self._attributed = tuple(
            row if row.age_s is None else replace(row, age_s=row.age_s + passed)
            for row in self._attributed
        )

    def _measured(self, store: Store, now: float) -> tuple[LevelProfile, ...]:
        c, levels = self._config, self._pack.levels
        return build(
            levels,
            store.measured(
                len(levels),
                self._pack.hash,
                c.profile_outcomes,
                half_life_outcomes=c.profile_half_life_outcomes,
                now=now,
            ),
            prior_energy_joules=c.prior_energy_joules,
            prior_device_s=c.prior_device_s,
            prior_preference=c.prior_preference,
            min_outcomes=c.min_outcomes,
        )

    def _tokens(self, demand: Demand, row: LevelProfile) -> Demand:
        """The level's tokens on all traffic, as far as is known, else those of the profiling run.

        Not those of the newest requests: a policy may send a level particular ones.
        """
        if row.outcomes >= self._config.min_outcomes:
            measured = (row.mean_input_tokens, row.mean_output_tokens)
            return replace(demand, input_tokens=measured[0], output_tokens=measured[1])
        for level in () if self._document is None else self._document.levels:
            if level.level == demand.level:
                return replace(
                    demand, input_tokens=level.input_tokens, output_tokens=level.output_tokens
                )
        return demand

    def _engine(self) -> dict[str, str]:
        if self.monitor.change is not None:
            return {"engine-changed": str(self.monitor.change)}
        if self.monitor.blind:
            return {
                "engine-unwatched": "engine-unwatched: levels, loads or lengths are not those that "
                "were profiled: a change of the engine would not be seen"
            }
        return {}
