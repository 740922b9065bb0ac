# SPDX-License-Identifier: Apache-2.0
"""What a joint decision is made from: what the store measured of tenants and classes."""

import math
import sqlite3
import time
from dataclasses import replace
from pathlib import Path

import pytest
from joint_inputs import ACME, CODE, CONFIG, QUIET, everyone, profile
from some_evaluation import PACK, evaluation

from sprout.config import Config, ControlConfig, TenantConfig
from sprout.control import inbox, tables
from sprout.control.budget import Worth
from sprout.control.classes import OF_ALL, SCALED, Classes
from sprout.control.decide import plan
from sprout.control.inputs import priors
from sprout.control.publisher import Publisher
from sprout.control.quality import quality
from sprout.control.store import Store
from sprout.errors import ConfigError
from sprout.v1 import control_pb2 as pb


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "c.sqlite")


def policy(*mixes: pb.Mix) -> bytes:
    shares = [pb.LevelShare(level=f"L{i}", share=x) for i, x in enumerate((0.5, 0.3, 0.2))]
    return pb.Policy(shares=shares, canary_share=1.0, mixes=mixes).SerializeToString()


def add(store: Store, first: int, count: int, **fields: object) -> None:
    made = {
        **{"segment_uid": 5, "policy_version": 1, "ending": pb.ENDING_DELIVERED},
        **{"energy_joules": 10.0, "device_seconds": 1.0, "output_tokens": 50, **fields},
    }
    store.add_outcomes(
        [inbox.row("n", pb.Outcome(ticket=first + i, **made)) for i in range(count)]  # type: ignore[arg-type]
    )


def test_tenants_that_opted_out_are_not_measured(store: Store) -> None:
    """Nothing is drawn for them: their L0 would not be what the others' L1 is compared with."""
    out = pb.Mix(tenant="quiet", basis="tenant opted out")
    out.shares.add(level="L0", share=1.0)
    store.add_policy(0, 1, PACK.hash, time.time(), policy(out))
    add(store, 1, 10)
    add(store, 100, 10, tenant="quiet", energy_joules=1000.0)
    (l0,) = store.measured(1, PACK.hash, 100)
    assert (l0.outcomes, l0.energy_joules) == (10, 10)


@pytest.mark.parametrize("why", [{"held": "block"}, {"held": "shadow"}, {"paused": True}])
def test_tenants_that_opted_out_are_not_measured_while_everybody_has_l0(
    store: Store, why: dict[str, object]
) -> None:
    """Their L0 is as dear in a block of L0 as outside of it, and would be taken for everybody's."""
    publisher = Publisher(CONFIG, PACK, 1, wall=time.time, uptime=lambda: 1.0)
    paused = "test" if "paused" in why else None
    policy = publisher.publish(
        plan(everyone(**why)), None, overridden=False, pause_reason=paused, trigger="t"
    )
    store.add_policy(0, 1, PACK.hash, time.time(), policy.SerializeToString())
    add(store, 1, 10)
    add(store, 100, 10, tenant="quiet", energy_joules=1000.0)
    (l0,) = store.measured(1, PACK.hash, 100)
    assert (l0.outcomes, l0.energy_joules) == (10, 10)


def test_a_class_falls_back_to_all_in_its_own_ratio(store: Store) -> None:
    store.add_policy(0, 1, PACK.hash, time.time(), policy())
    add(store, 1, 60)
    add(store, 100, 60, level=1, energy_joules=5.0)
    add(store, 200, 30, task="code", energy_joules=40.0)
    add(store, 300, 10, task="code", level=1, energy_joules=7.0)  # too few
    add(store, 400, 9, task="rare", energy_joules=40.0)
    config = ControlConfig(min_outcomes=30)
    classes = Classes(config, PACK)
    found = quality(
        evaluation(classes={"code": ((0.5, 0.3, 0.2), 90), "rare": ((0.5, 0.3, 0.2), 9)})
    )
    rows = priors(Config(control=config), PACK.levels)
    rows = tuple(replace(p, energy_joules=e) for p, e in zip(rows, (20.0, 5.0, 2.0), strict=True))
    (code,) = classes.look(store, found, rows, rows, time.time())
    assert code.task == "code"
    assert code.traffic == pytest.approx(40 / 169, abs=1e-3)
    assert [p.energy_joules for p in code.profile] == pytest.approx([40, 10, 4])  # twice all's
    assert [p.energy_basis for p in code.profile] == ["measured", SCALED, SCALED]
    assert code.judged == 90
    assert code.profile[1].preference_se == pytest.approx(math.sqrt(0.3 * 0.7 / 90))
    # Marginal energy in the ratio that attributed has.
    marginal = tuple(
        replace(p, energy_joules=1.0, energy_basis="marginal, at the present load") for p in rows
    )
    (decided,) = classes.look(store, found, rows, marginal, time.time())
    assert [p.energy_joules for p in decided.profile] == pytest.approx([2, 2, 2])
    # Without any of its own at any level it is all's.
    few = Classes(ControlConfig(min_outcomes=35), PACK).look(store, found, rows, rows, time.time())
    assert [p.energy_basis for p in few[0].profile] == [OF_ALL] * 3
    off = ControlConfig(classes=False, tenants={"a": TenantConfig(opt_out=True)})
    assert [g.key for g in Classes(off, PACK).look(store, found, rows, rows, 0.0)] == [("a", "")]


def test_the_budget_counts_what_was_decided_with() -> None:
    worth = Worth(
        profile((0.4, 0.3, 0.2)), (ACME, QUIET, replace(CODE, profile=profile((0.5, 0.45, 0.1))))
    )
    assert worth.of("", "", 1) == pytest.approx(0.75)
    assert worth.of("", "code", 1) == pytest.approx(0.9)
    assert worth.of("acme", "code", 1) == pytest.approx(0.75)
    assert worth.of("", "", 3) is None
    pooled = replace(worth, against="pooled")  # 0.3 at 0.5, the others at 0.4
    assert pooled.of("", "code", 1) == pytest.approx(0.45 / 0.43)


def test_an_older_store_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    Store(path).close()
    with sqlite3.connect(path) as db:  # as version 1 left it
        db.execute("DROP INDEX unmetered")
        db.execute("ALTER TABLE totals DROP COLUMN unmetered")
        db.execute("ALTER TABLE outcomes DROP COLUMN tenant")
        db.execute("DROP TABLE evaluations")
        db.execute("PRAGMA user_version = 1")
    db.close()
    store = Store(path)
    store.add_policy(0, 1, PACK.hash, time.time(), policy())
    add(store, 1, 2, tenant="acme")
    assert store.traffic(PACK.hash, 10) == [("acme", "", 2)]
    assert store.evaluations(1) == []
    store.close()
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (tables.VERSION,)
    db.close()
    Store(path).close()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("minimun = 0.9", "did you mean control.tenants.acme.minimum"),
        ("minimum = 1.1", "less than or equal to 1"),
        ("minimum = 0.9\nopt_out = true", "either a minimum or opt_out"),
        ("", "either a minimum or opt_out"),
    ],
)
def test_a_tenant_gets_one_promise(tmp_path: Path, text: str, message: str) -> None:
    from sprout.config import load

    path = tmp_path / "sprout.toml"
    path.write_text(f"[control.tenants.acme]\n{text}\n")
    with pytest.raises(ConfigError, match=message):
        load(path, environ={})
