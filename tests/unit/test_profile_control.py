# SPDX-License-Identifier: Apache-2.0
"""The live profile in the control plane: what is read, how much of it, and what becomes of it."""

import math
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_profile_run import MADE

from sprout.config import Config, ControlConfig
from sprout.control import inbox
from sprout.control.inputs import priors
from sprout.control.live import LOAD_WINDOW_S, RECENT_OUTCOMES, Live
from sprout.control.samples import SAMPLES
from sprout.control.store import _RECENT, Store
from sprout.directives import PACKS
from sprout.errors import ConfigError
from sprout.profile import MARGINAL, MEASURED, document, moved
from sprout.profile.change import Costs, learn
from sprout.profile.document import SCHEMA, LevelTokens, Profile
from sprout.profile.power import PowerFit, PowerModel
from sprout.profile.service import ServiceModel
from sprout.v1 import control_pb2 as pb

PACK = PACKS["explicit"]
EPOCH = 1_800_000_000


def version(counter: int) -> int:
    return EPOCH << 32 | counter


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "c.sqlite")
    for counter, shares in ((1, (0.5, 0.5, 0.0)), (2, (0.1, 0.9, 0.0))):
        message = pb.Policy(
            canary_share=1,
            shares=[pb.LevelShare(level=f"L{i}", share=x) for i, x in enumerate(shares)],
        )
        store.add_policy(
            EPOCH, version(counter), PACK.hash, time.time(), message.SerializeToString()
        )
    yield store
    store.close()


def add(
    store: Store, first: int, count: int, ago_s: float = 0.0, *, node: str = "n", **fields: Any
) -> None:
    """Outcomes a tenth of a second apart, each a second long: ten in flight."""
    now, rows = time.time() - ago_s, []
    for i in range(count):
        outcome = pb.Outcome(
            **{
                **{"segment_uid": 5, "ticket": first + i, "policy_version": version(1)},
                **{"ending": pb.ENDING_DELIVERED, "energy_joules": 10.0, "device_seconds": 1.0},
                **{"input_tokens": 50, "output_tokens": 100, **fields},
            }
        )
        outcome.opened_at.FromNanoseconds(int((now - (count - i) * 0.1) * 1e9))
        rows.append(inbox.row(node, outcome))
    store.add_outcomes(rows)


def live(**control: Any) -> Live:
    config = Config(control=ControlConfig(**control))
    return Live(config, PACK, priors(config, PACK.levels))


def test_policies_of_other_shares_are_weighted_out(store: Store) -> None:
    """L0 costs 10 J under a policy that gives it half, 30 J under one that gives it a tenth: all
    traffic is half of each, so the few under the second count five times."""
    add(store, 1, 100)
    add(store, 200, 20, policy_version=version(2), energy_joules=30.0)
    (l0,) = store.measured(1, PACK.hash, 1000)
    assert l0.energy_joules == pytest.approx(20)
    assert l0.outcomes == 120
    assert l0.effective_outcomes == pytest.approx(
        (100 * 2 + 20 * 10) ** 2 / (100 * 2**2 + 20 * 10**2)
    )


def test_decay_counts_outcomes_of_all_levels(store: Store) -> None:
    add(store, 1, 1, energy_joules=8.0)
    add(store, 10, 99, level=1)
    add(store, 200, 1, energy_joules=2.0)
    found = store.measured(2, PACK.hash, 1000, half_life_outcomes=100)
    assert found[0].energy_joules == pytest.approx((2 * 2 + 8) / 3)
    assert found[1].energy_joules == pytest.approx(10)


def test_ages_are_shown(store: Store) -> None:
    add(store, 1, 1)
    (l0,) = store.measured(1, PACK.hash, 10, now=time.time() + 3600)
    assert l0.age_s == pytest.approx(3600, abs=60)
    rows, _ = live(min_outcomes=1).look(store, time.time() + 60)
    assert rows[0].age_s == pytest.approx(60, abs=30)
    assert rows[0].energy_basis == MEASURED
    assert rows[1].age_s is None


def test_a_look_reads_no_more_than_it_must(store: Store, tmp_path: Path) -> None:
    """Whatever is in the store: along indices, without sorting it, and never beyond a limit."""
    add(store, 1, RECENT_OUTCOMES + 500)
    assert len(store.recent(PACK.hash, RECENT_OUTCOMES, 0.0)) == RECENT_OUTCOMES
    assert store.measured(1, PACK.hash, 50)[0].outcomes == 50
    with sqlite3.connect(tmp_path / "c.sqlite") as db:
        plans = [
            " ".join(str(row[3]) for row in db.execute(f"EXPLAIN QUERY PLAN {query}", (1, 0, 9)))
            for query in (SAMPLES, _RECENT)
        ]
    db.close()
    assert "USING INDEX profile" in plans[0]
    assert not any("TEMP B-TREE" in plan for plan in plans), plans


def test_load_is_that_of_a_node_whoever_chose_the_level(store: Store) -> None:
    add(store, 1, 60, 5.0, level=1, pinned=True)
    add(store, 100, 30, 5.0)
    now = time.time()
    demand = store.recent(PACK.hash, 1000, now - LOAD_WINDOW_S).demand(
        PACK.levels, LOAD_WINDOW_S, now
    )
    assert [d.per_s for d in demand] == pytest.approx([0.1, 0.2, 0])
    assert (demand[0].input_tokens, demand[0].output_tokens) == (50, 100)


def test_a_flushed_spool_is_no_load(store: Store) -> None:
    """What was served hours ago and is heard of now."""
    add(store, 1, 500, 7200.0)
    now = time.time()
    demand = store.recent(PACK.hash, 1000, now - LOAD_WINDOW_S).demand(
        PACK.levels, LOAD_WINDOW_S, now
    )
    assert [d.per_s for d in demand] == [0, 0, 0]


def test_company_is_counted_and_edges_are_left_out(store: Store) -> None:
    add(store, 1, 200)
    recent = store.recent(PACK.hash, 1000, 0.0)
    costs, until = recent.costs({}, math.inf)
    assert costs.in_flight == pytest.approx(10, abs=0.6)
    assert 150 < len(costs) < 195  # without the first and the last ten or so
    again, later = recent.costs(until, math.inf)
    assert (len(again), later) == (0, until)  # each once


def test_the_first_minute_is_not_a_quiet_one(store: Store) -> None:
    """Ten a second for ten seconds, and nothing ever before: ten a second, not a third of one."""
    add(store, 1, 100)
    recent = store.recent(PACK.hash, 1000, 0.0)
    now = float(recent.end.max())
    cold = recent.demand(PACK.levels, LOAD_WINDOW_S, now, whole=False)
    assert cold[0].per_s == pytest.approx(10, rel=0.15)
    warm = recent.demand(PACK.levels, LOAD_WINDOW_S, now)
    assert warm[0].per_s == pytest.approx(100 / LOAD_WINDOW_S, rel=0.15)


def test_one_outcome_is_no_rate(store: Store) -> None:
    add(store, 1, 1)
    recent = store.recent(PACK.hash, 1000, 0.0)
    now = float(recent.end.max())
    assert recent.demand(PACK.levels, LOAD_WINDOW_S, now, whole=False)[0].per_s == 0


def test_a_node_that_reports_late_is_not_passed_over(store: Store) -> None:
    """What it served ended before what was heard of others, and is company to nobody of theirs."""
    add(store, 1, 200)
    costs, until = store.recent(PACK.hash, 1000, 0.0).costs({}, math.inf)
    assert set(until) == {"n"}
    add(store, 1000, 200, 60.0, node="late", energy_joules=3.0)
    fresh, later = store.recent(PACK.hash, 1000, 0.0).costs(until, math.inf)
    assert later["n"] == until["n"]
    assert len(fresh) == pytest.approx(len(costs), abs=2)
    assert set(fresh.energy_joules) == {3.0}
    assert fresh.in_flight == pytest.approx(10, abs=0.6)  # its own edges are left out, too


def test_ages_go_on_without_traffic(store: Store) -> None:
    add(store, 1, 1)
    own, now = live(min_outcomes=1), time.time()
    before, _ = own.look(store, now)
    for passed in (60.0, 3600.0):
        rows, _ = own.look(store, now + passed)
        assert rows[0].age_s == pytest.approx((before[0].age_s or 0) + passed)
        assert rows[1].age_s is None
        assert not moved(before, rows, 0.0)  # no news: nothing is published for it
    rows, _ = own.look(store, now)  # a clock that is set back makes nothing younger
    assert rows[0].age_s == pytest.approx((before[0].age_s or 0) + 3600)


# --- with a profile on disk ----------------------------------------------------------------------


def reference_costs(rng: np.random.Generator, n: int) -> Costs:
    """Like `add` makes them: 0.1 J per token at ten in flight."""
    return Costs(
        rng.integers(0, 2, n),
        np.exp(rng.normal(np.log(10), 0.2, n)),
        np.full(n, 100.0),
        rng.uniform(5, 15, n),
    )


@pytest.fixture
def on_disk(tmp_path: Path) -> Path:
    fit = PowerFit(PowerModel(100.0, 0.0, 0.05, 200.0), {}, 0.95, 9, 9, 1.0, 0.0, 0.0, 0)
    profile = Profile(
        SCHEMA,
        MADE,
        tuple(LevelTokens(f"L{i}", 50.0, t, 10) for i, t in enumerate((100.0, 40.0, 20.0))),
        (),
        fit,
        ServiceModel(0.0, 0.0, 0.01, 0.0, 1.0, 100),
        (),
        learn(reference_costs(np.random.default_rng(1), 5000)),
        document.OUTCOMES,
    )
    file = tmp_path / "profile.json"
    file.write_text(document.dump(profile))
    return file


def test_decisions_go_by_marginal_energy(store: Store, on_disk: Path) -> None:
    """No traffic: a request costs its tokens, and 200 W for as long as it takes."""
    rows, reasons = live(profile_file=on_disk).look(store, time.time())
    assert reasons == {}
    assert {r.energy_basis for r in rows} == {MARGINAL}
    assert [r.energy_joules for r in rows] == pytest.approx(
        [t * 0.05 + t * 0.01 * 200 for t in (100, 40, 20)]
    )
    assert all(r.energy_estimated for r in rows)
    assert [r.device_seconds for r in rows] == pytest.approx([1.0, 0.4, 0.2])
    # Ten in flight: nobody waits for it, so a request costs its tokens and nothing else.
    add(store, 1, 3000)
    rows, _ = live(profile_file=on_disk).look(store, time.time())
    assert rows[0].energy_joules == pytest.approx(100 * 0.05, rel=0.02)
    assert rows[0].device_seconds < 1e-3  # the device would be occupied anyway
    assert rows[0].outcomes == 1000


def test_an_engine_that_is_not_the_profiled_one_is_a_reason(store: Store, on_disk: Path) -> None:
    own = live(profile_file=on_disk)
    add(store, 1, 1500, ago_s=200)
    _, reasons = own.look(store, time.time())
    assert reasons == {}
    add(store, 5000, 1500, energy_joules=14.0)
    _, reasons = own.look(store, time.time())
    assert reasons["engine-changed"].startswith("engine-changed: joules per output token are +")
    assert own.monitor.change is not None
    assert own.monitor.change.ratio == pytest.approx(1.4, rel=0.05)


def test_a_reference_of_receipts_is_not_compared_with_outcomes(
    store: Store, on_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As older files have it: the control plane learns its own."""
    profile = document.load(on_disk, pack_hash=PACK.hash)
    assert profile.reference is not None
    on_disk.write_text(document.dump(replace(profile, reference_basis="")))
    assert live(profile_file=on_disk).monitor.reference is None
    assert "profile again" in caplog.text


def test_without_a_fit_the_reason_is_said(store: Store, on_disk: Path) -> None:
    profile = document.load(on_disk, pack_hash=PACK.hash)
    on_disk.write_text(document.dump(replace(profile, power=None)))
    rows, reasons = live(profile_file=on_disk).look(store, time.time())
    assert "attributed" in reasons["profile"]
    assert MARGINAL not in {r.energy_basis for r in rows}


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"control\.profile_file"):
        live(profile_file=tmp_path / "absent.json")
